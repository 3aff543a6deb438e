r"""Phase of several echoes, freed from its slow variation in every slice and combined to one frequency.

.. math::

    h_e = \varphi_e - \frac{G_\sigma * (M \varphi_e)}{G_\sigma * M}, \qquad
    \nu = \frac{1}{2\pi}\, \frac{\sum_e m_e h_e}{\sum_e m_e T_e}

with the mask M (bool), the unwrapped phases :math:`\varphi_e` (rad), magnitudes :math:`m_e` and times :math:`T_e` (s):
the mean of :math:`h_e / 2\pi T_e` weighted with the signal-to-noise ratio of the phase, :math:`m_e T_e`. The Gaussian
acts within slices only, and is made of three box filters along each axis.

All arrays have the slice axis last.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel


def box_halves(sigma: float) -> tuple[int, int, int]:
    """Half widths (voxels) of three boxes whose variances sum up to about ``sigma`` squared."""
    ideal = np.sqrt(4 * sigma * sigma + 1)
    low = int((ideal - 1) / 2)
    number = round((12 * sigma * sigma - 3 * (4 * low * low + 4 * low)) / (8 * (low + 1)))
    number = min(3, max(0, number))
    halves = [low + 1] * number + [low] * (3 - number)
    return halves[0], halves[1], halves[2]


def combined_frequency(
    echoes: list[tuple[np.ndarray, np.ndarray]], times: np.ndarray, mask: np.ndarray, sigmas: tuple[float, float]
) -> np.ndarray:
    """High-passed frequency, Hz, float32 ``(x, y, slice)``, 0 outside the mask.

    Parameters
    ----------
    echoes
        Unwrapped phase (rad) and magnitude of every echo, float32 ``(x, y, slice)``; a magnitude of NaN or Inf does not
        count.
    times
        s.
    mask
        Bool ``(x, y, slice)``.
    sigmas
        Widths of the Gaussian along the first two axes, voxels; 0 for none.
    """
    shape = mask.shape
    halves = [np.array(box_halves(s), dtype=np.int64) for s in sigmas]
    smooth = np.empty(shape, dtype=np.float32)
    norm = np.empty(shape, dtype=np.float32)
    nothing = np.empty((0, 0, 0), dtype=np.float32)
    parallel.run(_smooth_first_axis, shape[1], nothing, mask, halves[0], norm)
    parallel.run(_smooth_second_axis, shape[0], halves[1], norm)
    out = np.zeros(shape, dtype=np.float32)
    weight = np.zeros(shape, dtype=np.float32)
    for (phase, magnitude), time in zip(echoes, times, strict=True):
        parallel.run(_smooth_first_axis, shape[1], phase, mask, halves[0], smooth)
        parallel.run(_smooth_second_axis, shape[0], halves[1], smooth)
        parallel.run(_accumulate, shape[0], phase, magnitude, smooth, norm, mask, np.float32(time), out, weight)
    parallel.run(_divide, shape[0], out, weight, np.float32(1 / (2 * np.pi)))
    return out


@kernel
def _box_rows(source, half, target):
    """Sum over rows i - half to i + half of a plane ``(row, z)``, as far as there are rows."""
    rows, nz = source.shape
    running = np.zeros(nz, dtype=np.float32)
    for i in range(min(half, rows)):
        new = source[i]
        for z in range(nz):
            running[z] += new[z]
    for i in range(rows):
        if i + half < rows:
            new = source[i + half]
            for z in range(nz):
                running[z] += new[z]
        result = target[i]
        for z in range(nz):
            result[z] = running[z]
        if i - half >= 0:
            old = source[i - half]
            for z in range(nz):
                running[z] -= old[z]


@kernel
def _smooth_first_axis(start, stop, volume, mask, halves, out):
    """Three boxes along the first axis of ``volume`` in the mask (of the mask itself if ``volume`` is empty)."""
    nx, nz = mask.shape[0], mask.shape[2]
    a = np.empty((nx, nz), dtype=np.float32)
    b = np.empty((nx, nz), dtype=np.float32)
    for y in range(start, stop):
        for x in range(nx):
            row, inside = a[x], mask[x, y]
            if volume.size:
                values = volume[x, y]
                for z in range(nz):
                    row[z] = values[z] if inside[z] else np.float32(0)
            else:
                for z in range(nz):
                    row[z] = np.float32(1) if inside[z] else np.float32(0)
        _box_rows(a, halves[0], b)
        _box_rows(b, halves[1], a)
        _box_rows(a, halves[2], b)
        for x in range(nx):
            out[x, y] = b[x]


@kernel
def _smooth_second_axis(start, stop, halves, out):
    """Three boxes along the second axis, in place."""
    a = np.empty(out.shape[1:], dtype=np.float32)
    b = np.empty(out.shape[1:], dtype=np.float32)
    for x in range(start, stop):
        _box_rows(out[x], halves[0], a)
        _box_rows(a, halves[1], b)
        _box_rows(b, halves[2], out[x])


@kernel
def _accumulate(start, stop, phase, magnitude, smooth, norm, mask, time, out, weight):
    for x in range(start, stop):
        for y in range(phase.shape[1]):
            p, m, s, n, inside = phase[x, y], magnitude[x, y], smooth[x, y], norm[x, y], mask[x, y]
            total, share = out[x, y], weight[x, y]
            for z in range(p.size):
                good = inside[z] and m[z] < np.inf
                value = m[z] * (p[z] - s[z] / n[z])
                total[z] += value if good else np.float32(0)
                share[z] += m[z] * time if good else np.float32(0)


@kernel
def _divide(start, stop, out, weight, factor):
    for x in range(start, stop):
        for y in range(out.shape[1]):
            total, share = out[x, y], weight[x, y]
            for z in range(total.size):
                total[z] = factor * total[z] / share[z] if share[z] > 0 else np.float32(0)
