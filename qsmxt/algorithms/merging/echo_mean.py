r"""Mean of the susceptibility maps of single echoes.

.. math:: \chi = \frac{\sum_e w_e \chi_e}{\sum_e w_e}, \qquad w_e = 1 \;\text{or}\; (T_{E,e}\, m_e)^2

:math:`\chi_e` (ppm) is the map of echo :math:`e`, ``(echo, x, y, z)``. With ``phase_snr`` weights the noisier echoes
of every voxel count less (:math:`m_e` magnitude, :math:`T_{E,e}` echo time, s): the variance of the phase goes with
:math:`1/m^2`, that of the field in ppm with :math:`1/(m T_E)^2`. A voxel without any signal takes the plain mean.

Parameters
    ``weighting``: which :math:`w_e`.

References
----------
Stewart et al. 2022 (doi:10.1002/mrm.29048).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import checked_mask
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class EchoMeanParameters:
    """Parameters of :func:`echo_mean`."""

    weighting: str = parameter("phase_snr", choices=("uniform", "phase_snr"), help="how much an echo counts")


@method(
    stage="merging",
    key="echo_mean",
    title="Mean over the echoes",
    consumes=("echo_chi", "mask"),
    optional=("magnitude", "echo_times"),
    produces=("chi",),
    parameters=EchoMeanParameters,
    references=("stewart2022",),
    sentence="The susceptibility maps of the echoes were averaged ({weighting} weights).",
    cost=Cost(bytes_per_voxel=16, bytes_per_echo=0.5, seconds_per_megavoxel=0.1),
)
def echo_mean(
    echo_chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: EchoMeanParameters = EchoMeanParameters(),
    *,
    progress: Progress | None = None,
    magnitude: np.ndarray | None = None,
    echo_times: np.ndarray | None = None,
) -> np.ndarray:
    """One map (ppm) from those of the echoes; see the module.

    Parameters
    ----------
    echo_chi
        Susceptibility of every echo, ppm, float32 ``(echo, x, y, z)``.
    mask
        Where there are maps, bool ``(x, y, z)``.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`EchoMeanParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``, for ``phase_snr`` weights. Without it all
        echoes count the same.
    echo_times
        Echo times, s, float ``(echo,)``, for the same weights. Without them all echoes count the same.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, the mask is empty or not of 0 and 1, or a map has NaN or Inf
        in it.

    Examples
    --------
    The echoes of the phantom have 100, 102 and 97 % of its susceptibility:

    >>> import numpy as np
    >>> from qsmxt.algorithms.merging.echo_mean import echo_mean
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = echo_mean(head.echo_chi, head.mask, head.grid)
    >>> bool(np.allclose(chi, (1 + 1.02 + 0.97) / 3 * head.chi))
    True
    """
    echoes = echo_chi.shape[0] if echo_chi.ndim == 4 else 0
    grid.check("echo_chi", echo_chi, echoes=echoes)
    mask = checked_mask(mask, grid)
    if echoes == 0 or not np.isfinite(echo_chi[:, mask]).all():
        raise InputError("echo_chi: expected finite values of at least one echo in the mask, found none, NaN or Inf")
    weighted = parameters.weighting == "phase_snr" and magnitude is not None and echo_times is not None
    if weighted:
        assert magnitude is not None and echo_times is not None
        grid.check("magnitude", magnitude, echoes=echoes)
        if np.shape(echo_times) != (echoes,):
            raise InputError(f"echo_times: expected {echoes} values, found {np.size(echo_times)}")
    total = np.zeros(grid.shape, dtype=np.float32)
    weight = np.zeros(grid.shape, dtype=np.float32)
    for echo in range(echoes):
        w: np.ndarray | float = 1.0
        if weighted:
            assert magnitude is not None and echo_times is not None
            w = np.square(magnitude[echo] * np.float32(echo_times[echo]), dtype=np.float32)
        total += w * echo_chi[echo]
        weight += w
    plain = mask & ~(weight > 0)
    chi = np.divide(total, weight, out=np.zeros_like(total), where=mask & (weight > 0))
    chi[plain] = echo_chi[:, plain].mean(axis=0)
    return chi
