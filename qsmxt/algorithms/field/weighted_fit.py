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

Parameters
    ``weights``: a row of the table.

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
    cost=Cost(bytes_per_voxel=33.5, bytes_per_echo=8, threads=2, seconds_per_megavoxel=0.03),
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
    """Total field from one or more echoes without phase offset; see the module.

    Parameters
    ----------
    unwrapped_phase
        Phase without wraps and without offset, rad, float32 ``(echo, x, y, z)``.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    field_strength
        Strength of B0, T, float.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`WeightedFitParameters`.
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
        Agreement of the echoes, from 0 to 1, float32 ``(x, y, z)``; 1 for one echo.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, the field strength is
        none, or no voxel is usable.

    Examples
    --------
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.field.weighted_fit import weighted_fit
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase = head.unwrapped_phase
    >>> arrays = phase, head.magnitude, head.echo_times, head.field_strength
    >>> field, noise, quality = weighted_fit(*arrays, head.grid, mask=head.mask)
    >>> round(nrmse(field, head.total_field, head.mask), 3)  # percent of the true field
    0.0
    """
    echoes = Echoes.of(
        "unwrapped_phase", unwrapped_phase, magnitude, echo_times, field_strength, grid, mask, unknowns=1
    )
    fit = fit_given_offset(echoes, exponents=_EXPONENTS[parameters.weights])
    if progress:
        progress(1.0)
    return echoes.maps(fit, 1)
