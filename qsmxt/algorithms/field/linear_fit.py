r"""Field and phase offset by weighted linear regression of the unwrapped phase over echo time, voxel by voxel.

.. math::
    \min_{\varphi_0, \omega} \sum_e M_e^2 (\varphi_e - \varphi_0 - \omega T_e)^2, \qquad
    f = \frac{\omega}{2\pi\bar\gamma B_0}, \qquad
    \sigma_f = \frac{\sigma}{2\pi\bar\gamma B_0} \sqrt{\frac{S_0}{S_0 S_2 - S_1^2}} ,

with :math:`S_k = \sum_e M_e^2 T_e^k`, the unwrapped phase :math:`\varphi_e` (rad), echo times :math:`T_e` (s) and the
noise :math:`\sigma` per channel in the unit of the magnitude. It needs no offset removal, but a free offset in every
voxel about doubles the noise against a known one.

References
----------
Liu et al. 2013 (doi:10.1002/mrm.24272).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.field.fitting import Echoes, fit_with_offset
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method

_REMEDY = "use the weighted fit for a single echo"


@dataclass(frozen=True)
class LinearFitParameters:
    """:func:`linear_fit` has no parameters."""


@method(
    stage="field",
    key="linear_fit",
    title="Linear fit with offset",
    consumes=("unwrapped_phase", "magnitude", "echo_times", "field_strength"),
    optional=("mask",),
    produces=("total_field", "field_noise", "fit_quality"),
    parameters=LinearFitParameters,
    references=("liu2013",),
    sentence="The total field was the slope of a magnitude-weighted linear fit of the phase over echo time.",
    cost=Cost(bytes_per_voxel=69, threads=2, seconds_per_megavoxel=0.03),
)
def linear_fit(
    unwrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: LinearFitParameters = LinearFitParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Total field from two or more echoes with any phase offset.

    Parameters
    ----------
    unwrapped_phase, magnitude
        ``(echo, x, y, z)``, rad and any unit.
    echo_times
        Echo times, s, ascending, at least two.
    field_strength
        B0, T.
    grid
        Geometry of the volume.
    parameters
        None.
    progress
        Called with the fraction done.
    mask
        Voxels to fit; without it all with finite data.

    Returns
    -------
    total_field, field_noise, fit_quality
        ppm, ppm, and 0 to 1; float32 ``(x, y, z)``, 0 outside the mask. Two echoes have quality 1.

    Raises
    ------
    InputError
        If shapes, echo times, field strength or mask do not fit, or there is one echo.

    Examples
    --------
    >>> from qsmxt.constants import rad_per_ppm
    >>> times = np.array([0.005, 0.010, 0.020])
    >>> phase = np.stack([np.full((8, 8, 8), 0.7 - 0.1 * rad_per_ppm(3.0, t)) for t in times])
    >>> field, noise, quality = linear_fit(phase, np.ones_like(phase), times, 3.0, Grid((8, 8, 8)))
    >>> round(float(field[4, 4, 4]), 6)
    -0.1
    """
    echoes = Echoes.of(
        "unwrapped_phase",
        unwrapped_phase,
        magnitude,
        echo_times,
        field_strength,
        grid,
        mask,
        unknowns=2,
        remedy=_REMEDY,
    )
    fit, _ = fit_with_offset(echoes)
    if progress:
        progress(1.0)
    return echoes.maps(fit, 2)
