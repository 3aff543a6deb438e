r"""Difference between odd and even echoes of bipolar readouts.

When odd and even echoes are read in opposite directions, delays and eddy currents add a smooth phase E, mostly linear
along the readout, to the even ones: :math:`\varphi_e = \varphi_0 + \omega T_e + E\,[e \text{ even}]`. An offset that
was estimated from the first two echoes then is :math:`\varphi_0 - m E` with :math:`m = T_1 / (T_2 - T_1)`, and the
phase without it is :math:`\omega T_e + m E` at odd and :math:`\omega T_e + (m + 1) E` at even echoes. From three echoes

.. math:: G = \varphi_1 + \varphi_3 - k \varphi_2 = f E, \qquad k = \frac{T_1 + T_3}{T_2}, \qquad f = (2 - k) m - k ,

in which the field cancels. G is smoothed (:mod:`~qsmxt.algorithms.offset.smoothing`), and :math:`G\,m / f` is
subtracted from the odd, :math:`G\,(m + 1) / f` from the even echoes, for equal and for unequal spacing.

Sequence headers seldom tell whether a readout was bipolar. The data do: where it was not, G is noise around zero. E is
corrected if its slope along an axis, the median of the wrapped steps from voxel to voxel, exceeds five standard errors
and makes more than 0.1 rad over the width of the data.

References
----------
Eckstein 2021, thesis (doi:10.34726/hss.2021.43447).
"""

from __future__ import annotations

import math

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import wrap
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.offset.smoothing import smooth_phase
from qsmxt.algorithms.signal import SAMPLE
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Slope that counts, in standard errors.
SIGNIFICANT = 5.0

#: Difference over the width of the data that counts, rad.
RELEVANT = 0.1

#: Steps from voxel to voxel without which the slope is not judged.
LEAST_STEPS = 100


def bipolar_shares(times: np.ndarray) -> tuple[float, float, float, float]:
    """``k``, ``f``, and what part of G the odd and the even echoes carry.

    Raises
    ------
    InputError
        If there are fewer than three echoes, or the echo times make f zero.
    """
    if len(times) < 3:
        raise InputError(
            f"bipolar correction: expected at least 3 echoes, found {len(times)}; switch the bipolar correction off"
        )
    m = times[0] / (times[1] - times[0])
    k = (times[0] + times[2]) / times[1]
    f = (2 - k) * m - k
    if abs(f) < 1e-6:
        raise InputError(f"bipolar correction: the echo times {times[:3]} s do not tell odd from even echoes")
    return k, f, m / f, (m + 1) / f


def bipolar_phase(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    trust: np.ndarray,
    grid: Grid,
    width: float,
    *,
    always: bool = False,
) -> np.ndarray | None:
    """The smooth G (rad, float32), or ``None`` if the readout was not bipolar.

    Parameters
    ----------
    phase
        First three echoes without the offset of the first two, rad; the second one must be unwrapped, with the multiple
        of :math:`2\\pi` that suits the first one.
    magnitude, times
        Of the same echoes (more do no harm).
    trust
        Factor of the weights, from 0 (voxel does not count) to 1.
    grid
        Geometry of the arrays.
    width
        Width of the smoothing, mm.
    always
        Skip the test.
    """
    k, f, *_ = bipolar_shares(times)
    combined, weight = np.empty(trust.shape, dtype=np.float32), np.empty(trust.shape, dtype=np.float32)
    parallel.run(_combine, len(trust), phase, magnitude, np.float32(k), trust, combined, weight)
    if not always:
        least = 0.3 * float(np.median(_thinned(weight[weight > 0]))) if weight.any() else 0.0
        if not any(_slope_counts(combined, weight > least, axis, abs(f)) for axis in range(3)):
            return None
    return smooth_phase(combined, weight, grid, width)


@kernel
def _combine(start, stop, phase, magnitude, k, trust, combined, weight):
    """Wrapped G, and trust over its variance in units of the noise."""
    for x in range(start, stop):
        for y in range(trust.shape[1]):
            a, b, c, out = phase[0, x, y], phase[1, x, y], phase[2, x, y], combined[x, y]
            for z in range(out.size):
                out[z] = wrap(a[z] + c[z] - k * b[z])
            a, b, c, out, factor = magnitude[0, x, y], magnitude[1, x, y], magnitude[2, x, y], weight[x, y], trust[x, y]
            for z in range(out.size):
                p, q, r = a[z] * a[z], b[z] * b[z], c[z] * c[z]
                variance = q * r + p * q + k * k * p * r
                out[z] = factor[z] * (p * q * r / variance) if variance > 0 else np.float32(0)


def _thinned(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // SAMPLE)]


def _slope_counts(combined: np.ndarray, strong: np.ndarray, axis: int, factor: float) -> bool:
    """Whether the slope along ``axis`` over the voxels that are ``strong`` is significant and relevant."""
    every = max(1, math.isqrt(combined.size // SAMPLE))
    lines = tuple(slice(None) if a == axis else slice(None, None, min(every, n)) for a, n in enumerate(combined.shape))
    combined, strong = np.moveaxis(combined[lines], axis, 0), np.moveaxis(strong[lines], axis, 0)
    both = strong[1:] & strong[:-1]
    if np.count_nonzero(both) < LEAST_STEPS:
        return False
    step = (combined[1:] - combined[:-1])[both].astype(np.float64)
    step -= 2 * np.pi * np.rint(step / (2 * np.pi))
    slope = float(np.median(step))
    spread = 1.4826 * float(np.median(np.abs(step - slope)))
    error = 1.2533 * spread / math.sqrt(step.size)
    extent = np.count_nonzero(strong.any(axis=(1, 2)))
    return bool(abs(slope) > SIGNIFICANT * error and abs(slope) * extent / factor > RELEVANT)
