r"""Total generalised variation in one step from the wrapped phase (TGV-QSM).

Differences of neighbours need no unwrapping as long as they stay below half a turn in the first echo. For every pair
of neighbours :math:`\delta_e = \gamma(\varphi_e(r+e_i) - \varphi_e(r))`, with :math:`\gamma` the wrap to
:math:`[-\pi, \pi)`, is unwrapped from echo to echo (the first in proportion to the echo times, then along the line
through the last two), and a line is fitted,

.. math:: \delta_e = \delta_0 + 2\pi\bar\gamma B_0\,(\partial_i f)\, v_i\,T_{E,e}, \qquad
          \Delta f = \sum_i \frac{(\partial_i f)(r) - (\partial_i f)(r - e_i)}{v_i},

with weights :math:`m^2 m'^2/(m^2 + m'^2)` from the two magnitudes (``(echo, x, y, z)``, as the phase, rad), so the
phase offset drops out. One echo is divided by its echo time, and its offset must be smooth.

The mean of :math:`\Delta f` over the mask is subtracted; it would put a parabola under the map. The field that has
this Laplacian and vanishes on the rim of the mask is found by multigrid
(:mod:`qsmxt.algorithms.inversion.background`); it differs from the total field by a harmonic one, which
:mod:`~qsmxt.algorithms.inversion.tgv` does not see. The rest is done there.

``erosions`` takes layers off the mask, on which the phase often is noise; the map is zero there.

Parameters
    ``weight``, ``criterion``, ``curvature``, ``margin``, ``penalty``, ``tolerance``, ``iterations``: those of
    :mod:`~qsmxt.algorithms.inversion.tgv`; nothing tells the noise, which the criterion ``discrepancy`` would need.

References
----------
Langkammer et al. 2015 (doi:10.1016/j.neuroimage.2015.02.041).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.engine import engine_of, to_host, to_host_all
from qsmxt.algorithms.inversion.background import from_laplacian
from qsmxt.algorithms.inversion.tgv import TGVParameters, solve
from qsmxt.algorithms.inversion.tvtfi import weight_for_total_field
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TGVPhaseParameters(TGVParameters):
    """Parameters of :func:`tgv_phase`."""

    erosions: int = parameter(3, unit="voxels", at_least=0, help="layers taken off the mask before the inversion")


@method(
    stage="inversion",
    key="tgv_phase",
    title="Total generalised variation from the wrapped phase",
    consumes=("wrapped_phase", "mask", "echo_times", "field_strength"),
    optional=("magnitude",),
    produces=("chi",),
    parameters=TGVPhaseParameters,
    references=("langkammer2015",),
    sentence=(
        "Susceptibility was computed in one step from the wrapped phase with total generalised variation (weight "
        "{weight}, curvature {curvature:g} mm)."
    ),
    cost=Cost(bytes_per_voxel=150, seconds_per_megavoxel=12),
    on_device=True,
)
def tgv_phase(
    wrapped_phase: np.ndarray,
    mask: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: TGVPhaseParameters = TGVPhaseParameters(),
    *,
    progress: Progress | None = None,
    magnitude: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the wrapped phase (rad); see the module.

    Parameters
    ----------
    wrapped_phase
        Measured phase, rad, in [-pi, pi), float32 ``(echo, x, y, z)``; offsets at echo time zero may be in it.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, different and above 0.
    field_strength
        Strength of B0, T, float.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TGVPhaseParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``: the weights. Without it all voxels and
        echoes weigh the same.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask less ``erosions`` layers.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, the mask is empty, not of 0 and 1 or too thin for the
        erosion, the phase has NaN or Inf in the mask, or echo times are equal or not above 0; if the
        criterion is ``discrepancy``, for which nothing tells the noise.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.tgv_phase import TGVPhaseParameters, tgv_phase
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> settings = TGVPhaseParameters(erosions=0)
    >>> chi = tgv_phase(head.wrapped_phase, head.mask, head.echo_times, head.field_strength, head.grid, settings)
    >>> nrmse(chi, head.chi, head.mask) < 20  # percent of the true susceptibility
    True
    """
    engine = engine_of(wrapped_phase)
    wrapped_phase, mask, magnitude = to_host_all(wrapped_phase, mask, magnitude)
    echo_times, field_strength = to_host(echo_times), float(field_strength)
    mask = checked_mask(mask, grid)
    if parameters.erosions:
        mask = ndimage.binary_erosion(mask, iterations=parameters.erosions)
        if not mask.any():
            raise InputError(
                f"mask: expected a mask wider than {2 * parameters.erosions} voxels, found none left after erosion; "
                "lower erosions"
            )
    laplacian = field_laplacian(wrapped_phase, echo_times, field_strength, mask, grid, magnitude)
    inner = ndimage.binary_erosion(mask)
    if inner.any():
        laplacian -= laplacian[inner].mean(dtype=np.float64)
    domain, interior = from_laplacian(laplacian, mask, grid, 2 * parameters.margin)
    weight = weight_for_total_field(
        parameters.weight, parameters.criterion, domain.crop.restore(domain.field), mask, grid, None
    )
    parameters = replace(parameters, weight=weight)
    return solve(engine, domain, interior, domain.weights_or_mask(None, magnitude), parameters, progress)


