r"""Real three-dimensional Fourier transforms in single precision.

.. math:: F(k) = \sum_r f(r)\, e^{-2\pi i\, k\cdot r}, \qquad k_i = n_i / (N_i v_i) \;\text{cycles/mm}.

Only the non-redundant half of the last axis is kept. ``scipy.fft`` does the work: its result is the same bytes for any
number of threads.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from qsmxt.algorithms.parallel import thread_count
from qsmxt.geometry import Grid

_AXES = (0, 1, 2)


def forward(volume: np.ndarray) -> np.ndarray:
    """Half spectrum, complex64 ``(nx, ny, nz // 2 + 1)``, of a float32 volume ``(nx, ny, nz)``."""
    return scipy.fft.rfftn(volume, axes=_AXES, workers=thread_count())


def inverse(spectrum: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Float32 volume of ``shape`` whose half spectrum is ``spectrum``. ``spectrum`` may be destroyed."""
    return scipy.fft.irfftn(spectrum, s=shape, axes=_AXES, workers=thread_count(), overwrite_x=True)


def filtered(volume: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Volume after multiplication of its half spectrum with ``transfer``."""
    spectrum = forward(volume)
    spectrum *= transfer
    return inverse(spectrum, volume.shape)  # type: ignore[arg-type]


def complex_forward(volume: np.ndarray) -> np.ndarray:
    """Whole spectrum, complex64 ``(nx, ny, nz)``, of a complex64 ``volume``, whose memory it takes."""
    return scipy.fft.fftn(volume, axes=_AXES, workers=thread_count(), overwrite_x=True)


def complex_inverse(spectrum: np.ndarray) -> np.ndarray:
    """Complex64 volume whose whole spectrum is ``spectrum``, whose memory it takes."""
    return scipy.fft.ifftn(spectrum, axes=_AXES, workers=thread_count(), overwrite_x=True)


def fast_length(length: int, *, even: bool = False) -> int:
    """Smallest length from ``length`` on that transforms fast."""
    length = max(1, int(length))
    while True:
        length = int(scipy.fft.next_fast_len(length, real=True))
        if not even or length % 2 == 0 or length == 1:
            return length
        length += 1


def fast_shape(shape: tuple[int, int, int], margin: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
    """Shape of at least ``shape + margin`` that transforms fast, its last length even."""
    sizes = [n + m for n, m in zip(shape, margin, strict=True)]
    return fast_length(sizes[0]), fast_length(sizes[1]), fast_length(sizes[2], even=sizes[2] > 1)


def frequencies(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spatial frequencies of the half spectrum along the three axes, cycles/mm, shaped for broadcasting."""
    (nx, ny, nz), (vx, vy, vz) = grid.shape, grid.voxel_size
    kx = np.fft.fftfreq(nx, vx).astype(np.float32)[:, None, None]
    ky = np.fft.fftfreq(ny, vy).astype(np.float32)[None, :, None]
    kz = np.fft.rfftfreq(nz, vz).astype(np.float32)[None, None, :]
    return kx, ky, kz


def spectrum_weights(grid: Grid) -> np.ndarray:
    """How often every sample of the half spectrum occurs in the full one (1 or 2), for sums over k."""
    nz = grid.shape[2]
    weights = np.full(nz // 2 + 1, 2.0, dtype=np.float32)
    weights[0] = 1.0
    if nz % 2 == 0:
        weights[-1] = 1.0
    return weights[None, None, :]
