r"""Loss of coherence over a voxel by the gradient of the phase that was measured around it.

Where the phase changes by :math:`\Delta_i` from voxel to voxel along axis i, the spins of a voxel spread over that
angle, and their signal is reduced by

.. math:: c = \prod_i \left| \frac{\sin(\Delta_i / 2)}{\Delta_i / 2} \right| .

Near one, the voxel has one frequency. Towards zero, its phase is that of a nearly cancelled signal, neighbouring phases
cannot be told from wraps, and what the echoes agree on need not be the field. :math:`|\Delta_i|` is the smaller one of
the steps to the two neighbours, so that a noisy neighbour or an edge does not count, a slope does.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import HALF, sine
from qsmxt.algorithms.compiled import kernel


def gradient_coherence(phase: np.ndarray, usable: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Coherence c of every voxel, float32 in [0, 1], 0 where ``usable`` is 0.

    Parameters
    ----------
    phase
        Unwrapped phase, rad, float32 ``(x, y, z)``, or anything that is a phase after multiplication with ``scale``.
    usable
        Voxels that count, uint8.
    scale
        Factor of the phase.
    """
    out = np.empty(phase.shape, dtype=np.float32)
    parallel.run(_coherence, len(phase), phase, usable, np.float32(scale), out)
    return out


def squared_slope(phase: np.ndarray, usable: np.ndarray, scale: float = 1.0) -> np.ndarray:
    r"""Squared slope :math:`\sum_i \Delta_i^2` of every voxel, float32, 0 where ``usable`` is 0.

    To second order the coherence is :math:`c \approx \exp(-\sum_i \Delta_i^2 / 24)`, which has no side lobes.
    Arguments as of :func:`gradient_coherence`.
    """
    out = np.empty(phase.shape, dtype=np.float32)
    parallel.run(_slope, len(phase), phase, usable, np.float32(scale), out)
    return out


@kernel
def _add_square(out, back, here, ahead, has_back, has_ahead, scale):
    """Add the squared step along one axis to ``out``."""
    none = np.float32(1e30)
    for z in range(out.size):
        first = abs(here[z] - back[z]) if has_back[z] else none
        second = abs(ahead[z] - here[z]) if has_ahead[z] else none
        step = min(first, second)
        step = scale * (step if step < none else np.float32(0))
        out[z] += step * step


@kernel
def _slope(start, stop, phase, usable, scale, out):
    nx, ny, nz = phase.shape
    nothing = np.zeros(nz, dtype=np.uint8)
    for x in range(start, stop):
        for y in range(ny):
            row, here, inside = out[x, y], phase[x, y], usable[x, y]
            row[:] = 0
            b, a = max(0, x - 1), min(nx - 1, x + 1)
            has_b, has_a = usable[b, y] if x > 0 else nothing, usable[a, y] if x < nx - 1 else nothing
            _add_square(row, phase[b, y], here, phase[a, y], has_b, has_a, scale)
            b, a = max(0, y - 1), min(ny - 1, y + 1)
            has_b, has_a = usable[x, b] if y > 0 else nothing, usable[x, a] if y < ny - 1 else nothing
            _add_square(row, phase[x, b], here, phase[x, a], has_b, has_a, scale)
            if nz > 2:
                _add_square(row[1:-1], here[:-2], here[1:-1], here[2:], inside[:-2], inside[2:], scale)
            if nz > 1:
                _add_square(row[:1], here[:1], here[:1], here[1:2], nothing[:1], inside[1:2], scale)
                _add_square(row[-1:], here[-2:-1], here[-1:], here[-1:], inside[-2:-1], nothing[:1], scale)
            for z in range(nz):
                row[z] = row[z] if inside[z] else np.float32(0)


@kernel
def _scaled_sinc(out, back, here, ahead, has_back, has_ahead, scale):
    """Multiply ``out`` by the loss along one axis."""
    none = np.float32(1e30)
    for z in range(out.size):
        first = abs(here[z] - back[z]) if has_back[z] else none
        second = abs(ahead[z] - here[z]) if has_ahead[z] else none
        step = min(first, second)
        angle = HALF * scale * (step if step < none else np.float32(0))
        out[z] *= abs(sine(angle) / angle) if angle > np.float32(1e-3) else np.float32(1)


@kernel
def _coherence(start, stop, phase, usable, scale, out):
    nx, ny, nz = phase.shape
    nothing = np.zeros(nz, dtype=np.uint8)
    for x in range(start, stop):
        for y in range(ny):
            row, here, inside = out[x, y], phase[x, y], usable[x, y]
            for z in range(nz):
                row[z] = np.float32(1) if inside[z] else np.float32(0)
            if nx > 1:
                b, a = max(0, x - 1), min(nx - 1, x + 1)
                has_b, has_a = usable[b, y] if x > 0 else nothing, usable[a, y] if x < nx - 1 else nothing
                _scaled_sinc(row, phase[b, y], here, phase[a, y], has_b, has_a, scale)
            if ny > 1:
                b, a = max(0, y - 1), min(ny - 1, y + 1)
                has_b, has_a = usable[x, b] if y > 0 else nothing, usable[x, a] if y < ny - 1 else nothing
                _scaled_sinc(row, phase[x, b], here, phase[x, a], has_b, has_a, scale)
            if nz > 2:
                _scaled_sinc(row[1:-1], here[:-2], here[1:-1], here[2:], inside[:-2], inside[2:], scale)
            if nz > 1:
                _scaled_sinc(row[:1], here[:1], here[:1], here[1:2], nothing[:1], inside[1:2], scale)
                _scaled_sinc(row[-1:], here[-2:-1], here[-1:], here[-1:], inside[-2:-1], nothing[:1], scale)
