"""Streaks are taken out, edges stay."""

from __future__ import annotations

from qsmxt.algorithms.inversion.ilsqr import ILSQRParameters, ilsqr
from qsmxt.algorithms.inversion.star import STARParameters, star


def test_removing_streaks_helps(spheres):
    with_streaks = ilsqr(spheres.field, spheres.mask, spheres.grid, ILSQRParameters(streak_iterations=0))
    without = ilsqr(spheres.field, spheres.mask, spheres.grid)
    assert spheres.error(without) < 0.8 * spheres.error(with_streaks)


def test_a_strong_source_does_not_streak_into_tissue(spheres):
    """STAR: the tissue map of the second level hardly sees the strong source that the first has taken away."""
    chi = star(spheres.field, spheres.mask, spheres.grid, STARParameters(strong=0.08))
    assert spheres.error(chi) < 6
