"""Awkward input gets the right answer, not only a finite one; and every method does on files what it does on arrays.

The phantom and its arrays are those of :mod:`tests.contracts.test_methods`.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.cli.options import hyphened
from qsmxt.cli.step import main
from qsmxt.registry.artifacts import ARTIFACTS, STACKED
from qsmxt.registry.methods import Method
from tests.contracts.test_methods import GRID, MASKED, METHODS, PARAMETERS, arrays, inputs, names, plain, run, same

#: Methods whose products are of the part of the grid that is in the mask: they know nothing of what is outside.
STAGES = ("background", "inversion", "referencing", "merging", "field")
REGIONAL = [m for m in METHODS.values() if m.stage in STAGES and "mask" in m.consumes]

#: Methods that take one value of an array for every file.
ON_FILES = [m for m in METHODS.values() if "coil_phase" not in m.consumes]


def ids(method: Method) -> str:
    return method.name


@pytest.mark.parametrize("method", REGIONAL, ids=ids)
def test_values_outside_the_mask_do_not_matter(method: Method):
    """NaN there gives the bytes that anything else gives."""

    def with_outside(number: float):
        def filled(name: str, value: np.ndarray) -> np.ndarray:
            if ARTIFACTS[name].kind in ("volume", *STACKED):
                value[..., ~arrays()["mask"]] = number
            return value

        return run(method, inputs(names(method), filled))

    assert same(with_outside(np.nan), with_outside(0.0))


@pytest.mark.parametrize("method", REGIONAL, ids=ids)
def test_prime_sizes_and_a_mask_at_the_border_give_what_padding_gives(method: Method):
    """The mask of the phantom cut out without a margin, sizes 17, 19 and 15, against the same with air around it."""
    box = tuple(slice(a, b) for a, b in ((2, 19), (1, 20), (1, 16)))

    def cut(name: str, value: np.ndarray) -> np.ndarray:
        if np.ndim(value) < 3:
            return value
        value = value * arrays()["mask"] if name in MASKED and value.dtype != bool else value
        return np.ascontiguousarray(value[(..., *box)])

    def padded(name: str, value: np.ndarray) -> np.ndarray:
        value = cut(name, value)
        margins = ((0, 0),) * (np.ndim(value) - 3) + ((5, 2), (3, 6), (4, 3))
        return np.pad(value, margins) if np.ndim(value) >= 3 else value

    small = run(method, inputs(names(method), cut), GRID.with_shape((17, 19, 15)))
    large = run(method, inputs(names(method), padded), GRID.with_shape((24, 28, 22)))
    inside = inputs(("mask",), cut)["mask"]
    for name, value in small.items():
        if name not in MASKED:
            continue
        other = large[name][..., 5:22, 3:22, 4:19]
        limit = 1e-4 * max(float(np.abs(value).max()), 1e-6)
        assert np.abs(other * 1.0 - value * 1.0)[..., inside].max() <= limit, name


@pytest.mark.parametrize("method", ON_FILES, ids=ids)
def test_files_give_what_arrays_give(method: Method, tmp_path: Path, capsys: pytest.CaptureFixture):
    """``qsmxt-step`` with arrays and parameters of the method in files, and what it says of the result."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    words = [method.stage, method.key]
    for name in names(method):
        value, kind = np.asarray(arrays()[name]), ARTIFACTS[name].kind
        words.append(f"--{hyphened(name)}")
        if kind == "acquisition":
            words += [repr(float(v)) for v in value.ravel()]
            continue
        for number, volume in enumerate(value if kind in STACKED else [value]):
            file = tmp_path / f"{name}{number}.nii.gz"
            stored = volume.astype({"mask": np.uint8, "labels": np.int16}.get(kind, np.float32))
            nib.save(nib.Nifti1Image(stored, affine), file)
            words.append(str(file))
    (tmp_path / "params.json").write_text(json.dumps(PARAMETERS[method.name]))
    out = tmp_path / "out" / "first.nii.gz"
    code = main([*words, "--params", str(tmp_path / "params.json"), "-o", str(out)])
    assert code == 0, capsys.readouterr().err
    name = method.produces[0]
    expected = plain(method.name)[name]
    if ARTIFACTS[name].kind in STACKED:
        part = {"components": "component"}.get(ARTIFACTS[name].kind, "echo")
        out, expected = out.with_name(f"first_{name}_{part}-1.nii.gz"), expected[0]
    image = nib.load(out)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected)
    assert np.array_equal(image.affine, affine) and image.header.get_xyzt_units()[0] == "mm"
    sidecar = json.loads(out.with_name(out.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Method"] == method.name
    assert sidecar["Parameters"].items() >= json.loads(json.dumps(PARAMETERS[method.name])).items()
    if ARTIFACTS[name].unit == "ppm":
        assert sidecar["Units"] == "ppm"
