r"""A small phantom with every array that passes between methods, for examples and contract tests.

Three spheres of known susceptibility :math:`\chi` (ppm) lie in an ellipsoid of 34 x 38 x 30 mm, the mask :math:`m`. All
arrays belong together:

.. math::

    f_l = d * \chi, \qquad f = f_l + h, \qquad R_2^* = 20 + 100\,|\chi|, \qquad
    S_e = s_0\, e^{-R_2^* T_e} \exp i(\varphi_0 + 2\pi\bar\gamma B_0 f T_e) + \varepsilon ,

with the Green's dipole d, a harmonic polynomial :math:`h` as the background field, a smooth offset :math:`\varphi_0`
(rad) and complex noise :math:`\varepsilon` of 1 % of :math:`s_0` in the real and in the imaginary part. The field is
free of noise.

Sampling is 20 x 22 x 18 voxels of 2 mm with B0 along z, the echoes are at 5, 10 and 15 ms, B0 is 3 T. The same bytes
come with every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from qsmxt.registry.artifacts import ARTIFACTS

GRID = Grid((20, 22, 18), (2.0, 2.0, 2.0))
#: s; equal spacing, the first a multiple of it, as ASPIRE needs.
ECHO_TIMES = (0.005, 0.010, 0.015)
#: s; of another scan.
SPIN_ECHO_TIMES = (0.01, 0.02, 0.03, 0.04)
#: T.
FIELD_STRENGTH = 3.0
#: Standard deviation of the real and of the imaginary part; the signal at echo time zero is 1.
NOISE = 0.01
COILS = 3
#: B0 in six orientations of the head.
DIRECTIONS = (
    (0.0, 0.0, 1.0), (0.0, 0.6, 0.8), (0.6, 0.0, 0.8), (0.0, -0.6, 0.8), (-0.6, 0.0, 0.8), (0.6, 0.8, 0.0),
)  # fmt: skip
#: Half axes of the mask, voxels.
HALF_AXES = (8.5, 9.5, 7.5)
#: Centre (voxels from the middle), radius (voxels) and susceptibility (ppm).
SPHERES = (((-3, 2, 0), 2.2, 0.15), ((3, -2, 1), 2.6, -0.1), ((1, 4, -2), 1.8, 0.08))
#: R2 in the mask, 1/s.
R2 = 12.0


@dataclass(frozen=True)
class Example:
    """A grid and the arrays on it, each an attribute named as in :mod:`qsmxt.registry.artifacts`.

    So there are ``head.local_field``, ``head.mask``, ``head.chi`` and ``head.echo_times``. Every access gives a copy,
    which may be changed. Units and shapes are those of the artifact.

    Attributes
    ----------
    grid
        Sampling and direction of B0.
    arrays
        All arrays by name; not to be changed.
    """

    grid: Grid
    arrays: Mapping[str, np.ndarray]

    def __getattr__(self, name: str) -> np.ndarray:
        arrays = self.__dict__.get("arrays", {})
        if name not in arrays:
            raise AttributeError(f"the phantom has no array {name!r}")
        return np.array(arrays[name], copy=True)

    @property
    def field_strength(self) -> float:
        """B0, T."""
        return float(self.arrays["field_strength"])


@cache
def phantom() -> Example:
    """The phantom; made once.

    Examples
    --------
    >>> head = phantom()
    >>> head.grid.shape, head.magnitude.shape, head.echo_times.tolist()
    ((20, 22, 18), (3, 20, 22, 18), [0.005, 0.01, 0.015])
    >>> round(float(head.chi.max()), 2), round(float(head.chi.min()), 2)
    (0.15, -0.1)
    """
    rng = np.random.default_rng(0)
    made = {**_masks(), **_fields()}
    made |= _relaxation(made)
    made |= _signals(made, rng)
    made |= _qualities(made, rng)
    arrays = {name: _stored(value) for name, value in made.items() if name in ARTIFACTS}
    exact = {"echo_times": ECHO_TIMES, "spin_echo_times": SPIN_ECHO_TIMES, "b0_directions": DIRECTIONS}
    arrays |= {name: np.array(value, dtype=np.float64) for name, value in exact.items()}
    arrays["field_strength"] = np.array(FIELD_STRENGTH)
    return Example(GRID, arrays)


def _stored(volume: np.ndarray) -> np.ndarray:
    """Masks and labels as they are, all else in single precision."""
    return volume if volume.dtype in (np.bool_, np.int32) else np.ascontiguousarray(volume, dtype=np.float32)


def _coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels from the middle."""
    x, y, z = (np.arange(n) - (n - 1) / 2 for n in GRID.shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    x, y, z = _coordinates()
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


def _shell(x: float, y: float, z: float) -> np.ndarray:
    """Ellipsoid of these half axes, voxels."""
    u, v, w = _coordinates()
    return (u / x) ** 2 + (v / y) ** 2 + (w / z) ** 2 <= 1


def _masks() -> dict[str, np.ndarray]:
    mask = _shell(*HALF_AXES)
    labels = np.zeros(GRID.shape, dtype=np.int32)
    for label, (centre, radius, _) in enumerate(SPHERES[:2], 1):
        labels[_ball(centre, radius)] = label
    return {
        "mask": mask,
        "reliable_mask": mask & ~_ball(SPHERES[1][0], 1.5),
        "eroded_mask": mask & _shell(7, 8, 6),
        "csf_mask": _ball((0, -5, -2), 1.6) & mask,
        "labels": labels * mask,
    }


def _susceptibility() -> np.ndarray:
    chi = np.zeros(GRID.shape, dtype=np.float32)
    for centre, radius, value in SPHERES:
        chi[_ball(centre, radius)] = value
    return chi * _shell(*HALF_AXES)


def _field_of(chi: np.ndarray, direction: tuple[float, float, float]) -> np.ndarray:
    """Green's field (ppm) with nothing around the grid."""
    a, b, c = GRID.shape
    wide = Grid((2 * a, 2 * b, 2 * c), GRID.voxel_size, direction)
    padded = np.zeros(wide.shape, dtype=np.float32)
    padded[:a, :b, :c] = chi
    return fourier.filtered(padded, kernels.dipole(wide, "greens"))[:a, :b, :c]


def _fields() -> dict[str, np.ndarray]:
    """Fields and susceptibilities; ``complete_field`` is the total field without a mask."""
    x, y, z = _coordinates()
    mask, chi = _shell(*HALF_AXES), _susceptibility()
    field = _field_of(chi, GRID.b0_direction)
    background = 0.004 * x - 0.003 * z + 0.0004 * (x * x - y * y) + 0.0002 * y * z
    trend = 0.002 * x * mask
    return {
        "complete_field": field + background,
        "total_field": (field + background) * mask,
        "local_field": field * mask,
        "chi": chi,
        "reliable_chi": chi * (mask & ~_ball(SPHERES[1][0], 1.5)),
        "filled_chi": (chi + trend).astype(np.float32),
        "echo_chi": np.stack([chi, chi * 1.02, chi * 0.97]),
        "chi_paramagnetic": np.maximum(chi, 0),
        "chi_diamagnetic": np.minimum(chi, 0),
        "oriented_fields": np.stack([_field_of(chi, b) * mask for b in DIRECTIONS]),
    }


def _relaxation(made: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rates, times and what a relaxation fit gives."""
    x, y, _ = _coordinates()
    mask, chi = made["mask"], made["chi"]
    r2star = np.where(mask, 20 + 100 * np.abs(chi), 40).astype(np.float32)
    s0 = np.where(mask, 1 + 0.1 * np.sin(0.3 * x + 0.2 * y), 0.05).astype(np.float32)
    times = np.array(SPIN_ECHO_TIMES)[:, None, None, None]
    return {
        "decay_rate": r2star,
        "r2star": r2star * mask,
        "r2star_noise": 0.5 * mask,
        "t2star": mask / r2star,
        "t2star_noise": 0.5 * mask / r2star**2,
        "s0": s0,
        "r2": np.where(mask, R2, 0.0),
        "r2prime": (r2star - 12) * mask,
        "swi": s0 * mask,
        "minimum_intensity_projection": s0 * mask,
        "spin_echo_magnitude": s0 * np.exp(-np.where(mask, R2, 20.0) * times),
        "field_noise": np.where(mask, 0.002 / s0, 0),
        "oriented_noise": np.stack([np.where(mask, 0.002 / s0, 0)] * len(DIRECTIONS)),
    }


def _signals(made: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Phase and magnitude of all echoes, combined and of every coil."""
    x, y, z = _coordinates()
    times = np.array(ECHO_TIMES)[:, None, None, None]
    magnitude = (made["s0"] * np.exp(-made["decay_rate"] * times)).astype(np.float32)
    phase = np.stack([rad_per_ppm(FIELD_STRENGTH, t) * made["complete_field"] for t in ECHO_TIMES])
    offset = (0.4 + 0.02 * x - 0.01 * y + 0 * z).astype(np.float32)
    signal = magnitude * np.exp(1j * (phase + offset))
    signal += NOISE * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    coils = np.stack([(1 + 0.2 * k + 0.03 * (x + k * y)) * np.exp(1j * (0.5 * k + 0.05 * z * k)) for k in range(COILS)])
    uncombined = coils[:, None] * signal[None]
    combined = np.sqrt((np.abs(signal) ** 2).sum(0))
    return {
        "wrapped_phase": np.angle(signal),
        "magnitude": np.abs(signal),
        "coil_phase": np.angle(uncombined),
        "coil_magnitude": np.abs(uncombined),
        **dict.fromkeys(("combined_magnitude", "mask_input", "homogeneous_magnitude"), combined),
        "phase_offset": offset,
        "offset_free_phase": np.angle(np.exp(1j * phase)),
        "unwrapped_phase": phase * made["mask"],
    }


def _qualities(made: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Reliability of the phase, high in the mask."""
    quality = np.where(made["mask"], 0.9, 0.2) + 0.05 * rng.normal(size=GRID.shape)
    return dict.fromkeys(("phase_quality", "fit_quality"), np.clip(quality, 0, 1))
