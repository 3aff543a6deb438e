r"""Statistics of maps over the regions of a label volume.

For a region :math:`R` the voxels that count are :math:`V = \{v \in R : v \in M, x_v \text{ finite}\}`, where
:math:`M` is the mask in which the map :math:`x` is defined. Voxels of value 0 inside the mask count like any other.
Of them are reported

====================== =================================================================================
``mean``, ``sd``       mean, and standard deviation with :math:`n - 1` in the denominator
``median``, ``mad``    median, and median of the absolute deviations from it (not scaled to a normal distribution)
``p5 p25 p75 p95``     percentiles, linear between order statistics; ``iqr`` is ``p75 - p25``
``min``, ``max``       extremes
``mean_positive``      mean of the values above 0; ``fraction_positive`` is their share of the voxels
``mean_negative``      mean of the values below 0; ``fraction_negative`` is their share of the voxels
``mean_weighted``      :math:`\sum x_v \sigma_v^{-2} / \sum \sigma_v^{-2}` with the noise :math:`\sigma`
``mean_eroded``        mean over the voxels of V all of whose six neighbours belong to the region
``mean_probability``   :math:`\sum p_v x_v / \sum p_v` with the share :math:`p` of the region in each voxel
``mean_unmixed``       value of the region freed from partial volume (:mod:`qsmxt.algorithms.statistics.partial_volume`)
====================== =================================================================================

and of the region itself, whatever the map: ``n_region`` and ``volume_mm3`` of the whole label, ``n_voxels`` of V, and
``coverage``, the share of the region that lies in the reliable mask. What does not exist (the mean of no voxels) is
``None``; a region without voxels has a row nonetheless. Sums are in float64.

The mean loses iron-rich nuclei 20-25 ppb when labels are imperfect, the median least when they are good; an eroded
mean helps with poor labels and harms with good ones. Mean and median are therefore always given, and a high
percentile is never meant to stand alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms.statistics.partial_volume import Mixture
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Percentiles that are reported.
PERCENTILES = (5, 25, 75, 95)

#: What is reported of the values, in order, with its meaning; those without a unit are shares.
VALUE_COLUMNS: dict[str, str] = {
    "mean": "mean",
    "median": "median",
    "sd": "standard deviation, n - 1 in the denominator",
    "mad": "median absolute deviation from the median, not scaled",
    "iqr": "interquartile range",
    "min": "smallest value",
    "max": "largest value",
    "p5": "5th percentile",
    "p25": "25th percentile",
    "p75": "75th percentile",
    "p95": "95th percentile",
    "mean_positive": "mean of the voxels above 0",
    "mean_negative": "mean of the voxels below 0",
    "fraction_positive": "share of voxels above 0",
    "fraction_negative": "share of voxels below 0",
    "mean_weighted": "mean weighted by the inverse variance of the noise",
    "mean_eroded": "mean of the voxels all of whose six neighbours belong to the region",
    "mean_probability": "mean weighted by the share of the region in each voxel",
    "mean_unmixed": "mean freed from partial volume, by least squares over the shares of all regions in each voxel",
}

#: What is reported of the region.
REGION_COLUMNS: dict[str, str] = {
    "n_region": "voxels with this label",
    "volume_mm3": "volume of the voxels with this label",
    "n_voxels": "voxels that the statistics are made of: with this label, in the mask of the map, finite",
    "coverage": "share of the region's voxels in the reliable mask",
}


@dataclass(frozen=True)
class Region:
    """One region: the index of its label and how it is called; ``hemisphere`` is L, R or empty."""

    index: int
    name: str
    hemisphere: str = ""


def region_statistics(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    grid: Grid,
    *,
    regions: Sequence[Region] | None = None,
    mask: np.ndarray | None = None,
    reliable_mask: np.ndarray | None = None,
    noise: Mapping[str, np.ndarray] | None = None,
    probabilities: Mapping[int, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """Statistics of every map in every region, map by map in the order given, regions by index.

    Parameters
    ----------
    maps
        Volumes ``(x, y, z)`` by name, in any unit.
    labels
        Integer volume; 0 is background and no region.
    grid
        Shape and voxel size.
    regions
        Regions to report; one that has no voxels gets a row too, and an index that occurs in ``labels`` but not here
        gets one with its number as name. ``None``: all that occur.
    mask
        Bool volume in which the maps are defined; everywhere if ``None``.
    reliable_mask
        Bool volume in which they can be trusted; ``mask`` if ``None``.
    noise
        Standard deviation of a map, by its name.
    probabilities
        Share of a region in each voxel, 0 to 1, by its index.

    Returns
    -------
    rows
        A dictionary each: ``map``, ``index``, ``region``, ``hemisphere``, then the columns of ``REGION_COLUMNS`` and
        ``VALUE_COLUMNS``.

    Raises
    ------
    InputError
        If a volume is not on the grid, or the labels are not integers.

    Examples
    --------
    >>> import numpy as np
    >>> from qsmxt.geometry import Grid
    >>> labels = np.array([[[1, 1, 2, 0]]])
    >>> values = np.array([[[0.1, 0.3, -0.2, 9.0]]], np.float32)
    >>> rows = region_statistics({"chi": values}, labels, Grid((1, 1, 4), (1, 1, 2)))
    >>> [(row["region"], row["n_voxels"], row["volume_mm3"], round(row["mean"], 3)) for row in rows]
    [('1', 2, 4.0, 0.2), ('2', 1, 2.0, -0.2)]
    """
    _check(maps, labels, grid, mask, reliable_mask, noise, probabilities)
    inside = _Inside(labels, regions)
    interior = inside.interior(labels)
    defined = inside.gather(mask)
    trusted = defined if reliable_mask is None else inside.gather(reliable_mask)
    mixtures = {index: Mixture(index, probabilities or {}, mask) for index in probabilities or {}}
    rows = []
    for name, volume in maps.items():
        values = inside.gather(volume)
        sigma = inside.gather(noise[name]) if noise and name in noise else None
        for region, part in inside:
            used = defined[part] & np.isfinite(values[part])
            share = (probabilities or {}).get(region.index)
            count = part.stop - part.start
            row: dict[str, Any] = {
                "map": name,
                "index": region.index,
                "region": region.name,
                "hemisphere": region.hemisphere,
                "n_region": count,
                "volume_mm3": count * grid.voxel_volume,
                "n_voxels": int(used.sum()),
                "coverage": float(trusted[part].mean()) if count else None,
            }
            row |= _summary(values[part][used].astype(np.float64))
            row["mean_weighted"] = _weighted(values[part], sigma[part], used) if sigma is not None else None
            row["mean_eroded"] = _mean(values[part][used & interior[part]].astype(np.float64))
            row["mean_probability"] = _expected(volume, share, mask) if share is not None else None
            row["mean_unmixed"] = mixtures[region.index].mean(volume) if share is not None else None
            rows.append(row)
    return rows


class _Inside:
    """The labelled voxels, sorted by label once for all maps."""

    def __init__(self, labels: np.ndarray, regions: Sequence[Region] | None) -> None:
        flat = labels.reshape(-1)
        where = np.flatnonzero(flat > 0)
        self.order = where[np.argsort(flat[where], kind="stable")]
        found, starts = np.unique(flat[self.order], return_index=True)
        edges = [*starts.tolist(), self.order.size]
        self.parts = {int(index): slice(edges[i], edges[i + 1]) for i, index in enumerate(found)}
        listed = {region.index: region for region in regions or ()}
        known = sorted(set(self.parts) | {index for index in listed if index > 0})
        self.regions = [listed.get(index, Region(index, str(index))) for index in known]

    def __iter__(self) -> Any:
        return iter([(region, self.parts.get(region.index, slice(0, 0))) for region in self.regions])

    def gather(self, volume: np.ndarray | None) -> Any:
        """Values of the labelled voxels; ``True`` everywhere stands for no mask."""
        if volume is None:
            return np.ones(self.order.size, dtype=bool)
        return volume.reshape(-1)[self.order]

    def interior(self, labels: np.ndarray) -> Any:
        """Which labelled voxels have six neighbours of the same label; beyond the edge there is none."""
        padded = np.pad(labels, 1)
        same = np.ones(labels.shape, dtype=bool)
        middle = tuple(slice(1, -1) for _ in range(3))
        for axis in range(3):
            if labels.shape[axis] == 1:
                continue
            for shift in (slice(0, -2), slice(2, None)):
                at = list(middle)
                at[axis] = shift
                same &= padded[tuple(at)] == labels
        return same.reshape(-1)[self.order]


def _summary(values: np.ndarray) -> dict[str, float | None]:
    """All statistics that need nothing but the values, in the order of the columns."""
    summary: dict[str, float | None] = dict.fromkeys(VALUE_COLUMNS)
    if values.size == 0:
        return summary
    values = np.sort(values)
    median = float(np.median(values))
    p5, p25, p75, p95 = (float(p) for p in np.percentile(values, PERCENTILES))
    positive, negative = values[values > 0], values[values < 0]
    summary.update(
        mean=float(values.mean()), median=median, sd=float(values.std(ddof=1)) if values.size > 1 else None,
        mad=float(np.median(np.abs(values - median))), iqr=p75 - p25, min=float(values[0]), max=float(values[-1]),
        p5=p5, p25=p25, p75=p75, p95=p95, mean_positive=_mean(positive), mean_negative=_mean(negative),
        fraction_positive=positive.size / values.size, fraction_negative=negative.size / values.size,
    )  # fmt: skip
    return summary


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _weighted(values: np.ndarray, sigma: np.ndarray, used: np.ndarray) -> float | None:
    used = used & np.isfinite(sigma) & (sigma > 0)
    if not used.any():
        return None
    weight = 1 / np.square(sigma[used].astype(np.float64))
    return float((weight * values[used]).sum() / weight.sum())


def _expected(volume: np.ndarray, share: np.ndarray, mask: np.ndarray | None) -> float | None:
    used = (share > 0) & np.isfinite(volume)
    if mask is not None:
        used &= mask
    weight = share[used].astype(np.float64)
    return float((weight * volume[used]).sum() / weight.sum()) if weight.size else None


def _check(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    grid: Grid,
    mask: np.ndarray | None,
    reliable_mask: np.ndarray | None,
    noise: Mapping[str, np.ndarray] | None,
    probabilities: Mapping[int, np.ndarray] | None,
) -> None:
    grid.check("labels", labels)
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels: expected integers, found {labels.dtype}; round them first")
    volumes: dict[str, np.ndarray | None] = {**maps, "mask": mask, "reliable_mask": reliable_mask}
    volumes |= {f"noise of {name}": volume for name, volume in (noise or {}).items()}
    volumes |= {f"probability of {index}": volume for index, volume in (probabilities or {}).items()}
    for name, volume in volumes.items():
        if volume is not None:
            grid.check(name, volume)
