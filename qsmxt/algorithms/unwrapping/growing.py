r"""Unwrapping by region growing along a minimum spanning tree.

From a seed the region grows over the cheapest edge on its border; the voxel at the other end is shifted by the multiple
of :math:`2\pi` that brings it within :math:`\pi` of its neighbour in the region. This is Prim's algorithm, and each
voxel is reached over the path whose worst edge is least bad. Costs are integers from 1 to 255, so the queue is an array
of 255 stacks: the edge pushed last among the cheapest ones comes first, which makes the order unique.

Parts of the usable voxels that no edge connects get seeds of their own. What multiple of :math:`2\pi` lies between two
parts is not in the phase; :func:`align_regions` decides it from their common border, from a second echo, or from the
nearest voxels across the gap.

References
----------
Dymerska et al. 2021 (doi:10.1002/mrm.28563).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.compiled import kernel

_TWO_PI = np.float32(2 * np.pi)
_INVERSE = np.float32(1 / (2 * np.pi))

_BINS = 256
_CHUNK = 128

#: State of a voxel in the last place of the costs.
ABSENT, WAITING, REACHED = 0, 1, 2

#: Largest number of 2 pi by which the phase of a region is tried against a second echo.
_TRIED = 3


def unwrap_regions(phase: np.ndarray, costs: np.ndarray, max_seeds: int = 1) -> np.ndarray:
    """Unwrap ``phase`` in place; returns the region of every voxel, int32 ``(x, y, z)``, 0 where there is none.

    Parameters
    ----------
    phase
        Float32 ``(x, y, z)``, contiguous.
    costs
        Edges and usable voxels as of :meth:`qsmxt.algorithms.unwrapping.weights.Edges.costs`; afterwards its last
        place is 2 in every usable voxel.
    max_seeds
        How many regions may grow at the same time. With more than one, a new region starts in the best voxel left
        when the cheapest edge of the queue costs more than half of the way from the seeds' own edges to the worst.
    """
    regions = np.zeros(phase.shape, dtype=np.int32)
    strides = np.array([phase.shape[1] * phase.shape[2], phase.shape[2], 1], dtype=np.int64)
    flat, flat_costs = phase.reshape(-1), costs.reshape(-1, 4)
    rank = _seed_costs(flat_costs)
    if max_seeds == 1:
        seeds = np.array([np.argmin(rank)], dtype=np.int64)
    else:
        seeds = np.argsort(rank, kind="stable")
    found = _grow(flat, flat_costs, strides, regions.reshape(-1), seeds, rank, 0, max_seeds)
    waiting = np.flatnonzero(flat_costs[:, 3] == WAITING)
    if waiting.size:
        seeds = waiting[np.argsort(rank[waiting], kind="stable")]
        _grow(flat, flat_costs, strides, regions.reshape(-1), seeds, rank, found, max_seeds)
    return regions


def regrow(phase: np.ndarray, costs: np.ndarray, trusted: np.ndarray) -> None:
    """Unwrap in place the usable voxels that are not ``trusted`` by growing from those that are.

    Voxels that no path connects to a trusted one keep their values.
    """
    strides = np.array([phase.shape[1] * phase.shape[2], phase.shape[2], 1], dtype=np.int64)
    flat_costs = costs.reshape(-1, 4)
    flat_costs[(flat_costs[:, 3] > 0) & trusted.reshape(-1), 3] = REACHED
    start = np.flatnonzero(flat_costs[:, 3] == REACHED)
    regions = np.zeros(phase.size, dtype=np.int32)
    rank = np.zeros(0, dtype=np.uint16)
    _grow(phase.reshape(-1), flat_costs, strides, regions, start, rank, -1, 1)


def _seed_costs(costs: np.ndarray) -> np.ndarray:
    """Sum of the costs of the three forward edges, absent ones counting 255; 65535 where there is no voxel."""
    out = np.empty(costs.shape[0], dtype=np.uint16)
    _sum_forward(costs, out)
    return out


@kernel
def _sum_forward(costs, out):
    for i in range(out.size):
        total = 0
        for d in range(3):
            total += costs[i, d] if costs[i, d] else 255
        out[i] = total if costs[i, 3] else 65535


@kernel
def _grow(phase, costs, strides, regions, seeds, rank, label, max_live):
    """Grow from ``seeds`` in order, a new region (label + 1, ...) each time the queue is empty or too bad.

    ``label`` -1: the seeds are already in place and all belong to region 0. Returns the last label. The queue is 256
    stacks in chunks of a common pool: ``heads`` holds the chunk on top of every stack, ``counts`` how full it is,
    ``below`` the chunk under each chunk.
    """
    edges = 0
    for i in range(costs.shape[0]):
        for d in range(3):
            edges += costs[i, d] != 0
    pool = np.empty((edges // _CHUNK + 2 * _BINS + 2, _CHUNK), dtype=np.int32)
    below = np.empty(pool.shape[0], dtype=np.int32)
    heads = np.full(_BINS, -1, dtype=np.int32)
    counts = np.full(_BINS, _CHUNK, dtype=np.int32)
    free, used = -1, 0
    lowest, next_seed, live = _BINS, 0, 0
    seed_sum, limit = 0.0, float(_BINS)
    planted = label < 0
    while True:
        while lowest < _BINS and heads[lowest] < 0:
            lowest += 1
        new = -1
        if lowest == _BINS or (not planted and live < max_live and lowest > limit):
            while next_seed < seeds.size:
                candidate = seeds[next_seed]
                next_seed += 1
                if planted or costs[candidate, 3] == WAITING:
                    new = candidate
                    break
            if new < 0 and lowest == _BINS:
                break
            if new >= 0 and not planted:
                if lowest == _BINS:
                    live, seed_sum = 0, 0.0
                live += 1
                seed_sum += rank[new] / 3.0
                limit = _BINS - (_BINS - seed_sum / live) / 2
                label += 1
                regions[new] = label
        if new < 0:
            head = heads[lowest]
            counts[lowest] -= 1
            edge = pool[head, counts[lowest]]
            if counts[lowest] == 0:
                heads[lowest] = below[head]
                below[head] = free
                free = head
                counts[lowest] = _CHUNK
            old = edge // 3
            new = old + strides[edge - 3 * old]
            if costs[new, 3] == REACHED:
                if costs[old, 3] == REACHED:
                    continue
                old, new = new, old
            phase[new] -= _TWO_PI * np.floor((phase[new] - phase[old]) * _INVERSE + np.float32(0.5))
            regions[new] = regions[old]
        costs[new, 3] = REACHED
        for d in range(3):
            forward = new + strides[d]
            if costs[new, d] and costs[forward, 3] == WAITING:
                cost, edge = costs[new, d], 3 * new + d
            else:
                cost, edge = np.uint8(0), np.int64(0)
            back = new - strides[d]
            if back >= 0 and costs[back, d] and costs[back, 3] == WAITING:
                other, other_edge = costs[back, d], 3 * back + d
            else:
                other, other_edge = np.uint8(0), np.int64(0)
            for _ in range(2):
                if cost:
                    if counts[cost] == _CHUNK:
                        if free >= 0:
                            chunk = free
                            free = below[chunk]
                        else:
                            chunk = used
                            used += 1
                        below[chunk] = heads[cost]
                        heads[cost] = chunk
                        counts[cost] = 0
                    pool[heads[cost], counts[cost]] = edge
                    counts[cost] += 1
                    if cost < lowest:
                        lowest = cost
                cost, edge = other, other_edge
    return label


def join_touching(phase: np.ndarray, costs: np.ndarray, regions: np.ndarray) -> None:
    """Shift in place regions that share a border so that they continue each other, and give them one label.

    The pair with the strongest border (sum of 255 - cost over its edges) is joined first; the shift is the weighted
    mean of the phase steps over the border, rounded to a multiple of 2 pi.
    """
    count = int(regions.max())
    if count < 2:
        return
    strength = np.zeros((count + 1) ** 2)
    steps = np.zeros((count + 1) ** 2)
    for d in range(3):
        ahead = [slice(None)] * 3
        behind = [slice(None)] * 3
        ahead[d], behind[d] = slice(1, None), slice(None, -1)
        a, b, cost = regions[tuple(behind)], regions[tuple(ahead)], costs[..., d][tuple(behind)]
        border = (a != b) & (cost > 0)
        a, b, weight = a[border], b[border], 256.0 - cost[border]
        step = phase[tuple(ahead)][border].astype(np.float64) - phase[tuple(behind)][border]
        step = np.where(a < b, step, -step)
        code = np.minimum(a, b).astype(np.int64) * (count + 1) + np.maximum(a, b)
        strength += np.bincount(code, weight, strength.size)
        steps += np.bincount(code, weight * step, steps.size)
    joined = np.arange(count + 1)
    shift = np.zeros(count + 1)
    for code in np.argsort(-strength, kind="stable"):
        if strength[code] <= 0:
            break
        first, second = divmod(int(code), count + 1)
        if joined[first] == joined[second]:
            continue
        turns = np.rint(steps[code] / strength[code] / (2 * np.pi) + shift[second] - shift[first])
        members = joined == joined[second]
        shift[members] -= turns
        joined[members] = joined[first]
    phase += (shift * 2 * np.pi).astype(np.float32)[regions]
    regions[...] = joined[regions]


def align_regions(
    phase: np.ndarray,
    regions: np.ndarray,
    *,
    second: np.ndarray | None = None,
    ratio: float = 1.0,
    across_gaps: bool = True,
) -> None:
    r"""Shift every region in place by the multiple of :math:`2\pi` that suits it best.

    The largest region comes first; its multiple is the one that brings its median next to zero. The others follow it
    across the gap: the phase of the largest region is carried outwards over the shortest paths, and where it first
    meets the other region the steps vote. With a ``second`` echo, up to three turns more or less are tried, and the
    one wins that best predicts the second echo, :math:`\sum \cos(\varphi' - \varphi\, T'_E / T_E)`; a turn more costs
    0.01 of perfect agreement.

    Parameters
    ----------
    phase, regions
        As of :func:`unwrap_regions`.
    second, ratio
        Wrapped phase of another echo without phase offset, and the echo time of ``phase`` over that of ``second``.
    across_gaps
        Whether the smaller regions follow the largest one; otherwise each is brought next to zero.
    """
    sizes = np.bincount(regions.reshape(-1))
    sizes[0] = 0
    if sizes.max(initial=0) == 0:
        return
    main = int(np.argmax(sizes))
    turns = np.zeros(sizes.size)
    inside = _thinned(np.flatnonzero(regions == main))
    turns[main] = -np.rint(np.median(phase.reshape(-1)[inside]) / (2 * np.pi))
    turns[main] += _best_turn(phase, second, ratio, inside, turns[main])
    others = np.flatnonzero(sizes)
    others = others[others != main]
    if others.size:
        votes, reached = np.zeros(sizes.size), np.zeros(sizes.size, dtype=np.intp)
        if across_gaps:
            voxels, sources = contacts(regions, main)
            labels, flat = regions.reshape(-1)[voxels], phase.reshape(-1)
            turn = np.floor((flat[sources] - flat[voxels]) * _INVERSE + np.float32(0.5))
            votes += np.bincount(labels, turn, sizes.size)
            reached += np.bincount(labels, minlength=sizes.size)
        outside = np.flatnonzero((regions != main) & (regions > 0))
        labels = regions.reshape(-1)[outside]
        outside = outside[np.argsort(labels, kind="stable")]
        ends = np.cumsum(np.bincount(labels, minlength=sizes.size))
        for region in others:
            inside = _thinned(outside[ends[region - 1] : ends[region]])
            if reached[region]:
                turns[region] = turns[main] + np.rint(votes[region] / reached[region])
            else:
                turns[region] = -np.rint(np.median(phase.reshape(-1)[inside]) / (2 * np.pi))
            turns[region] += _best_turn(phase, second, ratio, inside, turns[region])
    if turns.any():
        phase += (turns * 2 * np.pi).astype(np.float32)[regions]


def _thinned(voxels: np.ndarray) -> np.ndarray:
    return voxels[:: max(1, voxels.size // 50_000)]


def _best_turn(phase: np.ndarray, second: np.ndarray | None, ratio: float, voxels: np.ndarray, start: float) -> float:
    if second is None:
        return 0.0
    first = phase.reshape(-1)[voxels].astype(np.float64) + 2 * np.pi * start
    other = second.reshape(-1)[voxels].astype(np.float64)
    tried = sorted(range(-_TRIED, _TRIED + 1), key=abs)
    scores = [np.cos(other - (first + 2 * np.pi * n) / ratio).mean() - 0.01 * abs(n) for n in tried]
    return float(tried[int(np.argmax(scores))])


def contacts(regions: np.ndarray, main: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in which the other regions are first met on the way out of region ``main``, and where the way began.

    Flat indices. Ways lead over faces, through anything; the voxels met first and those one step later count.
    """
    missing = np.count_nonzero(np.bincount(regions.reshape(-1))[1:]) - 1
    found = np.empty((2, np.count_nonzero((regions > 0) & (regions != main))), dtype=np.int32)
    count = _breadth_first(regions.reshape(-1), *regions.shape, main, missing, int(regions.max()) + 1, found)
    return found[0, :count], found[1, :count]


