r"""Thresholded k-space division (TKD).

.. math:: \chi = F^{-1}\frac{F f}{\tilde D}, \qquad \tilde D = \mathrm{sign}(D)\,\max(|D|, t)

:math:`f` is the local field (ppm), :math:`D` the unit dipole and :math:`t` the ``threshold`` below which the dipole,
which vanishes on a double cone, is replaced. Division by too large a value loses contrast: the mean of
:math:`D/\tilde D` over k-space is the amplitude of the point spread function at its centre, and ``correct`` divides
by it (Schweser et al. 2013), which restores the contrast of small structures at the price of more noise. A map is
linear in the field, and one pair of Fourier transforms makes it.

The sign at :math:`D = 0` is taken as positive; at the origin of k-space the map is set to zero.

Parameters
    ``criterion``: how a ``threshold`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).

References
----------
Shmueli et al. 2009 (doi:10.1002/mrm.22135); correction: Schweser et al. 2013 (doi:10.1002/mrm.24405).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, chosen, of_transfer
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Thresholds between which the criteria look, and the log ratio of amplitudes near and far from the cone at which they
#: count as equal: what is limited keeps a part of its amplitude only.
THRESHOLDS = (0.02, 0.5)
EQUAL = -0.7


@dataclass(frozen=True)
class TKDParameters:
    """Parameters of :func:`tkd`."""

    threshold: float = parameter(
        0.15, above=0, below=2 / 3, auto=True, help="dipole value below which division is limited; larger is smoother"
    )
    correct: bool = parameter(False, help="divide by the amplitude of the point spread function")
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a threshold of auto is found")


@method(
    stage="inversion",
    key="tkd",
    title="Thresholded k-space division",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=TKDParameters,
    references=("shmueli2009",),
    sentence="Susceptibility was computed by thresholded k-space division (threshold {threshold}).",
    cost=Cost(bytes_per_voxel=11, seconds_per_megavoxel=0.05),
    linear=True,
    on_device=True,
)
def tkd(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TKDParameters = TKDParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) by limited division; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TKDParameters`.
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
    >>> from qsmxt.algorithms.inversion.tkd import tkd
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = tkd(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    31
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    trials = of_transfer("threshold", THRESHOLDS, lambda t: _transfer(domain, t, parameters.correct), domain, EQUAL)
    threshold = chosen(parameters.threshold, parameters.criterion, trials, to_host(field_noise))
    chi = engine.mapped(domain, _transfer(domain, threshold, parameters.correct))
    if progress:
        progress(1.0)
    return chi


def _transfer(domain: Domain, threshold: float, correct: bool) -> np.ndarray:
    """Half spectrum by which that of the field is multiplied."""
    transfer = domain.dipole()
    negative = transfer < 0
    np.abs(transfer, out=transfer)
    factor = np.float32(1)
    if correct:
        weights = np.broadcast_to(fourier.spectrum_weights(domain.grid), transfer.shape)
        factor /= np.float32(np.average(np.minimum(transfer / np.float32(threshold), 1), weights=weights))
    np.maximum(transfer, np.float32(threshold), out=transfer)
    np.divide(factor, transfer, out=transfer)
    np.negative(transfer, out=transfer, where=negative)
    transfer[0, 0, 0] = 0
    return transfer
