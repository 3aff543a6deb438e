r"""Tikhonov regularisation in closed form.

.. math:: \min_\chi \|D\chi - f\|_2^2 + \lambda\|\Gamma\chi\|_2^2 \;\Rightarrow\;
          F\chi = \frac{D\, F f}{D^2 + \lambda |\Gamma|^2}

:math:`f` is the local field (ppm), :math:`D` the unit dipole; :math:`\Gamma` is the identity or the forward
difference per mm (``penalised``), for which :math:`|\Gamma|^2` is the symbol of :math:`\nabla^T\nabla`. Larger
``weight`` :math:`\lambda` is smoother and has less contrast. The map is linear in the field.

References
----------
Bilgic et al. 2014 (doi:10.1002/jmri.24365).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import kernels
from qsmxt.algorithms.engine import placed
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TikhonovParameters:
    """Parameters of :func:`tikhonov`."""

    weight: float = parameter(
        3e-3, above=0, help="weight of the penalty (mm^2 if the gradient is penalised); larger is smoother"
    )
    penalised: str = parameter("identity", choices=("identity", "gradient"), help="what is kept small")


@method(
    stage="inversion",
    key="tikhonov",
    title="Closed-form Tikhonov regularisation",
    consumes=("local_field", "mask"),
    produces=("chi",),
    parameters=TikhonovParameters,
    references=("bilgic2014l2",),
    sentence=(
        "Susceptibility was computed by closed-form Tikhonov regularisation of the {penalised} (weight {weight:g})."
    ),
    cost=Cost(bytes_per_voxel=20, seconds_per_megavoxel=0.05),
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

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``, linear in the field; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask.

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
    dipole = domain.dipole()
    weight = np.float32(parameters.weight)
    penalty = kernels.negative_laplacian(domain.grid) * weight if parameters.penalised == "gradient" else weight
    denominator = dipole * dipole + penalty
    denominator[0, 0, 0] = 1
    transfer = np.divide(dipole, denominator, out=denominator)
    chi = engine.filtered(engine.send(domain.field), engine.send(transfer))
    if progress:
        progress(1.0)
    return engine.finish(domain, chi)
