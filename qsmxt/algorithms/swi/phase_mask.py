r"""Weights from 0 to 1 that darken where a phase or frequency is high (or low).

Positive phase means a field above that of the surroundings (paramagnetic veins parallel to B0). For the phase x,
strength s, and quantiles over the mask:

.. math::

    \text{tanh} &: \tfrac12\Big(1 + \tanh\big(1 - x/m\big)\Big), \quad m = \tfrac{10}{s}\,\mathrm{median}(x : x > 0)\\
    \text{positive} &: (1 - x / x_{99})^s \text{ for } x > 0,\; 1 \text{ otherwise}\\
    \text{triangular} &: (1 - |x| / |x|_{99})^s

``negative_tanh`` and ``negative`` are those of -x. :math:`x_{99}` is the 99th percentile of the values of that sign;
beyond it the weight is 0.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.exponential import decay
from qsmxt.algorithms.signal import SAMPLE

#: Shapes of the phase mask.
PHASE_MASKS = ("tanh", "negative_tanh", "positive", "negative", "triangular")


def phase_mask(phase: np.ndarray, mask: np.ndarray, kind: str, strength: float) -> np.ndarray:
    """Weights of ``phase`` (any unit), float32, same shape; they mean nothing outside ``mask``."""
    signed = -phase if kind.startswith("negative") else phase
    sample = signed[mask]
    sample = sample[:: max(1, sample.size // SAMPLE)]
    out = np.empty(phase.shape, dtype=np.float32)
    if kind.endswith("tanh"):
        positive = sample[sample > 0]
        scale = np.median(positive) * 10 / strength if positive.size else 1.0
        parallel.run(_logistic, phase.shape[0], signed, np.float32(1 / scale), out)
        return out
    upper, lower = _percentile(sample), _percentile(-sample)
    if kind != "triangular":
        lower = np.inf
    parallel.run(
        _linear, phase.shape[0], signed, np.float32(1 / upper), np.float32(1 / lower), np.float32(strength), out
    )
    return out


def _percentile(sample: np.ndarray) -> float:
    positive = sample[sample > 0]
    return float(np.quantile(positive, 0.99)) if positive.size else np.inf


@kernel
def _logistic(start, stop, phase, scale, out):
    """(1 + tanh(1 - x)) / 2 = 1 / (1 + exp(2 x - 2))."""
    one, two, limit = np.float32(1), np.float32(2), np.float32(80)
    for x in range(start, stop):
        for y in range(phase.shape[1]):
            row, target = phase[x, y], out[x, y]
            for z in range(row.size):
                u = two * (row[z] * scale - one)
                e = decay(min(abs(u), limit))
                target[z] = (e if u > 0 else one) / (one + e)


@kernel
def _linear(start, stop, phase, up, down, strength, out):
    one, zero = np.float32(1), np.float32(0)
    for x in range(start, stop):
        for y in range(phase.shape[1]):
            row, target = phase[x, y], out[x, y]
            for z in range(row.size):
                u = row[z] * up if row[z] > 0 else -row[z] * down
                target[z] = max(one - u, zero) ** strength
