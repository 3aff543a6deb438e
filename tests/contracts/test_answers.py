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

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


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


def _files_of(folder: Path, name: str, value: np.ndarray, *, whole: bool) -> list[Path]:
    """An array as files: with all volumes on the fourth axis (``whole``), or of one volume each."""
    kind = ARTIFACTS[name].kind
    value = value.astype({"mask": np.uint8, "labels": np.int16}.get(kind, np.float32))
    if kind == "coils":
        series = {f"echo-{e}": value[:, e] for e in range(value.shape[1])}
        volumes = {f"echo-{e}_coil-{c:02}": value[c, e] for c in range(len(value)) for e in range(value.shape[1])}
    else:
        series = {"all": value} if kind in STACKED else {}
        volumes = {str(n): volume for n, volume in enumerate(value if kind in STACKED else [value])}
    if whole and series:
        volumes = {label: np.moveaxis(stack, 0, -1) for label, stack in series.items()}
    files = [folder / f"{name.replace('_', '')}_{label}_x.nii.gz" for label in volumes]
    for file, volume in zip(files, volumes.values(), strict=True):
        nib.save(nib.Nifti1Image(volume, AFFINE), file)
    return files


@pytest.mark.parametrize("method", METHODS.values(), ids=ids)
def test_files_give_what_arrays_give(method: Method, tmp_path: Path, capsys: pytest.CaptureFixture):
    """``qsmxt-step`` with arrays and parameters of the method in files, and what it says of the result."""
    words = [method.stage, method.key]
    for number, name in enumerate(names(method)):
        value = np.asarray(arrays()[name])
        words.append(f"--{hyphened(name)}")
        if ARTIFACTS[name].kind == "acquisition":
            words += [repr(float(v)) for v in value.ravel()]
        else:
            words += map(str, _files_of(tmp_path, name, value, whole=number % 2 == 0))
    (tmp_path / "params.json").write_text(json.dumps(PARAMETERS[method.name]))
    out = tmp_path / "out" / "first.nii.gz"
    code = main([*words, "--params", str(tmp_path / "params.json"), "-o", str(out)])
    assert code == 0, capsys.readouterr().err
    name = method.produces[0]
    expected = plain(method.name)[name]
    image = nib.load(out)
    found = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0) if found.ndim == 4 else found, expected)
    assert np.array_equal(image.affine, AFFINE) and image.header.get_xyzt_units()[0] == "mm"
    sidecar = json.loads(out.with_name(out.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Method"] == method.name
    assert sidecar["Parameters"].items() >= json.loads(json.dumps(PARAMETERS[method.name])).items()
    if ARTIFACTS[name].unit == "ppm":
        assert sidecar["Units"] == "ppm"
    if "reference_offset" in method.produces:
        assert sidecar["SusceptibilityReference"]["Offset"] == plain(method.name)["reference_offset"]
