r"""Streaking artefact reduction for sources of a large dynamic range (STAR-QSM).

Strong sources (haemorrhage, calcification, veins) and tissue need different amounts of regularisation. Two levels:

.. math::

    \chi_1 &= \arg\min_\chi \tfrac12\|W(D\chi - f)\|_2^2 + \lambda_1\|\nabla\chi\|_1, \qquad
    \chi_s = \chi_1 \;\text{where}\; |\chi_1 - \tilde\chi_1| > \tau, \;\text{else}\; 0, \\
    \chi_2 &= \arg\min_\chi \tfrac12\|W(D\chi - (f - D\chi_s))\|_2^2 + \lambda_2\|\nabla\chi\|_1, \qquad
    \chi = \chi_s + \chi_2 .

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole, :math:`\tilde\chi_1` the median in the
mask, ``strong_weight`` and ``weight`` are :math:`\lambda_1 > \lambda_2` (ppm mm), ``strong`` is :math:`\tau` (ppm).
:math:`W` is the inverse ``field_noise`` (median 1, cut at 3) or 1, zero outside the mask. Both levels are solved by
ADMM (:mod:`~qsmxt.algorithms.inversion.splitting`).

Departure from the paper: strong sources are told from tissue by the threshold :math:`\tau`.

Parameters
    ``penalty``: :math:`\rho/\lambda` of the split of the prior in both levels. ``tolerance``, ``iterations``: where a
    level ends. ``criterion``: how a ``weight`` of ``auto`` is found
    (:mod:`~qsmxt.algorithms.inversion.regularisation`).

References
----------
Wei et al. 2015 (doi:10.1002/nbm.3383).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import Engine, placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, Splitting, SquaredData
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class STARParameters:
    """Parameters of :func:`star`."""

    weight: float = parameter(1e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation of tissue")
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    strong_weight: float = parameter(
        1e-3, unit="ppm mm", above=0, help="weight of the total variation of strong sources"
    )
    strong: float = parameter(0.2, unit="ppm", above=0, help="distance from the median above which a source is strong")
    penalty: float = parameter(
        100.0, unit="mm/ppm", above=0, help="ADMM penalty over weight; changes the speed, hardly the map"
    )
    tolerance: float = parameter(5e-3, at_least=0, help="relative change of the map at which a level stops")
    iterations: int = parameter(80, at_least=1, help="most iterations of a level")


@method(
    stage="inversion",
    key="star",
    title="STAR-QSM",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=STARParameters,
    references=("wei2015",),
    sentence="Susceptibility was computed by STAR-QSM (weights {strong_weight:g} and {weight}).",
    cost=Cost(bytes_per_voxel=70, seconds_per_megavoxel=9),
    on_device=True,
)
def star(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: STARParameters = STARParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm), strong sources first; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`STARParameters`.
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
    >>> from qsmxt.algorithms.inversion.star import star
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = star(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    3
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise = to_host(field_noise)
    weights = domain.weights_or_mask(field_noise)
    weights *= weights
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    told = _part(progress, 0.0)
    first = engine.fetch(_level(engine, domain, domain.field, weights, parameters.strong_weight, parameters, told))
    middle = np.float32(np.median(first[domain.mask]))
    strong = np.where(domain.mask & (np.abs(first - middle) > parameters.strong), first, np.float32(0))
    strong_field = engine.fetch(engine.filtered(engine.send(strong), engine.send(domain.dipole())))
    rest = np.where(domain.mask, domain.field - strong_field, np.float32(0))
    tissue = _level(engine, domain, rest, weights, weight, parameters, _part(progress, 0.5))
    return engine.finish(domain, engine.send(strong) + tissue)


def _level(
    engine: Engine,
    domain: Domain,
    field: np.ndarray,
    weights: np.ndarray,
    weight: float,
    parameters: STARParameters,
    progress: Progress | None,
) -> Any:
    rho = parameters.penalty * weight
    prior = engine.shrinkage(domain.grid)
    solver = Splitting(domain, prior, 1 / parameters.penalty, rho, DATA_PENALTY, engine=engine)
    data = SquaredData(field, weights, DATA_PENALTY, engine=engine)
    solver.start(data)
    return solver.iterate(data, parameters.iterations, parameters.tolerance, progress)


def _part(progress: Progress | None, start: float) -> Progress | None:
    """Progress of one of two equal levels."""
    return None if progress is None else lambda fraction: progress(start + 0.5 * fraction)
