"""One method on NIfTI files does what the function does."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from qsmxt.cli.step import build_parser, main, parameter_option
from qsmxt.geometry import Grid
from qsmxt.registry.catalogue import catalogue, find
from qsmxt.registry.methods import lookup

ANGLE = np.radians(20)
COSINE, SINE = np.cos(ANGLE), np.sin(ANGLE)
AFFINE = np.array([[1, 0, 0, 5], [0, COSINE, -2 * SINE, 0], [0, SINE, 2 * COSINE, 1], [0, 0, 0, 1]])
GRID = Grid.from_affine(AFFINE, (10, 12, 8))


def _save(path, array):
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return str(path)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[2:8, 2:10, 2:6] = 1
    field = (rng.standard_normal(GRID.shape) * mask).astype(np.float32)
    written = {"field_file": _save(tmp_path / "f.nii", field), "mask_file": _save(tmp_path / "m.nii.gz", mask)}
    return {"field": field, "mask": mask, **written}


def test_result_is_that_of_the_function_on_the_grid_of_the_file(files, tmp_path):
    code = main(["inversion", "tkd", "--local-field", files["field_file"], "--mask", files["mask_file"],
                 "--threshold", "0.2", "-o", str(tmp_path / "out" / "x")])  # fmt: skip
    assert code == 0
    image = nib.load(tmp_path / "out" / "x_chi.nii.gz")
    expected = lookup("inversion", "tkd").run(
        {"local_field": files["field"], "mask": files["mask"] > 0}, GRID, {"threshold": 0.2}
    )["chi"]
    assert np.array_equal(np.asanyarray(image.dataobj), expected) and np.allclose(image.affine, AFFINE)
    sidecar = json.loads((tmp_path / "out" / "x_chi.json").read_text())
    assert sidecar["Parameters"]["threshold"] == 0.2 and sidecar["Units"] == "ppm"


def test_options_win_over_the_file_of_parameters(files, tmp_path):
    (tmp_path / "p.json").write_text('{"threshold": 0.3, "correct": true}')
    main(["inversion", "tkd", "--local-field", files["field_file"], "--mask", files["mask_file"],
          "--params", str(tmp_path / "p.json"), "--threshold", "0.2", "-o", str(tmp_path / "x")])  # fmt: skip
    assert json.loads((tmp_path / "x_chi.json").read_text())["Parameters"] == {"threshold": 0.2, "correct": True}


def test_images_may_come_without_options_and_go_to_a_named_file(files, tmp_path):
    out = tmp_path / "out" / "local.nii.gz"
    assert main(["background", "lbv", files["field_file"], files["mask_file"], "-o", str(out)]) == 0
    expected = lookup("background", "lbv").run({"total_field": files["field"], "mask": files["mask"] > 0}, GRID)
    assert np.array_equal(np.asanyarray(nib.load(out).dataobj), expected["local_field"])
    kept = nib.load(out.with_name("local_eroded_mask.nii.gz"))
    assert np.array_equal(np.asanyarray(kept.dataobj) > 0, expected["eroded_mask"])
    assert json.loads(out.with_name("local.json").read_text())["Units"] == "ppm"


def test_images_and_options_fill_the_arrays_together(files, tmp_path, capsys):
    given = ["--mask", files["mask_file"], "-o", str(tmp_path / "x.nii")]
    assert main(["inversion", "tkd", files["field_file"], *given]) == 0
    assert nib.load(tmp_path / "x.nii").shape == GRID.shape
    assert main(["inversion", "tkd", *given]) == 64 and "--local-field" in capsys.readouterr().err
    assert main(["inversion", "tkd", files["field_file"], files["mask_file"], *given]) == 64
    assert "no more images" in capsys.readouterr().err


def test_echoes_are_one_file_each_with_their_times(tmp_path):
    rng = np.random.default_rng(1)
    phases = [_save(tmp_path / f"p{e}.nii", (rng.uniform(-3, 3, GRID.shape)).astype(np.float32)) for e in range(2)]
    mags = [_save(tmp_path / f"m{e}.nii", np.ones(GRID.shape, dtype=np.float32)) for e in range(2)]
    code = main(["unwrapping", "romeo", "--offset-free-phase", *phases, "--magnitude", *mags,
                 "--echo-times", "0.005", "0.01", "--output", str(tmp_path / "u")])  # fmt: skip
    assert code == 0
    for number, phase in enumerate(phases, 1):
        unwrapped = np.asanyarray(nib.load(tmp_path / f"u_unwrapped_phase_echo-{number}.nii.gz").dataobj)
        turns = (unwrapped - np.asanyarray(nib.load(phase).dataobj)) / (2 * np.pi)
        assert np.allclose(turns, np.rint(turns), atol=1e-4)


def test_images_must_share_a_grid(files, tmp_path, capsys):
    other = tmp_path / "o.nii"
    nib.save(nib.Nifti1Image(files["mask"], np.eye(4)), other)
    arrays = ["--local-field", files["field_file"], "--mask", str(other)]
    code = main(["inversion", "tkd", *arrays, "-o", str(tmp_path / "x")])
    assert code == 65 and "o.nii" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["inversion", "nonsense"], 64, "expected one of"),
        (["inversion", "tkd", "--local-field", "absent.nii", "--mask", "absent.nii", "-o", "x"], 66, "absent.nii"),
    ],
)
def test_errors_name_the_offender(words, code, message, capsys):
    assert main(words) == code
    assert message in capsys.readouterr().err


def test_every_method_has_a_parser_with_all_its_arrays_and_parameters():
    for stage, methods in catalogue().items():
        for key, method in methods.items():
            options = build_parser(find(stage, key)).format_help()
            wanted = [f"--{name.replace('_', '-')}" for name in method.consumes]
            wanted += [parameter_option(method, declared.name) for declared in method.declarations]
            for option in wanted:
                assert f"{option} " in options or f"--no-{option[2:]}" in options, f"{stage}.{key}: {option}"


def test_a_parameter_named_like_an_array_keeps_apart():
    method = find("referencing", "region")
    assert "labels" in method.consumes and parameter_option(method, "labels") == "--region-labels"


def test_methods_of_a_stage_are_listed(capsys):
    assert main(["inversion"]) == 0
    assert "tkd" in capsys.readouterr().out
