"""Pictures show the right voxels the right way up at the right grey."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from qsmxt.reports.figures import (
    CONTOURS,
    FINEST,
    GAP,
    GAP_LEVEL,
    WIDTH,
    Upright,
    bounding,
    grey,
    mosaic,
    outline,
    pixel_length,
    png,
    slice_positions,
    upright,
)


def _marked(shape=(4, 5, 6)):
    """A volume whose right, front and top faces can be told apart."""
    x, y, z = np.indices(shape)
    return (x * 100 + y * 10 + z).astype(np.float32)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_upright_undoes_any_order_and_flip_of_axes(order, signs):
    world = _marked()
    size = (1.0, 2.0, 3.0)
    stored = np.transpose(world, order)
    affine = np.zeros((4, 4))
    for axis, source in enumerate(order):
        affine[source, axis] = size[source] * signs[axis]
        if signs[axis] < 0:
            stored = np.flip(stored, axis)
    affine[3, 3] = 1
    turned = upright(stored, affine)
    assert np.array_equal(turned.array, world) and turned.voxel_size == size


def test_oblique_axes_go_to_the_nearest():
    angle = np.radians(30)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation
    assert np.array_equal(upright(_marked(), affine).array, _marked())


def test_window_is_linear_clipped_and_symmetric():
    values = np.array([-1.0, -0.1, 0.0, 0.1, 1.0, np.nan])
    assert grey(values, -0.1, 0.1).tolist() == [0, 0, 128, 255, 255, 0]


def test_slices_are_spread_over_the_mask_and_keep_off_its_ends():
    mask = np.zeros((50, 4, 4), dtype=bool)
    mask[10:41] = True
    assert slice_positions(Upright(mask, (1, 1, 1)), 0, 3) == [18, 25, 32]
    assert slice_positions(Upright(np.zeros((9, 2, 2), dtype=bool), (1, 1, 1)), 0, 1) == [4]


def test_no_slice_is_shown_twice():
    assert slice_positions(Upright(np.ones((1, 2, 2), dtype=bool), (1, 1, 1)), 0, 2) == [0]
    assert slice_positions(Upright(np.ones((5, 2, 2), dtype=bool), (1, 1, 1)), 0, 7) == [0, 1, 2, 3, 4]


def _tiles(picture):
    """Boxes (top, left, height, width) of the connected parts of a mosaic that are not gap."""
    parts = find_objects(label(picture != GAP_LEVEL)[0])
    return [(a.start, b.start, a.stop - a.start, b.stop - b.start) for a, b in parts]


def _whole(shape, size):
    volume = Upright(np.full(shape, 0.9, dtype=np.float32), size)
    return volume, Upright(np.ones(shape, dtype=bool), size)


@pytest.mark.parametrize("shape", [(64, 64, 9), (9, 64, 64), (64, 3, 64), (64, 64, 1), (20, 20, 20), (7, 4, 3)])
def test_tiles_of_thin_slabs_are_apart_and_have_the_aspect_in_mm(shape):
    size = (1.0, 1.0, 3.0)
    volume, mask = _whole(shape, size)
    picture = mosaic(volume, mask, (0.0, 1.0), count=4)
    pixel = pixel_length(mask, bounding(mask), 4)
    mm = [n * v for n, v in zip(shape, size, strict=True)]
    expected = []
    for axis, (across, up) in enumerate([(1, 2), (0, 2), (0, 1)]):
        expected += [(max(1, round(mm[up] / pixel)), max(1, round(mm[across] / pixel)))] * min(4, shape[axis])
    assert sorted((height, width) for _, _, height, width in _tiles(picture)) == sorted(expected)


@pytest.mark.parametrize("side", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(200, 220, 60), (40, 30, 220)])
def test_mosaics_keep_to_their_width_at_any_size_of_voxels(side, shape):
    volume, mask = _whole(shape, (side, side, side))
    width = mosaic(volume, mask, (0.0, 1.0)).shape[1]
    assert width <= WIDTH
    assert width > 0.9 * WIDTH or pixel_length(mask, bounding(mask), 7) == pytest.approx(FINEST * side)


def test_top_of_the_head_is_at_the_top_and_left_at_the_left():
    volume, mask = _whole((20, 20, 20), (1.0, 1.0, 1.0))
    volume.array[:] = 0.0
    volume.array[:10, :, 10:] = 1.0
    picture = mosaic(volume, mask, (0.0, 1.0), count=1)
    height = (picture.shape[0] - 6 * GAP) // 3
    coronal = picture[height + 3 * GAP : 2 * height + 3 * GAP, GAP:-GAP]
    bright = np.argwhere(coronal == 255)
    assert bright.shape[0] == coronal.size // 4
    assert bright[:, 0].max() < height // 2, "superior is up"
    assert bright[:, 1].max() < coronal.shape[1] // 2, "left is left"


def test_contour_lies_on_the_edge_of_the_mask_and_nowhere_else():
    inside = np.zeros((20, 20, 20), dtype=bool)
    inside[5:15, 5:15, 5:15] = True
    mask = Upright(inside, (1.0, 1.0, 1.0))
    volume = Upright(np.zeros((20, 20, 20), dtype=np.float32), (1.0, 1.0, 1.0))
    picture = mosaic(volume, mask, (0, 1), count=1, contours=(mask,))
    edge = 10 / pixel_length(mask, bounding(mask), 1)
    coloured = (picture == CONTOURS[0]).all(axis=2)
    assert coloured.sum() == 3 * (4 * edge - 4)
    assert (picture[..., 0] != picture[..., 2]).sum() == coloured.sum()


def test_labels_that_touch_are_told_apart():
    labels = np.zeros((8, 8), dtype=np.int16)
    labels[1:4, 1:7], labels[4:7, 1:7] = 1, 2
    assert outline(labels)[3, 3] and outline(labels)[4, 3]
    assert not outline(labels > 0)[3, 3] and not outline(labels)[2, 3]


@pytest.mark.parametrize("shape", [(7, 9, 3), (7, 9)])
def test_png_is_one_and_always_the_same(shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    content = png(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    assert png(pixels) == content
