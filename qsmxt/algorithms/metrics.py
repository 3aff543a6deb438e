r"""How far a map is from the truth.

Let :math:`x` be an estimate and :math:`t` the truth (ppm) over the voxels of a mask.

.. math::

    \mathrm{NRMSE} = 100\,\frac{\|(x-\bar x)-(t-\bar t)\|}{\|t-\bar t\|},\qquad
    x \approx s\,t + o,\quad \mathrm{NRMSE}_{detrended} = \mathrm{NRMSE}\big((x-o)/s,\;t\big)

The mean of a susceptibility map is not observable, hence the means are removed. Never compare two maps over different
masks; report :func:`coverage` with every number. Labels follow the reconstruction challenge 2.0: 1 caudate, 2
pallidum, 3 putamen, 4 red nucleus, 5 dentate, 6 substantia nigra, 7 thalamus, 8 white matter, 9 grey matter, 10 CSF,
11 vein.

References: challenge 2.0 (doi:10.1002/mrm.28754), XSIM (doi:10.1002/mrm.30271).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

from qsmxt.errors import InputError
from qsmxt.geometry import Grid

DEEP_GREY = (1, 2, 3, 4, 5, 6)
TISSUE = (7, 8, 9)
BLOOD = (11,)
#: Distances from the edge of the mask between which :func:`edge_profile` scores, mm.
SHELLS = (0.0, 1.5, 3.0, 4.5, 6.0, 9.0, 12.0, 18.0, np.inf)


def nrmse(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Demeaned normalised root-mean-square error, percent; 100 for an estimate that is constant.

    >>> t = np.arange(8.0).reshape(2, 2, 2)
    >>> nrmse(1.5 * t + 3, t, t >= 0)
    50.0
    """
    x, t = _inside(estimate, truth, mask)
    return _ratio(x - x.mean(), t - t.mean())


def detrended_nrmse(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """NRMSE (percent) once the line through estimate against truth is divided out; ``inf`` without correlation."""
    x, t = _inside(estimate, truth, mask)
    slope, offset = _line(t, x)
    if slope == 0:
        return float("inf")
    x = (x - offset) / slope
    return _ratio(x - x.mean(), t - t.mean())


def region_nrmse(
    estimate: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
    region: Sequence[int],
    mask: np.ndarray,
    *,
    grow: int = 0,
) -> float:
    """Detrended NRMSE (percent) over the voxels of ``mask`` whose label is in ``region``, grown by ``grow`` voxels."""
    inside = np.isin(labels, region)
    if grow:
        inside = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool), iterations=grow)
    return detrended_nrmse(estimate, truth, inside & mask)


