"""A small simulated head, scanned once for all tests of conversion."""

from __future__ import annotations

import pytest

from qsmxt.phantom.head import Head, HeadSettings, simulate


@pytest.fixture(scope="session")
def head() -> Head:
    """24 x 28 x 32 voxels of 8 x 8 x 6 mm, three echoes, tilted by 0.2 rad."""
    return simulate(HeadSettings(voxel_size=(8, 8, 6), oversampling=1, echo_times=(0.004, 0.010, 0.016), tilt=0.2))
