r"""Field by a least-squares fit to the complex signal, voxel by voxel.

.. math::
    \min_{\varphi_0, \omega} \sum_e \bigl| S_e - M_e e^{i (\varphi_0 + \omega T_e)} \bigr|^2,
    \qquad S_e = M_e e^{i\varphi_e}

by Gauss-Newton steps, which solve the normal equations of the linear fit with the residual phase :math:`r_e` replaced
by :math:`\sin r_e` and therefore do not care whether single late echoes are unwrapped right. The start is the linear
fit of the unwrapped phase, so that the frequency is not limited to :math:`\pm 1 / 2\Delta T`. Each step also estimates
the offset :math:`\varphi_0`, unless it was removed before (``offset="removed"``). Symbols and noise as in
:mod:`~qsmxt.algorithms.field.linear_fit` and :mod:`~qsmxt.algorithms.field.weighted_fit`.

Departure from the paper: the start is unwrapped in space, not the result.

References
----------
Liu et al. 2013 (doi:10.1002/mrm.24272).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.field.fitting import Echoes, fit_given_offset, fit_with_offset
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

_REMEDY = "use the weighted fit for a single echo, or offset removed"


@dataclass(frozen=True)
class NonlinearFitParameters:
    """Parameters of :func:`nonlinear_fit`."""

    offset: str = parameter(
        "fitted",
        choices=("fitted", "removed"),
        help="estimate the phase offset in every voxel, or rely on its removal (about half the noise)",
    )
    iterations: int = parameter(4, at_least=1, at_most=100, help="Gauss-Newton steps after the linear fit")


@method(
    stage="field",
    key="nonlinear_fit",
    title="Nonlinear fit of the complex signal",
    consumes=("unwrapped_phase", "magnitude", "echo_times", "field_strength"),
    optional=("mask",),
    produces=("total_field", "field_noise", "fit_quality"),
    parameters=NonlinearFitParameters,
    references=("liu2013",),
    sentence="The total field was fitted to the complex signal by {iterations} Gauss-Newton steps (offset {offset}).",
    cost=Cost(bytes_per_voxel=69, threads=2, seconds_per_megavoxel=0.03),
)
def nonlinear_fit(
    unwrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: NonlinearFitParameters = NonlinearFitParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Total field from the complex signal of the echoes.

    Parameters
    ----------
    unwrapped_phase, magnitude
        ``(echo, x, y, z)``, rad and any unit.
    echo_times
        Echo times, s, ascending; at least two if the offset is fitted.
    field_strength
        B0, T.
    grid
        Geometry of the volume.
    parameters
        See :class:`NonlinearFitParameters`.
    progress
        Called with the fraction done.
    mask
        Voxels to fit; without it all with finite data.

    Returns
    -------
    total_field, field_noise, fit_quality
        ppm, ppm, and 0 to 1; float32 ``(x, y, z)``, 0 outside the mask.

    Raises
    ------
    InputError
        If shapes, echo times, field strength or mask do not fit, or there are too few echoes.

    Examples
    --------
    >>> from qsmxt.constants import rad_per_ppm
    >>> times = np.array([0.005, 0.010, 0.020])
    >>> phase = np.stack([np.full((8, 8, 8), 0.7 - 0.1 * rad_per_ppm(3.0, t)) for t in times])
    >>> field, noise, quality = nonlinear_fit(phase, np.ones_like(phase), times, 3.0, Grid((8, 8, 8)))
    >>> round(float(field[4, 4, 4]), 6)
    -0.1
    """
    unknowns = 2 if parameters.offset == "fitted" else 1
    echoes = Echoes.of(
        "unwrapped_phase",
        unwrapped_phase,
        magnitude,
        echo_times,
        field_strength,
        grid,
        mask,
        unknowns=unknowns,
        remedy=_REMEDY,
    )
    if unknowns == 2:
        fit, _ = fit_with_offset(echoes, iterations=parameters.iterations)
    else:
        fit = fit_given_offset(echoes, iterations=parameters.iterations)
    if progress:
        progress(1.0)
    return echoes.maps(fit, unknowns)
