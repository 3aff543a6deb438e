r"""What ASPIRE and MCPC-3D-S share: phase offsets of single coils from two echoes, and the coherent sum.

Coil c receives :math:`S_{c,e} = M_{c,e}\, e^{i(\varphi_{0,c} + \omega T_e)}`. The phase that all coils build up between
the first two echoes is that of the Hermitian inner product,

.. math:: \psi = \arg \sum_c \overline{S_{c,1}}\, S_{c,2} = \omega (T_2 - T_1), \qquad m = \frac{T_1}{T_2 - T_1},

and :math:`\varphi_{0,c} = \gamma(\varphi_{c,1} - m \psi)` is what the coil adds. Smoothed, it is removed before the sum

.. math:: S_e = \sum_c M_{c,e}^2\, e^{i(\varphi_{c,e} - \varphi_{0,c})} ,

whose phase is the combined phase; the combined magnitude is :math:`\sqrt{|S_e|}`.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import cosine, sine, wrap
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.echoes import check_times
from qsmxt.algorithms.offset.smoothing import smooth_phase
from qsmxt.algorithms.signal import signal_mask
from qsmxt.algorithms.unwrapping.growing import align_regions, unwrap_regions
from qsmxt.algorithms.unwrapping.weights import Edges
from qsmxt.errors import InputError
from qsmxt.geometry import Grid, check_host
from qsmxt.registry.methods import Progress

_REMEDY = "combine the coils on the scanner"


def check_coils(
    coil_phase: np.ndarray, coil_magnitude: np.ndarray, echo_times: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase and magnitude as float32 ``(coil, echo, x, y, z)``, and echo times; :class:`InputError` if they misfit."""
    times = check_times(echo_times, at_least=2, remedy=_REMEDY)
    for name, array in (("coil_phase", coil_phase), ("coil_magnitude", coil_magnitude)):
        check_host(name, array)
        if array.ndim != 5 or array.shape[1:] != (len(times), *grid.shape) or len(array) == 0:
            raise InputError(
                f"{name}: expected (coil, echo, x, y, z) with {len(times)} echoes of {grid.shape}, found {array.shape}"
            )
    if coil_phase.shape != coil_magnitude.shape:
        raise InputError(f"coil_magnitude: expected {len(coil_phase)} coils, found {len(coil_magnitude)}")
    return (
        np.ascontiguousarray(coil_phase, dtype=np.float32),
        np.ascontiguousarray(coil_magnitude, dtype=np.float32),
        times,
    )


def combine(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    grid: Grid,
    width: float,
    *,
    unwrap: bool,
    mask: np.ndarray | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Combined phase (rad) and magnitude, ``(echo, x, y, z)``.

    Parameters
    ----------
    phase, magnitude, times
        As of :func:`check_coils`.
    grid
        Geometry of the volume.
    width
        Width of the smoothing of the offsets, mm.
    unwrap
        Whether the phase between the echoes is unwrapped; not needed if m is an integer.
    mask
        Where the offsets are estimated; without it the signal mask.
    progress
        Called with the fraction done.
    """
    ratio = times[0] / (times[1] - times[0])
    shape = grid.shape
    products = np.zeros((2, *shape), dtype=np.float32)
    power: np.ndarray = np.zeros(shape, dtype=np.float32)
    for c in range(len(phase)):
        parallel.run(_add_product, shape[0], phase[c], magnitude[c], products, power)
    if not power.any():
        raise InputError("coil_magnitude: expected positive values, found none; check the magnitude images")
    if mask is None:
        mask = signal_mask(np.sqrt(power), grid)
    grid.check("mask", mask)
    if not mask.any():
        raise InputError("mask: expected at least one voxel, found an empty mask; check the masking step")
    evolution = np.arctan2(products[1], products[0])
    if unwrap:
        strength = np.sqrt(np.hypot(products[0], products[1]))
        usable = np.array(mask, dtype=bool).view(np.uint8)
        align_regions(evolution, unwrap_regions(evolution, Edges(evolution, usable, "romeo", strength).costs()))
    sums = np.zeros((2, len(times), *shape), dtype=np.float32)
    offset, weight = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    inside = np.array(mask, dtype=bool)
    for c in range(len(phase)):
        parallel.run(
            _coil_offset, shape[0], phase[c, 0], magnitude[c, 0], evolution, inside, np.float32(ratio), offset, weight
        )
        if not weight.any():
            continue
        smooth = smooth_phase(offset, weight, grid, width)
        parallel.run(_add_coil, shape[0], phase[c], magnitude[c], smooth, sums)
        if progress:
            progress((c + 1) / len(phase))
    combined = np.arctan2(sums[1], sums[0])
    strength = np.hypot(sums[0], sums[1])
    return combined, np.sqrt(strength, out=strength)


@kernel
def _add_product(start, stop, phase, magnitude, products, power):
    """Add conj(S_1) S_2 of one coil, and its power over all echoes; voxels that are not finite count as zero."""
    real, imaginary = products[0], products[1]
    for x in range(start, stop):
        for y in range(power.shape[1]):
            a, b, m, n = phase[0, x, y], phase[1, x, y], magnitude[0, x, y], magnitude[1, x, y]
            for z in range(a.size):
                angle, size = b[z] - a[z], m[z] * n[z]
                p, q = size * cosine(angle), size * sine(angle)
                if p * p + q * q < np.inf:
                    real[x, y, z] += p
                    imaginary[x, y, z] += q
            for e in range(len(magnitude)):
                m = magnitude[e, x, y]
                for z in range(m.size):
                    square = m[z] * m[z]
                    power[x, y, z] += square if square < np.inf else np.float32(0)


@kernel
def _coil_offset(start, stop, phase, magnitude, evolution, inside, ratio, offset, weight):
    for x in range(start, stop):
        for y in range(offset.shape[1]):
            for z in range(offset.shape[2]):
                value = wrap(phase[x, y, z] - ratio * evolution[x, y, z])
                w = magnitude[x, y, z] * magnitude[x, y, z]
                good = inside[x, y, z] and w < np.inf and abs(value) < np.float32(10)
                offset[x, y, z] = value if good else np.float32(0)
                weight[x, y, z] = w if good else np.float32(0)


@kernel
def _add_coil(start, stop, phase, magnitude, offset, sums):
    for e in range(len(phase)):
        for x in range(start, stop):
            for y in range(offset.shape[1]):
                a, m, b = phase[e, x, y], magnitude[e, x, y], offset[x, y]
                real, imaginary = sums[0, e, x, y], sums[1, e, x, y]
                for z in range(a.size):
                    angle, size = a[z] - b[z], m[z] * m[z]
                    p, q = size * cosine(angle), size * sine(angle)
                    if p * p + q * q < np.inf:
                        real[z] += p
                        imaginary[z] += q
