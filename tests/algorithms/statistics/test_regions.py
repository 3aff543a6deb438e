"""Statistics of regions against closed forms and the obvious implementation."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.statistics.regions import REGION_COLUMNS, VALUE_COLUMNS, Region, region_statistics
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((11, 7, 5), (1.0, 2.0, 3.0))


def one(values, labels=None, grid=None, **more):
    """The only row of a volume with one region."""
    values = np.asarray(values, dtype=np.float32)
    if values.ndim == 1:
        values = values.reshape(1, 1, -1)
    labels = np.ones(values.shape, dtype=np.int16) if labels is None else labels
    (row,) = region_statistics({"chi": values}, labels, grid or Grid(values.shape), **more)
    return row


def test_closed_forms_of_an_arithmetic_sequence():
    n = 101
    row = one((np.arange(n) - 20) / 4)
    assert row["mean"] == row["median"] == 7.5
    assert row["sd"] == pytest.approx(np.sqrt(n * (n + 1) / 12) / 4, rel=1e-12)
    assert row["mad"] == 25 / 4 and row["iqr"] == 12.5
    assert (row["min"], row["p5"], row["p25"], row["p75"], row["p95"], row["max"]) == (
        -5,
        -3.75,
        1.25,
        13.75,
        18.75,
        20,
    )
    assert row["mean_positive"] == pytest.approx(40.5 / 4) and row["mean_negative"] == pytest.approx(-10.5 / 4)
    assert row["fraction_positive"] == 80 / 101 and row["fraction_negative"] == 20 / 101, "zero is neither"
    assert row["n_voxels"] == n and row["volume_mm3"] == n and row["coverage"] == 1


def test_every_region_as_the_obvious_implementation():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 6, GRID.shape)
    values = rng.normal(size=GRID.shape).astype(np.float32)
    mask = rng.random(GRID.shape) < 0.7
    reliable = mask & (rng.random(GRID.shape) < 0.5)
    rows = region_statistics({"a": values, "b": 2 * values}, labels, GRID, mask=mask, reliable_mask=reliable)
    assert [(row["map"], row["index"]) for row in rows] == [(name, i) for name in "ab" for i in range(1, 6)]
    for row in rows:
        region = labels == row["index"]
        x = values[region & mask].astype(float) * (2 if row["map"] == "b" else 1)
        assert row["n_region"] == region.sum() and row["n_voxels"] == x.size
        assert row["volume_mm3"] == pytest.approx(region.sum() * 6.0)
        assert row["coverage"] == pytest.approx(reliable[region].mean())
        expected = {"mean": x.mean(), "median": np.median(x), "sd": x.std(ddof=1), "p95": np.quantile(x, 0.95)}
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-12)


def test_noise_weights_are_inverse_variances():
    row = one([1.0, 4.0, 100.0], noise={"chi": np.array([[[1.0, 0.5, 0.0]]], np.float32)})
    assert row["mean_weighted"] == pytest.approx((1 * 1 + 4 * 4) / 5), "a voxel without noise has no known weight"
    assert one([1.0])["mean_weighted"] is None


def test_erosion_takes_one_layer_off():
    labels = np.zeros((9, 9, 9), np.int16)
    labels[1:6, 2:7, 3:8] = 4
    values = np.where(labels == 4, 1.0, 0.0)
    values[2:5, 3:6, 4:7] = 10
    row = one(values, labels)
    assert row["mean_eroded"] == 10 and row["mean"] == pytest.approx((27 * 10 + 98) / 125)
    assert one(np.ones((3, 3, 1)), np.ones((3, 3, 1), int))["mean_eroded"] == 1, "one slice erodes within itself"


def test_shares_undo_partial_volume_of_a_border():
    """The share-weighted mean of a mixture s*a + (1-s)*0 is a * sum(s^2) / sum(s)."""
    share = np.array([[[1.0, 0.5, 0.25, 0.0]]], np.float32)
    row = one(0.2 * share, np.array([[[1, 1, 0, 0]]]), probabilities={1: share})
    assert row["mean_probability"] == pytest.approx(0.2 * 1.3125 / 1.75, rel=1e-6)


def test_unmixed_means_are_those_of_the_tissues_whatever_the_borders():
    """Two regions that touch, in even surroundings: the map is the mixture, the fit gives the parts back."""
    rng = np.random.default_rng(0)
    first, second = np.zeros((2, 9, 8, 7), np.float32)
    first[2:5, 2:6, 2:5] = rng.random((3, 4, 3))
    second[4:7, 2:6, 2:5] = rng.random((3, 4, 3))
    second = np.minimum(second, 1 - first)
    values = 0.12 * first + 0.05 * second - 0.03 * (1 - first - second)
    labels = np.where(first > 0.5, 3, np.where(second > 0.5, 5, 0))
    values[0], grid = np.nan, Grid(values.shape)
    rows = region_statistics({"chi": values}, labels, grid, probabilities={3: first, 5: second})
    assert [row["mean_unmixed"] for row in rows] == pytest.approx([0.12, 0.05], abs=1e-6)
    assert rows[0]["mean"] < 0.11, "what partial volume does to a mean"
    assert region_statistics({"chi": values}, labels, grid)[0]["mean_unmixed"] is None
    flat = {3: np.full_like(first, 0.5)}
    assert region_statistics({"chi": values}, labels, grid, probabilities=flat)[0]["mean_unmixed"] is None


def test_empty_and_unlisted_regions_have_rows():
    labels = np.array([[[0, 3, 3, 9]]])
    mask = np.array([[[True, True, True, False]]])
    regions = [Region(5, "gone", "L"), Region(3, "here", "R")]
    rows = region_statistics(
        {"chi": np.full((1, 1, 4), 2.0, np.float32)}, labels, Grid((1, 1, 4)), regions=regions, mask=mask
    )
    assert [(r["index"], r["region"], r["hemisphere"], r["n_voxels"]) for r in rows] == [
        (3, "here", "R", 2), (5, "gone", "L", 0), (9, "9", "", 0),
    ]  # fmt: skip
    gone, outside = rows[1], rows[2]
    assert gone["volume_mm3"] == 0 and gone["coverage"] is None
    assert all(gone[name] is None and outside[name] is None for name in VALUE_COLUMNS)
    assert outside["n_region"] == 1 and outside["coverage"] == 0
    assert set(gone) == {"map", "index", "region", "hemisphere", *REGION_COLUMNS, *VALUE_COLUMNS}


def test_zeros_count_and_what_is_not_finite_does_not():
    assert one([0.0, 0.0, 3.0])["mean"] == 1
    assert one([np.nan, np.inf, 3.0])["mean"] == 3
    assert one([7.0])["sd"] is None


def test_shapes_and_types_are_checked():
    with pytest.raises(InputError, match="labels: expected integers, found float32"):
        one([1.0], np.ones((1, 1, 1), np.float32))
    with pytest.raises(InputError, match=r"mask: expected shape \(1, 1, 2\)"):
        one([1.0, 2.0], mask=np.ones((1, 1, 3), bool))
