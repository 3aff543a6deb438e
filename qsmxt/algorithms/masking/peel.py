r"""Peeling: the fluid between skull and cortex leaves the mask.

A brain extraction of a gradient-echo image ends at the skull, because fluid is as bright as tissue. But fluid decays
slowly (about 4/s at 3 T) and tissue fast (16 to 21/s). With the first and the last echo, smoothed with a Gaussian of
2 mm full width at half maximum, a voxel is fluid if

.. math:: R(r) = \frac{\ln S_1(r) - \ln S_n(r)}{T_{E,n} - T_{E,1}} < a\,\tilde R ,

where the reference :math:`\tilde R` is the median of R in the mask 10 mm and more below its surface. Being relative,
the level does not depend on the field strength. Fluid that the outside reaches through fluid, to ``depth`` mm, is
removed; what is left is opened with a ball of 2 mm, at least one voxel. Where the field is steep R is high, so tissue
near air is never taken for fluid. Ventricles and fluid in the depth of sulci stay.

One echo shows no decay, only how bright a voxel is relative to the tissue 8 mm and more below the surface, smoothed
with a standard deviation of 15 mm and extrapolated. Then, and where more than a quarter of the depth would be fluid
(noise, echoes too close), the rim of ``rim`` mm, at least one voxel, is taken for fluid where it is at least as bright:
fluid is not darker than tissue, but tissue whose signal dephases beside air is. To twice that depth, fluid is
what is at least 1.15 times as bright as cortex, which is the median at that depth, at most 1.25 times the deep tissue:
late echoes show fluid brighter than cortex, and where they do not, nothing more is removed.

Parameters
    ``level``: a.

References
----------
Relaxation rates: Marques et al. 2021 (doi:10.1002/mrm.28716).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import morphology
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.masking.flood import reached
from qsmxt.algorithms.masking.resolution import interpolate
from qsmxt.algorithms.masking.trim import local_intensity, smoothed_blocks
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Full width at half maximum of the smoothing, and depth from which on there is mostly tissue, mm.
WIDTH, CORE = 2.0, 10.0
#: Share of fluid in the core above which fluid and tissue were not told apart.
MIXED = 0.25
#: If there is one echo: brightness relative to deep tissue from which on a voxel of the rim may be fluid, brightness
#: relative to cortex from which on one below it is, and depth of the latter in rims.
BRIGHT, BRIGHTER, RIMS = 1.0, 1.15, 2.0
#: Brightness of cortex relative to deep tissue that is not believed to be exceeded.
CORTEX = 1.25
#: Depth of the tissue that brightness is relative to, mm, standard deviation of its smoothing, mm, and fraction of the
#: intensity around below which a voxel is not tissue.
DEEP, SMOOTHING, DARK = 8.0, 15.0, 0.5
#: Radius of the opening, mm.
OPENING = 2.0


@dataclass(frozen=True)
class PeelParameters:
    """Parameters of :func:`peel`."""

    level: float = parameter(0.5, above=0, below=1, help="fluid decays slower than this fraction of the tissue's rate")
    depth: float = parameter(10.0, unit="mm", above=0, at_most=50, help="how deep fluid may be removed")
    rim: float = parameter(2.0, unit="mm", at_least=0, at_most=10, help="what is removed where there is one echo only")


@method(
    stage="masking",
    key="peel",
    title="Peeling of the fluid around the brain",
    consumes=("mask", "magnitude"),
    optional=("echo_times",),
    produces=("mask",),
    parameters=PeelParameters,
    references=("marques2021",),
    sentence="Fluid at the border, told from tissue by its slow decay (or, with one echo, a rim), was removed.",
    cost=Cost(bytes_per_voxel=17, threads=1, seconds_per_megavoxel=0.1),
)
def peel(
    mask: np.ndarray,
    magnitude: np.ndarray,
    grid: Grid,
    parameters: PeelParameters = PeelParameters(),
    *,
    progress: Progress | None = None,
    echo_times: np.ndarray | None = None,
) -> np.ndarray:
    """Bool mask within ``mask``, fluid at the border removed; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    magnitude
        Magnitude of the echoes as measured, arbitrary unit, float32 ``(echo, x, y, z)`` or ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`PeelParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    echo_times
        Echo times, s, float ``(echo,)``, ascending. Without them, or with one, only a bright rim is removed.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``, within ``mask``; it may be empty.

    Raises
    ------
    InputError
        If a shape is not that of the grid, or there are more or fewer echo times than echoes.

    Examples
    --------
    Two layers around the phantom become fluid, which decays with 4/s:

    >>> import numpy as np
    >>> from qsmxt.algorithms.masking.dilate import DilateParameters, dilate
    >>> from qsmxt.algorithms.masking.peel import peel
    >>> from qsmxt.algorithms.masking.plausibility import dice
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> wide = dilate(head.mask, head.grid, DilateParameters(radius=4))
    >>> decay = np.exp(-4 * head.echo_times)[:, None, None, None]
    >>> magnitude = np.where(wide & ~head.mask, decay, head.magnitude).astype(np.float32)
    >>> mask = peel(wide, magnitude, head.grid, echo_times=head.echo_times)
    >>> bool((mask <= head.mask).all()), round(dice(wide, head.mask), 2), bool(dice(mask, head.mask) > 0.99)
    (True, 0.73, True)
    """
    grid.check("mask", mask)
    echoes = magnitude if magnitude.ndim == 4 else magnitude[None]
    grid.check("magnitude", echoes, echoes=len(echoes))
    if echo_times is not None and len(echo_times) != len(echoes):
        raise InputError(f"echo_times: expected {len(echoes)}, one for every echo, found {len(echo_times)}")
    out = mask.copy()
    if not mask.any():
        return out
    box = box_of(mask, (1, 1, 1))
    part = np.ascontiguousarray(mask[box])
    inner = grid.with_shape(part.shape)
    first, last = echoes[0][box], echoes[-1][box]
    fluid = None
    if echo_times is not None and len(echoes) > 1:
        fluid = _fluid(part, first, last, inner, parameters.level)
    if fluid is not None:
        distance = morphology.depth(part, inner, parameters.depth + 2 * max(grid.voxel_size))
        fluid &= distance <= np.float32(parameters.depth * (1 + morphology.TOUCH))
    elif parameters.rim > 0:
        fluid = _bright(part, first, inner, max(parameters.rim, min(grid.voxel_size)))
    else:
        return out
    left = part & ~reached(part, fluid)
    out[box] = morphology.opening(left, inner, max(OPENING, min(grid.voxel_size)))
    return out


def _bright(mask: np.ndarray, image: np.ndarray, grid: Grid, rim: float) -> np.ndarray:
    """Bright voxels of the rim, and those below it that are brighter than cortex."""
    distance = morphology.depth(mask, grid, max(DEEP, RIMS * rim) + 2 * max(grid.voxel_size))
    image = np.nan_to_num(image.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
    bright = image / _deep_intensity(mask, image, distance, grid)
    first = mask & (distance <= np.float32(rim * (1 + morphology.TOUCH)))
    below = mask & ~first & (distance <= np.float32(RIMS * rim * (1 + morphology.TOUCH)))
    cortex = np.float32(min(np.median(bright[below]), CORTEX)) if below.any() else np.float32(CORTEX)
    return (first & (bright > np.float32(BRIGHT))) | (below & (bright > np.float32(BRIGHTER) * cortex))


def _deep_intensity(mask: np.ndarray, image: np.ndarray, distance: np.ndarray, grid: Grid) -> np.ndarray:
    """Smoothed intensity of the tissue deep in the mask, extrapolated to all voxels, float32."""
    around = local_intensity(mask, image, grid, DARK)
    tissue = mask & (image > np.float32(DARK) * around)
    deep = tissue & (distance > np.float32(DEEP))
    weight = (deep if deep.any() else tissue).astype(np.float32)
    count = float(weight.sum(dtype=np.float64))
    mean = float((weight * image).sum(dtype=np.float64)) / count if count else 1.0
    share, total, factors = smoothed_blocks(weight, image, grid, SMOOTHING, 4.0)
    # Far from all tissue the mean takes over.
    level = (total + np.float32(1e-4 * mean)) / (share + np.float32(1e-4))
    return np.maximum(interpolate(level, factors, grid.shape), np.float32(1e-20))


def smoothed(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """Finite ``volume`` after a Gaussian of :data:`WIDTH`, for the comparison of echoes."""
    widths = [WIDTH / (2 * np.sqrt(2 * np.log(2))) / v for v in grid.voxel_size]
    return ndimage.gaussian_filter(volume, widths, truncate=3.0)  # type: ignore[no-any-return]


def _fluid(mask: np.ndarray, first: np.ndarray, last: np.ndarray, grid: Grid, level: float) -> np.ndarray | None:
    """Voxels that decay slowly between the two echoes, or ``None`` if they cannot be told from others."""
    first, last = (smoothed(np.nan_to_num(np.asarray(v, dtype=np.float32)), grid) for v in (first, last))
    core = morphology.depth(mask, grid, CORE + 2 * max(grid.voxel_size)) > np.float32(CORE)
    core &= (first > 0) & (last > 0)
    if not core.any():
        return None
    rate = float(np.median(np.log(first[core] / last[core])))
    fluid = last > first * np.float32(np.exp(-level * rate))
    return fluid if rate > 0 and fluid[core].mean() < MIXED else None
