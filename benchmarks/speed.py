"""CPU seconds of every registered method at 160^3, 22 % of it brain, beside those measured for QSM.rs 0.20.

All methods get four echoes and run at their defaults, once their kernels are compiled. The CLEAR-SWI of QSM.rs takes
one echo, neither corrects the sensitivity of the coils nor thresholds the magnitude; it has a row of its own with the
same work. Beside our whole method stand its 0.25 s and the 2.0 s of its correction of the sensitivity.

The cost of a method's own transforms is that of as many plain three-dimensional real transforms, forward and back, on
each grid that it transforms (its box with the padding), all rows and planes. A method and its plain transforms run in
turn, so that both meet the machine at the same speed, and of each the fastest run counts. Where a method passes over
empty rows it saves some of that. The default inversion sends two volumes through one complex transform, which counts as
two. Cosine transforms, and smoothing by recursion, are not counted.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import heads
from benchmarks.inputs import Inputs
from qsmxt.algorithms import fourier, parallel
from qsmxt.errors import QSMxTError
from qsmxt.phantom.head import HeadSettings
from qsmxt.registry.methods import Method, all_methods

#: How many transforms of a shape there are, forward (0) and back (1).
Counts = Counter[tuple[tuple[int, int, int], int]]

#: CPU seconds of QSM.rs (double precision, two cores) by our ``stage.method``.
QSM_RS: dict[str, float] = {
    "unwrapping.romeo": 1.1,
    "background.vsharp": 5.9,
    "background.sharp": 0.7,
    "background.resharp": 12.2,
    "background.ismv": 10.6,
    "background.lbv": 5.4,
    "background.pdf": 196.0,
    "inversion.tkd": 0.24,
    "inversion.tsvd": 0.26,
    "inversion.tikhonov": 0.27,
    "inversion.rts": 5.1,
    "inversion.tv": 6.1,
    "inversion.medi": 14.0,
    "inversion.hdqsm": 18.0,
    "inversion.ndi": 74.0,
    "inversion.ilsqr": 45.0,
    "inversion.tgv": 85.0,
    "relaxometry.arlo": 0.2,
    "swi.clearswi": 2.25,
    "swi.clearswi, one echo": 0.25,
}

#: What CLEAR-SWI does in QSM.rs, as parameters of ours, and the row that shows it.
ONE_ECHO_ROW = "swi.clearswi, one echo"
ONE_ECHO = {"softplus": False, "sensitivity": 0.0}

#: What methods need that has no default.
NEEDED: dict[str, dict[str, Any]] = {"referencing.region": {"labels": (1,)}}

#: Runs of which the fastest counts: so many, and until they took so many seconds; one, where that takes so long.
RUNS = 3
ENOUGH = 5.0
LONG = 20.0

#: Plain transforms of a shape from which on more are not run but counted as the mean of these.
MANY = 100

#: Bytes up to which the C library takes memory that was used before, as it does in a run of several methods.
REUSED = 31 << 20

#: Voxels along every axis; of the small cube on which kernels are compiled first.
SIDE = 160
WARM = 40

#: A head of 1.22 mm, of which the brain fills 22 % of the volume.
CASE = HeadSettings(
    voxel_size=(1.22, 1.22, 1.22),
    field_of_view=(1.22 * SIDE, 1.22 * SIDE, 1.22 * SIDE),
    echo_times=(0.004, 0.012, 0.020, 0.028),
    snr=100.0,
    oversampling=1,
)


@dataclass(frozen=True)
class Row:
    """Of one method: CPU seconds, those of plain transforms of as many volumes, and those of QSM.rs.

    ``None``: cannot run without files of the user, does no such transforms, has no counterpart.
    """

    name: str
    seconds: float | None
    transforms: float | None
    theirs: float | None


def table(only: str = "") -> Iterator[Row]:
    """A row for every registered method whose name holds ``only``, and one for the CLEAR-SWI of QSM.rs."""
    head = heads.cached("speed", CASE)
    arrays = Inputs(head)
    np.empty(REUSED, dtype=np.uint8)  # once given back, arrays up to this size take memory that was used before
    for method in all_methods().values():
        if only in method.name:
            yield _row(method.name, method, arrays, NEEDED.get(method.name, {}))
        if method.name == "swi.clearswi" and only in ONE_ECHO_ROW:
            yield _row(ONE_ECHO_ROW, method, arrays, ONE_ECHO, 1)


def _row(name: str, method: Method, arrays: Inputs, parameters: dict[str, Any], echoes: int | None = None) -> Row:
    theirs = QSM_RS.get(name)
    if method.extra:
        return Row(name, None, None, theirs)
    given = arrays.of(method)
    if echoes is not None:
        given |= {key: given[key][:echoes] for key in ("magnitude", "unwrapped_phase", "echo_times")}
    with contextlib.suppress(QSMxTError):  # what is left of a brain may be too small for a method
        method.run(arrays.of(method, WARM), arrays.grid.with_shape((WARM,) * 3), parameters)
    with _counted() as counts:
        first = _cpu(lambda: method.run(given, arrays.grid, parameters))
    seconds, cost = _fastest(lambda: method.run(given, arrays.grid, parameters), counts, first)
    return Row(name, seconds, cost or None, theirs)


def _cpu(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _fastest(work: Callable[[], Any], counts: Counts, first: float) -> tuple[float, float]:
    """CPU seconds of the fastest of a few runs, and of their plain transforms, with which they take turns.

    The ``first``, which took so many seconds, counts only if it took too long for others.
    """
    found: list[float] = []
    plain: list[float] = []
    while first < LONG and (len(found) < RUNS or sum(found) < ENOUGH):
        found.append(_cpu(work))
        plain.append(_plain(counts))
    return (min(found), min(plain)) if found else (first, _plain(counts))


def _plain(counts: Counts) -> float:
    """CPU seconds of as many transforms of volumes without empty rows."""
    total = 0.0
    for shape in {shape for shape, _ in counts}:
        numbers = counts[shape, 0], counts[shape, 1]
        means = _transforms(shape, min(MANY, max(numbers)))
        total += sum(number * mean for number, mean in zip(numbers, means, strict=True))
    return total


def _transforms(shape: tuple[int, int, int], times: int) -> tuple[float, float]:
    """Mean CPU seconds of a transform and of its inverse, after one that does not count."""
    volume = np.zeros(shape, dtype=np.float32)
    fourier.inverse(fourier.forward(volume), shape)
    there, back = 0.0, 0.0
    for _ in range(times):
        start = time.process_time()
        spectrum = fourier.forward(volume)
        middle = time.process_time()
        fourier.inverse(spectrum, shape)
        there, back = there + middle - start, back + time.process_time() - middle
    return there / times, back / times


@contextmanager
def _counted() -> Iterator[Counts]:
    """How many volumes of a shape are transformed meanwhile, forward (0) and back (1)."""
    counts: Counts = Counter()
    forward, inverse, transform = fourier._planes_forward, fourier._planes_inverse, fourier.transform
    weighted = fourier._planes_weighted

    def count_forward(start: int, stop: int, planes: Any, spectrum: Any, support: Any = None) -> None:
        counts[(len(spectrum), *planes.shape[1:]), 0] += start == 0
        forward(start, stop, planes, spectrum, support)

    def count_inverse(start: int, stop: int, spectrum: Any, planes: Any, support: Any = None) -> None:
        counts[(len(spectrum), *planes.shape[1:]), 1] += start == 0
        inverse(start, stop, spectrum, planes, support)

    def count_weighted(start: int, stop: int, spectrum: Any, weights: Any, support: Any) -> None:
        for direction in (0, 1):
            counts[weights.shape, direction] += start == 0
        weighted(start, stop, spectrum, weights, support)

    def count_pair(piece: Any, axes: Any, there: bool) -> None:
        if axes == fourier.PLANE:  # slabs that start at the first plane lie at the start of their volume
            counts[piece.base.shape, 0 if there else 1] += 2 * (piece.ctypes.data == piece.base.ctypes.data)
        transform(piece, axes, there)

    counted = {"_planes_forward": count_forward, "_planes_inverse": count_inverse, "_planes_weighted": count_weighted}
    with mock.patch.multiple(fourier, transform=count_pair, **counted):
        yield counts


def transform_seconds(shape: tuple[int, int, int] = (SIDE, SIDE, SIDE)) -> float:
    """CPU seconds of one real transform and its inverse, the unit in which solvers are counted."""
    return min(sum(_transforms(shape, 1)) for _ in range(8))


def threads() -> int:
    """Threads in use, for the caption."""
    return parallel.thread_count()
