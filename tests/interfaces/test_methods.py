"""Nodes run methods with exactly the parameters and arrays that the plan names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qsmxt.algorithms.background.vsharp import vsharp
from qsmxt.algorithms.inversion.tkd import TKDParameters, tkd
from qsmxt.geometry import Grid
from qsmxt.interfaces.methods import BuildMask, RunMethods, mask_steps, reported
from qsmxt.interfaces.state import State, describe_grid, save_arrays

GRID = Grid((12, 10, 8), (1.0, 1.0, 2.0), (0.0, 0.6, 0.8))


@pytest.fixture
def state(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[2:10, 2:8, 1:7] = True
    eroded = np.zeros_like(mask)
    eroded[4:8, 4:6, 2:6] = True
    field = rng.standard_normal(GRID.shape).astype(np.float32) * mask
    folder = tmp_path / "before"
    folder.mkdir()
    arrays = save_arrays(folder, {"total_field": field, "mask": mask, "eroded_mask": eroded})
    return State("f", describe_grid(GRID), np.eye(4).tolist(), arrays)


def _run(state, steps, folder, kind=RunMethods, **inputs):
    folder.mkdir(exist_ok=True)
    interface = kind(state=state.to_json(), plan=json.dumps({"steps": steps}), code="c", **inputs)
    return State.from_json(interface.run(cwd=str(folder)).outputs.state)


def _step(method, consumes, produces, **parameters):
    return {"method": method, "parameters": parameters, "consumes": consumes, "optional": [], "produces": produces}


NONE = _step("background.none", ["total_field"], ["local_field"])
TKD = _step("inversion.tkd", ["local_field", "mask"], ["chi"], threshold=0.2, correct=False)


def test_result_is_that_of_the_function(state, tmp_path):
    after = _run(state, [NONE, TKD], tmp_path / "node")
    expected = tkd(state.load("total_field"), state.load("eroded_mask"), GRID, TKDParameters(0.2, False))
    assert np.array_equal(after.load("chi"), expected), "the eroded mask counts after background removal"


def test_the_field_is_inverted_on_the_support_and_the_map_cut_to_the_mask(state, tmp_path):
    support = np.ones(GRID.shape, dtype=bool)
    support[0] = False
    (tmp_path / "more").mkdir()
    more = state.extended(save_arrays(tmp_path / "more", {"support_mask": support}), fingerprint="g")
    more.arrays.pop("eroded_mask")
    referencing = _step("referencing.none", ["chi", "mask"], ["chi"])
    removal = _step("background.vsharp", ["total_field", "mask"], ["local_field", "eroded_mask"], cutoff=0.005)
    mask = state.load("mask")
    expected = np.where(mask, tkd(state.load("total_field"), support, GRID, TKDParameters(0.2, False)), 0)
    assert np.array_equal(_run(more, [NONE, TKD, referencing], tmp_path / "node").load("chi"), expected)
    eroded = _run(more, [removal, TKD], tmp_path / "other")
    assert np.array_equal(eroded.load("eroded_mask"), vsharp(state.load("total_field"), support, GRID)[1])
    assert not (eroded.load("chi")[~mask] != 0).any()


def test_handing_on_copies_nothing_and_is_not_reported(state, tmp_path):
    after = _run(state, [NONE, TKD], tmp_path / "node")
    assert after.arrays["local_field"] == state.arrays["total_field"]
    assert [step["method"] for step in after.steps] == ["inversion.tkd"]


def test_fingerprint_follows_parameters_code_and_past(state, tmp_path):
    plain = _run(state, [NONE, TKD], tmp_path / "a").fingerprint
    assert _run(state, [NONE, TKD], tmp_path / "b", num_threads=2).fingerprint == plain
    assert _run(state, [NONE, {**TKD, "parameters": {"threshold": 0.3}}], tmp_path / "c").fingerprint != plain
    past = State.from_json(state.extended({}, fingerprint="g").to_json())
    assert _run(past, [NONE, TKD], tmp_path / "d").fingerprint != plain


def test_two_states_are_united(state, tmp_path):
    field = State(**{**state.__dict__, "arrays": {"total_field": state.arrays["total_field"]}})
    rest = {name: file for name, file in state.arrays.items() if name != "total_field"}
    mask = State(**{**state.__dict__, "arrays": rest})
    after = _run(field, [NONE, TKD], tmp_path / "node", second=mask.to_json())
    assert np.array_equal(after.load("chi"), _run(state, [NONE, TKD], tmp_path / "other").load("chi"))


def test_masks_follow_the_sections(tmp_path):
    x, y, z = np.indices((32, 32, 32)) - 16
    ball = x**2 + y**2 + z**2 <= 100
    magnitude = np.where(ball, 100.0, 1.0).astype(np.float32)[None]
    folder = tmp_path / "before"
    folder.mkdir()
    arrays = save_arrays(folder, {"magnitude": magnitude})
    state = State("f", describe_grid(Grid((32, 32, 32))), np.eye(4).tolist(), arrays)
    step = {
        "method": "masking.sections", "consumes": ["magnitude"], "optional": [], "produces": ["mask", "reliable_mask"],
        "parameters": {"sections": ["magnitude:first,value:50,erode:2"], "combine": "and", "human_brain": False},
    }  # fmt: skip
    after = _run(state, [step], tmp_path / "node", BuildMask)
    mask = after.load("mask")
    assert mask.dtype == bool and not np.any(mask & ~ball)
    assert 0.4 < mask.sum() / ball.sum() < 0.6, "8^3 of 10^3"
    assert [step["method"] for step in after.steps] == ["masking.value", "masking.erode"]
    assert after.steps[1]["parameters"]["radius"] == 2.0
    assert after.statistics["mask"]["volume_ml"] == pytest.approx(mask.sum() / 1000)


def test_every_use_of_a_method_in_a_mask_is_recorded():
    from qsmxt.registry.mask_sections import parse_sections

    step = {"consumes": [], "optional": [], "produces": ["mask"]}
    sections = parse_sections(["magnitude,bet:0.4,erode:1", "mask:other,erode:2"])
    steps = mask_steps(sections, step)
    assert [(s["method"], s["parameters"].get("radius")) for s in steps if "erode" in s["method"]] == [
        ("masking.erode", 1.0), ("masking.erode", 2.0),
    ]  # fmt: skip


def test_a_registered_mask_is_made_from_the_magnitude(state, tmp_path, monkeypatch):
    from qsmxt.external import brain_extraction
    from qsmxt.interfaces.methods import BuildMask

    half = np.zeros(GRID.shape, dtype=bool)
    half[6:] = True
    seen = []

    def registered(image, affine, *, threads):
        seen.append((image, affine))
        return half

    monkeypatch.setattr(brain_extraction, "template_registration", registered)
    magnitude = np.ones(GRID.shape, dtype=np.float32)
    (tmp_path / "more").mkdir()
    more = state.extended(save_arrays(tmp_path / "more", {"combined_magnitude": magnitude}), fingerprint="g")
    masks = BuildMask()._external_masks(("registration",), more)
    assert np.array_equal(masks["registration"], half)
    assert np.array_equal(seen[0][0], magnitude) and np.array_equal(seen[0][1], np.array(state.affine))


def test_renamed_arrays_reach_the_method_under_its_own_names(state, tmp_path):
    names = {"mask": "reliable_mask", "chi": "reliable_chi", "eroded_mask": "reliable_eroded_mask"}
    step = {**TKD, "consumes": ["local_field", "reliable_mask"], "produces": ["reliable_chi"], "names": names}
    half = state.load("mask").copy()
    half[:6] = False
    (tmp_path / "more").mkdir()
    more = state.extended(save_arrays(tmp_path / "more", {"reliable_mask": half}), fingerprint="g")
    after = _run(more, [NONE, step], tmp_path / "node")
    expected = tkd(state.load("total_field"), half, GRID, TKDParameters(0.2, False))
    assert np.array_equal(after.load("reliable_chi"), expected) and "chi" not in after.arrays


def test_every_echo_is_reconstructed_from_itself_alone(state, tmp_path):
    from qsmxt.constants import rad_per_ppm

    times = np.array([0.005, 0.01])
    field = state.load("total_field")
    fields = [field, 2 * field]
    phase = np.stack([f * np.float32(rad_per_ppm(3, t)) for f, t in zip(fields, times, strict=True)])
    (tmp_path / "more").mkdir()
    arrays = {
        "unwrapped_phase": phase, "magnitude": np.ones_like(phase), "echo_times": times,
        "field_strength": np.float64(3),
    }  # fmt: skip
    more = state.extended(save_arrays(tmp_path / "more", arrays), fingerprint="g")
    fit = _step("field.weighted_fit", list(arrays), ["total_field", "field_noise", "fit_quality"])
    step = {**_step("merging.each_echo", [*arrays, "mask"], ["echo_chi"]), "nested": [fit, NONE, TKD]}
    after = _run(more, [step], tmp_path / "node")
    maps = after.load("echo_chi")
    for number, own in enumerate(fields):
        expected = tkd(own, state.load("eroded_mask"), GRID, TKDParameters(0.2, False))
        assert np.allclose(maps[number], expected, atol=1e-4)
    assert [ran["method"] for ran in after.steps] == ["field.weighted_fit", "inversion.tkd"]
    assert "echo_chi" in reported([step])[-1]["produces"], "so that the map's history leads to it"


def test_values_found_for_auto_are_recorded_and_give_the_same_map(state, tmp_path):
    tv = _step("inversion.tv", ["local_field", "mask"], ["chi"], weight="auto", iterations=3)
    after = _run(state, [NONE, tv], tmp_path / "node")
    (step,) = after.steps
    assert step["parameters"]["weight"] == "auto"
    given = {**tv, "parameters": {**tv["parameters"], **step["found"]}}
    again = _run(state, [NONE, given], tmp_path / "again")
    assert np.array_equal(again.load("chi"), after.load("chi"))
    assert "found" not in again.steps[0]


def test_values_found_for_every_echo_are_recorded_one_by_one(state, tmp_path):
    tv = _step("inversion.tv", ["total_field", "mask"], ["chi"], weight="auto", iterations=2)
    whole = state.extended({}, fingerprint="g")
    (tmp_path / "times").mkdir()
    whole.arrays.update(save_arrays(tmp_path / "times", {"echo_times": np.array([0.01, 0.02])}))
    tv["names"] = {"local_field": "total_field"}
    step = {"method": "merging.echoes", "nested": [tv], "produces": ["echo_chi"], "consumes": [], "optional": []}
    after = _run(whole, [step], tmp_path / "node")
    first, second = after.steps[0]["found"]["weight"]
    assert first == second, "both echoes have the same field here"
