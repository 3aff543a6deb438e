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

Parameters
    ``field_gradient``: which sides of the voxel the F of :mod:`~qsmxt.algorithms.relaxometry.decay` takes in.
    ``max_rate``: where R2* is cut.

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
    cost=Cost(bytes_per_voxel=33, seconds_per_megavoxel=0.05),
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
    """R2* (1/s), T2* (s), S0 and the noise of R2* and T2* from the magnitude of all echoes; see the module.

    Parameters
    ----------
    magnitude
        Magnitude of the echoes as measured (not corrected for inhomogeneity), arbitrary unit, float32 ``(echo, x, y,
        z)``; at least three echoes.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`ARLOParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels to fit, bool ``(x, y, z)``. Without it all with finite data are.
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; needed if ``field_gradient`` is corrected.
    field_strength
        Strength of B0, T, float; needed if ``field_gradient`` is corrected.

    Returns
    -------
    r2star
        R2*, 1/s, float32 ``(x, y, z)``, from 0 to ``max_rate``. This and all others are zero outside the mask and where
        there is no signal.
    t2star
        T2*, s, float32 ``(x, y, z)``, at most 2 s.
    s0
        Magnitude at echo time zero, in the arbitrary unit of the magnitude, float32 ``(x, y, z)``.
    r2star_noise
        Standard deviation of R2*, 1/s, float32 ``(x, y, z)``.
    t2star_noise
        Standard deviation of T2*, s, float32 ``(x, y, z)``.

    Raises
    ------
    InputError
        If there are fewer than three echoes, times are not ascending and above 0, a shape is not that of the grid and
        the echoes, the mask is empty, or ``field_gradient`` is corrected and the field or its strength is missing or
        the field has NaN or Inf in the mask.

    Examples
    --------
    The phantom has noise, and the fit says how much of it is in R2*:

    >>> from qsmxt.algorithms.relaxometry.arlo import arlo
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> r2star, t2star, s0, noise, _ = arlo(head.magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> error = (r2star - head.r2star)[head.mask]
    >>> bool(abs(error.mean()) < 0.1), round(float((error / noise[head.mask]).std()), 1)  # 1: it is right
    (True, 1.0)
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
