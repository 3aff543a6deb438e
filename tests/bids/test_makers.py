"""Conjugation and slices of alternating sign."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.bids.makers import alternating_axes, is_conjugate, undo_alternation, wrap

SHAPE = (14, 12, 10)


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * difference))


def test_wrap() -> None:
    values = np.linspace(-50, 50, 4001, dtype=np.float32)
    inside = values.copy()
    wrap(inside)
    assert np.abs(inside).max() <= np.pi
    assert np.abs(wrapped(inside.astype(np.float64) - values)).max() < 1e-5


@pytest.mark.parametrize(
    ("maker", "expected"),
    [("GE", True), ("GE MEDICAL SYSTEMS", True), ("ge healthcare", True), ("Siemens", False), ("Philips", False),
     ("", False), ("Hitachi", False), ("GENERIC", False)],
)  # fmt: skip
def test_makers_of_conjugate_phase(maker: str, expected: bool) -> None:
    assert is_conjugate(maker) is expected


def alternate(phase: np.ndarray, axis: int) -> np.ndarray:
    sign = (-1.0) ** np.arange(phase.shape[axis + 1])
    sign = sign.reshape([-1 if n == axis + 1 else 1 for n in range(phase.ndim)])
    return np.angle(sign * np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize("axes", [(), (2,), (0,), (1,), (0, 2), (0, 1, 2)])
def test_alternation_is_found_and_undone_once(axes: tuple[int, ...]) -> None:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    truth = wrapped(np.stack([2 * x + y * z, 4 * x + 2 * y * z])).astype(np.float32)
    phase = truth
    for axis in axes:
        phase = alternate(phase, axis)
    phase = phase.copy()
    found = alternating_axes(phase)
    assert found == list(axes)
    undo_alternation(phase, found)
    assert np.abs(wrapped(phase.astype(np.float64) - truth)).max() < 1e-5
    assert np.abs(phase).max() <= np.pi
    assert alternating_axes(phase) == []


def test_alternation_is_judged_where_there_is_signal() -> None:
    """Noise around a small object does not hide it, and noise alone does not make it."""
    noise = np.random.default_rng(5).uniform(-np.pi, np.pi, (1, 20, 20, 20)).astype(np.float32)
    magnitude = np.full(noise.shape, 0.02, np.float32)
    assert alternating_axes(noise, magnitude) == []
    noise[:, 8:12, 8:12, 8:12] = 0.3
    magnitude[:, 8:12, 8:12, 8:12] = 1
    assert alternating_axes(noise, magnitude) == []
    assert alternating_axes(alternate(noise, 2), magnitude) == [2]
