"""Which acquisitions are orientations of one head, and what unites them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsmxt import config
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.workflows import orientation as module
from qsmxt.workflows.orientation import OrientationSet, acquisitions, chosen_methods, find_sets, init_orientation_wf
from qsmxt.workflows.plan import plan_unit
from qsmxt.workflows.unit import Context
from qsmxt.workflows.watch import Outcome


def unit(subject="1", session=None, acquisition=None, suffix="MEGRE", echoes=(0.005, 0.010)):
    given = {"subject": subject, "session": session, "acquisition": acquisition}
    entities = {key: label for key, label in given.items() if label is not None}
    stem = "_".join(entities.values())
    files = tuple(EchoFiles(t, Path(f"/data/{stem}p{t}.nii"), Path(f"/data/{stem}m{t}.nii")) for t in echoes)
    return ProcessingUnit(entities, suffix, echoes=files)


def named(sets):
    return [[member.name for member in item.units] for item in sets]


def test_acquisitions_of_one_session_belong_together():
    units = [unit(acquisition=a) for a in "abc"] + [unit("2"), unit("3", acquisition="a"), unit("3", acquisition="b")]
    assert named(find_sets(units)) == [
        ["sub-1_acq-a_MEGRE", "sub-1_acq-b_MEGRE", "sub-1_acq-c_MEGRE"], ["sub-3_acq-a_MEGRE", "sub-3_acq-b_MEGRE"]
    ]  # fmt: skip


def test_sessions_belong_together_where_each_has_one():
    assert named(find_sets([unit(session=s) for s in "ab"])) == [["sub-1_ses-a_MEGRE", "sub-1_ses-b_MEGRE"]]
    several = [unit(session=s, acquisition=a) for s in "ab" for a in "xy"]
    assert [len(item.units) for item in find_sets(several)] == [2, 2]


def test_other_echoes_or_suffixes_are_other_scans():
    assert not find_sets([unit(), unit(acquisition="b", echoes=(0.005, 0.012)), unit(suffix="T2starw")])


def test_a_tensor_needs_six_orientations():
    settings = config.load()
    assert [m.produces[0] for m in chosen_methods(settings, 5)] == ["orientation_chi"]
    assert [m.produces[0] for m in chosen_methods(settings, 6)] == ["orientation_chi", "susceptibility_tensor"]


def test_units_keep_what_the_set_needs():
    plan = plan_unit(unit(), config.load(flags={"outputs": {"orientation": True}}))
    saved = {name for output in plan.outputs() for name in plan.saved(output)}
    assert {"local_field", "field_noise", "mask", "combined_magnitude"} <= saved
    without = plan_unit(unit(), config.load())
    assert "field_noise" not in {name for output in without.outputs() for name in without.saved(output)}
    alone = plan_unit(unit(), config.load(flags={"outputs": {"orientation": True, "qsm": False}}))
    saved = {name for output in alone.outputs() for name in alone.saved(output)}
    assert {"local_field", "field_noise", "mask", "combined_magnitude"} <= saved and "chi" not in saved


def test_graph_and_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_memory", lambda units: 1.0)
    item = OrientationSet((unit(acquisition="a"), unit(acquisition="b")))
    context = Context(Path("/data"), tmp_path, "1", "code")
    workflow = init_orientation_wf(item, config.load(), context)
    edges = sorted(f"{a.name} -> {b.name}" for a, b in workflow._create_flat_graph().edges())
    assert edges == [
        "figures_orientation -> publish_figures_orientation",
        "fingerprint -> register",
        "orientation -> figures_orientation",
        "orientation -> write_orientation",
        "register -> orientation",
        "write_orientation -> figures_orientation",
        "write_orientation -> publish_orientation",
    ]
    assert workflow.name == "sub-1_acq-a_orientations"
    register = workflow.get_node("register").inputs
    assert len(json.loads(register.corrections)["Sources"]) == 8, "phase and magnitude of two echoes of both"
    entry = acquisitions(item, tmp_path)[1]
    assert entry["field"].endswith("sub-1/anat/sub-1_acq-b_desc-localfield_T2starw.nii.gz") and entry["noise"] is None


@pytest.mark.parametrize("done", [0, 1])
def test_a_set_without_two_finished_acquisitions_is_skipped(tmp_path, done):
    units = [unit(acquisition=a) for a in "ab"]
    outcomes = [Outcome(u.name, "1", "done" if i < done else "failed") for i, u in enumerate(units)]
    settings = config.load(flags={"outputs": {"orientation": True}})
    context = Context(Path("/data"), tmp_path, "1", "code")
    (found,) = module.run_orientations(units, outcomes, settings, context, tmp_path, None)
    assert found.status == "skipped" and f"found {done}" in found.reason
    assert module.run_orientations(units, outcomes, config.load(), context, tmp_path, None) == []
