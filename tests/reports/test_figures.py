"""Pictures show the right voxels the right way up at the right grey."""

from __future__ import annotations

import io

import numpy as np
import pytest

from qsmxt.reports.figures import PIXEL, Upright, grey, mosaic, png, slice_positions, upright


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
    assert slice_positions(mask, 0, 3) == [18, 25, 32]
    assert slice_positions(np.zeros((9, 2, 2), dtype=bool), 0, 1) == [4]
    assert slice_positions(np.ones((1, 2, 2), dtype=bool), 0, 2) == [0, 0]


def test_top_of_the_head_is_at_the_top_and_left_at_the_left():
    volume = np.zeros((20, 20, 20), dtype=np.float32)
    volume[:10, :, 10:] = 1.0
    mask = Upright(np.ones(volume.shape, dtype=bool), (1.0, 1.0, 1.0))
    picture = mosaic(Upright(volume, (1.0, 1.0, 1.0)), mask, (0.0, 1.0), count=1)[..., 0]
    side = round(20 / PIXEL)
    coronal = picture[side + 2 : 2 * side + 2]
    bright = np.argwhere(coronal == 255)
    assert bright[:, 0].max() <= side // 2 + 1, "superior is up"
    assert bright[:, 1].max() <= picture.shape[1] // 2, "left is left"


def test_pixels_are_square_in_millimetres():
    volume = Upright(np.ones((10, 10, 5), dtype=np.float32), (1.0, 1.0, 4.0))
    mask = Upright(np.ones((10, 10, 5), dtype=bool), (1.0, 1.0, 4.0))
    picture = mosaic(volume, mask, (0.0, 1.0), count=1)
    heights = [round(20 / PIXEL), round(20 / PIXEL), round(10 / PIXEL)]
    assert picture.shape[0] == sum(height + 2 for height in heights)


def test_contour_lies_on_the_edge_of_the_mask_and_nowhere_else():
    inside = np.zeros((20, 20, 20), dtype=bool)
    inside[5:15, 5:15, 5:15] = True
    volume = Upright(np.zeros((20, 20, 20), dtype=np.float32), (1.0, 1.0, 1.0))
    picture = mosaic(volume, Upright(inside, volume.voxel_size), (0, 1), count=1, contour=Upright(inside, (1, 1, 1)))
    coloured = (picture[..., 0] != picture[..., 2]).sum()
    edge = 10 / PIXEL
    assert coloured == 3 * (4 * edge - 4)


def test_png_is_one_and_always_the_same():
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    content = png(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    assert png(pixels) == content
