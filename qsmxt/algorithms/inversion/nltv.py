r"""Nonlinear total variation (FANSI, "fast nonlinear susceptibility inversion").

.. math:: \min_\chi \tfrac12 \|W(e^{isD\chi} - e^{isf})\|_2^2 + s^2\lambda\|\nabla\chi\|_1

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole, :math:`s` the phase per field (rad/ppm,
:mod:`~qsmxt.algorithms.inversion.phase`), :math:`\lambda` the ``weight`` in the units of
:mod:`~qsmxt.algorithms.inversion.tv` (:math:`\alpha_1 = s\lambda` of the paper), :math:`W` the inverse field noise, or
the magnitude, or 1, with a median of 1, cut at 3, and zero outside the mask. ADMM splits :math:`\nabla\chi` and
:math:`D\chi`; the second step is a scalar problem in every voxel, solved by Newton's method from the nearest turn of
the phase with the curvature kept positive.

Departures from the paper: the dual of the data split has penalty 0.1 instead of 1, which is faster; the phase of a
voxel is first moved to the turn nearest to the prediction, so the global minimum of the scalar problem is found.

Parameters
    ``criterion``: how a ``weight`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).
    ``penalty``: :math:`\rho/\lambda` of the split of the prior, which changes the speed, hardly the map.
    ``reference_echo_time``: gives s; ``auto`` lets the strongest field have 3 rad. ``tolerance``, ``iterations``: where
    the iteration ends.

References
----------
Milovic et al. 2018 (doi:10.1002/mrm.27073).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, PhaseData, Splitting
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class NLTVParameters:
    """Parameters of :func:`nltv`."""

    weight: float = parameter(
        1e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    penalty: float = parameter(
        100.0, unit="mm/ppm", above=0, help="ADMM penalty over weight; changes the speed, hardly the map"
    )
    reference_echo_time: float = parameter(
        "auto", unit="s", above=0, auto=True, help="echo time at which phases are compared"
    )
    tolerance: float = parameter(5e-3, at_least=0, help="relative change of the map at which iteration stops")
    iterations: int = parameter(100, at_least=1, help="most iterations")


@method(
    stage="inversion",
    key="nltv",
    title="Nonlinear total variation (FANSI)",
    consumes=("local_field", "mask"),
    optional=("field_noise", "magnitude", "field_strength"),
    produces=("chi",),
    parameters=NLTVParameters,
    references=("milovic2018",),
    sentence="Susceptibility was computed with nonlinear total-variation regularisation (FANSI, weight {weight}).",
    cost=Cost(bytes_per_voxel=59, seconds_per_megavoxel=6),
    on_device=True,
)
def nltv(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NLTVParameters = NLTVParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    magnitude: np.ndarray | None = None,
    field_strength: float | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) by comparing phases; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`NLTVParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``, whose inverse gives the weights; voxels of zero
        have no weight.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)`` or ``(x, y, z)``: the weights if there is
        no ``field_noise``. Without either all voxels weigh the same.
    field_strength
        Strength of B0, T, float; needed only if ``reference_echo_time`` is a number.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask; if ``field_noise`` or ``magnitude`` has no positive value in the mask; if the criterion
        ``discrepancy`` is chosen without ``field_noise``; if ``reference_echo_time`` is a number and ``field_strength``
        is missing.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.nltv import nltv
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = nltv(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    3
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise = to_host(field_noise)
    weights = domain.weights_or_mask(field_noise, to_host(magnitude))
    domain = domain.trusting(weights)
    scale = phase_scale(domain, parameters.reference_echo_time, field_strength)
    weights *= weights
    prior = engine.shrinkage(domain.grid)
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    rho = parameters.penalty * weight
    solver = Splitting(domain, prior, float(scale) / parameters.penalty, rho, DATA_PENALTY, engine=engine)
    data = PhaseData(domain.field * scale, weights, DATA_PENALTY, engine=engine)
    solver.start(data)
    chi = solver.iterate(data, parameters.iterations, parameters.tolerance, progress)
    return engine.finish(domain, chi / float(scale))
