r"""Field as weighted mean of the frequencies of the echoes, for phases without offset.

.. math::
    f = \frac{1}{2\pi\bar\gamma B_0}\, \frac{\sum_e w_e\, \varphi_e / T_e}{\sum_e w_e}, \qquad
    \sigma_f = \frac{\sigma}{2\pi\bar\gamma B_0}\, \frac{\sqrt{\sum_e (w_e / M_e T_e)^2}}{\sum_e w_e} ,

with the unwrapped phase :math:`\varphi_e` (rad), echo time :math:`T_e` (s), magnitude :math:`M_e` and the noise
:math:`\sigma` per channel in the unit of the magnitude. The weights are

========================  =====================  ==========================================
``phase_variance``        :math:`M_e^2 T_e^2`    least squares, lowest noise
``phase_snr``             :math:`M_e T_e`        the habit of ROMEO
``magnitude``             :math:`M_e`
``echo_time``             :math:`T_e`
``uniform``               1
========================  =====================  ==========================================

References
----------
Dymerska et al. 2021 (doi:10.1002/mrm.28563); Eckstein et al. 2018 (doi:10.1002/mrm.26963).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.field.fitting import Echoes, fit_given_offset
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

_EXPONENTS = {
    "phase_variance": (2.0, 2.0),
    "phase_snr": (1.0, 1.0),
    "magnitude": (1.0, 0.0),
    "echo_time": (0.0, 1.0),
    "uniform": (0.0, 0.0),
}


@dataclass(frozen=True)
class WeightedFitParameters:
    """Parameters of :func:`weighted_fit`."""

    weights: str = parameter(
        "phase_variance", choices=tuple(_EXPONENTS), help="weights of the echoes; phase_variance gives the lowest noise"
    )


@method(
    stage="field",
    key="weighted_fit",
    title="Weighted mean over the echoes",
    consumes=("unwrapped_phase", "magnitude", "echo_times", "field_strength"),
    optional=("mask",),
    produces=("total_field", "field_noise", "fit_quality"),
    parameters=WeightedFitParameters,
    references=("dymerska2021",),
    sentence="The total field was the mean of the echoes' frequencies with {weights} weights.",
    cost=Cost(bytes_per_voxel=65, threads=2, seconds_per_megavoxel=0.03),
)
def weighted_fit(
    unwrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: WeightedFitParameters = WeightedFitParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Total field from one or more echoes without phase offset.

    Parameters
    ----------
    unwrapped_phase, magnitude
        ``(echo, x, y, z)``, rad and any unit.
    echo_times
        Echo times, s, ascending.
    field_strength
        B0, T.
    grid
        Geometry of the volume.
    parameters
        See :class:`WeightedFitParameters`.
    progress
        Called with the fraction done.
    mask
        Voxels to fit; without it all with finite data.

    Returns
    -------
    total_field, field_noise, fit_quality
        ppm, ppm, and 0 to 1; float32 ``(x, y, z)``, 0 outside the mask. One echo has quality 1.

    Raises
    ------
    InputError
        If shapes, echo times, field strength or mask do not fit.

    Examples
    --------
    >>> from qsmxt.constants import rad_per_ppm
    >>> times = np.array([0.005, 0.010])
    >>> phase = np.stack([np.full((8, 8, 8), 0.2 * rad_per_ppm(3.0, t)) for t in times])
    >>> field, noise, quality = weighted_fit(phase, np.ones_like(phase), times, 3.0, Grid((8, 8, 8)))
    >>> round(float(field[4, 4, 4]), 6)
    0.2
    """
    echoes = Echoes.of(
        "unwrapped_phase", unwrapped_phase, magnitude, echo_times, field_strength, grid, mask, unknowns=1
    )
    fit = fit_given_offset(echoes, exponents=_EXPONENTS[parameters.weights])
    if progress:
        progress(1.0)
    return echoes.maps(fit, 1)
