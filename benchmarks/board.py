"""Every method alone, given the truth of the stage before it: a head at 7 T and 1 mm with four echoes.

The case, the scores and the mask are those of the public QSM-CI board: the mask is the whole brain and is not eroded,
and what a method gives up counts as zero. All methods run at their default parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from qsmxt.algorithms import metrics
from qsmxt.phantom.anatomy import INDEX
from qsmxt.phantom.head import Head
from qsmxt.registry.methods import Method, lookup, methods

#: Name of the head in :mod:`benchmarks.heads`.
HEAD = "7T, 1 mm, SNR 100"

#: NRMSE (percent) of the best entry of QSM-CI for each of our keys, tuned on its data, August 2026.
BOARD: dict[str, float] = {
    "background.resharp": 20.7,
    "background.ismv": 28.1,
    "background.sharp": 36.3,
    "background.lbv": 42.4,
    "background.vsharp": 42.6,
    "background.pdf": 44.5,
    "background.iharperella": 75.9,
    "background.harperella": 105.0,
    "background.msmv": 134.0,
    "inversion.tv": 26.5,
    "inversion.nltv": 28.9,
    "inversion.nltgv": 30.0,
    "inversion.hdqsm": 31.1,
    "inversion.l1qsm": 34.8,
    "inversion.whqsm": 35.6,
    "inversion.tkd": 36.3,
    "inversion.rts": 38.4,
    "inversion.tikhonov": 38.7,
    "inversion.tsvd": 39.1,
    "inversion.ilsqr": 40.8,
    "inversion.star": 48.3,
    "inversion.ndi": 48.3,
    "inversion.medi": 52.0,
    "inversion.tgv": 56.1,
    "inversion.tfi": 81.1,
    "inversion.qsmart": 83.8,
}

#: Chains from the true total field, with their NRMSE on the board; iSMV and HD-QSM are the best there.
CHAINS: tuple[tuple[str, str, float | None], ...] = (
    ("tvpdf", "medi", None),
    ("tvpdf", "l1qsm", None),
    ("tvpdf", "tv", None),
    ("ismv", "hdqsm", 39.1),
    ("ismv", "tv", 47.9),
    ("resharp", "whqsm", 41.5),
    ("resharp", "tv", 51.3),
    ("vsharp", "tv", 54.6),
    ("vsharp", "rts", 55.0),
    ("pdf", "tv", 58.1),
)


def available(head: Head) -> dict[str, Any]:
    """What the stages are given besides the field of their kind."""
    phase = np.angle(np.exp(1j * (head.wrapped_phase - head.phase_offset))).astype(np.float32)
    return {
        "mask": head.brain,
        "magnitude": head.magnitude,
        "echo_times": np.array(head.echo_times),
        "field_strength": head.field_strength,
        "wrapped_phase": head.wrapped_phase,
        "offset_free_phase": phase,
    }


def background(head: Head, only: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Scores of the local field of every background method from the true total field."""
    given = available(head) | {"total_field": head.total_field}
    for key, method in methods("background").items():
        if only in f"background.{key}":
            made, seconds = _timed(method, given, head)
            kept = made["eroded_mask"] & head.brain
            local = np.where(head.brain, made["local_field"], 0)
            yield key, field_scores(local, head) | {"kept": _share(kept, head), "CPU s": seconds} | _public(method)


def inversion(head: Head, only: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Scores of every inversion from the true local field, or the true total field if it takes that."""
    given = available(head) | {"local_field": head.local_field, "total_field": head.total_field}
    for key, method in methods("inversion").items():
        if only in f"inversion.{key}" and method.extra is None:
            made, seconds = _timed(method, given, head)
            yield key, map_scores(made["chi"], head) | {"CPU s": seconds} | _public(method)


def chains(head: Head, only: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Scores of background removal and inversion, one after the other, from the true total field."""
    for first, second, public in CHAINS:
        name = f"{first} + {second}"
        if only not in name:
            continue
        given = available(head) | {"total_field": head.total_field}
        made, seconds = _timed(lookup("background", first), given, head)
        given |= {"local_field": made["local_field"], "mask": made["eroded_mask"]}
        found, more = _timed(lookup("inversion", second), given, head)
        scores = map_scores(found["chi"], head) | {"kept": _share(given["mask"], head), "CPU s": seconds + more}
        yield name, scores | ({} if public is None else {"board": public})


def field_scores(field: np.ndarray, head: Head) -> dict[str, float]:
    """Scores of a local field over the whole brain."""
    return {
        "NRMSE": metrics.nrmse(field, head.local_field, head.brain),
        "detrended": metrics.detrended_nrmse(field, head.local_field, head.brain),
        "XSIM": metrics.xsim(field, head.local_field, head.brain),
    }


def map_scores(chi: np.ndarray, head: Head) -> dict[str, float]:
    """Scores of a susceptibility map over the whole brain."""
    calcification = head.labels == INDEX["calcification"]
    return {
        "NRMSE": metrics.nrmse(chi, head.chi, head.brain),
        "detrended": metrics.detrended_nrmse(chi, head.chi, head.brain),
        "XSIM": metrics.xsim(chi, head.chi, head.brain),
        "HFEN": metrics.hfen(chi, head.chi, head.brain),
        "deep grey slope": metrics.slope(chi, head.chi, head.labels, head.brain),
        "calcification": metrics.moment_deviation(chi, head.chi, calcification, head.grid),
    }


def _timed(method: Method, given: dict[str, Any], head: Head) -> tuple[dict[str, Any], float]:
    start = time.process_time()
    made = method.run(given, head.grid)
    return made, time.process_time() - start


def _share(kept: np.ndarray, head: Head) -> float:
    return 100 * float(np.count_nonzero(kept & head.brain)) / float(np.count_nonzero(head.brain))


def _public(method: Method) -> dict[str, float]:
    return {"board": BOARD[method.name]} if method.name in BOARD else {}
