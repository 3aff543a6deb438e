r"""Separation in closed form: two equations, two unknowns, voxel by voxel.

.. math:: \chi_+ = \max\Big(0, \frac{\chi + \rho}{2}\Big), \qquad \chi_- = \min\Big(0, \frac{\chi - \rho}{2}\Big)

with :math:`\rho` from R2', from R2* and R2, or from R2* alone (:mod:`qsmxt.algorithms.separation.sources`). This is the
baseline: published methods seldom beat it where the model holds, so its maps are written beside those of any other.

Parameters
    ``relaxivity``, ``r2star_relaxivity``: :math:`D_r` of R2', and of R2* where it stands in, at 3 T.

References
----------
Shin et al. 2021 (doi:10.1016/j.neuroimage.2021.118371) for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.separation.sources import PRODUCES, Pair, Rates, RelaxivityParameters, checked, closed_form
from qsmxt.geometry import Grid
from qsmxt.registry.methods import BASELINE, Cost, Progress, method


@dataclass(frozen=True)
class ClosedFormParameters(RelaxivityParameters):
    """Parameters of :func:`closedform`."""


@method(
    stage="separation",
    key="closedform",
    title="Closed form",
    consumes=("chi", "r2star", "mask", "field_strength"),
    optional=("r2prime", "r2"),
    produces=PRODUCES,
    parameters=ClosedFormParameters,
    references=("shin2021",),
    sentence=(
        "Para- and diamagnetic sources were separated in closed form (relaxivity at 3 T {relaxivity:g} 1/s/ppm for "
        "R2', or {r2star_relaxivity:g} 1/s/ppm for R2* without R2)."
    ),
    cost=Cost(bytes_per_voxel=24, threads=1, seconds_per_megavoxel=0.03),
    status=BASELINE,
)
def closedform(
    chi: np.ndarray,
    r2star: np.ndarray,
    mask: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: ClosedFormParameters = ClosedFormParameters(),
    *,
    progress: Progress | None = None,
    r2prime: np.ndarray | None = None,
    r2: np.ndarray | None = None,
) -> Pair:
    """Paramagnetic and diamagnetic susceptibility (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``, referenced to tissue without sources.
    r2star
        Effective transverse relaxation rate, 1/s, float32 ``(x, y, z)``.
    mask
        Where to separate, bool ``(x, y, z)``.
    field_strength
        Strength of B0, T, float.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`ClosedFormParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    r2prime
        Reversible transverse relaxation rate, 1/s, float32 ``(x, y, z)``. Without it ``r2star`` less ``r2`` stands in.
    r2
        Transverse relaxation rate of a spin echo, 1/s, float32 ``(x, y, z)``. Without it and ``r2prime``, R2* with a
        relaxivity of its own stands in.

    Returns
    -------
    chi_paramagnetic
        Susceptibility of paramagnetic sources, at least zero, ppm, float32 ``(x, y, z)``; zero outside the mask.
    chi_diamagnetic
        Susceptibility of diamagnetic sources, at most zero, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, an array has NaN or Inf in the mask, or
        the field strength is none.

    Examples
    --------
    Every voxel of the phantom has one of the sources, whose size then tells R2':

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> from qsmxt.algorithms.separation.closedform import closedform
    >>> reversible = 137 * abs(head.chi)  # 1/s at 3 T
    >>> arrays = head.chi, head.r2star, head.mask, head.field_strength
    >>> sources = closedform(*arrays, head.grid, r2prime=reversible)
    >>> truth = head.chi_paramagnetic, head.chi_diamagnetic
    >>> [round(nrmse(a, b, head.mask)) for a, b in zip(sources, truth)]  # percent of the true sources
    [0, 0]
    """
    values, region = checked(chi, mask, grid)
    rates = Rates(r2star, field_strength, r2prime, r2)
    return closed_form(values, rates.source_sum(region, grid, parameters), region)
