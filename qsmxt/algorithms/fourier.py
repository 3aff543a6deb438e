r"""Real three-dimensional Fourier transforms in single precision.

.. math:: F(k) = \sum_r f(r)\, e^{-2\pi i\, k\cdot r}, \qquad k_i = n_i / (N_i v_i) \;\text{cycles/mm}.

Only the non-redundant half of the last axis is kept. A transform of three axes is made of transforms of two axes on
slabs of planes and of one axis on slabs of rows. The slabs depend on the shape alone and each is done by one thread, so
the result is the same bytes for any number of threads, with either library: ``ducc0`` (Reinecke; the extra ``fast``)
where it is installed, which takes two thirds of the time, else ``scipy.fft``. The two differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft

from qsmxt.algorithms import parallel
from qsmxt.geometry import Grid

try:
    import ducc0
except ImportError:
    ducc0 = None

#: Axes within a slab of planes, and the one across.
PLANE, ACROSS = (1, 2), (0,)


def forward(volume: np.ndarray) -> np.ndarray:
    """Half spectrum, complex64 ``(nx, ny, nz // 2 + 1)``, of a float32 volume ``(nx, ny, nz)``."""
    nx, ny, nz = volume.shape
    spectrum = np.empty((nx, ny, nz // 2 + 1), dtype=np.complex64)
    parallel.run(_planes_forward, nx, np.asarray(volume, dtype=np.float32), spectrum)
    parallel.run(_rows, ny, spectrum, True)
    return spectrum


def inverse(spectrum: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Float32 volume of ``shape`` whose half spectrum is ``spectrum``. ``spectrum`` may be destroyed."""
    spectrum = np.require(spectrum, dtype=np.complex64, requirements="W")
    volume = np.empty(shape, dtype=np.float32)
    parallel.run(_rows, shape[1], spectrum, False)
    parallel.run(_planes_inverse, shape[0], spectrum, volume)
    return volume


def _planes_forward(start: int, stop: int, volume: np.ndarray, spectrum: np.ndarray) -> None:
    """Half spectra of the planes of a slab."""
    planes, result = volume[start:stop], spectrum[start:stop]
    if ducc0 is None:
        result[...] = scipy.fft.rfftn(planes, axes=PLANE, workers=1)
    else:
        ducc0.fft.r2c(planes, axes=PLANE, out=result, nthreads=1)


def _planes_inverse(start: int, stop: int, spectrum: np.ndarray, volume: np.ndarray) -> None:
    """Planes of a slab from their half spectra."""
    planes, result = spectrum[start:stop], volume[start:stop]
    if ducc0 is None:
        result[...] = scipy.fft.irfftn(planes, s=volume.shape[1:], axes=PLANE, workers=1, overwrite_x=True)
    else:
        length = volume.shape[2]
        ducc0.fft.c2r(planes, axes=PLANE, lastsize=length, forward=False, inorm=2, out=result, nthreads=1)


def _rows(start: int, stop: int, spectrum: np.ndarray, forward: bool) -> None:
    """Transform of a slab of rows across the planes."""
    transform(spectrum[:, start:stop], ACROSS, forward)


def transform(piece: np.ndarray, axes: Sequence[int], forward: bool) -> None:
    """Complex transform of ``piece``, complex64, along ``axes`` in its own memory, by the calling thread."""
    if ducc0 is not None:
        ducc0.fft.c2c(piece, axes=axes, forward=forward, inorm=0 if forward else 2, out=piece, nthreads=1)
        return
    function = scipy.fft.fftn if forward else scipy.fft.ifftn
    result = function(piece, axes=axes, workers=1, overwrite_x=True)
    if result.ctypes.data != piece.ctypes.data:
        piece[...] = result


def filtered(volume: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Volume after multiplication of its half spectrum with ``transfer``."""
    spectrum = forward(volume)
    spectrum *= transfer
    return inverse(spectrum, volume.shape)  # type: ignore[arg-type]


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
