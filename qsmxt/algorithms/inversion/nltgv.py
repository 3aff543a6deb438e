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

from qsmxt.algorithms.engine import placed, to_host_all
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.second_order import second_order
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, PhaseData, Splitting
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class NLTGVParameters:
    """Parameters of :func:`nltgv`."""

    weight: float = parameter(
        1e-4, unit="ppm mm", above=0, auto=True, help="weight of the first-order term; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    curvature: float = parameter(2.0, unit="mm", above=0, help="weight of the second-order term over that of the first")
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
    key="nltgv",
    title="Nonlinear total generalised variation (FANSI)",
    consumes=("local_field", "mask"),
    optional=("field_noise", "magnitude", "field_strength"),
    produces=("chi",),
    parameters=NLTGVParameters,
    references=("milovic2018",),
    sentence=(
        "Susceptibility was computed with nonlinear total generalised variation (FANSI, weight {weight}, curvature "
        "{curvature:g} mm)."
    ),
    cost=Cost(bytes_per_voxel=129, seconds_per_megavoxel=15),
    on_device=True,
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
    """Susceptibility (ppm) from the local field (ppm) with a second-order prior; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`NLTGVParameters`.
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
    >>> from qsmxt.algorithms.inversion.nltgv import nltgv
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = nltgv(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    3
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise, magnitude = to_host_all(field_noise, magnitude)
    weights = domain.weights_or_mask(field_noise, magnitude)
    domain = domain.trusting(weights)
    scale = phase_scale(domain, parameters.reference_echo_time, field_strength)
    weights *= weights
    prior = second_order(engine, domain.grid, parameters.curvature)
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    rho = parameters.penalty * weight
    solver = Splitting(domain, prior, float(scale) / parameters.penalty, rho, DATA_PENALTY, engine=engine)
    data = PhaseData(domain.field * scale, weights, DATA_PENALTY, engine=engine)
    solver.start(data)
    chi = solver.iterate(data, parameters.iterations, parameters.tolerance, progress)
    return engine.finish(domain, chi / float(scale))
