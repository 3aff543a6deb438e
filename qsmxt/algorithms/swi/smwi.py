r"""Susceptibility map-weighted imaging: the magnitude darkened by the susceptibility itself.

.. math::

    \mathrm{SMWI} = I\, w^p, \qquad w = \begin{cases} 1 & \pm\chi \le 0 \\
    1 - |\chi| / \chi_{th} & 0 < \pm\chi < \chi_{th} \\ 0 & \pm\chi \ge \chi_{th} \end{cases}

with the root sum of squares I of the magnitude over the echoes and the sign of the sources to darken. Unlike phase, the
susceptibility depends on neither the orientation nor the surroundings of a vessel. The published threshold is 1 ppm
with a power of 4; "true SWI" uses 0.45 ppm and a power of 2.

Parameters
    ``threshold``: :math:`\chi_{th}`. ``power``: p. ``darken``: sign of the sources. ``thickness``: of the slab of the
    projection.

References
----------
Gho et al. 2014 (doi:10.1002/mrm.24920).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.signal import combine_magnitude
from qsmxt.algorithms.swi.projection import PRODUCES, ProjectionParameters, minimum_intensity_projection
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class SMWIParameters(ProjectionParameters):
    """Parameters of :func:`smwi`."""

    threshold: float = parameter(1.0, unit="ppm", above=0, help="susceptibility at which the image is black")
    power: float = parameter(4.0, above=0, at_most=32, help="how often the mask is multiplied with the magnitude")
    darken: str = parameter("paramagnetic", choices=("paramagnetic", "diamagnetic"), help="sources that are darkened")


@method(
    stage="swi",
    key="smwi",
    title="Susceptibility map-weighted imaging (SMWI)",
    consumes=("magnitude", "chi", "mask"),
    produces=PRODUCES,
    parameters=SMWIParameters,
    references=("gho2014",),
    sentence=(
        "Susceptibility map-weighted images were computed (threshold {threshold:g} ppm, power {power:g}, {darken} "
        "sources dark) and projected over {thickness:g} mm."
    ),
    cost=Cost(bytes_per_voxel=20, seconds_per_megavoxel=0.05),
)
def smwi(
    magnitude: np.ndarray,
    chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: SMWIParameters = SMWIParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted image and its minimum intensity projection; see the module.

    Parameters
    ----------
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)`` or ``(x, y, z)``; what is not finite counts
        as no signal.
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``.
    mask
        Where the image is made, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`SMWIParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    swi
        Weighted image, in the arbitrary unit of the magnitude, float32 ``(x, y, z)``; zero outside the mask.
    minimum_intensity_projection
        Minimum of the weighted image over ``thickness``, in the same arbitrary unit, float32 ``(x, y, z)``; zero
        outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the susceptibility has NaN or Inf in
        the mask.

    Examples
    --------
    The paramagnetic sphere (1) becomes dark, the diamagnetic one (2) does not:

    >>> from qsmxt.algorithms.swi.smwi import smwi
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> image, projection = smwi(head.magnitude, head.chi, head.mask, head.grid)
    >>> around = image[head.mask & (head.labels == 0)].mean()
    >>> [round(float(image[head.labels == label].mean() / around), 1) for label in (1, 2)]
    [0.4, 1.0]
    >>> bool((projection <= image).all())
    True
    """
    inside = checked_mask(mask, grid)
    grid.check("chi", chi)
    combined = combine_magnitude(magnitude)
    grid.check("magnitude", combined)
    values = np.where(inside, chi, 0).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError("chi: expected finite values in the mask, found NaN or Inf; mask them out")
    if parameters.darken == "diamagnetic":
        np.negative(values, out=values)
    weight = np.clip(1 - values / np.float32(parameters.threshold), 0, 1) ** np.float32(parameters.power)
    swi = np.where(inside, combined * weight, np.float32(0))
    return swi, minimum_intensity_projection(swi, inside, grid, parameters.thickness)
