"""Rapid two-step inversion."""

from __future__ import annotations

from qsmxt.algorithms.inversion.rts import FEWEST, RTSParameters, rts


def test_the_second_step_never_ends_before_eight_iterations(spheres):
    told: list[float] = []
    rts(spheres.field, spheres.mask, spheres.grid, RTSParameters(tolerance=1e9), progress=told.append)
    assert len(told) == FEWEST == 8


def test_more_first_iterations_restore_contrast(spheres):
    def contrast(first: int) -> float:
        chi = rts(spheres.field, spheres.mask, spheres.grid, RTSParameters(first_iterations=first))
        return float(chi[spheres.chi > 0.19].mean())

    assert contrast(2) < contrast(4) < contrast(8)
