r"""Nonlinear total generalised variation of second order (FANSI nlTGV).

.. math:: \min_{\chi,w} \tfrac12 \|W(e^{isD\chi} - e^{isf})\|_2^2
          + s^2\left(\alpha_1\|\nabla\chi - w\|_1 + \alpha_0\|\mathcal{E}w\|_1\right)

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole, :math:`w` a vector field (ppm/mm) that
takes over smooth slopes, :math:`\mathcal{E}w = (\nabla w + \nabla w^T)/2`, so that slopes cost nothing and no
staircases form; :math:`s` and :math:`W` as in :mod:`~qsmxt.algorithms.inversion.nltv`. ``weight`` is
:math:`\alpha_1`, ``curvature`` (mm) is :math:`\alpha_0/\alpha_1`.

ADMM splits :math:`D\chi`, :math:`\nabla\chi - w` and :math:`\mathcal{E}w`. Departure from the paper, which solves for
:math:`\chi` and :math:`w` together in k-space: :math:`w` takes one proximal step in image space,

.. math:: w \leftarrow w + \frac{\rho_1(\nabla\chi - w - z_1 + u_1) - \rho_0\mathcal{E}^T(\mathcal{E}w - z_0 + u_0)}
          {\rho_1 + \rho_0\|\mathcal{E}\|^2},

which has the same fixed points and no further transforms.

References
----------
Milovic et al. 2018 (doi:10.1002/mrm.27073).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import divergence, inverse_sizes
from qsmxt.algorithms.inversion.domain import Domain
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, PhaseData, Splitting
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class NLTGVParameters:
    """Parameters of :func:`nltgv`."""

    weight: float = parameter(1e-4, unit="ppm mm", above=0, help="weight of the first-order term; larger is smoother")
    curvature: float = parameter(2.0, unit="mm", above=0, help="weight of the second-order term over that of the first")
    penalty: float = parameter(
        100.0, unit="mm/ppm", above=0, help="ADMM penalty over weight; changes the speed, hardly the map"
    )
    reference_echo_time: float = parameter(
        "auto", unit="s", above=0, auto=True, help="echo time at which phases are compared"
    )
    tolerance: float = parameter(5e-3, at_least=0, help="relative change of the map at which iteration stops")
    iterations: int = parameter(100, at_least=1, help="most iterations")


class SecondOrder:
    """Split of the total generalised variation.

    Parameters
    ----------
    grid
        Grid of the volumes.
    ratio
        ``curvature`` (mm), which is also the ratio of the two ADMM penalties (mm^2).
    """

    def __init__(self, grid: Grid, ratio: float) -> None:
        self.grid = grid
        self.ratio = np.float32(ratio)
        self.slope = np.zeros((3, *grid.shape), dtype=np.float32)
        self._first = np.zeros((3, *grid.shape), dtype=np.float32)  # z1 - u1 + w
        self._first_dual = np.zeros((3, *grid.shape), dtype=np.float32)
        self._second = np.zeros((6, *grid.shape), dtype=np.float32)  # z0 - u0, for a moment E w - z0 + u0
        self._second_dual = np.zeros((6, *grid.shape), dtype=np.float32)
        self._inverse = inverse_sizes(grid)
        norm = 4 * float((self._inverse.astype(np.float64) ** 2).sum())
        self._step = np.float32(1 / (1 + ratio * norm))

    def step(self, volume: np.ndarray, threshold: float, out: np.ndarray) -> np.ndarray:
        """See :meth:`qsmxt.algorithms.inversion.splitting.Prior.step`."""
        nx = volume.shape[0]
        parallel.run(_second_residual, nx, self.slope, self._second, self._inverse)
        parallel.run(
            _move_slope, nx, volume, self.slope, self._first, self._second, self._inverse, self.ratio, self._step
        )
        limit = np.float32(threshold)
        parallel.run(_first_dual, nx, volume, self.slope, self._first, self._first_dual, self._inverse, limit)
        parallel.run(_second_dual, nx, self.slope, self._second, self._second_dual, self._inverse, limit)
        return divergence(self._first, self.grid, out)


# The six components of a symmetric tensor: xx, yy, zz, xy, xz, yz.


@kernel
def _symmetric(w, i, j, k, inverse):
    _, nx, ny, nz = w.shape
    a = i + 1 if i + 1 < nx else 0
    b = j + 1 if j + 1 < ny else 0
    c = k + 1 if k + 1 < nz else 0
    half = np.float32(0.5)
    wx, wy, wz = w[0, i, j, k], w[1, i, j, k], w[2, i, j, k]
    return (
        (w[0, a, j, k] - wx) * inverse[0],
        (w[1, i, b, k] - wy) * inverse[1],
        (w[2, i, j, c] - wz) * inverse[2],
        half * ((w[1, a, j, k] - wy) * inverse[0] + (w[0, i, b, k] - wx) * inverse[1]),
        half * ((w[2, a, j, k] - wz) * inverse[0] + (w[0, i, j, c] - wx) * inverse[2]),
        half * ((w[2, i, b, k] - wz) * inverse[1] + (w[1, i, j, c] - wy) * inverse[2]),
    )


@kernel
def _second_residual(start, stop, slope, second, inverse):
    for i in range(start, stop):
        for j in range(slope.shape[2]):
            for k in range(slope.shape[3]):
                tensor = _symmetric(slope, i, j, k, inverse)
                for n in range(6):
                    second[n, i, j, k] = tensor[n] - second[n, i, j, k]


@kernel
def _move_slope(start, stop, volume, slope, first, second, inverse, ratio, step):
    nx, ny, nz = volume.shape
    for i in range(start, stop):
        after, before = (i + 1 if i + 1 < nx else 0), (i - 1 if i > 0 else nx - 1)
        for j in range(ny):
            below, above = (j + 1 if j + 1 < ny else 0), (j - 1 if j > 0 else ny - 1)
            for k in range(nz):
                right, left = (k + 1 if k + 1 < nz else 0), (k - 1 if k > 0 else nz - 1)
                x = volume[i, j, k]
                gx = (volume[after, j, k] - x) * inverse[0] - first[0, i, j, k]
                gy = (volume[i, below, k] - x) * inverse[1] - first[1, i, j, k]
                gz = (volume[i, j, right] - x) * inverse[2] - first[2, i, j, k]
                xx, yy, zz = second[0, i, j, k], second[1, i, j, k], second[2, i, j, k]
                xy, xz, yz = second[3, i, j, k], second[4, i, j, k], second[5, i, j, k]
                ex = (second[0, before, j, k] - xx) * inverse[0]
                ex += (second[3, i, above, k] - xy) * inverse[1] + (second[4, i, j, left] - xz) * inverse[2]
                ey = (second[3, before, j, k] - xy) * inverse[0]
                ey += (second[1, i, above, k] - yy) * inverse[1] + (second[5, i, j, left] - yz) * inverse[2]
                ez = (second[4, before, j, k] - xz) * inverse[0]
                ez += (second[5, i, above, k] - yz) * inverse[1] + (second[2, i, j, left] - zz) * inverse[2]
                slope[0, i, j, k] += step * (gx - ratio * ex)
                slope[1, i, j, k] += step * (gy - ratio * ey)
                slope[2, i, j, k] += step * (gz - ratio * ez)


@kernel
def _first_dual(start, stop, volume, slope, first, dual, inverse, limit):
    nx, ny, nz = volume.shape
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            for n in range(3):
                for k in range(nz):
                    right = k + 1 if k + 1 < nz else 0
                    neighbour = (
                        volume[after, j, k] if n == 0 else volume[i, below, k] if n == 1 else volume[i, j, right]
                    )
                    w = slope[n, i, j, k]
                    v = (neighbour - volume[i, j, k]) * inverse[n] - w + dual[n, i, j, k]
                    u = min(max(v, -limit), limit)
                    dual[n, i, j, k] = u
                    first[n, i, j, k] = v - 2 * u + w


@kernel
def _second_dual(start, stop, slope, second, dual, inverse, limit):
    for i in range(start, stop):
        for j in range(slope.shape[2]):
            for k in range(slope.shape[3]):
                tensor = _symmetric(slope, i, j, k, inverse)
                for n in range(6):
                    v = tensor[n] + dual[n, i, j, k]
                    u = min(max(v, -limit), limit)
                    dual[n, i, j, k] = u
                    second[n, i, j, k] = v - 2 * u


@method(
    stage="inversion",
    key="nltgv",
    title="Nonlinear total generalised variation (FANSI)",
    consumes=("local_field", "mask"),
    optional=("field_noise", "magnitude", "field_strength"),
    produces=("chi",),
    parameters=NLTGVParameters,
    references=("milovic2018",),
    sentence=(
        "Susceptibility was computed with nonlinear total generalised variation (FANSI, weight {weight:g}, curvature "
        "{curvature:g} mm)."
    ),
    cost=Cost(bytes_per_voxel=170, seconds_per_megavoxel=15),
)
def nltgv(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NLTGVParameters = NLTGVParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    magnitude: np.ndarray | None = None,
    field_strength: float | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) with a second-order prior; see the module."""
    domain = Domain.around("local_field", local_field, mask, grid)
    scale = phase_scale(domain, parameters.reference_echo_time, field_strength)
    weights = domain.weights_or_mask(field_noise, magnitude)
    weights *= weights
    prior = SecondOrder(domain.grid, parameters.curvature)
    rho = parameters.penalty * parameters.weight
    solver = Splitting(domain, prior, float(scale) / parameters.penalty, rho, DATA_PENALTY)
    data = PhaseData(domain.field * scale, weights, DATA_PENALTY)
    solver.start(data)
    return domain.finish(solver.iterate(data, parameters.iterations, parameters.tolerance, progress) / scale)
