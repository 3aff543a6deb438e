r"""Erosion where the signal is too weak: voxels at the border leave the mask as long as their signal-to-noise ratio
is low.

.. math:: \frac{m(r)}{\sigma} < s, \qquad m = \sqrt{\textstyle\sum_e m_e^2} ,

with the noise :math:`\sigma` of one channel, measured in the background
(:func:`qsmxt.algorithms.signal.noise_level`), and s the ``ratio``. Such a voxel is removed if it is connected with the
outside through others of its kind, and if it is not deeper than ``depth`` in the mask. Unlike an erosion this spares
the cortex and still takes what is dephased near air. No source: the rule of this program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.masking.flood import reached
from qsmxt.algorithms.signal import combine_magnitude, noise_level
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class SNRParameters:
    """Parameters of :func:`snr`."""

    ratio: float = parameter(10.0, above=0, help="voxels with a lower signal-to-noise ratio may be removed")
    depth: float = parameter(10.0, unit="mm", above=0, at_most=100, help="how deep the erosion may go")


@method(
    stage="masking",
    key="snr",
    title="Erosion where the signal is weak",
    consumes=("mask", "magnitude"),
    produces=("mask",),
    parameters=SNRParameters,
    sentence="Border voxels with a signal-to-noise ratio below {ratio:g} were removed to a depth of {depth:g} mm.",
    cost=Cost(bytes_per_voxel=20, seconds_per_megavoxel=0.2),
)
def snr(
    mask: np.ndarray,
    magnitude: np.ndarray,
    grid: Grid,
    parameters: SNRParameters = SNRParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask within ``mask``, weak borders removed; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    magnitude
        Magnitude of the echoes as measured, arbitrary unit, float32 ``(echo, x, y, z)`` or ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`SNRParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``, within ``mask``; it may be empty.

    Raises
    ------
    InputError
        If a shape is not that of the grid, or the noise cannot be measured: no background and no region with signal 4
        voxels wide, or no positive value.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.dilate import DilateParameters, dilate
    >>> from qsmxt.algorithms.masking.snr import snr
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> wide = dilate(head.mask, head.grid, DilateParameters(radius=4))  # with two layers of air
    >>> bool((snr(wide, head.magnitude, head.grid) == head.mask).all())
    True
    """
    grid.check("mask", mask)
    combined = combine_magnitude(magnitude)
    grid.check("magnitude", combined)
    weak = combined < np.float32(parameters.ratio * noise_level(magnitude))
    cap = parameters.depth + 2 * max(grid.voxel_size)
    weak &= morphology.distance(mask, grid, cap, border=True) <= np.float32(parameters.depth)
    return mask & ~reached(mask, weak)
