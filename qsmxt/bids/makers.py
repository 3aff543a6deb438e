r"""What makers do to the phase besides its scale, and how it is undone: conjugation, slices of alternating sign.

Everything downstream takes phase to grow with echo time where paramagnetic sources increase the field. GE stores
the conjugate, and leaves a shift of k-space along the slice direction undone, which multiplies the complex image
by :math:`(-1)^z`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Entry of the sidecar of a phase image that says what a converter corrected already: an object with ``PhaseScale``,
#: ``SliceAlternation`` and ``PhaseSign``. What stands there must not be corrected again.
CORRECTIONS_KEY = "PhaseCorrections"

#: Neighbouring slices whose mean cosine lies below this alternate in sign.
ALTERNATION = -0.5

#: The greatest float32 below pi.
_LIMIT = np.nextafter(np.float32(np.pi), np.float32(0))


def wrap(phase: np.ndarray) -> None:
    """Bring ``phase`` (float32, rad) into :math:`[-\\pi, \\pi]` in place."""
    largest = max(float(phase.max(initial=0)), -float(phase.min(initial=0)))
    if largest > np.pi + 1e-5:
        turns = np.rint(phase * np.float32(0.5 / np.pi))
        turns *= np.float32(2 * np.pi)
        phase -= turns
    if largest > _LIMIT:
        np.clip(phase, -_LIMIT, _LIMIT, out=phase)


def is_conjugate(manufacturer: str) -> bool:
    """Whether a maker stores the conjugate phase (GE does)."""
    return manufacturer.strip().upper().split(" ")[0] in ("GE", "GEMS")


def alternating_axes(phase: np.ndarray, magnitude: np.ndarray | None = None) -> list[int]:
    """Spatial axes along which the complex image changes sign from slice to slice.

    A missing shift in k-space multiplies the image by :math:`(-1)^z`. With :math:`S_k` slice k,

    .. math:: c = \\sum |S_k| |S_{k+1}| \\cos(\\varphi_{k+1} - \\varphi_k) / \\sum |S_k| |S_{k+1}|

    is then close to -1; it is close to 1 in a sound image, and 0 in noise.

    Parameters
    ----------
    phase
        (echo, x, y, z), rad.
    magnitude
        The same shape; 1 if ``None``.
    """
    axes = []
    for axis in range(1, phase.ndim):
        if phase.shape[axis] < 2:
            continue
        cosine = np.cos(np.diff(phase, axis=axis))
        if magnitude is None:
            correlation, total = float(cosine.sum(dtype=np.float64)), float(cosine.size)
        else:
            lower, upper = (np.take(magnitude, range(a, phase.shape[axis] - 1 + a), axis=axis) for a in (0, 1))
            weight = lower * upper
            total = float(weight.sum(dtype=np.float64))
            correlation = float((weight * cosine).sum(dtype=np.float64))
        if total > 0 and correlation / total < ALTERNATION:
            axes.append(axis - 1)
    return axes


def undo_alternation(phase: np.ndarray, axes: Sequence[int]) -> None:
    """Add pi to every second slice along ``axes``, in place; wraps again. Doing it twice restores the phase."""
    for axis in axes:
        odd = [slice(None)] * phase.ndim
        odd[axis + 1] = slice(1, None, 2)
        part = phase[tuple(odd)]
        part -= np.copysign(_LIMIT, part)