def field_laplacian(
    phase: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    mask: np.ndarray,
    grid: Grid,
    magnitude: np.ndarray | None = None,
) -> np.ndarray:
    """Laplacian of the relative field (ppm/mm^2) from wrapped phases, zero outside the mask."""
    phase = phase[None] if phase.ndim == 3 else phase
    times = np.atleast_1d(np.asarray(echo_times, dtype=np.float64))
    grid.check("wrapped_phase", phase, echoes=times.size)
    if not np.isfinite(phase[:, mask]).all():
        raise InputError(
            "wrapped_phase: expected finite values in the mask, found NaN or Inf; take them out of the mask"
        )
    if (times <= 0).any() or np.unique(times).size != times.size:
        raise InputError(f"echo_times: expected different times above 0 s, found {times.tolist()}")
    if magnitude is None:
        magnitude = np.ones((1, 1, 1, 1), dtype=np.float32)
    else:
        magnitude = magnitude[None] if magnitude.ndim == 3 else magnitude
        grid.check("magnitude", magnitude, echoes=times.size)
    crop = Crop.around(mask, grid)
    box = (slice(None), *crop.source)
    order = np.argsort(times)
    phase = np.ascontiguousarray(phase[box][order], dtype=np.float32)
    magnitude = np.ascontiguousarray(magnitude[box][order] if magnitude.size > 1 else magnitude, dtype=np.float32)
    inside = np.ascontiguousarray(mask[crop.source])
    slopes = np.zeros((3, *inside.shape), dtype=np.float32)
    parallel.run(_edge_slopes, inside.shape[0], phase, magnitude, times[order], inside, slopes)
    laplacian = np.zeros(grid.shape, dtype=np.float32)
    part = laplacian[crop.source]
    for axis, (slope, v) in enumerate(zip(slopes, grid.voxel_size, strict=True)):
        slope *= np.float32(1 / (v * v * rad_per_ppm(float(np.asarray(field_strength)), 1.0)))
        part += slope
        moved = np.moveaxis(part, axis, 0)
        moved[1:] -= np.moveaxis(slope, axis, 0)[:-1]
    return laplacian


@kernel
def _edge_slopes(start, stop, phase, magnitude, times, inside, out):
    """Phase per second gained from every voxel to its next neighbour, 0 where one of them is outside."""
    echoes, nx, ny, nz = phase.shape
    turn = 2 * np.pi
    weighted = magnitude.size > 1
    for i in range(start, stop):
        for j in range(ny):
            for k in range(nz):
                for axis in range(3):
                    a, b, c = i + (axis == 0), j + (axis == 1), k + (axis == 2)
                    if a >= nx or b >= ny or c >= nz or not inside[i, j, k] or not inside[a, b, c]:
                        continue
                    w_sum, wt, wtt, wd, wtd = 0.0, 0.0, 0.0, 0.0, 0.0
                    last, before = 0.0, 0.0
                    for e in range(echoes):
                        expected = 0.0
                        if e == 1:
                            expected = last * times[1] / times[0]
                        elif e > 1:
                            expected = last + (last - before) * (times[e] - times[e - 1]) / (
                                times[e - 1] - times[e - 2]
                            )
                        d = np.float64(phase[e, a, b, c]) - np.float64(phase[e, i, j, k]) - expected
                        d += expected - turn * np.rint(d / turn)
                        before, last = last, d
                        w = 1.0
                        if weighted:
                            m, n = magnitude[e, i, j, k] ** 2, magnitude[e, a, b, c] ** 2
                            w = m * n / (m + n) if m + n > 0 else 0.0
                        w_sum += w
                        wt += w * times[e]
                        wtt += w * times[e] ** 2
                        wd += w * d
                        wtd += w * times[e] * d
                    determinant = w_sum * wtt - wt * wt
                    if echoes == 1:
                        out[axis, i, j, k] = last / times[0]
                    elif determinant > 1e-9 * w_sum * wtt:
                        out[axis, i, j, k] = (w_sum * wtd - wt * wd) / determinant
