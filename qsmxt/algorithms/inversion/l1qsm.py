r"""L1-QSM: absolute instead of squared data error, with total variation.

.. math:: \min_\chi \frac{\kappa}{s}\|W(e^{isD\chi} - e^{isf})\|_1 + \lambda\|\nabla\chi\|_1

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole, :math:`s` the phase per field (rad/ppm,
:mod:`~qsmxt.algorithms.inversion.phase`), :math:`\lambda` the ``weight``, :math:`W` as in
:mod:`~qsmxt.algorithms.inversion.nltv`. An absolute error lets single wrong voxels stand: errors above about the
``knee`` :math:`\kappa` (ppm) pull no harder than one of :math:`\kappa` does in a squared fit of weight 1.

ADMM splits :math:`\nabla\chi` and :math:`D\chi`. Departure from the paper, which splits the phasors as well: the
scalar problem :math:`\kappa/s\cdot 2W|\sin(s(z-f)/2)| + \mu/2\,(z-v)^2` of a voxel is solved as it stands, its
minimum at :math:`z=f` if :math:`|v-f| \le \kappa W/\mu`, else by Newton's method.

Parameters
    ``criterion``: how a ``weight`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).
    ``penalty``: :math:`\rho/\lambda` of the split of the prior, which changes the speed, hardly the map.
    ``reference_echo_time``: gives s; ``auto`` lets the strongest field have 3 rad. ``tolerance``, ``iterations``: where
    the iteration ends.

References
----------
Milovic et al. 2022 (doi:10.1002/mrm.28957).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, AbsolutePhaseData, Splitting
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class L1QSMParameters:
    """Parameters of :func:`l1qsm`."""

    weight: float = parameter(
        1e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    knee: float = parameter(3e-3, unit="ppm", above=0, help="data error above which a voxel is an outlier")
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
    key="l1qsm",
    title="L1-QSM",
    consumes=("local_field", "mask"),
    optional=("field_noise", "magnitude", "field_strength"),
    produces=("chi",),
    parameters=L1QSMParameters,
    references=("milovic2022",),
    sentence="Susceptibility was computed by L1-QSM (weight {weight}, knee {knee:g} ppm).",
    cost=Cost(bytes_per_voxel=59, seconds_per_megavoxel=6),
    on_device=True,
)
def l1qsm(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: L1QSMParameters = L1QSMParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    magnitude: np.ndarray | None = None,
    field_strength: float | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) with an absolute data error; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`L1QSMParameters`.
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
    >>> from qsmxt.algorithms.inversion.l1qsm import l1qsm
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = l1qsm(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    3
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise = to_host(field_noise)
    weights = domain.weights_or_mask(field_noise, to_host(magnitude))
    domain = domain.trusting(weights)
    scale = phase_scale(domain, parameters.reference_echo_time, field_strength)
    weights *= np.float32(parameters.knee) * scale
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    rho = parameters.penalty * weight
    prior = engine.shrinkage(domain.grid)
    solver = Splitting(domain, prior, float(scale) / parameters.penalty, rho, DATA_PENALTY, engine=engine)
    data = AbsolutePhaseData(domain.field * scale, weights, DATA_PENALTY, engine=engine)
    solver.start(data)
    chi = solver.iterate(data, parameters.iterations, parameters.tolerance, progress)
    return engine.finish(domain, chi / float(scale))
