"""Registration against known motions of the digital head; transport of labels against geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsmxt.algorithms.morphology import dilate
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.deformable import align_linearly, deform, refine, write_both_ways
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.segmentation import FLIPPED
from qsmxt.phantom.anatomical import motion, simulate_anatomical
from qsmxt.phantom.head import HeadSettings, simulate

SETTINGS = HeadSettings(voxel_size=(3.0, 3.0, 3.0), echo_times=(0.008, 0.016), tilt=0.3, seed=3)
#: 10 degrees in all, 15 mm.
MOTION = motion((8.0, -5.0, 3.0), (9.0, -10.0, 7.0))


@pytest.fixture(scope="module")
def scans():
    """Gradient echo (oblique) and T1-weighted scan of a head that moved; surroundings of the brain in the former."""
    head = simulate(SETTINGS)
    anatomical = simulate_anatomical(SETTINGS, (3.0, 3.0, 3.0), MOTION)
    magnitude = np.sqrt((head.magnitude**2).sum(axis=0))
    around = dilate(head.brain, Grid.from_affine(head.affine, head.brain.shape), 8.0)
    return Volume(magnitude, head.affine), Volume(anatomical.volume, anatomical.affine), around


def error(file: str, mask: np.ndarray, affine: np.ndarray) -> float:
    """Largest distance between found and true place of brain voxels, mm."""
    points = np.argwhere(mask)[::20] @ affine[:3, :3].T + affine[:3, 3]
    found, true = reg.read_affine(file), np.linalg.inv(MOTION)
    moved = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    return float(np.linalg.norm(moved, axis=1).max())


def test_rigid_after_ten_degrees_and_fifteen_millimetres(scans, tmp_path):
    gre, t1w, brain = scans
    file = reg.register_rigid(reg.correct_bias(gre), reg.correct_bias(t1w), brain, tmp_path)
    assert error(file, brain, gre.affine) < 0.5
    found = reg.similarity(gre, t1w, [file], brain)
    assert found > 0.6 > 0.55 > reg.similarity(gre, t1w, [], brain)
    assert reg.mirrored_similarity(gre, t1w, file, brain, tmp_path) < found - FLIPPED, "even a head as even as this"
    flipped = t1w.with_array(t1w.array[::-1])
    found = reg.similarity(gre, flipped, [file], brain)
    assert reg.mirrored_similarity(gre, flipped, file, brain, tmp_path) > found + FLIPPED


def test_rigid_of_a_slab(scans, tmp_path):
    gre, t1w, brain = scans
    part = slice(gre.array.shape[2] // 2 - 6, gre.array.shape[2] // 2 + 10)  # 48 mm
    shift = np.eye(4)
    shift[2, 3] = part.start
    slab = Volume(np.ascontiguousarray(gre.array[:, :, part]), gre.affine @ shift)
    mask = np.ascontiguousarray(brain[:, :, part])
    file = reg.register_rigid(reg.correct_bias(slab), reg.correct_bias(t1w), mask, tmp_path)
    assert error(file, mask, slab.affine) < 1.0


def test_deformation_repeats_to_the_byte_and_its_parts_make_one_map(tmp_path):
    """Whole head, then a box of it; both ways lead back, and nothing moves beyond the box."""
    settings = [HeadSettings(voxel_size=(8.0,) * 3, oversampling=1, deformation=number) for number in (1, 2)]
    fixed, moving = (
        Volume(scan.volume, scan.affine) for scan in (simulate_anatomical(s, (8.0,) * 3) for s in settings)
    )
    box = (slice(6, 16), slice(7, 18), slice(6, 16))
    files = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        affine = align_linearly(fixed, moving, folder)
        whole = deform([fixed], [moving], None, folder / "whole", iterations=(5, 5, 2, 0), affine=affine)
        inside = reg.part(fixed, box)
        fine = refine([inside], [moving], whole, None, folder / "fine", iterations=(5, 5))
        files.append(write_both_ways([fine, whole], folder))
    for one, other in zip(*files, strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    forward, backward = files[0]
    there = reg.resample(moving, fixed, [forward])
    stepwise = reg.resample(moving, fixed, [fine.warp, *whole.forward()])
    assert np.abs(there - stepwise).max() < 1e-3 * moving.array.max(), "one file for three"
    coarse = reg.resample(moving, fixed, whole.forward())
    beyond = np.ones(fixed.array.shape, bool)
    beyond[box] = False
    assert np.abs(there - coarse)[beyond].max() < 1e-3 * moving.array.max() < np.abs(there - coarse).max()
    before, after = (np.corrcoef(fixed.array.ravel(), x.ravel())[0, 1] for x in (moving.array, there))
    assert after > before
    line = np.broadcast_to(np.arange(fixed.array.shape[0], dtype=np.float32)[:, None, None], fixed.array.shape)
    back = reg.resample(fixed.with_array(line), fixed, [forward, backward])
    assert np.abs(back - line)[4:-4, 4:-4, 4:-4].mean() < 0.1, "voxels"


def test_matrices_and_images_mean_the_same_here_and_in_ants(tmp_path):
    rng = np.random.default_rng(0)
    affine = np.array([[0, 0, 2.0, -9], [-1.5, 0, 0, 20], [0, 3.0, 0, 5], [0, 0, 0, 1]])
    volume = Volume(rng.random((9, 8, 7)).astype(np.float32), affine)
    file = reg.write_affine(MOTION, tmp_path / "motion.mat")
    assert np.abs(reg.read_affine(file) - MOTION).max() < 1e-6
    moved = Volume(volume.array, MOTION @ affine)
    assert np.abs(reg.resample(moved, volume, [file]) - volume.array).max() < 1e-4


def test_transport_keeps_labels_where_nothing_moves():
    labels = np.zeros((7, 8, 9), np.int32)
    labels[1:4, 2:6, 3:8], labels[4:6, 2:6, 3:8] = 30001, 7
    moved = reg.transport_labels(Volume(labels, np.eye(4)), Volume(np.zeros(labels.shape), np.eye(4)), [])
    assert np.array_equal(moved.labels, labels)
    assert set(moved.shares) == {7, 30001} and all(
        np.array_equal(share, labels == index) for index, share in moved.shares.items()
    )


def test_shares_are_the_overlap_of_voxels():
    labels = np.zeros((12, 12, 12), np.int16)
    labels[3:9, 3:9, 3:9] = 5
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5  # voxels of 2 mm that hold eight of 1 mm each
    moved = reg.transport_labels(Volume(labels, np.eye(4)), Volume(np.zeros((6, 6, 6)), coarse), [])
    expected = (labels == 5).reshape(6, 2, 6, 2, 6, 2).mean(axis=(1, 3, 5))
    assert np.allclose(moved.shares[5], expected)
    assert moved.shares[5].sum() * 8 == (labels == 5).sum()
    assert np.array_equal(moved.labels == 5, expected > 0.5)


def test_labels_outside_the_grid_vanish():
    labels = np.full((4, 4, 4), 3, np.int16)
    labels[0] = 0
    far = np.eye(4)
    far[0, 3] = 100
    moved = reg.transport_labels(Volume(labels, np.eye(4)), Volume(np.zeros((4, 4, 4)), far), [])
    assert not moved.labels.any() and not moved.shares


def test_isotropic_grid_covers_the_same_space():
    volume = Volume(np.zeros((40, 30, 10)), np.diag([0.5, 1.0, 3.0, 1.0]))
    grid = reg.at_resolution(volume, 1.0)
    assert grid.array.shape == (20, 30, 10) and grid.voxel_size == pytest.approx((1, 1, 3))
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.allclose(grid.affine @ corner, volume.affine @ corner)


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="positive intensities"):
        reg.correct_bias(Volume(np.zeros((5, 5, 5), np.float32), np.eye(4)))