def tissue_nrmse(estimate: np.ndarray, truth: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> float:
    """:func:`region_nrmse` of thalamus, white and grey matter."""
    return region_nrmse(estimate, truth, labels, TISSUE, mask)


def deep_grey_nrmse(estimate: np.ndarray, truth: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> float:
    """:func:`region_nrmse` of the six iron-rich nuclei."""
    return region_nrmse(estimate, truth, labels, DEEP_GREY, mask)


def blood_nrmse(estimate: np.ndarray, truth: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> float:
    """:func:`region_nrmse` of the veins grown by one voxel (26 neighbours)."""
    return region_nrmse(estimate, truth, labels, BLOOD, mask, grow=1)


def region_means(volume: np.ndarray, labels: np.ndarray, regions: Sequence[int], mask: np.ndarray) -> np.ndarray:
    """Mean of ``volume`` over each region inside ``mask``; NaN where a region has no voxel there."""
    index = labels[mask].astype(np.int64)
    size = max(int(index.max(initial=0)), *regions) + 1
    count = np.bincount(index, minlength=size)
    total = np.bincount(index, weights=volume[mask].astype(np.float64), minlength=size)
    wanted = list(regions)
    return np.where(count[wanted] > 0, total[wanted] / np.maximum(count[wanted], 1), np.nan)


def slope(
    estimate: np.ndarray, truth: np.ndarray, labels: np.ndarray, mask: np.ndarray, regions: Sequence[int] = DEEP_GREY
) -> float:
    """Slope of the regional means of the estimate against those of the truth; 1 is perfect.

    Regions without a voxel in the mask do not count; at least two are needed.
    """
    t = region_means(truth, labels, regions, mask)
    x = region_means(estimate, labels, regions, mask)
    known = np.isfinite(t)
    if known.sum() < 2:
        raise InputError(
            f"labels: expected at least two of the regions {tuple(regions)} in the mask, found {known.sum()}"
        )
    return _line(t[known], x[known])[0]


def nonlinearity(
    estimate: np.ndarray, truth: np.ndarray, labels: np.ndarray, mask: np.ndarray, regions: Sequence[int] = DEEP_GREY
) -> float:
    r"""The challenge's deep-grey linearity error :math:`|1 - s|` with :math:`s` of :func:`slope`."""
    return abs(1.0 - slope(estimate, truth, labels, mask, regions))


def xsim(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    r"""Structural similarity tuned for susceptibility (Milovic 2025), 1 for equal maps.

    .. math:: \frac{(2\mu_x\mu_t + c_1)(2\sigma_{xt} + c_2)}{(\mu_x^2 + \mu_t^2 + c_1)(\sigma_x^2 + \sigma_t^2 + c_2)},
        \qquad c_1 = 10^{-4},\ c_2 = 10^{-6}\ \mathrm{ppm}^2,

    over uniform windows of 5 x 5 x 5 voxels that are cut off at the border of the volume, averaged over the mask.
    Both maps are set to zero outside the mask first. Not invariant to a constant: reference both maps alike.
    """
    _inside(estimate, truth, mask)
    box = _box(mask, 4)
    inside = mask[box]
    x = np.where(inside, estimate[box], 0).astype(np.float64)
    t = np.where(inside, truth[box], 0).astype(np.float64)
    count = _window_sum(np.ones_like(x))
    mean_x, mean_t = _window_sum(x) / count, _window_sum(t) / count
    spread = _window_sum(x * x + t * t) / count - mean_x**2 - mean_t**2
    common = _window_sum(x * t) / count - mean_x * mean_t
    c1, c2 = 0.01**2, 0.001**2
    similarity = (2 * mean_x * mean_t + c1) * (2 * common + c2)
    similarity /= (mean_x**2 + mean_t**2 + c1) * (spread + c2)
    return float(similarity[inside].mean())


def hfen(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray, sigma: float = 1.5) -> float:
    """High-frequency error norm, percent: NRMSE of the Laplacians of Gaussians (``sigma`` in voxels), no mean removed.

    Both maps are set to zero outside the mask before the filter, otherwise the edge of the mask is all one sees.
    """
    _inside(estimate, truth, mask)
    box = _box(mask, int(np.ceil(4 * sigma)))
    inside = mask[box]
    x, t = (
        ndimage.gaussian_laplace(np.where(inside, v[box], 0).astype(np.float64), sigma, mode="constant")[inside]
        for v in (estimate, truth)
    )
    return _ratio(x, t)


def moment(chi: np.ndarray, region: np.ndarray, grid: Grid) -> float:
    """Sum of the susceptibility over ``region`` times the volume of a voxel, ppm mm^3."""
    if not region.any():
        raise InputError("region: expected at least one voxel, found none")
    return float(chi[region].sum(dtype=np.float64)) * grid.voxel_volume


def moment_deviation(estimate: np.ndarray, truth: np.ndarray, region: np.ndarray, grid: Grid) -> float:
    """How much the moment of a calcification (or bleed) is off, as a fraction of the true one."""
    true = moment(truth, region, grid)
    return abs(moment(estimate, region, grid) - true) / abs(true)


def streaking(estimate: np.ndarray, truth: np.ndarray, region: np.ndarray, mask: np.ndarray) -> float:
    """Level of streaks around a strong source.

    The standard deviation of what a line through estimate against truth leaves, in the shell between 3 and 7 voxels
    outside the bounding box of ``region`` and inside ``mask``, over the absolute mean truth in ``region``.
    """
    inner, outer = (np.zeros(mask.shape, dtype=bool) for _ in range(2))
    inner[_box(region, 3)] = True
    outer[_box(region, 7)] = True
    x, t = _inside(estimate, truth, outer & ~inner & mask)
    slope_, offset = _line(t, x)
    return float((x - slope_ * t - offset).std() / abs(truth[region].mean(dtype=np.float64)))


def wrong_wraps(unwrapped: np.ndarray, true_phase: np.ndarray, mask: np.ndarray) -> float:
    r"""Fraction of the voxels whose unwrapped phase (rad) is off by :math:`2\pi n`, :math:`n \ne 0`.

    The most frequent :math:`n` is the global one and does not count. ``true_phase`` may be the noise-free phase:
    noise and model errors below pi do not matter. Volumes with a leading echo axis are scored echo by echo and
    averaged.
    """
    if unwrapped.ndim == 4:
        return float(np.mean([wrong_wraps(u, t, mask) for u, t in zip(unwrapped, true_phase, strict=True)]))
    x, t = _inside(unwrapped, true_phase, mask)
    turns = np.rint((x - t) / (2 * np.pi)).astype(np.int64)
    return 1.0 - float(np.unique(turns, return_counts=True)[1].max()) / turns.size


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1; two empty masks are equal."""
    size = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 1.0 if size == 0 else 2.0 * int(np.count_nonzero(first & second)) / size


def coverage(mask: np.ndarray, brain: np.ndarray) -> float:
    """Fraction of ``brain`` that ``mask`` contains."""
    if not brain.any():
        raise InputError("brain: expected at least one voxel, found an empty mask")
    return float(np.count_nonzero(mask & brain)) / float(np.count_nonzero(brain))


def core(mask: np.ndarray, depth: int = 5) -> np.ndarray:
    """The mask without its outer ``depth`` layers of voxels (6 neighbours; the border of the volume is an edge)."""
    return ndimage.binary_erosion(mask, iterations=depth) if depth > 0 else mask.copy()


def edge_profile(
    estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray, grid: Grid, shells: Sequence[float] = SHELLS
) -> dict[tuple[float, float], float]:
    """Error against distance from the edge of the mask.

    Returns, for every pair of consecutive ``shells`` (mm) with voxels between them, the root-mean-square error there
    over the root-mean-square of the truth there, percent. The means over the whole mask are removed, so that an
    offset of the rim counts. A voxel at the edge is half its shortest side away from it.
    """
    x, t = _inside(estimate, truth, mask)
    padded = np.pad(mask, 1)
    distance = ndimage.distance_transform_edt(padded, sampling=grid.voxel_size)[1:-1, 1:-1, 1:-1][mask]
    distance -= min(grid.voxel_size) / 2
    x, t = x - x.mean(), t - t.mean()
    profile = {}
    for near, far in pairwise(shells):
        here = (distance >= near) & (distance < far)
        if here.any():
            profile[(float(near), float(far))] = _ratio(x[here], t[here])
    return profile


def evaluate(
    estimate: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    *,
    brain: np.ndarray | None = None,
) -> dict[str, float]:
    """All scores that need no more than a map, its truth and labels, over ``mask``.

    With ``brain``, also how much of it the mask covers.
    """
    scores = {
        "nrmse": nrmse(estimate, truth, mask),
        "detrended_nrmse": detrended_nrmse(estimate, truth, mask),
        "xsim": xsim(estimate, truth, mask),
        "hfen": hfen(estimate, truth, mask),
        "tissue_nrmse": tissue_nrmse(estimate, truth, labels, mask),
        "deep_grey_nrmse": deep_grey_nrmse(estimate, truth, labels, mask),
        "deep_grey_slope": slope(estimate, truth, labels, mask),
    }
    if (np.isin(labels, BLOOD) & mask).any():
        scores["blood_nrmse"] = blood_nrmse(estimate, truth, labels, mask)
    if brain is not None:
        scores["coverage"] = coverage(mask, brain)
    return scores


def _inside(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of both inside the mask, float64, checked."""
    if estimate.shape != truth.shape or mask.shape != truth.shape:
        raise InputError(
            f"estimate, truth, mask: expected equal shapes, found {estimate.shape}, {truth.shape}, {mask.shape}"
        )
    x, t = estimate[mask].astype(np.float64), truth[mask].astype(np.float64)
    if x.size == 0:
        raise InputError("mask: expected at least one voxel, found an empty mask")
    for name, values in (("estimate", x), ("truth", t)):
        if not np.isfinite(values).all():
            raise InputError(f"{name}: expected finite numbers inside the mask, found NaN or Inf")
    return x, t


def _ratio(estimate: np.ndarray, truth: np.ndarray) -> float:
    norm = float(np.linalg.norm(truth))
    if norm == 0:
        raise InputError("truth: expected values that differ inside the mask, found a constant")
    return 100.0 * float(np.linalg.norm(estimate - truth)) / norm


def _line(t: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the least-squares line x = slope t + offset."""
    centred = t - t.mean()
    square = float(centred @ centred)
    if square == 0:
        raise InputError("truth: expected values that differ inside the mask, found a constant")
    slope_ = float(centred @ (x - x.mean())) / square
    return slope_, float(x.mean() - slope_ * t.mean())


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Bounding box of the mask, wider by ``margin`` voxels as far as there are any."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise InputError("region: expected at least one voxel, found none")
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(found[0], mask.shape, strict=True)
    )


def _window_sum(volume: np.ndarray) -> np.ndarray:
    """Sum over windows of 5 voxels along each axis, cut off at the border."""
    for axis in range(3):
        volume = ndimage.correlate1d(volume, np.ones(5), axis=axis, mode="constant")
    return volume
