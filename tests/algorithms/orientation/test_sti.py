"""Susceptibility tensor imaging: operators, recovery of an anisotropic phantom, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.metrics import nrmse
from qsmxt.algorithms.orientation.sti import COMPONENTS, STIParameters, _System, anisotropy, mean_susceptibility, sti
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (32, 34, 30)
GRID = Grid(SHAPE)


def _directions(count):
    """Spread over the upper hemisphere."""
    height = 1 - (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def _fields(tensor, directions):
    """Linear convolution: sum over components of the field of a tensor, computed in double precision."""
    wide = tuple(2 * n for n in SHAPE)
    k = np.meshgrid(*[np.fft.fftfreq(n) for n in wide], indexing="ij")
    square = sum(a * a for a in k)
    square[0, 0, 0] = 1
    spectra = [np.fft.fftn(component, s=wide, axes=(0, 1, 2)) for component in tensor]
    found = []
    for b in directions:
        along = sum(a * c for a, c in zip(k, b, strict=True)) / square
        field = 0
        for (i, j), spectrum in zip(COMPONENTS, spectra, strict=True):
            pair = b[i] * b[j] / 3 - along * k[i] * b[j]
            if i != j:
                pair = pair + b[i] * b[j] / 3 - along * k[j] * b[i]
            pair[0, 0, 0] = 0
            field = field + pair * spectrum
        found.append(np.fft.ifftn(field).real[: SHAPE[0], : SHAPE[1], : SHAPE[2]])
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module")
def brain():
    """Mask and a tensor of isotropic and axially symmetric parts (ppm)."""
    rng = np.random.default_rng(0)

    def smooth(scale):
        v = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5)
        return v * scale / v.std()

    x, y, z = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    mask = (x[:, None, None] / 13) ** 2 + (y[None, :, None] / 14) ** 2 + (z[None, None, :] / 12) ** 2 < 1
    isotropic, anisotropy = smooth(0.03), np.abs(smooth(0.03))
    axis = np.stack([smooth(1.0) for _ in range(3)])
    axis /= np.linalg.norm(axis, axis=0)
    tensor = [(isotropic * (i == j) + anisotropy * (axis[i] * axis[j] - (i == j) / 3)) * mask for i, j in COMPONENTS]
    return mask, np.stack(tensor).astype(np.float32)


def test_prediction_and_response_are_adjoint(brain):
    mask, _ = brain
    rng = np.random.default_rng(1)
    system = _System(_directions(7).astype(np.float32), mask, GRID, np.float32(0))
    x, y = (rng.standard_normal((6, np.count_nonzero(mask))).astype(np.float32) for _ in range(2))
    a, b = (system.apply(tensor, np.empty_like(tensor)) for tensor in (x, y))
    assert abs(np.vdot(a, y) - np.vdot(x, b)) < 1e-4 * np.sqrt(np.vdot(a, x) * np.vdot(b, y))


def test_isotropic_tensor_predicts_the_dipole_field():
    """Odd lengths: at half the sampling rate of even ones the sign of an oblique dipole is a convention."""
    rng, shape = np.random.default_rng(2), (31, 33, 29)
    chi = rng.standard_normal(shape).astype(np.float32)
    tensor = np.zeros((6, *shape), dtype=np.float32)
    tensor[[0, 3, 5]] = chi
    b = np.array([[0.3, -0.5, 0.8]]) / np.linalg.norm([0.3, -0.5, 0.8])
    system = _System(b.astype(np.float32), np.ones(shape, dtype=bool), Grid(shape), np.float32(0))
    field = fourier.filtered(chi, kernels.dipole(Grid(shape, b0_direction=tuple(b[0]))))
    found = system.apply(tensor.reshape(6, -1), np.empty((6, chi.size), dtype=np.float32))
    np.testing.assert_allclose(found, system.adjoint([field]), atol=1e-5)


def test_tensor_is_recovered(brain):
    mask, tensor = brain
    directions = _directions(12)
    found, mean, spread = sti(_fields(tensor, directions), directions, mask, GRID)
    assert nrmse(mean, mean_susceptibility(tensor), mask) < 5
    assert np.corrcoef(spread[mask], anisotropy(tensor, mask)[mask])[0, 1] > 0.95
    errors = np.linalg.norm((found - tensor)[:, mask]) / np.linalg.norm(tensor[:, mask])
    assert errors < 0.15
    assert not any(volume[..., ~mask].any() for volume in (found, mean, spread))


def test_bad_input_is_named(brain):
    mask, _ = brain
    fields = np.zeros((6, *SHAPE), dtype=np.float32)
    with pytest.raises(InputError, match="at least 6 orientations"):
        sti(fields[:5], _directions(5), mask, GRID)
    with pytest.raises(InputError, match="b0_directions: expected 6"):
        sti(fields, _directions(7), mask, GRID)
    with pytest.raises(InputError, match="empty mask"):
        sti(fields, _directions(6), np.zeros(SHAPE, bool), GRID)


def test_same_bytes_for_any_number_of_threads(brain):
    mask, tensor = brain
    directions = _directions(6)
    fields = _fields(tensor, directions)
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(sti(fields, directions, mask, GRID, STIParameters(iterations=3))[0].tobytes())
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
