"""Verdicts follow from the steps that ran."""

from __future__ import annotations

import pytest

from qsmxt.registry.catalogue import catalogue
from qsmxt.reports.consensus import BRAIN, EXACT_UNWRAPPING, PHASE_QUALITY, SHARP_OR_PDF, SPARSE, compliance, summary

FULL = (
    "unwrapping.romeo", "field.weighted_fit", "masking.bet", "masking.quality", "background.pdf", "inversion.tv",
    "referencing.mean",
)  # fmt: skip


def _record(*methods, echoes=3):
    return {"steps": [{"method": name} for name in methods], "echo_times": [0.01] * echoes}


def _departs(*methods, echoes=3):
    return [v.recommendation for v in compliance(_record(*methods, echoes=echoes)) if v.followed is False]


def test_recommended_chain_departs_nowhere():
    assert _departs(*FULL) == []
    assert summary(compliance(_record(*FULL))).startswith("8 of 8 recommendations")


@pytest.mark.parametrize(
    ("old", "new", "departure"),
    [
        ("unwrapping.romeo", "unwrapping.laplacian", "exact phase unwrapping"),
        ("masking.quality", "masking.close", "mask of brain extraction and phase quality"),
        ("masking.bet", "masking.otsu", "mask of brain extraction and phase quality"),
        ("background.pdf", "background.lbv", "background removal of SHARP type or PDF"),
        ("inversion.tv", "inversion.tkd", "optimisation with sparse regularisation"),
        ("referencing.mean", "swi.clearswi", "named reference"),
    ],
)
def test_each_departure_is_named_with_what_ran(old, new, departure):
    chain = [new if name == old else name for name in FULL]
    assert _departs(*chain) == [departure]
    assert departure in summary(compliance(_record(*chain)))


def test_one_echo_cannot_be_combined_late():
    verdicts = {v.recommendation: v.followed for v in compliance(_record(*FULL, echoes=1))}
    assert verdicts["several echoes"] is False and verdicts["echoes combined before background removal"] is None
    assert _departs(*FULL, "merging.echo_mean") == ["echoes combined before background removal"]


def test_outputs_without_susceptibility_have_no_verdict():
    assert compliance(_record("swi.clearswi")) == []


def test_methods_are_those_of_the_catalogue():
    known = {key for methods in catalogue().values() for key in methods}
    assert {"romeo", "joint_fit"} <= EXACT_UNWRAPPING & known and "bet" in BRAIN & known
    assert {"quality", "hagberg", "robust"} <= PHASE_QUALITY & known and known >= SHARP_OR_PDF
    assert {"tv", "medi", "rts"} <= SPARSE & known
