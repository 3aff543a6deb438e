r"""Two-pass artefact reduction.

The whole chain from background removal on is run twice: once on the reliable mask, which has holes where the phase
cannot be trusted (veins, haemorrhage, sinus edges), and once on the mask without holes. A hole streaks into the filled
map no farther than some multiples of its size, while the reliable map lacks the field of the hole and, at its own rim,
the surroundings. So the reliable map is handed over only around holes inside the mask,

.. math:: \chi = \chi_{filled} + w\,(\chi_{reliable} - \chi_{filled} - \delta) , \qquad
    w = \min\big(1,\, \max(0,\, 2 - 2 d / R)\big) ,

with the distance d to the next hole that lies more than 5 mm below the surface of the mask and R the ``reach``; w is 0
in voxels that only the filled map has. The two maps may differ by a constant; :math:`\delta` (ppm) is the median of
their difference where 0 < w < 1, so that no step is left there. The values in holes stay: what changes beside them is
the streak and not the level. Far from holes, in the brainstem as a rule, the map is that of a single pass.

With ``reach`` 0 the reliable map is taken wherever there is one, as published: then

.. math:: \chi = \begin{cases} \chi_{reliable} & \text{in the reliable mask} \\
                 \chi_{filled} + \delta & \text{elsewhere in the mask} \end{cases}

and :math:`\delta` is the mean of :math:`\chi_{reliable} - \chi_{filled}` over the voxels of both masks within
``ring`` voxels of those that only the filled map has. In both cases unreliable voxels are shown but cannot streak into
the others, and no voxel outside the mask gets a value.

References
----------
Stewart et al. 2022 (doi:10.1002/mrm.29048).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import morphology
from qsmxt.algorithms.domain import checked_mask
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: How far below the surface of the mask a hole must lie, mm.
DEPTH = 5.0


@dataclass(frozen=True)
class TwoPassParameters:
    """Parameters of :func:`two_pass`."""

    reach: float = parameter(
        20.0, unit="mm", at_least=0, at_most=200, help="how far around holes the reliable map is taken; 0: everywhere"
    )
    ring: int = parameter(
        2, unit="voxels", at_least=0, help="width of the seam on which the maps are matched if reach is 0; 0: not"
    )


@method(
    stage="merging",
    key="two_pass",
    title="Two-pass artefact reduction",
    consumes=("reliable_chi", "reliable_mask", "filled_chi", "mask"),
    produces=("chi",),
    parameters=TwoPassParameters,
    references=("stewart2022",),
    sentence=(
        "Streaks from unreliable voxels were reduced by a second reconstruction without them, which replaced the first "
        "within {reach:g} mm around them (0: everywhere)."
    ),
    cost=Cost(bytes_per_voxel=26, seconds_per_megavoxel=0.1),
)
def two_pass(
    reliable_chi: np.ndarray,
    reliable_mask: np.ndarray,
    filled_chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TwoPassParameters = TwoPassParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """One map (ppm) from that of the reliable mask and that of the mask without holes; see the module.

    Parameters
    ----------
    reliable_chi
        Susceptibility from the reliable mask, ppm, float32 ``(x, y, z)``.
    reliable_mask
        Where the phase can be trusted, bool ``(x, y, z)``.
    filled_chi
        Susceptibility from the mask without holes, ppm, float32 ``(x, y, z)``.
    mask
        Where the map is wanted, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`TwoPassParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, a mask is empty or not of 0 and 1, or a map has NaN or Inf in its mask.

    Examples
    --------
    One map of the phantom lacks a sphere, the other has a slope. Together they have less of an error than either:

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.merging.two_pass import two_pass
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = two_pass(head.reliable_chi, head.reliable_mask, head.filled_chi, head.mask, head.grid)
    >>> [round(nrmse(c, head.chi, head.mask)) for c in (head.reliable_chi, head.filled_chi, chi)]  # percent
    [18, 25, 12]
    """
    mask = checked_mask(mask, grid)
    reliable = checked_mask(reliable_mask, grid, "reliable_mask") & mask
    for name, chi, region in (("reliable_chi", reliable_chi, reliable), ("filled_chi", filled_chi, mask)):
        grid.check(name, chi)
        if not np.isfinite(chi[region]).all():
            raise InputError(f"{name}: expected finite values in its mask, found NaN or Inf")
    only_filled = mask & ~reliable
    if parameters.reach > 0:
        return _around_holes(reliable_chi, reliable, filled_chi, mask, grid, parameters.reach)
    seam = reliable & _near(only_filled, parameters.ring)
    shift = np.mean(reliable_chi[seam] - filled_chi[seam], dtype=np.float64) if seam.any() else 0.0
    merged = np.zeros(grid.shape, dtype=np.float32)
    merged[reliable] = reliable_chi[reliable]
    merged[only_filled] = filled_chi[only_filled] + shift
    return merged


def _around_holes(
    reliable_chi: np.ndarray,
    reliable: np.ndarray,
    filled_chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    reach: float,
) -> np.ndarray:
    """The filled map, and around holes inside the mask the reliable one."""
    merged = np.where(mask, filled_chi, np.float32(0)).astype(np.float32)
    holes = mask & ~reliable & (morphology.distance(mask, grid, DEPTH + max(grid.voxel_size)) > np.float32(DEPTH))
    if not holes.any():
        return merged
    distance = morphology.distance(~holes, grid, reach + max(grid.voxel_size), border=True)
    weight = np.where(reliable, np.clip(2 - 2 * distance / np.float32(reach), 0, 1), 0).astype(np.float32)
    near = weight > 0
    difference = reliable_chi[near].astype(np.float32) - merged[near]
    ramp = weight[near] < 1
    shift = np.median(difference[ramp]) if ramp.any() else np.float32(0)
    merged[near] += weight[near] * (difference - shift)
    return merged


def _near(region: np.ndarray, width: int) -> np.ndarray:
    """Voxels that at most ``width`` face steps separate from ``region``."""
    if width == 0 or not region.any():
        return np.zeros_like(region)
    return ndimage.binary_dilation(region, iterations=width)
