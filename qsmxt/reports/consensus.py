"""Which recommendations of the ISMRM consensus on QSM a run follows, and where it departs; from the steps that ran.

The recommendations are those of the consensus of the electro-magnetic tissue properties study group of 2024
(doi:10.1002/mrm.30006), as far as the record of a run can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Methods by what the recommendations call them.
EXACT_UNWRAPPING = {"romeo", "best", "joint_fit"}
BRAIN = {"bet", "hdbet", "synthstrip"}
PHASE_QUALITY = {"quality", "hagberg", "robust"}
SHARP_OR_PDF = {"sharp", "resharp", "vsharp", "ismv", "msmv", "pdf"}
SPARSE = {"tv", "tvtfi", "tfi", "medi", "rts", "tgv", "nltv", "nltgv", "l1qsm", "hdqsm", "whqsm", "tgv_phase"}


@dataclass(frozen=True)
class Verdict:
    """A recommendation, whether it is followed (``None``: it does not apply), and what was found."""

    recommendation: str
    followed: bool | None
    found: str


def compliance(record: Mapping[str, Any]) -> list[Verdict]:
    """Verdicts on the run of ``record``; empty if it made no susceptibility map."""
    steps = [str(step.get("method", "")) for step in record.get("steps", ())]
    stages: dict[str, list[str]] = {}
    for step in steps:
        stage, _, key = step.partition(".")
        stages.setdefault(stage, []).append(key)
    if not stages.keys() & {"inversion", "orientation"}:
        return []
    echoes = len(record.get("echo_times", ()))
    return [
        Verdict("several echoes", echoes > 1, f"{echoes} echo{'es' if echoes != 1 else ''}"),
        _unwrapping(stages),
        Verdict(
            "echoes combined before background removal",
            None if echoes < 2 else "echo_mean" not in stages.get("merging", ()),
            _list(stages.get("field", ()), "one echo" if echoes < 2 else "no field map"),
        ),
        _mask(stages),
        _background(stages),
        Verdict(
            "optimisation with sparse regularisation",
            bool(SPARSE & set(stages.get("inversion", ()))),
            _list(stages.get("inversion", ()), "none"),
        ),
        Verdict("named reference", "referencing" in stages, _list(stages.get("referencing", ()), "no reference")),
        Verdict("algorithms, parameters and version reported", True, "this page and the sidecars"),
    ]


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence."""
    counted = [verdict for verdict in verdicts if verdict.followed is not None]
    departs = [f"{verdict.recommendation} ({verdict.found})" for verdict in counted if not verdict.followed]
    text = f"{len(counted) - len(departs)} of {len(counted)} recommendations of the ISMRM consensus (2024) are followed"
    return f"{text}; the run departs from: {'; '.join(departs)}." if departs else f"{text}."


def _unwrapping(stages: Mapping[str, list[str]]) -> Verdict:
    ran = [*stages.get("unwrapping", ()), *(key for key in stages.get("field", ()) if key in EXACT_UNWRAPPING)]
    return Verdict(
        "exact phase unwrapping",
        all(key in EXACT_UNWRAPPING for key in ran) if ran else None,
        _list(ran, "no separate unwrapping"),
    )


def _mask(stages: Mapping[str, list[str]]) -> Verdict:
    ran = set(stages.get("masking", ()))
    two_pass = "two_pass" in stages.get("merging", ())
    found = _list(stages.get("masking", ()), "a mask that was given")
    by_both = bool(ran & BRAIN) and (two_pass or bool(ran & PHASE_QUALITY))
    return Verdict("mask of brain extraction and phase quality", by_both if ran else None, found)


def _background(stages: Mapping[str, list[str]]) -> Verdict:
    ran = stages.get("background", [])
    found = _list(ran, "total field inverted in one step")
    return Verdict("background removal of SHARP type or PDF", bool(SHARP_OR_PDF & set(ran)), found)


def _list(keys: Iterable[str], otherwise: str) -> str:
    return ", ".join(dict.fromkeys(keys)) or otherwise
