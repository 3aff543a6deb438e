r"""Tikhonov regularisation in closed form.

.. math:: \min_\chi \|D\chi - f\|_2^2 + \lambda\|\Gamma\chi\|_2^2 \;\Rightarrow\;
          F\chi = \frac{D\, F f}{D^2 + \lambda |\Gamma|^2}

:math:`f` is the local field (ppm), :math:`D` the unit dipole; :math:`\Gamma` is the identity or the forward
difference per mm (``penalised``), for which :math:`|\Gamma|^2` is the symbol of :math:`\nabla^T\nabla`. Larger
``weight`` :math:`\lambda` is smoother and has less contrast. The map is linear in the field.

Parameters
    ``criterion``: how a ``weight`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).

References
----------
Bilgic et al. 2014 (doi:10.1002/jmri.24365).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import kernels
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, chosen, of_transfer
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Weights between which the criteria look, and the log ratio of amplitudes near and far from the cone at which they
#: count as equal: near the cone the penalty outweighs the field.
WEIGHTS = (1e-4, 3e-1)
EQUAL = -0.7


@dataclass(frozen=True)
class TikhonovParameters:
    """Parameters of :func:`tikhonov`."""

    weight: float = parameter(
        3e-3, above=0, auto=True, help="weight of the penalty (mm^2 if the gradient is penalised); larger is smoother"
    )
    penalised: str = parameter("identity", choices=("identity", "gradient"), help="what is kept small")
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")


@method(
    stage="inversion",
    key="tikhonov",
    title="Closed-form Tikhonov regularisation",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=TikhonovParameters,
    references=("bilgic2014l2",),
    sentence=(
        "Susceptibility was computed by closed-form Tikhonov regularisation of the {penalised} (weight {weight})."
    ),
    cost=Cost(bytes_per_voxel=11, seconds_per_megavoxel=0.05),
    linear=True,
    on_device=True,
)
def tikhonov(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TikhonovParameters = TikhonovParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) with a quadratic penalty; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TikhonovParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``; only the criterion ``discrepancy`` uses it.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``, linear in the field; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask; if the criterion ``discrepancy`` is chosen without ``field_noise``.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.tikhonov import tikhonov
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = tikhonov(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    30
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    trials = of_transfer("weight", WEIGHTS, lambda w: _transfer(domain, w, parameters.penalised), domain, EQUAL)
    weight = chosen(parameters.weight, parameters.criterion, trials, to_host(field_noise))
    chi = engine.mapped(domain, _transfer(domain, weight, parameters.penalised))
    if progress:
        progress(1.0)
    return chi


def _transfer(domain: Domain, weight: float, penalised: str) -> np.ndarray:
    """Half spectrum by which that of the field is multiplied."""
    dipole, factor = domain.dipole(), np.float32(weight)
    penalty = kernels.negative_laplacian(domain.grid) * factor if penalised == "gradient" else factor
    denominator = dipole * dipole
    denominator += penalty
    denominator[0, 0, 0] = 1
    return np.divide(dipole, denominator, out=denominator)
