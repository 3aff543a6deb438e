"""Derivatives appear whole, tell their history, and go away when nobody makes them any more."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.geometry import Grid
from qsmxt.interfaces.derivatives import (
    Publish,
    WriteDerivatives,
    found_by_method,
    history,
    parameters_by_method,
    put_in_place,
)
from qsmxt.interfaces.methods import RunMethods
from qsmxt.interfaces.state import State, describe_grid, save_arrays
from qsmxt.registry.catalogue import find


def _step(method, consumes, produces, **parameters):
    return {"method": method, "consumes": consumes, "optional": [], "produces": produces, "parameters": parameters}


CHAIN = [
    _step("field.fit", ["phase"], ["total_field", "noise"]),
    _step("masking.bet", ["magnitude"], ["mask"]),
    _step("masking.erode", ["magnitude"], ["mask"], radius=1),
    _step("background.b", ["total_field", "mask"], ["local_field"]),
    _step("inversion.i", ["local_field", "mask"], ["chi"]),
    _step("relaxometry.r", ["magnitude"], ["r2star"]),
]


@pytest.mark.parametrize(
    ("artifact", "methods"),
    [
        ("chi", ["field.fit", "masking.bet", "masking.erode", "background.b", "inversion.i"]),
        ("mask", ["masking.bet", "masking.erode"]),
        ("r2star", ["relaxometry.r"]),
        ("combined_magnitude", []),
    ],
)
def test_history_holds_the_ancestors_in_order_and_no_others(artifact, methods):
    assert [step["method"] for step in history(artifact, CHAIN)] == methods


def test_methods_used_twice_keep_both_sets_of_parameters():
    twice = [*CHAIN[2:3], _step("masking.erode", [], [], radius=2), *CHAIN[:1]]
    assert parameters_by_method(twice) == {"masking.erode": [{"radius": 1}, {"radius": 2}], "field.fit": {}}


@pytest.fixture
def folders(tmp_path):
    source, out = tmp_path / "node" / "derivatives", tmp_path / "out"

    def make(files, record=None):
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(content)
        path = source / "logs/sub-1/r.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"files": record or {name: name for name in files}}))
        return Publish(folder=str(source), record=str(path), out_dir=str(out)).run(cwd=str(tmp_path)).outputs.files

    return source, out, make


def test_everything_arrives_and_the_record_comes_last(folders):
    _, out, make = folders
    files = make({"sub-1/anat/a.nii.gz": "image", "sub-1/anat/a.json": "{}"})
    assert (out / "sub-1/anat/a.nii.gz").read_text() == "image"
    assert files[-1].endswith("r.json") and len(files) == 3


def test_what_is_there_already_is_not_touched(folders):
    _, out, make = folders
    make({"sub-1/anat/a.nii.gz": "image"})
    before = (out / "sub-1/anat/a.nii.gz").stat()
    make({"sub-1/anat/a.nii.gz": "image"})
    after = (out / "sub-1/anat/a.nii.gz").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_is_not_made_any_more_goes_away_with_its_sidecar(folders):
    source, out, make = folders
    maps = {"a": "sub-1/anat/a.nii.gz", "b": "sub-1/anat/b.nii.gz"}
    make({"sub-1/anat/a.nii.gz": "a", "sub-1/anat/b.nii.gz": "b", "sub-1/anat/b.json": "{}"}, maps)
    (out / "sub-1/anat/mine.txt").write_text("not ours")
    for name in ("b.nii.gz", "b.json"):
        (source / "sub-1/anat" / name).unlink()
    make({"sub-1/anat/a.nii.gz": "a2"}, {"a": "sub-1/anat/a.nii.gz"})
    assert {path.name for path in (out / "sub-1/anat").iterdir()} == {"a.nii.gz", "mine.txt"}
    assert (out / "sub-1/anat/a.nii.gz").read_text() == "a2"


def test_a_tampered_record_deletes_nothing_outside(folders, tmp_path):
    _, out, make = folders
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    make({"sub-1/anat/a.nii.gz": "a"})
    (out / "logs/sub-1/r.json").write_text(json.dumps({"files": {"x": "../precious.txt", "y": str(precious)}}))
    make({"sub-1/anat/a.nii.gz": "a"})
    assert precious.read_text() == "keep"
    (out / "logs/sub-1/r.json").write_text("[half")
    make({"sub-1/anat/a.nii.gz": "a"})
    assert json.loads((out / "logs/sub-1/r.json").read_text())["files"]


def test_a_half_written_target_is_replaced(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(b"whole"), target.write_bytes(b"who")
    put_in_place(source, target)
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("key", "region", "given"),
    [("none", None, {}), ("mean", "mask", {}), ("csf", "csf_mask", {}), ("region", "labels", {"labels": (7,)})],
)
def test_the_sidecar_of_the_map_states_what_referencing_subtracted(tmp_path, key, region, given):
    shape = (12, 10, 8)
    chi = np.random.default_rng(0).normal(0.02, 0.03, shape).astype(np.float32)
    mask = np.zeros(shape, dtype=bool)
    mask[2:10, 2:8, 1:7] = True
    part = np.zeros_like(mask)
    part[3:7, 3:7, 2:6] = True
    regions = {"mask": mask, "csf_mask": part, "labels": np.where(part, 7, 0).astype(np.int32)}
    (tmp_path / "before").mkdir(), (tmp_path / "node").mkdir(), (tmp_path / "write").mkdir()
    arrays = save_arrays(tmp_path / "before", {"chi": chi, **regions})
    state = State("f", describe_grid(Grid(shape)), np.eye(4).tolist(), arrays)
    method = find("referencing", key)
    step = {name: list(getattr(method, name)) for name in ("consumes", "optional", "produces")}
    step |= {"method": method.name, "parameters": method.complete(given)}
    run = RunMethods(state=state.to_json(), plan=json.dumps({"steps": [step]}), code="c")
    after = run.run(cwd=str(tmp_path / "node")).outputs.state
    unit = ProcessingUnit({"subject": "1"}, echoes=(EchoFiles(0.01, tmp_path / "sub-1_T2starw.nii"),))
    write = WriteDerivatives(
        state=after, unit=json.dumps(unit.to_dict()), bids_dir=str(tmp_path), artifacts=["chi"], label="qsm",
        version="1", code="c",
    )  # fmt: skip
    folder = tmp_path / "write" / "derivatives"
    write.run(cwd=str(folder.parent))
    (image,) = folder.rglob("*_Chimap.nii.gz")
    stated = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())["SusceptibilityReference"]
    values = np.sort(chi[mask & (regions[region] > 0)]) if region else np.zeros(1)
    low, high = np.percentile(values, (1, 99))
    assert stated["Offset"] == pytest.approx(values[(values >= low) & (values <= high)].mean(), abs=1e-7)
    assert (stated["Method"], stated["Region"], stated["Units"]) == (key, method.title, "ppm")
    assert stated.get("Parameters", {}).get("labels") == ([7] if key == "region" else None)
    saved = np.asanyarray(nib.load(image).dataobj)
    np.testing.assert_array_equal(saved[mask], chi[mask] - np.float32(stated["Offset"]))


def test_values_found_for_auto_are_listed_by_method():
    steps = [_step("field.fit", [], []), {**_step("inversion.tv", [], [], weight="auto"), "found": {"weight": 2e-4}}]
    assert found_by_method(steps) == {"inversion.tv": {"weight": 2e-4}}
