r"""Auto-regression on linear operations (ARLO): R2* in closed form from integrals over triples of echoes.

A mono-exponential decay obeys :math:`\int_{T_j}^{T_{j+2}} m\,dt = T_2^*\,(m_j - m_{j+2})`. With the parabola through
three echoes at distances :math:`h_0, h_1`,

.. math::

    s_j = w_0 m_j + w_1 m_{j+1} + w_2 m_{j+2}, \quad d_j = m_j - m_{j+2}, \quad
    w_0 = \tfrac{h}{6}\big(2 - \tfrac{h_1}{h_0}\big),\; w_1 = \tfrac{h^3}{6 h_0 h_1},\;
    w_2 = \tfrac{h}{6}\big(2 - \tfrac{h_0}{h_1}\big),\; h = h_0 + h_1,

.. math:: R_2^* = \frac{\sum_j z_j d_j}{\sum_j z_j s_j}, \qquad z_j = s_j + w_2 d_j .

For equal spacing (:math:`w = \Delta/3, 4\Delta/3, \Delta/3`) this is the published formula. :math:`z_j` does not
contain the last echo of the triple, whose noise would otherwise enter :math:`d_j` and :math:`z_j` alike. Simpson's
rule makes the rate too low where it is high: 198.06 instead of 200 1/s at a spacing of 6 ms.

Departures from the paper
    Unequal spacing, by the weights above. S0, uncertainty and limits as in
    :mod:`qsmxt.algorithms.relaxometry.decay`.

References
----------
Pei et al. 2015 (doi:10.1002/mrm.25137).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.relaxometry.decay import PRODUCES, Decay, DecayParameters, Maps
from qsmxt.algorithms.rows import span
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class ARLOParameters(DecayParameters):
    """Parameters of :func:`arlo`."""


@method(
    stage="relaxometry",
    key="arlo",
    title="Auto-regression on linear operations (ARLO)",
    consumes=("magnitude", "echo_times"),
    optional=("mask", "total_field", "field_strength"),
    produces=PRODUCES,
    parameters=ARLOParameters,
    references=("pei2015",),
    sentence="R2* was computed by auto-regression on linear operations (field gradient corrected: {field_gradient}).",
    cost=Cost(bytes_per_voxel=36, seconds_per_megavoxel=0.05),
)
def arlo(
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: ARLOParameters = ARLOParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
    total_field: np.ndarray | None = None,
    field_strength: float | None = None,
) -> Maps:
    """R2* (1/s), T2* (s), S0 and the standard deviations of R2* (1/s) and T2* (s), float32 ``(x, y, z)``.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)``, any unit, not corrected for inhomogeneity; at least three echoes.
    echo_times
        s, ascending, any spacing.
    grid
        Geometry.
    parameters
        See :class:`ARLOParameters`.
    mask
        Voxels to fit; without it all with finite data.
    total_field, field_strength
        ppm and T; needed if the field gradient is corrected.

    Raises
    ------
    InputError
        If there are fewer than three echoes, shapes do not fit, or the mask is empty.

    Examples
    --------
    >>> times = 0.006 * np.arange(1, 6)
    >>> signal = np.exp(-50 * times)[:, None, None, None] * np.ones((1, 4, 4, 4))
    >>> round(float(arlo(signal, times, Grid((4, 4, 4)))[0][0, 0, 0]), 3)
    49.998
    """
    data = Decay.of(magnitude, echo_times, grid, parameters, (mask, total_field, field_strength), at_least=3)
    rate: np.ndarray = np.zeros(data.usable.shape, dtype=np.float32)
    parallel.run(_auto_regression, rate.shape[0], data.corrected(), data.usable, simpson_weights(data.times), rate)
    return data.maps(rate, parameters.max_rate)


def simpson_weights(times: np.ndarray) -> np.ndarray:
    """Weights of the integral of the parabola through three consecutive times, float32 ``(triple, 3)``."""
    h0, h1 = times[1:-1] - times[:-2], times[2:] - times[1:-1]
    h = h0 + h1
    weights = np.stack([h / 6 * (2 - h1 / h0), h**3 / (6 * h0 * h1), h / 6 * (2 - h0 / h1)], axis=1)
    return weights.astype(np.float32)


@kernel
def _auto_regression(start, stop, magnitude, usable, weights, rate):
    ny, nz = rate.shape[1:]
    sums = np.empty((2, nz), dtype=np.float32)
    for x in range(start, stop):
        for y in range(ny):
            first, end = span(usable[x, y])
            across, along, row = sums[0, first:end], sums[1, first:end], rate[x, y, first:end]
            across[:] = 0
            along[:] = 0
            for j in range(weights.shape[0]):
                w0, w1, w2 = weights[j, 0], weights[j, 1], weights[j, 2]
                a, b = magnitude[j, x, y, first:end], magnitude[j + 1, x, y, first:end]
                c = magnitude[j + 2, x, y, first:end]
                for z in range(row.size):
                    s = w0 * a[z] + w1 * b[z] + w2 * c[z]
                    d = a[z] - c[z]
                    weight = s + w2 * d
                    across[z] += weight * d
                    along[z] += weight * s
            for z in range(row.size):
                row[z] = across[z] / along[z]
