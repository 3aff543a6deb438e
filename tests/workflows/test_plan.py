"""What runs follows from what is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qsmxt import config
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.cli.arguments import build_parser, stage_option
from qsmxt.errors import InputError, MissingInputError, WorkflowError
from qsmxt.registry import methods as registry
from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.methods import Cost, Method
from qsmxt.workflows import plan as module
from qsmxt.workflows.estimate import Size, estimate_group
from qsmxt.workflows.plan import LOADING, MASK_STEP, Group, Step, plan_unit


def unit(echoes: int = 3) -> ProcessingUnit:
    files = tuple(EchoFiles(0.005 * (e + 1), Path(f"p{e}.nii"), Path(f"m{e}.nii")) for e in range(echoes))
    return ProcessingUnit({"subject": "1"}, echoes=files)


def steps(**flags: dict) -> list[str]:
    return [step.name for step in plan_unit(unit(), config.load(flags=flags)).steps()]


def _method(stage, key, consumes, produces, optional=()):
    return Method(key, key, stage, consumes, produces, lambda: None, object, optional)


#: A world of few methods, so that the truths below do not depend on what is registered.
WORLD = {
    "offset": _method("offset", "offset", ("wrapped_phase",), ("offset_free_phase",)),
    "unwrapping": _method("unwrapping", "unwrap", ("offset_free_phase",), ("unwrapped_phase",)),
    "field": _method("field", "fit", ("unwrapped_phase",), ("total_field", "field_noise")),
    "background": _method("background", "remove", ("total_field", "mask"), ("local_field", "eroded_mask")),
    "inversion": _method("inversion", "invert", ("local_field", "mask"), ("chi",), ("field_noise",)),
    "referencing": _method("referencing", "refer", ("chi", "mask"), ("chi",)),
    "relaxometry": _method("relaxometry", "decay", ("magnitude", "echo_times"), ("r2star", "t2star")),
    "separation": _method("separation", "separate", ("chi", "r2star"), ("chi_paramagnetic", "chi_diamagnetic")),
}


@pytest.fixture
def planned(monkeypatch):
    """A function that plans with the methods of WORLD, some replaced or left out."""

    def plan(outputs=("qsm",), sections=("magnitude,bet",), without=(), **replaced):
        world = {k: m for k, m in {**WORLD, **replaced}.items() if k not in without}
        parameters = {m.name: {} for m in world.values()}
        handed = [module._handing_on(stage, *pair) for stage, pair in module.HANDED_ON.items() if stage not in world]
        order = list(registry.stage_keys())
        ordered = sorted(world.values(), key=lambda method: order.index(method.stage))
        chosen = [*handed, *ordered, module._mask_method(tuple(sections))]
        monkeypatch.setattr(module, "_candidates", lambda settings, echoes: (chosen, parameters))
        switches = {d.name: d.name in outputs for d in registry.declared_fields(config.OutputSettings)}
        settings = dataclasses.replace(config.Settings(), outputs=config.OutputSettings(**switches))
        return plan_unit(unit(), settings)

    return plan


def names(plan):
    return {group.name: [step.name for step in group.steps] for group in plan.groups}


def test_classical_chain_in_three_groups(planned):
    assert names(planned()) == {
        "field": ["offset.offset", "unwrapping.unwrap", "field.fit"],
        "mask": [MASK_STEP],
        "chi": ["background.remove", "inversion.invert", "referencing.refer"],
    }


def test_total_field_inversion_makes_background_removal_disappear(planned):
    plan = planned(inversion=_method("inversion", "tfi", ("total_field", "mask"), ("chi", "local_field")))
    assert names(plan)["chi"] == ["inversion.tfi", "referencing.refer"]


def test_one_step_inversion_needs_nothing_but_a_mask(planned):
    plan = planned(inversion=_method("inversion", "tgv", ("wrapped_phase", "mask"), ("chi",)))
    assert names(plan) == {"mask": [MASK_STEP], "chi": ["inversion.tgv", "referencing.refer"]}


def test_mask_from_the_field_comes_after_it_and_brings_it_back(planned):
    plan = planned(
        sections=("field-noise,otsu",), inversion=_method("inversion", "tgv", ("wrapped_phase", "mask"), ("chi",))
    )
    assert list(names(plan)) == ["field", "mask", "chi"]
    assert plan.groups[1].after == ("field",) and set(plan.groups[2].after) == {"mask"}


def test_mask_from_the_magnitude_waits_for_nothing(planned):
    plan = planned()
    assert {group.name: group.after for group in plan.groups} == {
        "field": (LOADING,), "mask": (LOADING,), "chi": ("field", "mask"),
    }  # fmt: skip


def test_stages_without_a_method_hand_on(planned):
    plan = planned(without=("offset", "background", "referencing"))
    assert [s.name for s in plan.steps()] == [
        "offset.none", "unwrapping.unwrap", "field.fit", "background.none", MASK_STEP, "inversion.invert",
    ]  # fmt: skip
    assert plan.saved("qsm") == ("combined_magnitude", "total_field", "mask", "reliable_mask", "chi"), (
        "a local field that is the total field is not saved"
    )


def test_outputs_share_what_they_share(planned):
    plan = planned(outputs=("qsm", "r2star", "separation"))
    assert names(plan)["r2star"] == ["relaxometry.decay"]
    assert names(plan)["separation"] == ["separation.separate", "separation.closedform"], "the baseline is beside it"
    after = {group.name: group.after for group in plan.groups}
    assert after["r2star"] == (LOADING,) and after["separation"] == ("chi", "r2star")
    assert plan.saved("r2star") == ("r2star",), "T2* was not asked for"
    assert planned(outputs=("t2star", "r2star")).saved("r2star") == ("combined_magnitude", "r2star", "t2star")


def test_the_baseline_of_separation_has_the_relaxivities_of_the_method_beside_it():
    flags = {"outputs": {"qsm": False, "separation": True}, "separation": {"method": "r2starqsm"}}
    flags["separation"]["r2starqsm"] = {"r2star_relaxivity": 250.0}
    steps = {step.name: step.parameters for step in plan_unit(unit(), config.load(flags=flags)).steps()}
    assert steps["separation.r2starqsm"] == {"r2star_relaxivity": 250.0}
    assert steps["separation.closedform"] == {"relaxivity": 137.0, "r2star_relaxivity": 250.0}


def test_other_outputs_do_without_the_map(planned):
    assert names(planned(outputs=("r2star",))) == {"r2star": ["relaxometry.decay"]}


def test_a_missing_maker_is_named(planned):
    with pytest.raises(WorkflowError, match=r"output qsm: inversion.invert needs local_field"):
        planned(background=_method("background", "other", ("total_field",), ("eroded_mask",)))
    with pytest.raises(WorkflowError, match="no output was asked for"):
        planned(outputs=())


def test_every_parameter_is_spelled_out_in_the_plan():
    settings = config.load(flags={"inversion": {"method": "tkd", "tkd": {"threshold": 0.11}}})
    (step,) = (step for step in plan_unit(unit(), settings).steps() if step.name == "inversion.tkd")
    assert step.parameters == {"threshold": 0.11, "correct": False, "criterion": "equalisation"}


def test_memory_follows_the_dearest_step():
    def step(name, bytes_per_voxel, consumes=("total_field",), produces=("local_field",), bytes_per_echo=0.0):
        return Step(name, {}, consumes, (), produces, Cost(bytes_per_voxel, 2, 1.0, bytes_per_echo))

    size = Size(10_000_000, 4)
    cheap = estimate_group(Group("g", "qsm", (step("a", 10),)), size)
    dear = estimate_group(Group("g", "qsm", (step("a", 10), step("b", 100))), size)
    assert dear.mem_gb - cheap.mem_gb == pytest.approx(0.9, abs=0.05)
    assert dear.cpu_seconds == pytest.approx(20) and dear.threads == 2
    echoes = estimate_group(Group("g", "qsm", (step("a", 10, ("unwrapped_phase",)),)), size)
    assert echoes.mem_gb - cheap.mem_gb == pytest.approx(3 * 0.04, abs=1e-6)
    every = estimate_group(Group("g", "qsm", (step("a", 10, bytes_per_echo=8.0),)), size)
    assert every.mem_gb - cheap.mem_gb == pytest.approx(4 * 0.08, abs=1e-6)


def test_an_output_does_not_depend_on_which_others_are_made(planned):
    decay = _method("relaxometry", "decay", ("magnitude",), ("r2star", "t2star"), ("total_field", "csf_mask"))
    alone = planned(outputs=("r2star",), relaxometry=decay)
    assert names(alone) == {"r2star": ["offset.offset", "unwrapping.unwrap", "field.fit", "relaxometry.decay"]}
    both = planned(outputs=("qsm", "r2star"), relaxometry=decay)
    assert {group.name: group.after for group in both.groups}["r2star"] == ("field",)


def test_one_echo_gives_no_relaxation_but_all_the_rest():
    settings = config.load(flags={"outputs": {"r2star": True}})
    plan = plan_unit(unit(1), settings)
    assert plan.outputs() == ("qsm",) and "r2star: expected several echoes" in plan.notes[0]
    assert plan_unit(unit(2), settings).outputs() == ("qsm", "r2star")
    with pytest.raises(InputError, match="r2star: expected several echoes, found one"):
        plan_unit(unit(1), config.load(flags={"outputs": {"r2star": True, "qsm": False}}))


def test_the_region_of_the_inversion_is_saved_where_it_is_another_than_that_of_the_map(planned):
    plan = planned(sections=("magnitude,bet,support,peel",))
    assert plan.saved("qsm")[2:5] == ("mask", "reliable_mask", "support_mask")


TWO_PASS = _method("merging", "two", ("reliable_chi", "reliable_mask", "filled_chi", "mask"), ("chi",))


def test_two_passes_repeat_what_depends_on_the_mask_and_nothing_else(planned):
    plan = planned(merging=TWO_PASS)
    (chi,) = (group for group in plan.groups if group.name == "chi")
    assert [step.name for step in chi.steps] == [
        "background.remove", "inversion.invert", "background.remove", "inversion.invert", "merging.two",
        "referencing.refer",
    ]  # fmt: skip
    reliable, filled = chi.steps[1], chi.steps[3]
    assert reliable.consumes == ("reliable_local_field", "reliable_mask") and reliable.produces == ("reliable_chi",)
    assert filled.consumes == ("local_field", "mask") and filled.produces == ("filled_chi",)
    assert reliable.names["chi"] == "reliable_chi"
    assert "chi" in plan.saved("qsm") and "reliable_chi" not in plan.saved("qsm")


def test_two_passes_of_a_total_field_inversion(planned):
    plan = planned(
        merging=TWO_PASS, inversion=_method("inversion", "tfi", ("total_field", "mask"), ("chi", "local_field"))
    )
    assert names(plan)["chi"] == ["inversion.tfi", "inversion.tfi", "merging.two", "referencing.refer"]


def test_echo_by_echo_repeats_the_chain_from_the_field_on(planned):
    mean = _method("merging", "mean", ("echo_chi", "mask"), ("chi",))
    plan = planned(merging=mean)
    assert names(plan)["chi"] == ["merging.each_echo", "merging.mean", "referencing.refer"]
    each = plan.groups[-1].steps[0]
    assert [step.name for step in each.nested] == ["field.fit", "background.remove", "inversion.invert"]
    assert each.consumes == ("unwrapped_phase", "mask"), "unwrapping sees all echoes"


#: Stages whose methods run only where another than the default asks for them, with what else is then chosen.
ASKED: dict[str, dict] = {
    "offset": {"field": {"method": "weighted_fit"}},
    "unwrapping": {"field": {"method": "weighted_fit"}},
    "background": {"inversion": {"method": "tkd"}},
    "swi": {"outputs": {"swi": True}},
    "relaxometry": {"outputs": {"r2star": True}},
    "separation": {"outputs": {"separation": True}},
}
#: Stages with tests of their own: sections of masks, import of coils, another scan, several scans.
ELSEWHERE = ("masking", "combination", "spinecho", "orientation")


@pytest.mark.parametrize(
    ("stage", "key"), [(s, k) for s, methods in catalogue().items() if s not in ELSEWHERE for k in methods]
)
def test_every_method_can_be_chosen_for_a_participant(stage, key, tmp_path):
    """By the option ``--STAGE KEY``: the step is planned with all its parameters, or is nothing to do."""
    folder = tmp_path / "sub-1" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-1_atlas-x_dseg.nii.gz").touch()
    options = build_parser().parse_args(["in", "out", "participant", stage_option(stage), key])
    settings = config.load(flags={**ASKED.get(stage, {}), **options.flags})
    assert settings.stage(stage).method == key
    ran = {step.name: step for step in plan_unit(unit(), settings, {"x": tmp_path}).steps()}
    nested = {inner.name: inner for step in ran.values() for inner in step.nested}
    step = {**ran, **nested}.get(f"{stage}.{key}")
    if key == "none" and step is None:
        assert not any(name.startswith(f"{stage}.") for name in ran)
        return
    assert step is not None, list(ran)
    assert set(step.parameters) == {declared.name for declared in catalogue()[stage][key].declarations}


def _in_derivatives(tmp_path, *files):
    for name in files:
        (tmp_path / "sub-1" / "anat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub-1" / "anat" / name).touch()
    return {"x": tmp_path}


def test_fluid_to_refer_to_is_given_or_found(tmp_path):
    settings = config.load(flags={"referencing": {"method": "csf"}})
    plan = plan_unit(unit(), settings)
    order = [step.name for step in plan.steps()]
    assert order.index("masking.ventricles") == order.index("referencing.csf") - 1
    found = next(step for step in plan.steps() if step.name == "masking.ventricles")
    assert found.parameters == {"level": 0.28, "depth": 10.0} and "csf_mask" in plan.saved("qsm")
    with pytest.raises(InputError, match="label-CSF_mask"):
        plan_unit(unit(1), settings)
    given = _in_derivatives(tmp_path, "sub-1_desc-brain_mask.nii.gz", "sub-1_label-CSF_mask.nii.gz")
    plan = plan_unit(unit(1), settings, given)
    assert "masking.ventricles" not in [step.name for step in plan.steps()]
    assert plan.masks["input:csf"].name == "sub-1_label-CSF_mask.nii.gz"


def test_labels_to_refer_to_are_the_only_ones(tmp_path):
    settings = config.load(flags={"referencing": {"method": "region", "region": {"labels": [3]}}})
    with pytest.raises(MissingInputError, match=r"expected a dseg image .*--segmentation"):
        plan_unit(unit(), settings)
    given = _in_derivatives(tmp_path, "sub-1_space-T1w_dseg.nii.gz", "sub-1_atlas-a_dseg.nii.gz")
    assert plan_unit(unit(), settings, given).masks["input:labels"].name == "sub-1_atlas-a_dseg.nii.gz"
    with pytest.raises(InputError, match=r"found sub-1_atlas-a_dseg.nii.gz, sub-1_seg-b_dseg.nii.gz"):
        plan_unit(unit(), settings, _in_derivatives(tmp_path, "sub-1_seg-b_dseg.nii.gz"))
