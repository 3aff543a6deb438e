r"""Total variation by the alternating direction method of multipliers (TV-ADMM), plain or noise-weighted.

.. math:: \min_\chi \tfrac12 \|W(D\chi - f)\|_2^2 + \lambda \|\nabla\chi\|_1

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole (:mod:`qsmxt.algorithms.kernels`),
:math:`\nabla` the periodic forward difference per mm, :math:`\lambda` the weight of the prior.

Without ``field_noise`` :math:`W = 1` and the split :math:`z = \nabla\chi` (scaled dual :math:`u`, penalty
:math:`\rho`) has the closed update, with :math:`L = \nabla^T\nabla`,

.. math:: \chi \leftarrow F^{-1} \frac{D\,Ff + \rho F\nabla^T(z-u)}{D^2 + \rho L}, \quad
          z \leftarrow \mathrm{shrink}(\nabla\chi + u, \lambda/\rho), \quad u \leftarrow u + \nabla\chi - z .

:math:`\lambda/\rho` is the gradient (ppm/mm) below which edges are flattened in one step. With ``field_noise``
(ppm) :math:`W` is its inverse, scaled to a median of 1 and cut at 3, zero outside the mask; a second split
:math:`z_2 = D\chi` with penalty :math:`\mu` keeps every step diagonal, at twice the number of transforms.

Parameters
    ``weight``: :math:`\lambda`. ``criterion``: how a ``weight`` of ``auto`` is found
    (:mod:`~qsmxt.algorithms.inversion.regularisation`). ``penalty``: :math:`\rho/\lambda`, which changes the speed,
    hardly the map. ``tolerance``, ``iterations``: where the iteration ends.

References
----------
Bilgic et al. 2014 (doi:10.1002/mrm.25029).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, total_variation, weight_of
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, Splitting, SquaredData
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TVParameters:
    """Parameters of :func:`tv`."""

    weight: float = parameter(
        1e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    penalty: float = parameter(
        100.0,
        above=0,
        unit="1/(ppm mm)",
        help="ADMM penalty as a multiple of the weight; affects speed, not the optimum",
    )
    tolerance: float = parameter(5e-3, at_least=0, help="relative change of the map at which iteration stops")
    iterations: int = parameter(150, at_least=1, help="most iterations")


@method(
    stage="inversion",
    key="tv",
    title="Total variation (ADMM)",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=TVParameters,
    references=("bilgic2014tv",),
    sentence=(
        "Susceptibility was computed with total-variation regularisation (weight {weight}) by the alternating "
        "direction method of multipliers."
    ),
    cost=Cost(bytes_per_voxel=55, seconds_per_megavoxel=1.5),
    on_device=True,
)
def tv(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TVParameters = TVParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) with a total-variation prior; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TVParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``; voxels of zero have no weight. Without it all
        voxels weigh the same.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask; if ``field_noise`` has no positive value in the mask; if the criterion ``discrepancy``
        is chosen without ``field_noise``.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.tv import tv
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = tv(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    17
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise = to_host(field_noise)
    weights = domain.weights(field_noise)
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    limits = parameters.iterations, parameters.tolerance
    if weights is None:
        return engine.finish(domain, total_variation(domain, weight, parameters.penalty, *limits, progress, engine))
    weights *= weights
    rho = parameters.penalty * weight
    solver = Splitting(domain, engine.shrinkage(domain.grid), 1 / parameters.penalty, rho, DATA_PENALTY, engine=engine)
    data = SquaredData(domain.field, weights, DATA_PENALTY, engine=engine)
    solver.start(data)
    return engine.finish(domain, solver.iterate(data, *limits, progress))
