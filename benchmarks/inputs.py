"""Every array that a registered method may consume, on a digital head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import board
from qsmxt.algorithms import fourier, kernels
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from qsmxt.phantom.anatomy import INDEX
from qsmxt.phantom.example import DIRECTIONS, SPIN_ECHO_TIMES
from qsmxt.phantom.head import Head
from qsmxt.registry.methods import Method

#: Arrays that methods get if they can use them.
OPTIONAL = ("mask", "magnitude", "echo_times", "field_strength")
#: R2 of all tissue, 1/s.
R2 = 12.0
COILS = 4
#: Echo times of the uncombined coils, s; equal spacing, the first a multiple of it, as ASPIRE needs.
COIL_ECHO_TIMES = (0.008, 0.016, 0.024, 0.032)


class Inputs:
    """Arrays of ``head`` by name, each made when it is first asked for; ``mask`` is the brain."""

    def __init__(self, head: Head) -> None:
        self.head, self.grid = head, head.grid
        self._made: dict[str, Any] = board.available(head) | {
            "total_field": head.total_field,
            "local_field": head.local_field,
        }

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            made = _MAKERS[name](self.head)
            self._made[name] = made if made.dtype in (np.bool_, np.int32, np.float64) else made.astype(np.float32)
        return self._made[name]

    def of(self, method: Method, side: int | None = None) -> dict[str, Any]:
        """What ``method`` consumes, and of what it may use :data:`OPTIONAL`.

        ``side``: cut to a cube of so many voxels in the middle of the head.
        """
        optional = [name for name in method.optional if name in OPTIONAL]
        given = {name: self[name] for name in (*method.consumes, *optional)}
        if "coil_phase" in given:
            given["echo_times"] = np.array(COIL_ECHO_TIMES)
        return given if side is None else {name: self._cut(value, side) for name, value in given.items()}

    def _cut(self, value: Any, side: int) -> Any:
        if np.ndim(value) < 3:
            return value
        middle = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in self.grid.shape)
        return np.ascontiguousarray(value[(..., *middle)])


def _phases(head: Head, times: tuple[float, ...]) -> np.ndarray:
    return np.stack([rad_per_ppm(head.field_strength, t) * head.total_field for t in times]).astype(np.float32)


def _coils(head: Head) -> np.ndarray:
    """Complex signal of coils whose sensitivity and offset change along one axis each."""
    signal = head.magnitude[:1] * np.exp(1j * _phases(head, COIL_ECHO_TIMES))
    ramp = [np.linspace(0, 1, n, dtype=np.float32) for n in head.grid.shape]
    x, z = ramp[0][:, None, None], ramp[2][None, None, :]
    return np.stack([((1 + k * x) * np.exp(1j * (0.5 * k + z)) * signal).astype(np.complex64) for k in range(COILS)])


def _combined(head: Head) -> np.ndarray:
    return np.sqrt(np.sum(np.square(head.magnitude), axis=0))


def _oriented(head: Head) -> np.ndarray:
    wide = Grid(fourier.fast_shape(head.grid.shape, (40, 40, 40)), head.grid.voxel_size)
    padded = np.zeros(wide.shape, dtype=np.float32)
    box = tuple(slice(0, n) for n in head.grid.shape)
    padded[box] = head.chi * head.brain
    turned = (kernels.dipole(dataclasses.replace(wide, b0_direction=b), "greens") for b in DIRECTIONS)
    return np.stack([fourier.filtered(padded, dipole)[box] * head.brain for dipole in turned])


def _labels(head: Head) -> np.ndarray:
    return np.where(head.brain, head.labels, 0).astype(np.int32)


_MAKERS: dict[str, Callable[[Head], np.ndarray]] = {
    "coil_phase": lambda h: np.angle(_coils(h)),
    "coil_magnitude": lambda h: np.abs(_coils(h)),
    "unwrapped_phase": lambda h: _phases(h, h.echo_times),
    "mask_input": _combined,
    "combined_magnitude": _combined,
    "homogeneous_magnitude": _combined,
    "phase_quality": lambda h: np.where(h.brain, 0.9, 0.2),
    "fit_quality": lambda h: np.where(h.brain, 0.9, 0.2),
    "reliable_mask": lambda h: h.brain & (h.labels != INDEX["calcification"]),
    "csf_mask": lambda h: h.brain & (h.labels == INDEX["csf"]),
    "labels": _labels,
    "chi": lambda h: h.chi * h.brain,
    "reliable_chi": lambda h: h.chi * (h.brain & (h.labels != INDEX["calcification"])),
    "filled_chi": lambda h: h.chi * h.brain,
    "echo_chi": lambda h: np.stack([h.chi * h.brain * factor for factor in (1, 1.02, 0.97, 1.01)]),
    "r2star": lambda h: h.r2star * h.brain,
    "r2": lambda h: np.where(h.brain, R2, 0.0).astype(np.float32),
    "r2prime": lambda h: np.maximum(h.r2star - R2, 0) * h.brain,
    "spin_echo_magnitude": lambda h: np.stack([h.magnitude[0] * np.exp(-R2 * t) for t in SPIN_ECHO_TIMES]),
    "spin_echo_times": lambda h: np.array(SPIN_ECHO_TIMES),
    "oriented_fields": _oriented,
    "b0_directions": lambda h: np.array(DIRECTIONS) / np.linalg.norm(DIRECTIONS, axis=1)[:, None],
}
