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
    cost=Cost(bytes_per_voxel=37.5, bytes_per_echo=8, threads=2, seconds_per_megavoxel=0.03),
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
    """Total field from two or more echoes with any phase offset; see the module.

    Parameters
    ----------
    unwrapped_phase
        Phase without wraps, rad, float32 ``(echo, x, y, z)``.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending, at least two.
    field_strength
        Strength of B0, T, float.
    grid
        Shape and voxel size (mm).
    parameters
        Empty, see :class:`LinearFitParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels to fit, bool ``(x, y, z)``. Without it all with finite data are.

    Returns
    -------
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; this and all others are zero outside the mask.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``.
    fit_quality
        Agreement of the echoes, from 0 to 1, float32 ``(x, y, z)``; 1 for two echoes.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, the field strength is
        none, or no voxel is usable, or there is one echo.

    Examples
    --------
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.field.linear_fit import linear_fit
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase = head.unwrapped_phase + head.phase_offset
    >>> arrays = phase, head.magnitude, head.echo_times, head.field_strength
    >>> field, noise, quality = linear_fit(*arrays, head.grid, mask=head.mask)
    >>> round(nrmse(field, head.total_field, head.mask), 3)  # percent of the true field
    0.0
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
