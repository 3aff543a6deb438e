"""Volumes of the viewer hold the right values at the right places, on axes to the right, the front and the top."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from qsmxt.reports.volumes import Frame, frame, label_volume, map_volume

#: Axes to the left, the top and the back, of three sizes, turned a little.
AFFINE = np.array([[-1.0, 0.0, 0.1, 30.0], [0.0, 0.1, -3.0, 40.0], [0.05, 2.0, 0.0, -20.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (20, 16, 12)


def _read(content):
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    proxy = image.dataobj
    return np.asarray(proxy.get_unscaled()), image.affine, np.float32(proxy.slope)


def _places(affine, indices):
    return indices @ affine[:3, :3].T + affine[:3, 3]


def test_every_voxel_keeps_its_value_and_its_place():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:12, 8:10, 5:7] = True
    shown = frame(mask, AFFINE)
    stored, affine, step = _read(map_volume(values, AFFINE, shown, 0.001))
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    assert stored.dtype == np.int16 and step == np.float32(0.001)
    inside = np.argwhere(np.ones(stored.shape, dtype=bool))
    sources = np.rint((_places(affine, inside) - AFFINE[:3, 3]) @ np.linalg.inv(AFFINE[:3, :3]).T).astype(int)
    expected = values[tuple(sources.T)].reshape(stored.shape)
    assert np.abs(stored * 0.001 - expected).max() <= 0.00051
    marked, _, _ = _read(label_volume(mask.astype(np.uint8), AFFINE, shown))
    assert marked.sum() == mask.sum() and np.array_equal(marked > 0, mask[tuple(sources.T)].reshape(marked.shape))


def test_margin_is_in_mm_and_ends_with_the_grid():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10, 8, 6] = True
    shown = frame(mask, AFFINE)
    widths = [part.stop - part.start for part in shown.box]
    assert widths == [2 * 6 + 1, 2 * 2 + 1, 2 * 3 + 1], "6 mm of voxels of 1, 3 and 2 mm on both sides"
    assert frame(np.zeros(SHAPE, dtype=bool), AFFINE).box == (slice(0, 20), slice(0, 12), slice(0, 16))


def test_fine_grids_are_averaged_until_they_are_small_enough():
    values = np.arange(8 * 8 * 8, dtype=np.float32).reshape(8, 8, 8)
    shown = frame(np.ones(values.shape, dtype=bool), np.diag([1.0, 1.0, 2.0, 1.0]), most=200)
    assert shown.factors == (2, 2, 1)
    stored, affine, _ = _read(map_volume(values, np.diag([1.0, 1.0, 2.0, 1.0]), shown, 1.0))
    assert np.array_equal(stored, np.rint(values.reshape(4, 2, 4, 2, 8).mean(axis=(1, 3))))
    assert np.array_equal(affine, [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert Frame.from_dict(shown.to_dict()) == shown


def test_maps_without_unit_use_all_grey_levels():
    stored, _, step = _read(map_volume(np.linspace(0, 50, 1000).reshape(10, 10, 10), np.eye(4), ALL, None))
    assert stored.dtype == np.uint8 and stored.max() * step == pytest.approx(50, abs=0.5)


def test_noise_outside_the_mask_is_left_out_where_asked():
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[5] = True
    stored, _, _ = _read(map_volume(np.full(mask.shape, 0.5), np.eye(4), ALL, 0.1, mask))
    assert np.array_equal(stored, 5 * mask)


ALL = Frame((slice(0, 10), slice(0, 10), slice(0, 10)), (1, 1, 1))


def test_same_map_same_bytes():
    values = np.random.default_rng(1).normal(size=(10, 10, 10))
    assert map_volume(values, np.eye(4), ALL, 0.01) == map_volume(values, np.eye(4), ALL, 0.01)
