"""Smoothing of wrapped phase by local polynomials: what it reproduces up to the rim, and how much noise passes."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.offset.smoothing import smooth_phase
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (44, 50, 40)
GRID = Grid(SHAPE, (2.0, 2.0, 2.5))
WIDTH = 10.0


def wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi), float32."""
    return ((phase + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quadratic offset with a range of about 12 rad, an ellipsoid, and its two outermost layers."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    offset = 0.8 + 3.1 * x - 2.7 * y + 1.5 * z + 2.3 * x * y - 1.9 * z**2 + 1.6 * x**2
    radius = np.sqrt((x / 0.9) ** 2 + (y / 0.85) ** 2 + (z / 0.9) ** 2)
    return offset, radius < 1, (radius < 1) & (radius > 0.9)


def test_a_quadratic_is_reproduced_up_to_the_rim(head):
    offset, mask, rim = head
    error = smooth_phase(wrap(offset), mask.astype(np.float32), GRID, WIDTH) - offset
    error -= 2 * np.pi * np.rint(np.median(error) / (2 * np.pi))
    assert np.abs(error[mask]).max() < 2e-3
    assert np.abs(error[rim]).max() < 2e-3


def test_a_gaussian_average_is_not_nearly_as_good(head):
    """The reason for all this: the masked Gaussian of the same width is hundreds of times worse in the rim."""
    from scipy.ndimage import gaussian_filter

    offset, mask, rim = head
    sigma = [WIDTH / v for v in GRID.voxel_size]
    signal = mask * np.exp(1j * offset)
    average = gaussian_filter(signal.real, sigma) + 1j * gaussian_filter(signal.imag, sigma)
    usual = np.angle(average * np.exp(-1j * offset))[rim].std()
    error = (smooth_phase(wrap(offset), mask.astype(np.float32), GRID, WIDTH) - offset)[rim].std()
    assert error < usual / 200


def test_noise_is_reduced_as_the_width_promises(head):
    """At least 12 times over all, 17 times away from the rim."""
    offset, mask, rim = head
    rng = np.random.default_rng(0)
    noisy = wrap(offset + 0.3 * rng.standard_normal(SHAPE))
    error = smooth_phase(noisy, mask.astype(np.float32), GRID, WIDTH) - offset
    error -= np.median(error[mask])
    assert error[mask].std() < 0.3 / 12
    assert error[mask & ~rim].std() < 0.3 / 17


def test_weights_decide_what_counts(head):
    offset, mask, _ = head
    rng = np.random.default_rng(1)
    broken = rng.random(SHAPE) < 0.3
    weight = np.where(mask & ~broken, 1.0, np.where(mask, 1e-6, 0.0)).astype(np.float32)
    phase = wrap(np.where(broken, rng.uniform(-3, 3, SHAPE), offset))
    error = smooth_phase(phase, weight, GRID, WIDTH) - offset
    error -= 2 * np.pi * np.rint(np.median(error) / (2 * np.pi))
    assert np.abs(error[mask]).max() < 5e-3


def test_waves_of_ten_widths_survive(head):
    _, mask, rim = head
    position = np.indices(SHAPE).astype(float) * np.array(GRID.voxel_size)[:, None, None, None]
    offset = 0.8 * np.sin(2 * np.pi * position[0] / 100) * np.cos(2 * np.pi * position[1] / 100)
    error = smooth_phase(wrap(offset), mask.astype(np.float32), GRID, WIDTH) - offset
    assert error[mask & ~rim].std() < 0.02 * offset[mask].std()
    assert error[rim].std() < 0.06 * offset[mask].std()


THIN = [((40, 36, 1), (2, 2, 5)), ((1, 1, 60), (1, 1, 1)), ((31, 37, 3), (1, 1, 6))]


@pytest.mark.parametrize(("shape", "size"), THIN)
def test_thin_volumes(shape, size):
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    offset = 0.4 * x - 0.9 * y + 0.6 * x * y + 0.5 * y**2 + 0.7 * z
    found = smooth_phase(wrap(offset), np.ones(shape, np.float32), Grid(shape, size), 12.0)
    np.testing.assert_allclose(found, offset, atol=3e-3)


def test_the_result_does_not_depend_on_the_number_of_threads(head):
    offset, mask, _ = head
    results = []
    for threads in (1, 4):
        parallel.set_thread_count(threads)
        results.append(smooth_phase(wrap(offset), mask.astype(np.float32), GRID, WIDTH))
    parallel.set_thread_count(None)
    np.testing.assert_array_equal(*results)


def test_nothing_to_smooth_is_refused():
    with pytest.raises(InputError, match="positive weight"):
        smooth_phase(np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8)), 5.0)
