"""Extended phase graphs against the Bloch equation of many spins."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.spinecho.epg import R1, epg, trains
from qsmxt.geometry import Grid


def bloch(rate: float, angle: float, spacing: float, count: int, spins: int = 64) -> np.ndarray:
    """Echoes of spins that are dephased evenly over whole turns in half a spacing, refocused about their first axis."""
    turn = 2 * np.pi * np.arange(spins) / spins
    m = np.zeros((spins, 3))
    m[:, 0] = 1
    cosine, sine = np.cos(angle), np.sin(angle)

    def wait(m):
        x, y = m[:, 0] * np.cos(turn) - m[:, 1] * np.sin(turn), m[:, 0] * np.sin(turn) + m[:, 1] * np.cos(turn)
        transverse, along = np.exp(-rate * spacing / 2), np.exp(-R1 * spacing / 2)
        return np.stack([x * transverse, y * transverse, m[:, 2] * along], axis=1)

    out = []
    for _ in range(count):
        m = wait(m)
        m = np.stack([m[:, 0], cosine * m[:, 1] - sine * m[:, 2], sine * m[:, 1] + cosine * m[:, 2]], axis=1)
        m = wait(m)
        out.append(np.hypot(m[:, 0].mean(), m[:, 1].mean()))
    return np.array(out)


@pytest.mark.parametrize("angle", [180.0, 150.0, 120.0, 60.0])
def test_trains_are_those_of_the_bloch_equation(angle):
    found = trains(np.array([12.0]), np.radians([angle]), 0.01, 8)[0, 0]
    np.testing.assert_allclose(found, bloch(12.0, np.radians(angle), 0.01, 8), rtol=1e-9)


def test_the_rate_is_that_of_the_spins():
    signal = np.stack([bloch(r, np.radians(a), 0.01, 8) for r, a in ((9.0, 175.0), (14.0, 140.0), (30.0, 155.0))], 1)
    found = epg(signal.reshape(8, 3, 1, 1), 0.01 * np.arange(1, 9), Grid((3, 1, 1))).ravel()
    np.testing.assert_allclose(found, [9, 14, 30], rtol=0.02)
