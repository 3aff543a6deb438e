"""Workflows over a generated dataset, expanded without running a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsmxt import config
from qsmxt.bids.queries import find_units
from qsmxt.workflows.estimate import size_of
from qsmxt.workflows.plan import plan_unit
from qsmxt.workflows.unit import Context, init_unit_wf
from tests.heads import head, write_description, write_subject

PINNED = Path(__file__).parents[1] / "outputs"


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids")
    write_description(root)
    write_subject(root, "1", head(), session="a")
    write_subject(root, "1", head(seed=1, echo_times=(0.012,)), session="b")
    write_subject(root, "2", head())
    return root, find_units(root).units


def _workflow(units, unit, *, threads=1, **flags):
    root, _ = units
    settings = config.load(flags=flags)
    context = Context(root, root.parent / "out", "1", "code", threads)
    return init_unit_wf(plan_unit(unit, settings), settings, size_of(unit), context)


def _graph(workflow):
    graph = workflow._create_flat_graph()
    edges = sorted(f"{a.name} -> {b.name}" for a, b in graph.edges())
    return sorted(node.name for node in graph.nodes()), edges


def test_every_acquisition_has_a_workflow_of_its_own(units):
    names = [_workflow(units, unit).name for unit in units[1]]
    assert names == ["sub-1_ses-a_MEGRE", "sub-1_ses-b_T2starw", "sub-2_MEGRE"]


def test_default_graph_is_the_pinned_one(units):
    _, edges = _graph(_workflow(units, units[1][0]))
    assert edges == (PINNED / "default_graph.txt").read_text().splitlines()


def test_every_node_knows_all_that_determines_its_result(units):
    workflow = _workflow(units, units[1][0], acquisition={"phase_sign": "-"}, inversion={"method": "tkd"})
    load, chi = workflow.get_node("load"), workflow.get_node("chi")
    assert json.loads(load.inputs.reading)["phase_sign"] == "-"
    steps = {step["method"]: step["parameters"] for step in json.loads(chi.inputs.plan)["steps"]}
    assert steps["inversion.tkd"] == {"threshold": 0.15, "correct": False, "criterion": "equalisation"}, (
        "defaults are spelled out"
    )
    assert all(node.inputs.code == "code" for node in (load, chi))


def test_resources_are_those_of_the_estimate_and_never_more_threads_than_allowed(units):
    for threads in (1, 2):
        workflow = _workflow(units, units[1][0], threads=threads)
        nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
        assert all(node.n_procs <= threads and 0.05 < node.mem_gb < 5 for node in nodes)
    assert workflow.get_node("chi").n_procs == 2


def test_plus_signs_in_labels_are_spelled_out(tmp_path):
    write_description(tmp_path)
    write_subject(tmp_path, "1", head(), session="a+b")
    (unit,) = find_units(tmp_path).units
    assert _workflow((tmp_path, ()), unit).name == "sub-1_ses-aplusb_MEGRE"
