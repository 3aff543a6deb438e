r"""Truncated singular value decomposition (TSVD).

.. math:: \chi = F^{-1}\left[\frac{F f}{D}\; [\,|D| \ge t\,]\right]

:math:`f` is the local field (ppm) and :math:`D` the unit dipole, whose values are the singular values of the problem.
Those below the ``threshold`` :math:`t` are left out, so the map has no component near the zero cone of the dipole:
less contrast than :mod:`~qsmxt.algorithms.inversion.tkd` and other streaks. Smaller thresholds than there are best:
on a digital head without background 0.05 to 0.1. The map is linear in the field.

References
----------
Wharton, Schaefer and Bowtell 2010 (doi:10.1002/mrm.22334).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.engine import placed
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TSVDParameters:
    """Parameters of :func:`tsvd`."""

    threshold: float = parameter(
        0.08, above=0, below=2 / 3, help="dipole value below which k-space is left empty; larger is smoother"
    )


@method(
    stage="inversion",
    key="tsvd",
    title="Truncated singular value decomposition",
    consumes=("local_field", "mask"),
    produces=("chi",),
    parameters=TSVDParameters,
    references=("wharton2010",),
    sentence="Susceptibility was computed by truncated singular value decomposition (threshold {threshold:g}).",
    cost=Cost(bytes_per_voxel=21, seconds_per_megavoxel=0.05),
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
    >>> from qsmxt.algorithms.inversion.tsvd import tsvd
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = tsvd(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    34
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    dipole = domain.dipole()
    keep = np.abs(dipole) >= np.float32(parameters.threshold)
    transfer = np.divide(1, dipole, out=np.zeros_like(dipole), where=keep)
    chi = engine.filtered(engine.send(domain.field), engine.send(transfer))
    if progress:
        progress(1.0)
    return engine.finish(domain, chi)
