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

Parameters
    ``iterations``: Gauss-Newton steps after the linear fit, fewer in a row of voxels whose frequencies change by less
    than ``tolerance``.

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
    iterations: int = parameter(4, at_least=1, at_most=100, help="most Gauss-Newton steps after the linear fit")
    tolerance: float = parameter(
        0.0,
        at_least=0,
        help="relative change of the field in a row of voxels at which its steps end; 0: after all steps",
    )


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
    cost=Cost(bytes_per_voxel=37.5, bytes_per_echo=8, threads=2, seconds_per_megavoxel=0.03),
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
    """Total field from the complex signal of the echoes; see the module.

    Parameters
    ----------
    unwrapped_phase
        Phase without wraps, rad, float32 ``(echo, x, y, z)``.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending; at least two if the offset is fitted.
    field_strength
        Strength of B0, T, float.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`NonlinearFitParameters`.
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
        Agreement of the echoes, from 0 to 1, float32 ``(x, y, z)``.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, the field strength is
        none, or no voxel is usable, or there are too few echoes.

    Examples
    --------
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.field.nonlinear_fit import nonlinear_fit
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase = head.unwrapped_phase + head.phase_offset
    >>> arrays = phase, head.magnitude, head.echo_times, head.field_strength
    >>> field, noise, quality = nonlinear_fit(*arrays, head.grid, mask=head.mask)
    >>> round(nrmse(field, head.total_field, head.mask), 3)  # percent of the true field
    0.0
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
        fit, _ = fit_with_offset(echoes, iterations=parameters.iterations, tolerance=parameters.tolerance)
    else:
        fit = fit_given_offset(echoes, iterations=parameters.iterations, tolerance=parameters.tolerance)
    if progress:
        progress(1.0)
    return echoes.maps(fit, unknowns)
