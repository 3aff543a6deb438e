r"""Separation in closed form: two equations, two unknowns, voxel by voxel.

.. math:: \chi_+ = \max\Big(0, \frac{\chi + \rho}{2}\Big), \qquad \chi_- = \min\Big(0, \frac{\chi - \rho}{2}\Big)

with :math:`\rho` from R2', from R2* and R2, or from R2* alone (:mod:`qsmxt.algorithms.separation.sources`). This is the
baseline: published methods seldom beat it where the model holds, so its maps are written beside those of any other.

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
    cost=Cost(bytes_per_voxel=20, threads=1, seconds_per_megavoxel=0.03),
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
    """Paramagnetic (>= 0) and diamagnetic (<= 0) susceptibility, ppm, float32 ``(x, y, z)``, 0 outside the mask.

    Parameters
    ----------
    chi
        Susceptibility, ppm, referenced to tissue without sources.
    r2star, r2prime, r2
        Relaxation rates, 1/s.
    mask
        Where to separate.
    field_strength
        B0, T.
    grid
        Geometry.
    parameters
        See :class:`ClosedFormParameters`.

    Raises
    ------
    InputError
        If shapes do not fit, the mask is empty, or values in it are not finite.
    """
    values, region = checked(chi, mask, grid)
    rates = Rates(r2star, field_strength, r2prime, r2)
    return closed_form(values, rates.source_sum(region, grid, parameters), region)
