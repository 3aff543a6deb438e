"""Homodyne images and CLEAR-SWI against plain sums."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.swi import clearswi, homodyne
from qsmxt.algorithms.swi.highpass import combined_frequency
from qsmxt.geometry import Grid

SHAPE = (12, 10, 4)
GRID = Grid(SHAPE, (1.0, 1.5, 3.0))
TIMES = np.array([0.006, 0.013])


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phase = np.cumsum(rng.standard_normal((2, *SHAPE)), axis=1) * TIMES[:, None, None, None] * 60
    return phase.astype(np.float32), rng.uniform(1, 2, (2, *SHAPE)).astype(np.float32)


def test_homodyne_is_the_filter_written_as_a_sum_over_frequencies():
    phase, magnitude = _data()
    mask = np.ones(SHAPE, dtype=bool)
    settings = homodyne.method.configure({"cutoff": 0.2, "echo": 0, "power": 4})
    found = homodyne(phase, magnitude, TIMES, mask, GRID, settings)[0]
    smoothing = []
    for n, v in zip(SHAPE[:2], GRID.voxel_size, strict=False):
        k = np.fft.fftfreq(n, v)
        window = np.where(np.abs(k) < 0.2, 0.5 * (1 + np.cos(np.pi * k / 0.2)), 0)
        distance = np.subtract.outer(np.arange(n), np.arange(n)) * v
        smoothing.append((window * np.exp(2j * np.pi * distance[..., None] * k)).sum(-1) / n)
    total = 0
    for m, p in zip(magnitude, phase, strict=True):
        signal = m * np.exp(1j * p)
        low = np.einsum("ai,bj,ijz->abz", *smoothing, signal)
        high = np.angle(signal * np.conj(low))
        total = total + m**2 * np.where(high > 0, 1 - high / np.pi, 1) ** 8
    np.testing.assert_allclose(found, np.sqrt(total), rtol=2e-4)


def test_clearswi_is_softplus_times_the_tanh_of_the_frequency():
    phase, magnitude = _data()
    mask = np.ones(SHAPE, dtype=bool)
    settings = clearswi.method.configure({"sensitivity": 0.0, "phase_mask": "tanh", "strength": 4.0})
    found = clearswi(phase, magnitude, TIMES, mask, GRID, settings)[0]
    width = settings.filter_width
    echoes = list(zip(phase, magnitude, strict=True))
    frequency = combined_frequency(echoes, TIMES, mask, (width / 1.0, width / 1.5)).astype(float)
    weight = 0.5 * (1 + np.tanh(1 - frequency / (10 / 4 * np.median(frequency[frequency > 0]))))
    image = np.sqrt((magnitude.astype(float) ** 2).sum(0))
    o = np.percentile(image, 80) / 2
    soft = o / 2 * np.log((1 + np.exp(2 / o * (image - o))) / (1 + np.exp(-2.0)))
    np.testing.assert_allclose(found, soft * weight, rtol=1e-3)