@kernel
def _breadth_first(regions, nx, ny, nz, main, missing, count, found):
    """Search outwards from region ``main``; voxels of other regions that are met first go to ``found``.

    ``missing`` is the number of other regions, ``count`` that of labels; the search ends when all have been met.
    Returns how many voxels were found.
    """
    size = regions.size
    origin = np.empty(size, dtype=np.int32)
    seen = np.zeros(size, dtype=np.uint8)
    queue = np.empty(size, dtype=np.int32)
    met_at = np.full(count, -1, dtype=np.int64)
    head, tail, last, met = 0, 0, 0, 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                i = (x * ny + y) * nz + z
                if regions[i] != main:
                    continue
                seen[i] = 1
                edge = (z > 0 and regions[i - 1] != main) or (z < nz - 1 and regions[i + 1] != main)
                edge = edge or (y > 0 and regions[i - nz] != main) or (y < ny - 1 and regions[i + nz] != main)
                edge = edge or (x > 0 and regions[i - ny * nz] != main) or (x < nx - 1 and regions[i + ny * nz] != main)
                if edge:
                    origin[i] = i
                    queue[tail] = i
                    tail += 1
    level_end, level = tail, 0
    while head < tail:
        if head == level_end:
            level += 1
            level_end = tail
            if missing == 0 and level > last + 1:
                break
        i = queue[head]
        head += 1
        z = i % nz
        y = (i // nz) % ny
        x = i // (ny * nz)
        for d in range(6):
            if d == 0:
                inside, j = z > 0, i - 1
            elif d == 1:
                inside, j = z < nz - 1, i + 1
            elif d == 2:
                inside, j = y > 0, i - nz
            elif d == 3:
                inside, j = y < ny - 1, i + nz
            elif d == 4:
                inside, j = x > 0, i - ny * nz
            else:
                inside, j = x < nx - 1, i + ny * nz
            if not inside or seen[j]:
                continue
            seen[j] = 1
            origin[j] = origin[i]
            queue[tail] = j
            tail += 1
            region = regions[j]
            if region > 0:
                if met_at[region] < 0:
                    met_at[region] = level
                    missing -= 1
                    last = level
                if level <= met_at[region] + 1:
                    found[0, met] = j
                    found[1, met] = origin[j]
                    met += 1
    return met
