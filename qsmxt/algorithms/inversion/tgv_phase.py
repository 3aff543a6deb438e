r"""Total generalised variation in one step from the wrapped phase (TGV-QSM).

The Laplacian of the phase needs no unwrapping: with :math:`\gamma(\cdot)` the wrap to :math:`[-\pi, \pi)`,

.. math:: \Delta\varphi(r) = \sum_i \frac{\gamma(\varphi(r+e_i) - \varphi(r)) + \gamma(\varphi(r-e_i) - \varphi(r))}{v_i^2}

as long as neighbours differ by less than half a turn. Over the echoes (``(echo, x, y, z)``, rad) it grows as
:math:`\Delta\varphi_e = \Delta\varphi_0 + 2\pi\bar\gamma B_0\,\Delta f\,T_{E,e}`; :math:`\Delta f` (ppm/mm^2) is the
slope of a line fitted with weights :math:`m_e^2`, so the phase offset drops out. One echo is divided by its echo time,
and its offset must be smooth.

The mean of :math:`\Delta f` over the mask is subtracted; it would put a parabola under the map. The field that has
this Laplacian and vanishes on the rim of the mask is found by multigrid
(:mod:`qsmxt.algorithms.inversion.background`); it differs from the total field by a harmonic one, which
:mod:`~qsmxt.algorithms.inversion.tgv` does not see. The rest is done there.

``erosions`` takes layers off the mask, on which the phase often is noise; the map is zero there.

References
----------
Langkammer et al. 2015 (doi:10.1016/j.neuroimage.2015.02.041).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.inversion.background import from_laplacian
from qsmxt.algorithms.inversion.tgv import TGVParameters, solve
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TGVPhaseParameters(TGVParameters):
    """Parameters of :func:`tgv_phase`."""

    erosions: int = parameter(2, unit="voxels", at_least=0, help="layers taken off the mask before the inversion")


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
        "{weight:g}, curvature {curvature:g} mm)."
    ),
    cost=Cost(bytes_per_voxel=200, seconds_per_megavoxel=12),
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
    """Susceptibility (ppm) from the wrapped phase (rad); see the module."""
    mask = checked_mask(mask, grid)
    if parameters.erosions:
        mask = ndimage.binary_erosion(mask, iterations=parameters.erosions)
        if not mask.any():
            raise InputError(
                f"mask: expected a mask wider than {2 * parameters.erosions} voxels, found none left after erosion; "
                "lower erosions"
            )
    laplacian = field_laplacian(wrapped_phase, echo_times, field_strength, mask, grid, magnitude)
    laplacian -= laplacian[mask].mean(dtype=np.float64)
    domain, interior = from_laplacian(laplacian, mask, grid, 2 * parameters.margin)
    return solve(domain, interior, None, parameters, progress)


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
    echoes = times.size
    grid.check("wrapped_phase", phase, echoes=echoes)
    if not np.isfinite(phase[:, mask]).all():
        raise InputError(
            "wrapped_phase: expected finite values in the mask, found NaN or Inf; take them out of the mask"
        )
    if (times <= 0).any() or np.unique(times).size != echoes:
        raise InputError(f"echo_times: expected different times above 0 s, found {times.tolist()}")
    sums = np.zeros((5, *grid.shape), dtype=np.float64)
    laplacian = np.empty(grid.shape, dtype=np.float32)
    squares = np.array([1 / v**2 for v in grid.voxel_size], dtype=np.float32)
    for echo, time in enumerate(times):
        parallel.run(_wrapped_laplacian, grid.shape[0], np.asarray(phase[echo], dtype=np.float32), squares, laplacian)
        weight = np.ones(1) if magnitude is None else np.square(magnitude[echo], dtype=np.float64)
        for total, term in zip(
            sums,
            (weight, weight * time, weight * time * time, weight * laplacian, weight * time * laplacian),
            strict=True,
        ):
            total += term
    w, wt, wtt, wl, wtl = sums
    if echoes == 1:
        slope = np.divide(wtl, wtt, out=np.zeros_like(wtl), where=mask & (wtt > 0))
    else:
        determinant = w * wtt - wt * wt
        good = mask & (determinant > 1e-9 * w * wtt)
        slope = np.divide(w * wtl - wt * wl, determinant, out=np.zeros_like(wtl), where=good)
    return (slope / rad_per_ppm(float(np.asarray(field_strength)), 1.0)).astype(np.float32)


@kernel
def _wrapped(difference):
    turn = np.float32(2 * np.pi)
    return difference - turn * np.float32(np.rint(difference / turn))


@kernel
def _wrapped_laplacian(start, stop, phase, squares, out):
    """Zero-flux at the border of the volume."""
    nx, ny, nz = phase.shape
    for i in range(start, stop):
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        for j in range(ny):
            above, below = max(j - 1, 0), min(j + 1, ny - 1)
            for k in range(nz):
                left, right = max(k - 1, 0), min(k + 1, nz - 1)
                here = phase[i, j, k]
                value = squares[0] * (_wrapped(phase[before, j, k] - here) + _wrapped(phase[after, j, k] - here))
                value += squares[1] * (_wrapped(phase[i, above, k] - here) + _wrapped(phase[i, below, k] - here))
                value += squares[2] * (_wrapped(phase[i, j, left] - here) + _wrapped(phase[i, j, right] - here))
                out[i, j, k] = value
