r"""Two-pass artefact reduction.

The whole chain from background removal on is run twice: once on the reliable mask, which has holes where the phase
cannot be trusted (veins, haemorrhage, sinus edges), and once on the mask without holes. The merged map is

.. math:: \chi = \begin{cases} \chi_{reliable} & \text{in the reliable mask} \\
                 \chi_{filled} + \delta & \text{elsewhere in the mask} \end{cases}

so unreliable voxels are shown but cannot streak into the others. The two maps may differ by a constant;
:math:`\delta` (ppm) is the mean of :math:`\chi_{reliable} - \chi_{filled}` over the voxels of both masks within
``ring`` voxels of those that only the filled map has. Every voxel of the mask is taken from exactly one map and none
outside it gets a value.

References
----------
Stewart et al. 2022 (doi:10.1002/mrm.29048).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms.domain import checked_mask
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class TwoPassParameters:
    """Parameters of :func:`two_pass`."""

    ring: int = parameter(2, unit="voxels", at_least=0, help="width of the seam on which the maps are matched; 0: not")


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
        "wherever both exist."
    ),
    cost=Cost(bytes_per_voxel=20, seconds_per_megavoxel=0.1),
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
    """One map (ppm) from that of the reliable mask and that of the mask without holes; zero outside the mask."""
    mask = checked_mask(mask, grid)
    reliable = checked_mask(reliable_mask, grid, "reliable_mask") & mask
    for name, chi, region in (("reliable_chi", reliable_chi, reliable), ("filled_chi", filled_chi, mask)):
        grid.check(name, chi)
        if not np.isfinite(chi[region]).all():
            raise InputError(f"{name}: expected finite values in its mask, found NaN or Inf")
    only_filled = mask & ~reliable
    seam = reliable & _near(only_filled, parameters.ring)
    shift = np.mean(reliable_chi[seam] - filled_chi[seam], dtype=np.float64) if seam.any() else 0.0
    merged = np.zeros(grid.shape, dtype=np.float32)
    merged[reliable] = reliable_chi[reliable]
    merged[only_filled] = filled_chi[only_filled] + shift
    return merged


def _near(region: np.ndarray, width: int) -> np.ndarray:
    """Voxels that at most ``width`` face steps separate from ``region``."""
    if width == 0 or not region.any():
        return np.zeros_like(region)
    return ndimage.binary_dilation(region, iterations=width)
