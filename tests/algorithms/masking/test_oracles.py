"""Steps of masking against scipy and loops over voxels, on random masks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from qsmxt.algorithms.masking import close, dilate, erode, fill, hagberg, largest, smooth
from qsmxt.algorithms.masking import open as opening
from qsmxt.geometry import Grid

GRID = Grid((16, 15, 14), (1.0, 1.2, 1.7))
RADIUS = 2.5


def blob(density: float, seed: int = 0) -> np.ndarray:
    """Random voxels, none of them near the edge of the volume."""
    out = np.zeros(GRID.shape, dtype=bool)
    out[4:12, 4:11, 3:11] = np.random.default_rng(seed).random((8, 7, 8)) < density
    return out


def ball() -> np.ndarray:
    """Voxels within the radius of the middle one."""
    axes = [np.arange(-(RADIUS // v), RADIUS // v + 1) * v for v in GRID.voxel_size]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x * x + y * y + z * z <= RADIUS**2


@pytest.mark.parametrize(
    ("step", "plain", "density"),
    [
        (erode, scipy.ndimage.binary_erosion, 0.97),
        (dilate, scipy.ndimage.binary_dilation, 0.03),
        (opening, scipy.ndimage.binary_opening, 0.97),
        (close, scipy.ndimage.binary_closing, 0.1),
    ],
)
def test_morphology_is_that_of_scipy_with_an_ellipsoid_of_voxels(step, plain, density):
    mask = blob(density)
    expected = plain(mask, ball())
    assert expected.sum() > 0 and not np.array_equal(expected, mask)
    np.testing.assert_array_equal(step(mask, GRID, step.method.configure({"radius": RADIUS})), expected)


@pytest.mark.parametrize("volume", [None, 0.004])
def test_fill_adds_the_labelled_cavities_of_scipy(volume):
    mask = blob(0.8)
    labels, count = scipy.ndimage.label(~mask)
    expected = mask.copy()
    for label in range(1, count + 1):
        size = (labels == label).sum() * GRID.voxel_volume / 1000
        if label != labels[0, 0, 0] and (volume is None or size <= volume):
            expected[labels == label] = True
    assert expected.sum() > mask.sum()
    np.testing.assert_array_equal(fill(mask, GRID, fill.method.configure({"volume": volume})), expected)


def test_largest_is_the_largest_label_of_scipy():
    mask = blob(0.25)
    labels, count = scipy.ndimage.label(mask)
    assert count > 5
    np.testing.assert_array_equal(largest(mask, GRID), labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def test_smooth_is_half_of_the_gaussian_of_scipy():
    mask = blob(0.6)
    blurred = scipy.ndimage.gaussian_filter(mask.astype(float), [2.0 / v for v in GRID.voxel_size], mode="nearest")
    found = smooth(mask, GRID, smooth.method.configure({"sigma": 2.0}))
    clear = np.abs(blurred - 0.5) > 0.01
    np.testing.assert_array_equal(found[clear], (blurred > 0.5)[clear])


def test_hagberg_counts_changes_of_sign_over_the_sphere():
    rng = np.random.default_rng(0)
    grid = Grid((10, 9, 8))
    phase = np.where(np.indices(grid.shape)[0] < 5, 1.0, rng.uniform(-3, 3, grid.shape)).astype(np.float32)
    sign = np.where(phase >= 0, 1, -1)
    padded = np.pad(sign, 1, mode="edge")
    laplacian = sum(np.roll(padded, s, a) for a in range(3) for s in (1, -1)) - 6 * padded
    rough = np.abs(laplacian[1:-1, 1:-1, 1:-1]).astype(float)
    i = np.arange(-2, 3)
    sphere = i[:, None, None] ** 2 + i[None, :, None] ** 2 + i[None, None, :] ** 2 <= 4
    mean = scipy.ndimage.convolve(rough, sphere * 1.0, mode="constant")
    mean /= scipy.ndimage.convolve(np.ones(grid.shape), sphere * 1.0, mode="constant")
    wide = np.pad(mean < 2.01, 6)
    closed = scipy.ndimage.binary_closing(wide, sphere)[6:-6, 6:-6, 6:-6]
    eroded = scipy.ndimage.binary_erosion(closed, sphere, border_value=1)
    expected = scipy.ndimage.binary_dilation(eroded, sphere)
    found = hagberg(phase, grid, hagberg.method.configure({"radius": 2.0, "threshold": 2.01}))
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)
