"""Region growing against an obvious Prim with a heap, and the alignment of regions."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from qsmxt.algorithms.unwrapping.growing import align_regions, join_touching, regrow, unwrap_regions
from qsmxt.algorithms.unwrapping.weights import PRESETS, Edges

TWO_PI = 2 * np.pi


def wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi)."""
    return (phase + np.pi) % TWO_PI - np.pi


def smooth_field(shape: tuple[int, int, int], noise: float, seed: int = 3) -> np.ndarray:
    """A smooth phase of about 50 rad range with steps below 2.9 rad, plus white noise."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    field = 22 * np.exp(-4 * ((x - 0.2) ** 2 + y**2 + z**2)) + 9 * x * y - 12 * z * x * x
    return field + noise * rng.standard_normal(shape)


def prim(phase: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Prim with a heap: cheapest edge first, the one pushed last among equals; one seed after the other."""
    phase = phase.astype(np.float32).copy()
    shape = phase.shape
    usable = costs[..., 3] > 0
    rank = np.where(costs[..., :3] == 0, 255, costs[..., :3].astype(int)).sum(axis=-1)
    seeds = sorted(zip(*np.nonzero(usable), strict=True), key=lambda v: rank[v])
    reached = np.zeros(shape, bool)
    pushed = 0
    for seed in seeds:
        if reached[seed]:
            continue
        reached[seed] = True
        queue: list = []
        new = seed
        while True:
            for d in range(3):
                for sign in (1, -1):
                    there = list(new)
                    there[d] += sign
                    other = tuple(there)
                    if not 0 <= other[d] < shape[d] or reached[other]:
                        continue
                    cost = costs[(*(new if sign == 1 else other), d)]
                    if cost:
                        heapq.heappush(queue, (cost, -pushed, new, other))
                        pushed += 1
            while queue and reached[queue[0][3]]:
                heapq.heappop(queue)
            if not queue:
                break
            _, _, old, new = heapq.heappop(queue)
            step = (phase[new] - phase[old]) * np.float32(1 / TWO_PI)
            phase[new] -= np.float32(TWO_PI) * np.floor(step + np.float32(0.5))
            reached[new] = True
    return phase


@pytest.mark.parametrize("weights", ["romeo", "romeo6", "bestpath"])
@pytest.mark.parametrize("noise", [0.1, 1.3])
def test_growing_takes_the_same_path_as_an_obvious_prim(weights, noise):
    shape = (17, 13, 19)
    rng = np.random.default_rng(1)
    phase = wrap(smooth_field(shape, noise)).astype(np.float32)
    usable = rng.random(shape) > 0.25
    magnitude = rng.random(shape).astype(np.float32) + 0.1
    second = wrap(2 * smooth_field(shape, noise, seed=4)).astype(np.float32)
    costs = Edges(phase, usable.view(np.uint8), weights, magnitude, second, 0.5).costs()
    expected = prim(phase, costs)
    found = phase.copy()
    unwrap_regions(found, costs)
    np.testing.assert_allclose(found[usable], expected[usable], atol=1e-4)


def test_edges_exist_exactly_between_usable_neighbours():
    rng = np.random.default_rng(2)
    usable = rng.random((9, 8, 7)) > 0.4
    costs = Edges(rng.random((9, 8, 7)).astype(np.float32), usable.view(np.uint8)).costs()
    np.testing.assert_array_equal(costs[..., 3] > 0, usable)
    for d in range(3):
        neighbour = np.zeros_like(usable)
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[d], behind[d] = slice(1, None), slice(None, -1)
        neighbour[tuple(behind)] = usable[tuple(ahead)]
        np.testing.assert_array_equal(costs[..., d] > 0, usable & neighbour)


def weight_of_edge(phase, second, ratio, magnitude, half, active, i, j, h, k):
    """The product of weights, straight from its definition, for scalars; h or k None where out of the volume."""
    step = wrap(phase[i] - phase[j])
    weight = 1.0
    if 1 in active:
        weight *= 0.1 + 0.9 * (1 - abs(step) / np.pi)
    if 2 in active:
        weight *= 0.1 + 0.9 * max(0, 1 - abs(step - wrap(second[i] - second[j]) * ratio))
    if 3 in active:
        if h is None or k is None:
            linearity = 0.9
        else:
            linearity = max(0, 1 - abs(wrap(phase[h] - 2 * phase[i] + phase[j])) / 2)
            linearity *= max(0, 1 - abs(wrap(phase[i] - 2 * phase[j] + phase[k])) / 2)
        weight *= 0.1 + 0.9 * linearity
    low, high = min(magnitude[i], magnitude[j]), max(magnitude[i], magnitude[j])
    if 4 in active:
        weight *= 0.1 + 0.9 * (low / high) ** 2
    if 5 in active:
        weight *= 0.1 + 0.9 * (0.5 + 0.5 * min(1, low / half))
    if 6 in active:
        weight *= 0.1 + 0.9 * (0.5 + 0.5 * min(1, half / high))
    return weight


