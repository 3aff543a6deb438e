"""A digital head in which every tissue has known paramagnetic and diamagnetic sources."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.geometry import Grid
from qsmxt.phantom.forward import DipoleField
from qsmxt.phantom.head import HeadSettings, simulate

#: Sizes of both sources (ppm) by label; their difference is the susceptibility of the digital head.
SOURCES = {
    1: (0.065, 0.021), 2: (0.160, 0.029), 3: (0.060, 0.022), 4: (0.125, 0.025), 5: (0.175, 0.023), 6: (0.135, 0.024),
    7: (0.045, 0.025), 8: (0.030, 0.060), 9: (0.035, 0.015), 10: (0.019, 0.0), 11: (0.190, 0.0), 14: (0.0, 3.3),
    15: (1.2, 0.0),
}  # fmt: skip

RELAXIVITY = 137.0


@dataclass(frozen=True)
class TwoSources:
    """Truth (ppm), local field (ppm) and R2' (1/s) of the head, all 0 outside the mask; diamagnetic is <= 0."""

    grid: Grid
    mask: np.ndarray
    paramagnetic: np.ndarray
    diamagnetic: np.ndarray
    local_field: np.ndarray
    r2prime: np.ndarray
    field_strength: float

    @property
    def chi(self) -> np.ndarray:
        """Sum of the sources, ppm."""
        return self.paramagnetic + self.diamagnetic


@functools.cache
def two_sources(voxel: float, field_strength: float, field_noise: float, rate_noise: float) -> TwoSources:
    """The head with voxels of ``voxel`` mm, 10 % texture of both sources, noise in ppm and 1/s."""
    head = simulate(HeadSettings(voxel_size=(voxel,) * 3, oversampling=1, echo_times=(0.02,)))
    rng = np.random.default_rng(0)
    maps = []
    for which in (0, 1):
        table = np.zeros(32, dtype=np.float32)
        for label, sizes in SOURCES.items():
            table[label] = sizes[which]
        texture = ndimage.gaussian_filter(rng.standard_normal(head.labels.shape), 2 / voxel)
        factor = np.clip(1 + 0.1 * texture / texture.std(), 0, None)
        maps.append((table[head.labels] * factor * head.brain).astype(np.float32))
    field = DipoleField(head.grid.shape, head.grid.voxel_size, head.grid.b0_direction)(maps[0] - maps[1])
    field += field_noise * rng.standard_normal(field.shape)
    rate = RELAXIVITY * field_strength / 3 * (maps[0] + maps[1]) + rate_noise * rng.standard_normal(field.shape)
    return TwoSources(
        head.grid, head.brain, maps[0], -maps[1], (field * head.brain).astype(np.float32),
        (rate * head.brain).astype(np.float32), field_strength,
    )  # fmt: skip
