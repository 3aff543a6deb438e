r"""R2*-QSM: separation from a gradient-echo scan alone.

.. math:: \chi_+ = \max\Big(0, \frac{\chi + R_2^*/r}{2}\Big), \qquad
          \chi_- = \min\Big(0, \frac{\chi - R_2^*/r}{2}\Big), \qquad r = 274\,\frac{B_0}{3\,\mathrm T}\ \mathrm{1/s/ppm}

R2* is taken for the effect of the sources, irreversible relaxation included, with a relaxivity r that is larger to
make up for it. A voxel without sources but with R2 therefore shows equal amounts of both.

Parameters
    ``r2star_relaxivity``: r at 3 T.

References
----------
Dimov et al. 2022 (doi:10.1111/jon.13014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.separation.sources import PRODUCES, Pair, Rates, RelaxivityParameters, checked, closed_form
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class R2starQSMParameters:
    """Parameters of :func:`r2starqsm`."""

    r2star_relaxivity: float = parameter(
        274.0, unit="1/s/ppm", above=0, help="R2* per ppm of either source at 3 T; scales with the field strength"
    )


@method(
    stage="separation",
    key="r2starqsm",
    title="R2*-QSM",
    consumes=("chi", "r2star", "mask", "field_strength"),
    produces=PRODUCES,
    parameters=R2starQSMParameters,
    references=("dimov2022",),
    sentence=(
        "Para- and diamagnetic sources were separated with R2*-QSM (relaxivity of R2* at 3 T "
        "{r2star_relaxivity:g} 1/s/ppm)."
    ),
    cost=Cost(bytes_per_voxel=24, threads=1, seconds_per_megavoxel=0.03),
)
def r2starqsm(
    chi: np.ndarray,
    r2star: np.ndarray,
    mask: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: R2starQSMParameters = R2starQSMParameters(),
    *,
    progress: Progress | None = None,
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
        See :class:`R2starQSMParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

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
    Every voxel of the phantom has one of the sources. If they make all of R2*:

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> from qsmxt.algorithms.separation.r2starqsm import r2starqsm
    >>> r2star = 274 * abs(head.chi)  # 1/s at 3 T
    >>> sources = r2starqsm(head.chi, r2star, head.mask, head.field_strength, head.grid)
    >>> truth = head.chi_paramagnetic, head.chi_diamagnetic
    >>> [round(nrmse(a, b, head.mask)) for a, b in zip(sources, truth)]  # percent of the true sources
    [0, 0]
    """
    values, region = checked(chi, mask, grid)
    relaxivities = RelaxivityParameters(r2star_relaxivity=parameters.r2star_relaxivity)
    return closed_form(values, Rates(r2star, field_strength).source_sum(region, grid, relaxivities), region)