@pytest.mark.parametrize("preset", ["romeo", "romeo2", "romeo3", "romeo6", "quality"])
def test_costs_and_quality_follow_the_definition(preset):
    rng = np.random.default_rng(5)
    shape = (5, 6, 4)
    phase, second = (rng.uniform(-np.pi, np.pi, shape).astype(np.float32) for _ in range(2))
    phase *= np.float32(0.3)
    magnitude = rng.random(shape).astype(np.float32) + 0.05
    edges = Edges(phase, np.ones(shape, np.uint8), preset, magnitude, second, 0.4)
    costs = edges.costs()
    half = 0.5 * np.quantile(magnitude, 0.95)
    quality = np.zeros(shape)
    for i in np.ndindex(shape):
        for d in range(3):
            line = [tuple(np.add(i, n * np.eye(3, dtype=int)[d])) for n in (-1, 0, 1, 2)]
            h, _, j, k = (v if 0 <= v[d] < shape[d] else None for v in line)
            if j is None:
                assert costs[(*i, d)] == 0
                continue
            weight = weight_of_edge(phase, second, 0.4, magnitude, half, PRESETS[preset], i, j, h, k)
            assert abs(int(costs[(*i, d)]) - max(1, 255 * (1 - weight))) <= 0.51
            quality[i] += weight / 6
            quality[j] += weight / 6
    np.testing.assert_allclose(edges.quality(), quality, atol=2e-6)


def test_noise_gets_low_quality_and_smooth_phase_high_quality():
    shape = (24, 20, 22)
    rng = np.random.default_rng(0)
    usable = np.ones(shape, np.uint8)
    inner = (slice(1, -1),) * 3
    smooth = wrap(smooth_field((48, 40, 44), 0.02)[::2, ::2, ::2] * 0.2).astype(np.float32)
    noise = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    for weights in ("quality", "bestpath"):
        good = Edges(smooth, usable, weights).quality()[inner]
        bad = Edges(noise, usable, weights).quality()[inner]
        assert np.quantile(good, 0.05) > 1.5 * np.quantile(bad, 0.95)


def test_multiple_seeds_joined_give_the_same_as_one_seed():
    shape = (30, 28, 26)
    truth = smooth_field(shape, 0.5)
    phase = wrap(truth).astype(np.float32)
    results = []
    for seeds in (1, 30):
        costs = Edges(phase, np.ones(shape, np.uint8)).costs()
        found = phase.copy()
        regions = unwrap_regions(found, costs, seeds)
        assert (regions.max() > 1) == (seeds > 1)
        join_touching(found, costs, regions)
        assert len(np.unique(regions)) == 1
        turns = np.rint((found - truth) / TWO_PI)
        results.append((turns != np.median(turns)).mean())
    assert max(results) < 1e-3


def test_a_region_across_a_gap_follows_the_nearest_voxels():
    shape = (40, 12, 12)
    truth = np.arange(40.0)[:, None, None] * np.ones(shape) * 0.6
    usable = np.ones(shape, np.uint8)
    usable[24:27] = 0
    phase = wrap(truth).astype(np.float32)
    regions = unwrap_regions(phase, Edges(phase, usable).costs())
    assert regions.max() == 2
    align_regions(phase, regions)
    turns = np.rint((phase - truth) / TWO_PI)[usable > 0]
    assert np.ptp(turns) == 0


def test_a_second_echo_decides_the_multiple_of_every_region():
    shape = (40, 12, 12)
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(40)[:, None, None] < 20, 1.0, 5.5) + 0.3 * rng.standard_normal(shape)
    second = wrap(truth * 2.2).astype(np.float32)
    usable = np.ones(shape, np.uint8)
    usable[19:21] = 0
    phase = wrap(truth).astype(np.float32)
    regions = unwrap_regions(phase, Edges(phase, usable, second=second, ratio=1 / 2.2).costs())
    align_regions(phase, regions, second=second, ratio=1 / 2.2)
    np.testing.assert_allclose(phase[usable > 0], truth[usable > 0], atol=1e-5)


def test_regrowing_mends_what_is_not_trusted():
    shape = (20, 20, 20)
    truth = (0.4 * smooth_field(shape, 0.05)).astype(np.float32)
    rng = np.random.default_rng(0)
    trusted = rng.random(shape) > 0.3
    broken = truth + np.where(trusted, 0, TWO_PI * rng.integers(-2, 3, shape)).astype(np.float32)
    costs = Edges(broken, np.ones(shape, np.uint8)).costs()
    regrow(broken, costs, trusted)
    np.testing.assert_allclose(broken, truth, atol=1e-4)
