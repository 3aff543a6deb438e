"""From wrapped phase to susceptibility: the default chain and what it competes with, on arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qsmxt import config
from qsmxt.algorithms import metrics
from qsmxt.algorithms.engine import to_host
from qsmxt.algorithms.masking.build import build_mask
from qsmxt.algorithms.quality import phase_quality
from qsmxt.phantom.head import Head
from qsmxt.registry.methods import lookup, resolve

#: Voxels within which of the brain's edge the core ends.
CORE_DEPTH = 5


#: Stages with methods, in order; masking lies between field and background.
STAGES = ("offset", "unwrapping", "field", "background", "inversion")

#: What a chain is given, besides the mask.
AVAILABLE = {"wrapped_phase", "magnitude", "echo_times", "field_strength", "phase_quality", "mask", "reliable_mask"}


@dataclass(frozen=True)
class Chain:
    """Methods by stage (with parameters); stages that are missing are skipped."""

    name: str
    methods: dict[str, tuple[str, dict[str, Any]]]
    reliable: bool = False


def default_chain() -> Chain:
    """What runs when nothing is asked for."""
    table = config.default_table()
    chosen: dict[str, tuple[str, dict[str, Any]]] = {}
    for stage in STAGES:
        entry = dict(table.get(stage, {}))
        key = entry.pop("method", config.NO_METHOD)
        if key != config.NO_METHOD:
            chosen[stage] = (key, entry.get(key, {}))
    needed = resolve("chi", [lookup(stage, key) for stage, (key, _) in chosen.items()], AVAILABLE)
    methods = {method.stage: chosen[method.stage] for method in needed}
    return Chain("default", methods)


def _classical(name: str, background: str, inversion: str, *, reliable: bool = False, **parameters: Any) -> Chain:
    methods = {
        "field": default_chain().methods["field"],
        "background": (background, parameters.get("background", {})),
        "inversion": (inversion, parameters.get("inversion", {})),
    }
    return Chain(name, methods, reliable)


#: The comparison of the documentation. All share the field map and the brain mask of the default.
CHAINS: tuple[Chain, ...] = (
    default_chain(),
    _classical("PDF + TV", "pdf", "tv"),
    _classical("PDF + TV, reliable mask", "pdf", "tv", reliable=True),
    _classical("RESHARP + TV", "resharp", "tv"),
    _classical("LBV + TV", "lbv", "tv"),
    _classical("V-SHARP + TV", "vsharp", "tv"),
    _classical("V-SHARP + WH-QSM", "vsharp", "whqsm"),
    _classical("V-SHARP + RTS", "vsharp", "rts"),
    _classical("PDF + RTS", "pdf", "rts"),
    _classical("TV-PDF + MEDI", "tvpdf", "medi"),
)


@dataclass
class Result:
    """Maps, CPU seconds and wall seconds by stage, and scores of one run."""

    chi: np.ndarray
    mask: np.ndarray
    arrays: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)


def run(chain: Chain, head: Head, send: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Result:
    """Run ``chain`` on ``head`` with our own mask; methods that can compute on what ``send`` makes of the arrays."""
    arrays: dict[str, Any] = {
        "wrapped_phase": head.wrapped_phase,
        "offset_free_phase": head.wrapped_phase,
        "magnitude": head.magnitude,
        "echo_times": head.echo_times,
        "field_strength": head.field_strength,
    }
    seconds: dict[str, float] = {}
    wall: dict[str, float] = {}
    for stage in (*STAGES[:3], "masking", *STAGES[3:]):
        start, started = time.process_time(), time.perf_counter()
        if stage == "masking":
            _make_masks(arrays, head, chain.reliable)
        elif stage in chain.methods:
            key, parameters = chain.methods[stage]
            given = dict(arrays)
            if stage in ("background", "inversion"):
                given["mask"] = arrays["support_mask"]
            if stage == "inversion" and given.get("eroded_mask") is not None:
                given["mask"] = given["eroded_mask"]
            method = lookup(stage, key)
            if send and method.on_device:
                wanted = (*method.consumes, *method.optional)
                given = send({name: value for name, value in given.items() if name in wanted})
            products = method.run(given, head.grid, parameters)
            arrays.update({name: to_host(value) for name, value in products.items()})
        else:
            continue
        seconds[stage], wall[stage] = time.process_time() - start, time.perf_counter() - started
    mask = arrays["mask"]
    if arrays.get("eroded_mask") is not None:
        mask = mask & arrays["eroded_mask"]
    arrays["chi"] = np.where(mask, arrays["chi"], np.float32(0))
    return Result(arrays["chi"], mask, arrays, seconds, wall)


def _make_masks(arrays: dict[str, Any], head: Head, reliable: bool) -> None:
    quality = phase_quality(head.wrapped_phase, head.magnitude, head.echo_times, head.grid)
    arrays["phase_quality"] = quality
    masking = config.default_table()["masking"]
    options = {name: value for name, value in masking.items() if name in ("combine", "human_brain")}
    result = build_mask(masking["sections"], arrays, head.grid, **options)
    arrays["mask"] = result.reliable_mask if reliable else result.mask
    arrays["support_mask"] = result.reliable_support_mask if reliable else result.support_mask
    arrays["reliable_mask"] = result.reliable_mask


def scores(result: Result, head: Head) -> dict[str, float]:
    """What the documentation tabulates; percent where a share or an error is meant."""
    brain = head.brain & result.mask
    core = metrics.core(head.brain, CORE_DEPTH) & result.mask
    total, truth = result.arrays["total_field"], head.total_field
    reliable = result.arrays["reliable_mask"] & head.brain
    step = 1 / (head.echo_times[-1] * 42.577478 * head.field_strength)
    wrong = np.abs(total - truth - np.median((total - truth)[reliable])) > step / 2
    return {
        "NRMSE core": metrics.nrmse(result.chi, head.chi, core),
        "NRMSE": metrics.nrmse(result.chi, head.chi, brain),
        "XSIM": metrics.xsim(result.chi, head.chi, brain),
        "deep grey slope": metrics.slope(result.chi, head.chi, head.labels, core),
        "brain kept": 100 * brain.sum() / head.brain.sum(),
        "field error": metrics.nrmse(total, truth, reliable),
        "wrong wraps": 100 * (wrong & head.brain).sum() / head.brain.sum(),
        "wrong wraps, reliable": 100 * (wrong & reliable).sum() / reliable.sum(),
        "CPU s": sum(result.seconds.values()),
    }


def rim(result: Result, head: Head) -> dict[str, float]:
    """Error of the map by distance from the edge of the brain, percent of the truth at that distance."""
    brain = head.brain & result.mask
    profile = metrics.edge_profile(result.chi, head.chi, brain, head.grid)
    return {_span(near, far): error for (near, far), error in profile.items()}


def _span(near: float, far: float) -> str:
    return f"{near:g} mm and more" if far == float("inf") else f"{near:g} to {far:g} mm"
