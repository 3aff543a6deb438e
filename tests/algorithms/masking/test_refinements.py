"""Refinements of masks: counts in closed form, in mm, at the edge of the field of view."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.close import CloseParameters, close
from qsmxt.algorithms.masking.dilate import DilateParameters, dilate
from qsmxt.algorithms.masking.erode import ErodeParameters, erode
from qsmxt.algorithms.masking.fill import FillParameters, fill
from qsmxt.algorithms.masking.largest import largest
from qsmxt.algorithms.masking.open import OpenParameters, open
from qsmxt.algorithms.masking.smooth import SmoothParameters, smooth
from qsmxt.geometry import Grid


def cube(shape: tuple[int, int, int] = (20, 20, 20), edge: int = 10) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(5, 5 + edge) for _ in range(3))] = True
    return mask


def test_erosion_of_a_box_in_mm_on_anisotropic_voxels():
    grid = Grid((20, 20, 20), (1.0, 2.0, 3.0))
    # 2 mm: two voxels along x, one along y, none along z
    assert erode(cube(), grid, ErodeParameters(2.0)).sum() == 6 * 8 * 10


def test_the_edge_of_the_field_of_view_does_not_erode():
    mask = np.ones((6, 6, 6), dtype=bool)
    assert erode(mask, Grid(mask.shape), ErodeParameters(2.0)).all()


def test_dilation_of_a_point_is_a_ball():
    grid = Grid((15, 15, 15), (1.0, 1.0, 2.0))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[7, 7, 7] = True
    x, y, z = (np.indices(grid.shape) - 7) * np.array(grid.voxel_size)[:, None, None, None]
    np.testing.assert_array_equal(dilate(mask, grid, DilateParameters(4.0)), x * x + y * y + z * z <= 16)


def test_closing_fills_a_slit_and_keeps_the_box():
    mask = cube()
    slit = mask.copy()
    slit[10] = False
    closed = close(slit, Grid(mask.shape), CloseParameters(1.5))
    assert closed[10, 6:14, 6:14].all() and (closed >= slit).all() and (closed <= mask).all()


def test_opening_removes_a_bridge():
    mask = np.zeros((30, 12, 12), dtype=bool)
    mask[1:10, 2:10, 2:10] = mask[20:29, 2:10, 2:10] = True
    bridged = mask.copy()
    bridged[10:20, 5:7, 5:7] = True
    opened = open(bridged, Grid(mask.shape), OpenParameters(2.0))
    assert not opened[12:18].any() and opened[3:8, 4:8, 4:8].all() and (opened <= bridged).all()


def test_filling_spares_what_is_open_and_what_is_too_large():
    mask = cube()
    mask[7:9, 7:9, 7:9] = False  # 8 voxels
    mask[11:14, 11:14, 11:14] = False  # 27 voxels
    mask[6, 6, 5:7] = False  # open
    grid = Grid(mask.shape, (10.0, 10.0, 10.0))  # 1 ml a voxel
    assert fill(mask, grid).sum() == 1000 - 2
    assert fill(mask, grid, FillParameters(volume=8.0)).sum() == 1000 - 2 - 27


def test_the_largest_piece_by_faces():
    mask = cube()
    mask[15, 15, 15] = True  # touches by a corner only
    mask[0, 0, 0] = True
    np.testing.assert_array_equal(largest(mask, Grid(mask.shape)), cube())


def test_smoothing_keeps_planes_and_the_edge_of_the_volume():
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[:10] = True
    np.testing.assert_array_equal(smooth(mask, Grid(mask.shape), SmoothParameters(2.0)), mask)


def test_smoothing_removes_specks_and_fills_pinholes():
    mask = cube()
    mask[10, 10, 10] = False
    mask[1, 1, 1] = True
    smoothed = smooth(mask, Grid(mask.shape), SmoothParameters(1.0))
    assert smoothed[10, 10, 10] and not smoothed[1, 1, 1]


@pytest.mark.parametrize("step", [erode, dilate, open, close, fill, smooth, largest])
def test_nothing_remains_nothing(step):
    grid = Grid((8, 8, 8))
    assert not step(np.zeros(grid.shape, dtype=bool), grid).any()


@pytest.mark.parametrize("step", [erode, dilate, open, close, fill, smooth, largest])
def test_one_slice(step):
    grid = Grid((16, 16, 1), (1.0, 1.0, 4.0))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[3:13, 3:13] = True
    assert step(mask, grid)[5:11, 5:11].all()
