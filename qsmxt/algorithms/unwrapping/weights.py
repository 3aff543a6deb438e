r"""Weights of the edges between neighbouring voxels, by which region growing decides what to unwrap first.

For the edge (i, j), with :math:`\gamma` wrapping to :math:`[-\pi, \pi)`, a second echo :math:`\varphi'` and
magnitudes m:

1. phase coherence :math:`1 - |\gamma(\varphi_i - \varphi_j)| / \pi`;
2. phase gradient coherence
   :math:`\max(0, 1 - |\gamma(\varphi_i - \varphi_j) - \gamma(\varphi'_i - \varphi'_j) T_E / T'_E|)`;
3. phase linearity :math:`\ell(h, i, j)\,\ell(i, j, k)` with
   :math:`\ell(a, b, c) = \max(0, 1 - |\gamma(\varphi_a - 2\varphi_b + \varphi_c)| / 2)` and h, k the next voxels along
   the line of the edge (0.9 where the line leaves the volume, 0.5 where it leaves the usable voxels);
4. magnitude coherence :math:`(\min(m_i, m_j) / \max(m_i, m_j))^2`;
5. magnitude weight :math:`0.5 + 0.5 \min(1, \min(m_i, m_j) / 0.5 m_{95})`;
6. the same against overshoot, :math:`0.5 + 0.5 \min(1, 0.5 m_{95} / \max(m_i, m_j))`,

:math:`m_{95}` being the 95th percentile. The weight of the edge is :math:`W = \prod (0.1 + 0.9\, w_n)` over the active
ones. ``bestpath`` has instead :math:`W = 1 / (1 + (D_i + D_j) / 2)`, with D the root mean square of the wrapped second
differences along the 13 lines through the voxel.

References
----------
Dymerska et al. 2021 (doi:10.1002/mrm.28563); Abdul-Rahman et al. 2007 (doi:10.1364/AO.46.006623).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.rows import span
from qsmxt.algorithms.signal import SAMPLE

#: Active weights 1 to 6 of every preset.
PRESETS: dict[str, tuple[int, ...]] = {
    "romeo": (1, 2, 3, 4),
    "romeo2": (1, 4),
    "romeo3": (1, 2, 4),
    "romeo4": (1, 2, 3, 4),
    "romeo6": (1, 2, 3, 4, 5, 6),
    "quality": (1, 3),
    "bestpath": (),
}

_PI = np.float32(np.pi)
_TWO_PI = np.float32(2 * np.pi)
_INVERSE = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class Edges:
    """What the weights are computed from.

    Attributes
    ----------
    phase
        Wrapped or unwrapped phase, rad, float32 ``(x, y, z)``.
    usable
        Voxels that take part, uint8; elsewhere the phase may be anything.
    weights
        A key of :data:`PRESETS`.
    magnitude
        Any unit, or ``None``: weights 4 to 6 are off.
    second, ratio
        Phase of a second echo (``None``: weight 2 is off), and the echo time of ``phase`` over that of ``second``.
    """

    phase: np.ndarray
    usable: np.ndarray
    weights: str = "romeo"
    magnitude: np.ndarray | None = None
    second: np.ndarray | None = None
    ratio: float = 1.0

    def _arguments(self) -> tuple:
        active = np.zeros(7, dtype=np.uint8)
        active[list(PRESETS[self.weights])] = 1
        second, magnitude = self.second, self.magnitude
        active[2] &= second is not None
        active[4:] &= magnitude is not None
        half = np.float32(1)
        if magnitude is not None and active[5:].any():
            inside = magnitude[self.usable.view(bool) & np.isfinite(magnitude)]
            half = np.float32(0.5 * np.quantile(inside[:: max(1, inside.size // SAMPLE)], 0.95))
        return (
            self.phase,
            self.phase if second is None else second,
            np.float32(self.ratio),
            self.phase if magnitude is None else magnitude,
            half,
            self.usable,
            active,
        )

    def costs(self) -> np.ndarray:
        """Cost of every edge, uint8 ``(x, y, z, 4)``: towards +x, +y and +z, and in the last place ``usable``.

        The cost is :math:`\\max(1, [255 (1 - W)])`; 0 means that there is no edge.
        """
        out: np.ndarray = np.zeros((*self.phase.shape, 4), dtype=np.uint8)
        length = len(self.phase)
        if self.weights == "bestpath":
            roughness = self._roughness()
            parallel.run(_bestpath_costs, length, roughness, self.usable, out)
        else:
            parallel.run(_edge_costs, length, *self._arguments(), out)
        return out

    def quality(self) -> np.ndarray:
        """Mean weight of the six edges of every voxel, float32 in [0, 1]; an absent edge counts as 0."""
        out = np.zeros(self.phase.shape, dtype=np.float32)
        if self.weights == "bestpath":
            np.divide(1, 1 + self._roughness(), out=out, where=self.usable.view(bool))
        else:
            parallel.run(_voxel_quality, len(self.phase), *self._arguments(), out)
        return out

    def _roughness(self) -> np.ndarray:
        out = np.empty(self.phase.shape, dtype=np.float32)
        parallel.run(_second_differences, len(self.phase), self.phase, self.usable, out)
        return out


@kernel(inline="always")
def _wrap(x):
    return x - _TWO_PI * np.floor(x * _INVERSE + np.float32(0.5))


@kernel
def _coherence(weight, step, a, b, active):
    for i in range(weight.size):
        step[i] = _wrap(b[i] - a[i])
    if active:
        for i in range(weight.size):
            weight[i] = np.float32(1) - np.float32(0.9) * abs(step[i]) / _PI
    else:
        weight[:] = np.float32(1)


@kernel
def _gradient_coherence(weight, step, a, b, ratio):
    for i in range(weight.size):
        agreement = np.float32(1) - abs(step[i] - ratio * _wrap(b[i] - a[i]))
        weight[i] *= np.float32(0.1) + np.float32(0.9) * max(np.float32(0), agreement)


@kernel
def _linearity(weight, step, a, b, before, after, usable_before, usable_after):
    for i in range(weight.size):
        first = max(np.float32(0), np.float32(1) - abs(_wrap(before[i] - a[i] + step[i])) * np.float32(0.5))
        second = max(np.float32(0), np.float32(1) - abs(_wrap(after[i] - b[i] - step[i])) * np.float32(0.5))
        linearity = first * second if usable_before[i] & usable_after[i] else np.float32(0.5)
        weight[i] *= np.float32(0.1) + np.float32(0.9) * linearity


@kernel
def _magnitude_coherence(weight, a, b):
    for i in range(weight.size):
        low, high = min(a[i], b[i]), max(a[i], b[i])
        ratio = low / high
        weight[i] *= np.float32(0.1) + (np.float32(0.9) * ratio * ratio if ratio > 0 else np.float32(0))


@kernel
def _magnitude_weights(weight, a, b, half):
    for i in range(weight.size):
        low, high = min(a[i], b[i]) / half, half / max(a[i], b[i])
        low, high = min(np.float32(1), low), min(np.float32(1), high)
        weight[i] *= np.float32(0.55) + (np.float32(0.45) * low if low > 0 else np.float32(0))
        weight[i] *= np.float32(0.55) + (np.float32(0.45) * high if high > 0 else np.float32(0))


@kernel
def _row_weights(weight, step, phase, second, ratio, magnitude, half, usable, active, x, y, d, low, high):
    """Weights of the edges from (x, y, low ... high - 1) towards +d into ``weight[low:high]``; no check of the ends.

    ``high`` must leave the neighbours inside the volume.
    """
    dx, dy, dz = np.int64(d == 0), np.int64(d == 1), np.int64(d == 2)
    w, s = weight[low:high], step[low:high]
    jx, jy, jl, jh = x + dx, y + dy, low + dz, high + dz
    a, b = phase[x, y, low:high], phase[jx, jy, jl:jh]
    _coherence(w, s, a, b, active[1])
    if active[2]:
        _gradient_coherence(w, s, second[x, y, low:high], second[jx, jy, jl:jh], ratio)
    if active[3]:
        outside = np.float32(0.1 + 0.9 * 0.9)
        if x - dx < 0 or y - dy < 0 or jx + dx >= phase.shape[0] or jy + dy >= phase.shape[1]:
            for i in range(w.size):
                w[i] *= outside
        else:
            first, last = low, high
            if dz and first == 0:
                w[0] *= outside
                first = 1
            if dz and last == phase.shape[2] - 1 and last > first:
                last -= 1
                w[last - low] *= outside
            if last > first:
                hx, hy, kx, ky = x - dx, y - dy, jx + dx, jy + dy
                hl, hh, kl, kh = first - dz, last - dz, first + 2 * dz, last + 2 * dz
                _linearity(
                    weight[first:last], step[first:last],
                    phase[x, y, first:last], phase[jx, jy, first + dz : last + dz],
                    phase[hx, hy, hl:hh], phase[kx, ky, kl:kh], usable[hx, hy, hl:hh], usable[kx, ky, kl:kh],
                )  # fmt: skip
    if active[4]:
        m, n = magnitude[x, y, low:high], magnitude[jx, jy, jl:jh]
        _magnitude_coherence(w, m, n)
        if active[5]:
            _magnitude_weights(w, m, n, half)


@kernel
def _edge_costs(start, stop, phase, second, ratio, magnitude, half, usable, active, out):
    nx, ny, nz = phase.shape
    weight = np.empty(nz, dtype=np.float32)
    step = np.empty(nz, dtype=np.float32)
    for x in range(start, stop):
        for y in range(ny):
            low, high = span(usable[x, y])
            for z in range(low, high):
                out[x, y, z, 3] = usable[x, y, z]
            for d in range(3):
                jx, jy, dz = x + (d == 0), y + (d == 1), np.int64(d == 2)
                end = min(high, nz - dz)
                if jx >= nx or jy >= ny or end <= low:
                    continue
                _row_weights(
                    weight, step, phase, second, ratio, magnitude, half, usable, active, x, y, d, low, end
                )  # fmt: skip
                here, there = usable[x, y], usable[jx, jy, dz:]
                for z in range(low, end):
                    if here[z] & there[z]:
                        cost = (np.float32(1) - weight[z]) * np.float32(255) + np.float32(0.5)
                        out[x, y, z, d] = np.uint8(max(np.float32(1), cost))


@kernel
def _voxel_quality(start, stop, phase, second, ratio, magnitude, half, usable, active, out):
    nx, ny, nz = phase.shape
    weight = np.empty(nz, dtype=np.float32)
    step = np.empty(nz, dtype=np.float32)
    for x in range(max(0, start - 1), stop):
        for y in range(ny):
            low, high = span(usable[x, y])
            for d in range(3 if x >= start else 1):
                jx, jy, dz = x + (d == 0), y + (d == 1), np.int64(d == 2)
                end = min(high, nz - dz)
                if jx >= nx or jy >= ny or end <= low:
                    continue
                _row_weights(
                    weight, step, phase, second, ratio, magnitude, half, usable, active, x, y, d, low, end
                )  # fmt: skip
                here, there = usable[x, y], usable[jx, jy, dz:]
                for z in range(low, end):
                    weight[z] = weight[z] * np.float32(1 / 6) if here[z] & there[z] else np.float32(0)
                if x >= start:
                    for z in range(low, end):
                        out[x, y, z] += weight[z]
                if jx < stop:
                    for z in range(low, end):
                        out[jx, jy, z + dz] += weight[z]


@kernel
def _second_differences(start, stop, phase, usable, out):
    """Root mean square of the wrapped second differences between usable neighbours; 2 pi if there are none."""
    nx, ny, nz = phase.shape
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                total = np.float32(0)
                count = np.float32(0)
                for line in range(14, 27):
                    dx, dy, dz = line // 9 - 1, (line // 3) % 3 - 1, line % 3 - 1
                    ax, ay, az, bx, by, bz = x - dx, y - dy, z - dz, x + dx, y + dy, z + dz
                    if min(ax, bx) < 0 or min(ay, by) < 0 or min(az, bz) < 0:
                        continue
                    if max(ax, bx) >= nx or max(ay, by) >= ny or max(az, bz) >= nz:
                        continue
                    if usable[ax, ay, az] and usable[bx, by, bz] and usable[x, y, z]:
                        centre = phase[x, y, z]
                        curvature = _wrap(phase[ax, ay, az] - centre) - _wrap(centre - phase[bx, by, bz])
                        total += curvature * curvature
                        count += np.float32(1)
                out[x, y, z] = np.sqrt(total / count) if count > 0 else _TWO_PI


@kernel
def _bestpath_costs(start, stop, roughness, usable, out):
    nx, ny, nz = roughness.shape
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                if usable[x, y, z] == 0:
                    continue
                out[x, y, z, 3] = 1
                for d in range(3):
                    jx, jy, jz = x + (d == 0), y + (d == 1), z + (d == 2)
                    if jx < nx and jy < ny and jz < nz and usable[jx, jy, jz]:
                        mean = np.float32(0.5) * (roughness[x, y, z] + roughness[jx, jy, jz])
                        w = np.float32(1) / (np.float32(1) + mean)
                        out[x, y, z, d] = max(1, int((np.float32(1) - w) * np.float32(255) + np.float32(0.5)))
