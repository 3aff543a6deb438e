"""One method on NIfTI files does what the function does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.cli.step import build_parser, main, parameter_option
from qsmxt.geometry import Grid
from qsmxt.phantom.example import phantom
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
    assert json.loads((tmp_path / "x_chi.json").read_text())["Parameters"] == {
        "threshold": 0.2, "correct": True, "criterion": "equalisation",
    }  # fmt: skip


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


def _volumes(count, seed=0):
    return np.random.default_rng(seed).uniform(-3, 3, (count, *GRID.shape)).astype(np.float32)


def test_echoes_on_the_fourth_axis_are_files_of_one_echo_each(tmp_path):
    phase = _volumes(2)
    apart = [_save(tmp_path / f"p{e}.nii", volume) for e, volume in enumerate(phase)]
    stored = nib.Nifti1Image(np.round(np.moveaxis(phase, 0, -1) * 1000).astype(np.int16), AFFINE)
    stored.header.set_slope_inter(0.001, 0)
    nib.save(stored, tmp_path / "all.nii.gz")
    made = {}
    for name, files in (("apart", apart), ("together", [str(tmp_path / "all.nii.gz")])):
        out = tmp_path / f"{name}.nii.gz"
        assert main(["unwrapping", "laplacian", "--offset-free-phase", *files, "-o", str(out)]) == 0
        made[name] = np.asanyarray(nib.load(out).dataobj)
    assert made["apart"].shape == (*GRID.shape, 2)
    np.testing.assert_allclose(made["together"], made["apart"], atol=0.02)


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        ([3], "offset_free_phase: expected 2 volumes, one for every echo time, found 3 in p0.nii"),
        ([1, 1, 1], "expected 2 volumes, one for every echo time, found 3 in p0.nii, p1.nii, p2.nii"),
        ([2, 2], "p0.nii: expected one volume, as offset_free_phase was given 2 files, found 2"),
    ],
)
def test_a_wrong_number_of_echoes_is_named(volumes, message, tmp_path, capsys):
    files = [_save(tmp_path / f"p{n}.nii", np.moveaxis(_volumes(count), 0, -1)) for n, count in enumerate(volumes)]
    magnitude = _save(tmp_path / "m.nii", np.ones((*GRID.shape, 2), dtype=np.float32))
    code = main(["unwrapping", "romeo", "--offset-free-phase", *files, "--magnitude", magnitude,
                 "--echo-times", "0.005", "0.01", "-o", str(tmp_path / "x")])  # fmt: skip
    assert code == 65 and message in capsys.readouterr().err


def _coil_files(folder, names, shapes):
    return [
        _save(folder / f"{n}.nii", np.ones((*GRID.shape, *s), np.float32)) for n, s in zip(names, shapes, strict=True)
    ]


@pytest.mark.parametrize(
    ("names", "shapes", "message"),
    [
        (["a", "b", "c"], [(4,)] * 3, "coil_phase: expected 2 files, one for every echo time"),
        (["a", "b"], [(4,), (3,)], "expected as many coils in every file, found 4 in a.nii, 3 in b.nii"),
        (["a", "b", "c"], [()] * 3, "expected a file for every coil of each of 2 echoes, found 3 files"),
        (["echo-1_coil-1_x", "echo-1_coil-2_x", "echo-2_coil-1_x", "echo-2_coil-3_x"], [()] * 4,
         "every coil once in each of 2 echoes, found 2 echoes and 3 coils in 4 files; not there: echo-1_coil-3"),
    ],
)  # fmt: skip
def test_coils_that_do_not_agree_with_the_echoes_are_named(names, shapes, message, tmp_path, capsys):
    files = _coil_files(tmp_path, names, shapes)
    code = main(["combination", "mcpc3ds", "--coil-phase", *files, "--coil-magnitude", *files,
                 "--echo-times", "0.005", "0.01", "-o", str(tmp_path / "x")])  # fmt: skip
    assert code == 65 and message in capsys.readouterr().err


def test_coils_have_the_order_of_their_names_and_else_of_the_echoes(tmp_path):
    head = phantom()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    given = {}
    for part in ("phase", "magnitude"):
        stack = getattr(head, f"coil_{part}")[:, :2]
        for e in range(2):
            for c in range(len(stack)):
                file = tmp_path / f"sub-1_echo-{e + 1:02}_coil-{c + 1:02}_part-{part}_MEGRE.nii"
                nib.save(nib.Nifti1Image(stack[c, e], affine), file)
                nib.save(nib.Nifti1Image(stack[c, e], affine), tmp_path / f"{part}{e}{c}.nii")
                given.setdefault(f"{part} named", []).append(str(file))
                given.setdefault(f"{part} plain", []).append(str(tmp_path / f"{part}{e}{c}.nii"))
        given[f"{part} named"].reverse()
    results = []
    for way in ("named", "plain"):
        words = ["--coil-phase", *given[f"phase {way}"], "--coil-magnitude", *given[f"magnitude {way}"]]
        out = tmp_path / f"{way}.nii"
        assert main(["combination", "aspire", *words, "--echo-times", "0.005", "0.01", "-o", str(out)]) == 0
        results.append(np.asanyarray(nib.load(out).dataobj))
    made = lookup("combination", "aspire").run(
        {"coil_phase": head.coil_phase[:, :2], "coil_magnitude": head.coil_magnitude[:, :2],
         "echo_times": head.echo_times[:2]}, head.grid)  # fmt: skip
    for result in results:
        np.testing.assert_array_equal(np.moveaxis(result, -1, 0), made["wrapped_phase"])


def _acquisition(folder, **more):
    """``params.json`` of QSM-CI for the phantom."""
    head = phantom()
    values = {"TE": head.echo_times.tolist(), "B0": head.field_strength, "B0_dir": [0, 0, 1], "voxel_size": [2, 2, 2]}
    (folder / "params.json").write_text(json.dumps({"contract": "v2", **values, **more}))
    return str(folder / "params.json")


def test_the_acquisition_comes_from_a_file_and_options_win(tmp_path, capsys):
    head = phantom()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    images = []
    for name in ("local_field", "mask"):
        nib.save(nib.Nifti1Image(np.asarray(getattr(head, name), dtype=np.float32), affine), tmp_path / f"{name}.nii")
        images.append(str(tmp_path / f"{name}.nii"))
    turned = _acquisition(tmp_path, B0_dir=[0, 0.6, 0.8], threshold=0.25)
    made = {}
    for name, words in {"file": [], "option": ["--b0-direction", "0", "0", "1"]}.items():
        assert main(["inversion", "tkd", *images, "--params", turned, *words, "-o", str(tmp_path / f"{name}.nii")]) == 0
        made[name] = np.asanyarray(nib.load(tmp_path / f"{name}.nii").dataobj)
        assert "not used: contract" in capsys.readouterr().err
    given = {"local_field": head.local_field, "mask": head.mask}
    for name, direction in (("file", (0, 0.6, 0.8)), ("option", (0, 0, 1))):
        grid = Grid(head.grid.shape, head.grid.voxel_size, direction)
        expected = lookup("inversion", "tkd").run(given, grid, {"threshold": 0.25})["chi"]
        np.testing.assert_array_equal(made[name], expected)
    wrong = _acquisition(tmp_path, voxel_size=[1, 1, 2])
    assert main(["inversion", "tkd", *images, "--params", wrong, "-o", str(tmp_path / "x.nii")]) == 65
    assert "voxel_size: expected that of the images, 2 x 2 x 2 mm, found 1 x 1 x 2 mm" in capsys.readouterr().err
    wrong = _acquisition(tmp_path, TE="4 ms")
    assert main(["inversion", "tkd", *images, "--params", wrong, "-o", str(tmp_path / "x.nii")]) == 64
    assert "TE: expected numbers, found '4 ms'" in capsys.readouterr().err


#: Files of QSM-CI and the arrays that they are.
EXCHANGED = {
    "phase": "wrapped_phase", "magnitude": "magnitude", "mask": "mask", "totalfield": "total_field",
    "localfield": "local_field", "chimap": "chi",
}  # fmt: skip
PAGE = (Path(__file__).parents[2] / "docs" / "steps.md").read_text()
#: Stage, file produced and command, as the documents have them.
ROWS = re.findall(r"^\| `([\w+-]+)` \| `(\w+)\.nii\.gz` \| `qsmxt-step (.+)` \|$", PAGE, flags=re.MULTILINE)


def _exchange(folder, names):
    """What a stage of QSM-CI consumes, echoes on the fourth axis."""
    head = phantom()
    for name in names:
        array = np.asarray(getattr(head, EXCHANGED[name]), dtype=np.uint8 if name == "mask" else np.float32)
        array = np.moveaxis(array, 0, -1) if array.ndim == 4 else array
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), folder / f"{name}.nii.gz")
    return head


@pytest.mark.parametrize(("stage", "produced", "command"), ROWS, ids=[row[0] for row in ROWS])
def test_a_stage_of_qsm_ci_gives_what_the_method_gives(stage, produced, command, tmp_path, capsys):
    """Every command of the documents on the files of the contract: in ppm, on the grid of the mask."""
    words = command.replace("background METHOD", "background lbv").replace("inversion METHOD", "inversion tkd").split()
    consumed = [word.removesuffix(".nii.gz") for word in words if word.endswith(".nii.gz")]
    head = _exchange(tmp_path, consumed)
    files = [str(tmp_path / word) if word.endswith(".nii.gz") else word for word in words]
    out = tmp_path / "out" / f"{produced}.nii.gz"
    assert main([*files, "--params", _acquisition(tmp_path), "-o", str(out)]) == 0, capsys.readouterr().err
    method = lookup(words[0], words[1])
    given = {EXCHANGED[name]: getattr(head, EXCHANGED[name]) for name in consumed}
    given |= {"echo_times": head.echo_times, "field_strength": head.field_strength}
    given["offset_free_phase"] = head.wrapped_phase
    given["mask_input"] = np.sqrt(np.square(head.magnitude).sum(axis=0))
    expected = method.run(given, head.grid)[EXCHANGED[produced]]
    image = nib.load(out)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected)
    assert image.shape == head.grid.shape
    assert json.loads(out.with_name(f"{produced}.json").read_text()).get("Units") == (
        None if stage == "brain-extraction" else "ppm"
    )


def test_the_documented_stage_runs_with_and_without_parameters(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/usr/bin/env bash.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "run.sh").write_text(script)
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    head = _exchange(tmp_path / "in", ["localfield", "mask"])
    _acquisition(tmp_path / "in")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for parameters in ({}, {"threshold": 0.3}):
        if parameters:
            (tmp_path / "in" / "config.json").write_text(json.dumps(parameters))
        subprocess.run(["bash", "run.sh", "in", "out"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
        expected = lookup("inversion", "rts").run(
            {"local_field": head.local_field, "mask": head.mask}, head.grid, parameters
        )["chi"]
        found = np.asanyarray(nib.load(tmp_path / "out" / "chimap.nii.gz").dataobj)
        np.testing.assert_array_equal(found, expected)


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


def test_the_sidecar_tells_the_value_found_for_auto(files, tmp_path):
    given = ["inversion", "tkd", "--local-field", files["field_file"], "--mask", files["mask_file"]]
    assert main([*given, "--threshold", "auto", "-o", str(tmp_path / "found.nii.gz")]) == 0
    sidecar = json.loads((tmp_path / "found.json").read_text())
    assert sidecar["Parameters"]["threshold"] == "auto"
    found = sidecar["AutomaticParameters"]["threshold"]
    assert main([*given, "--threshold", str(found), "-o", str(tmp_path / "given.nii.gz")]) == 0
    assert (tmp_path / "found.nii.gz").read_bytes() == (tmp_path / "given.nii.gz").read_bytes()
    assert "AutomaticParameters" not in json.loads((tmp_path / "given.json").read_text())
