r"""Truncated singular value decomposition (TSVD).

.. math:: \chi = F^{-1}\left[\frac{F f}{D}\; [\,|D| \ge t\,]\right]

:math:`f` is the local field (ppm) and :math:`D` the unit dipole, whose values are the singular values of the problem.
Those below the ``threshold`` :math:`t` are left out, so the map has no component near the zero cone of the dipole:
less contrast than :mod:`~qsmxt.algorithms.inversion.tkd` and other streaks. Smaller thresholds than there are best:
on a digital head without background 0.05 to 0.1. The map is linear in the field.

Parameters
    ``criterion``: how a ``threshold`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).

References
----------
Wharton, Schaefer and Bowtell 2010 (doi:10.1002/mrm.22334).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, chosen, of_transfer
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Thresholds between which the criteria look, and the log ratio of amplitudes near and far from the cone at which they
#: count as equal: the cone itself is empty.
THRESHOLDS = (0.02, 0.3)
EQUAL = -0.9


@dataclass(frozen=True)
class TSVDParameters:
    """Parameters of :func:`tsvd`."""

    threshold: float = parameter(
        0.08, above=0, below=2 / 3, auto=True, help="dipole value below which k-space is left empty; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a threshold of auto is found")


@method(
    stage="inversion",
    key="tsvd",
    title="Truncated singular value decomposition",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=TSVDParameters,
    references=("wharton2010",),
    sentence="Susceptibility was computed by truncated singular value decomposition (threshold {threshold}).",
    cost=Cost(bytes_per_voxel=11, seconds_per_megavoxel=0.05),
    linear=True,
    on_device=True,
)
def tsvd(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TSVDParameters = TSVDParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) by truncated division; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TSVDParameters`.
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
    >>> from qsmxt.algorithms.inversion.tsvd import tsvd
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = tsvd(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    34
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    trials = of_transfer("threshold", THRESHOLDS, lambda t: _transfer(domain, t), domain, EQUAL)
    threshold = chosen(parameters.threshold, parameters.criterion, trials, to_host(field_noise))
    chi = engine.mapped(domain, _transfer(domain, threshold))
    if progress:
        progress(1.0)
    return chi


def _transfer(domain: Domain, threshold: float) -> np.ndarray:
    """Half spectrum by which that of the field is multiplied."""
    dipole = domain.dipole()
    dipole[np.abs(dipole) < np.float32(threshold)] = np.inf
    return np.reciprocal(dipole, out=dipole)
