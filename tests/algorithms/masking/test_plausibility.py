"""Numbers of a mask: Euler number of known solids, volume, pieces, edges, overlap; warnings."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.plausibility import agreement, dice, euler_number, judge, touched_edges
from qsmxt.geometry import Grid


def solid() -> np.ndarray:
    mask = np.zeros((14, 14, 14), dtype=bool)
    mask[3:11, 3:11, 3:11] = True
    return mask


def test_euler_number_counts_pieces_handles_and_cavities():
    ball = solid()
    assert euler_number(ball) == 1
    ring = ball.copy()
    ring[6:8, 6:8, :] = False
    assert euler_number(ring) == 0
    hollow = ball.copy()
    hollow[6, 6, 6] = False
    assert euler_number(hollow) == 2
    two = ball.copy()
    two[0, 0, 0] = True
    assert euler_number(two) == 2
    assert euler_number(np.ones((3, 3, 3), bool)) == 1
    assert euler_number(np.zeros((3, 3, 3), bool)) == 0


def test_a_plausible_brain_has_no_warning():
    grid = Grid((14, 14, 14), (14.0, 14.0, 14.0))
    found = judge(solid(), grid, human_brain=True)
    assert found["volume_ml"] == pytest.approx(512 * 2.744)
    assert (found["components"], found["euler_number"], found["touches_border"], found["warnings"]) == (1, 1, False, [])


def test_warnings_of_an_implausible_brain():
    grid = Grid((14, 14, 14), (5.0, 5.0, 5.0))
    mask = solid()
    mask[5, 5, 12] = True
    small = judge(mask, grid, human_brain=True)["warnings"]
    assert any("64 ml" in w for w in small) and any("2 pieces" in w for w in small)
    mask[5, 5, 13] = True
    assert any("z last" in w for w in judge(mask, grid, human_brain=True)["warnings"])
    assert judge(mask, grid, human_brain=False)["warnings"] == []


def test_a_mask_of_everything_is_called_so():
    warnings = judge(np.ones((9, 9, 9), bool), Grid((9, 9, 9), (13.0, 13.0, 13.0)), human_brain=True)["warnings"]
    assert any("whole field of view" in w for w in warnings)


def test_edges_of_single_slices_do_not_count():
    mask = np.zeros((6, 6, 1), dtype=bool)
    mask[2:4, 2:4] = True
    assert touched_edges(mask) == []
    mask[0, 3] = True
    assert touched_edges(mask) == ["x first"]


def test_a_part_of_a_brain_need_not_have_its_volume():
    mask = solid()
    assert judge(mask[:, :, 5:6], Grid((14, 14, 1), (10.0, 10.0, 5.0)), human_brain=True)["warnings"] == []
    cut = judge(mask[3:], Grid((11, 14, 14), (5.0, 5.0, 5.0)), human_brain=True)["warnings"]
    assert len(cut) == 1 and "x first" in cut[0]


def test_overlap():
    a, b = np.zeros((2, 10), bool)
    a[:6], b[4:10] = True, True
    assert dice(a, b) == pytest.approx(2 * 2 / 12)
    assert dice(a & ~a, b & ~b) == 1.0
    assert agreement({"a": a, "b": b, "c": a}) == pytest.approx({"a | b": 1 / 3, "a | c": 1.0, "b | c": 1 / 3})
