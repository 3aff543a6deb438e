r"""Susceptibility map-weighted imaging: the magnitude darkened by the susceptibility itself.

.. math::

    \mathrm{SMWI} = I\, w^p, \qquad w = \begin{cases} 1 & \pm\chi \le 0 \\
    1 - |\chi| / \chi_{th} & 0 < \pm\chi < \chi_{th} \\ 0 & \pm\chi \ge \chi_{th} \end{cases}

with the root sum of squares I of the magnitude over the echoes and the sign of the sources to darken. Unlike phase, the
susceptibility depends on neither the orientation nor the surroundings of a vessel. The published threshold is 1 ppm
with a power of 4; "true SWI" uses 0.45 ppm and a power of 2.

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
    cost=Cost(bytes_per_voxel=24, seconds_per_megavoxel=0.05),
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
    """Weighted image and its minimum intensity projection, float32 ``(x, y, z)``, 0 outside the mask.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)`` or ``(x, y, z)``, any unit.
    chi
        Susceptibility, ppm.
    mask
        Where the image is made.
    grid
        Geometry.
    parameters
        See :class:`SMWIParameters`.

    Raises
    ------
    InputError
        If shapes do not fit, the mask is empty, or chi is not finite in it.
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
