r"""Real three-dimensional Fourier transforms in single precision.

.. math:: F(k) = \sum_r f(r)\, e^{-2\pi i\, k\cdot r}, \qquad k_i = n_i / (N_i v_i) \;\text{cycles/mm}.

Only the non-redundant half of the last axis is kept. A transform of three axes is made of transforms of two axes on
slabs of planes and of one axis on slabs of rows. The slabs depend on the shape alone and each is done by one thread, so
the result is the same bytes for any number of threads, with either library: ``ducc0`` (Reinecke; the extra ``fast``)
where it is installed, which takes two thirds of the time, else ``scipy.fft``. The two differ in the last bits.

A volume that is zero outside a mask needs no transform of its empty rows and planes, nor does one that is wanted in the
mask alone (:class:`Support`): a sixth of the time for a brain in its padded box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid

try:
    import ducc0
except ImportError:
    ducc0 = None

#: Axes within a slab of planes, both and each, and the one across.
PLANE, ACROSS = (1, 2), (0,)
MIDDLE, LAST = (1,), (2,)

#: Function of the first and one past the last plane of a slab, and of its planes, float32 ``(planes, y, z)``.
Planes = Callable[[int, int, np.ndarray], Any]


@dataclass(frozen=True)
class Support:
    """The rows of a volume that hold a mask, slab by slab of its planes.

    Attributes
    ----------
    rows
        First and one past the last row with a voxel of the mask in a slab, by the first plane of the slab; equal where
        there is none.
    """

    rows: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, mask: np.ndarray) -> Support:
        """Rows of ``mask``, bool ``(x, y, z)``."""
        found = {}
        for start, stop in parallel.slabs(mask.shape[0]):
            filled = np.flatnonzero(mask[start:stop].any(axis=2).any(axis=0))
            found[start] = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        return cls(found)


def forward(volume: np.ndarray, support: Support | None = None) -> np.ndarray:
    """Half spectrum, complex64 ``(nx, ny, nz // 2 + 1)``, of a float32 volume ``(nx, ny, nz)``.

    With a ``support`` the volume is 0 out of its rows.
    """
    nx, ny, _ = volume.shape
    spectrum = empty_spectrum(volume.shape)  # type: ignore[arg-type]
    parallel.run(_planes_made, nx, np.asarray(volume, dtype=np.float32), spectrum, None, support)
    parallel.run(_rows, ny, spectrum, True)
    return spectrum


def inverse(spectrum: np.ndarray, shape: tuple[int, int, int], support: Support | None = None) -> np.ndarray:
    """Float32 volume of ``shape`` whose half spectrum is ``spectrum``, which may be destroyed.

    With a ``support`` the rows out of it are 0.
    """
    spectrum = np.require(spectrum, dtype=np.complex64, requirements="W")
    volume = np.empty(shape, dtype=np.float32)
    parallel.run(_rows, shape[1], spectrum, False)
    parallel.run(_planes_used, shape[0], spectrum, volume, None, support)
    return volume


def empty_spectrum(shape: tuple[int, int, int]) -> np.ndarray:
    """Memory for the half spectrum of a volume of ``shape``."""
    return np.empty((shape[0], shape[1], shape[2] // 2 + 1), dtype=np.complex64)


def filtered(
    volume: np.ndarray,
    transfer: np.ndarray,
    support: Support | None = None,
    wanted: Support | None = None,
    out: np.ndarray | None = None,
    *,
    make: Callable[[int, int], None] | None = None,
    use: Callable[[int, int, np.ndarray], None] | None = None,
) -> np.ndarray:
    """Volume after multiplication of its half spectrum with the real ``transfer``, in ``out`` if that is given.

    The volume is 0 out of the rows of ``support``, and so is the result out of those that are ``wanted``. ``out`` may
    be ``volume``. While planes are in the cache, ``make(start, stop)`` writes those of the volume, which are then
    transformed, and ``use(start, stop, result)`` does what it will with those of the result.
    """
    nx, ny, _ = volume.shape
    spectrum = empty_spectrum(volume.shape)  # type: ignore[arg-type]
    result = np.empty(volume.shape, dtype=np.float32) if out is None else out
    parallel.run(_planes_made, nx, np.asarray(volume, dtype=np.float32), spectrum, make, support)
    parallel.run(_rows_changed, ny, [spectrum], _scale_rows, (_whole(transfer, spectrum),))
    parallel.run(_planes_used, nx, spectrum, result, use, wanted)
    return result


def weighted(
    volume: np.ndarray,
    transfer: np.ndarray,
    weights: np.ndarray,
    support: Support | None = None,
    out: np.ndarray | None = None,
    *,
    make: Callable[[int, int], None] | None = None,
    use: Callable[[int, int, np.ndarray], None] | None = None,
) -> np.ndarray:
    r""":math:`HWH` of a volume, with :math:`H` what :func:`filtered` does and W ``weights``, 0 out of ``support``.

    The volume between, of which no more is there than some planes at a time, takes no memory.
    """
    nx, ny, _ = volume.shape
    spectrum = empty_spectrum(volume.shape)  # type: ignore[arg-type]
    result = np.empty(volume.shape, dtype=np.float32) if out is None else out
    transfer = _whole(transfer, spectrum)
    parallel.run(_planes_made, nx, np.asarray(volume, dtype=np.float32), spectrum, make)
    parallel.run(_rows_changed, ny, [spectrum], _scale_rows, (transfer,))
    parallel.run(_planes_weighted, nx, spectrum, weights, support)
    parallel.run(_rows_changed, ny, [spectrum], _scale_rows, (transfer,))
    parallel.run(_planes_used, nx, spectrum, result, use)
    return result


def _whole(transfer: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Real ``transfer`` for all samples of a ``spectrum``."""
    return np.broadcast_to(np.asarray(transfer, dtype=np.float32), spectrum.shape)


def planes_forward(spectrum: np.ndarray, nz: int, make: Planes, support: Support | None = None) -> None:
    """Transform planes, of rows of length ``nz``, that ``make`` writes right before, 0 out of the ``support``."""
    parallel.run(_made_forward, len(spectrum), spectrum, nz, make, support)


def planes_of(volume: np.ndarray) -> Planes:
    """What writes the planes of ``volume``, for :func:`planes_forward`."""

    def write(start: int, stop: int, planes: np.ndarray) -> None:
        planes[...] = volume[start:stop]

    return write


def planes_inverse(spectrum: np.ndarray, nz: int, take: Planes, support: Support | None = None) -> list[Any]:
    """What ``take`` returns for the planes, transformed back right before; it may write to them."""
    return parallel.run(_inverse_taken, len(spectrum), spectrum, nz, take, support)


def planes_exchanged(spectrum: np.ndarray, nz: int, change: Planes, support: Support | None = None) -> None:
    """Transform planes back, let ``change`` write others in their place, and transform those.

    Both are of interest, and not 0, in the ``support`` alone.
    """
    parallel.run(_exchanged, len(spectrum), spectrum, nz, change, support)


def rows_changed(spectra: Sequence[np.ndarray], change: Callable[..., None], *arrays: Any) -> None:
    """Transform rows across the planes, let ``change(start, stop, *spectra, *arrays)`` write to them, and back."""
    parallel.run(_rows_changed, spectra[0].shape[1], spectra, change, arrays)


def renewed(spectrum: np.ndarray, gain: np.ndarray, data: np.ndarray) -> None:
    """Rows of planes' transforms become those of the half spectrum ``data`` plus the real ``gain`` times theirs."""
    rows_changed([spectrum], _renew_rows, gain, data)


def scale(spectrum: np.ndarray, transfer: np.ndarray) -> None:
    """Multiply a complex ``spectrum`` in place with a real ``transfer``."""
    parallel.run(_scale_rows, spectrum.shape[1], spectrum, transfer)


def _made_forward(start: int, stop: int, spectrum: np.ndarray, nz: int, make: Planes, support: Support | None) -> None:
    planes = np.empty((stop - start, spectrum.shape[1], nz), dtype=np.float32)
    make(start, stop, planes)
    _planes_forward(start, stop, planes, spectrum, support)


def _inverse_taken(start: int, stop: int, spectrum: np.ndarray, nz: int, take: Planes, support: Support | None) -> Any:
    planes = np.empty((stop - start, spectrum.shape[1], nz), dtype=np.float32)
    _planes_inverse(start, stop, spectrum, planes, support)
    return take(start, stop, planes)


def _exchanged(start: int, stop: int, spectrum: np.ndarray, nz: int, change: Planes, support: Support | None) -> None:
    planes = np.empty((stop - start, spectrum.shape[1], nz), dtype=np.float32)
    _planes_inverse(start, stop, spectrum, planes, support)
    change(start, stop, planes)
    _planes_forward(start, stop, planes, spectrum, support)


def _planes_forward(
    start: int, stop: int, planes: np.ndarray, spectrum: np.ndarray, support: Support | None = None
) -> None:
    """Half spectra of the ``planes`` of a slab."""
    result = spectrum[start:stop]
    if support is None:
        _real_forward(planes, PLANE, result)
        return
    first, last = support.rows[start]
    result[:, :first] = 0
    result[:, last:] = 0
    if first < last:
        _real_forward(planes[:, first:last], LAST, result[:, first:last])
        transform(result, MIDDLE, True)


def _planes_made(
    start: int,
    stop: int,
    volume: np.ndarray,
    spectrum: np.ndarray,
    make: Callable[[int, int], None] | None,
    support: Support | None = None,
) -> None:
    """Planes of a slab as they are made, and their half spectra."""
    if make is not None:
        make(start, stop)
    _planes_forward(start, stop, volume[start:stop], spectrum, support)


def _planes_inverse(
    start: int, stop: int, spectrum: np.ndarray, planes: np.ndarray, support: Support | None = None
) -> None:
    """The ``planes`` of a slab from their half spectra."""
    given = spectrum[start:stop]
    if support is None:
        _real_inverse(given, PLANE, planes)
        return
    first, last = support.rows[start]
    planes[:, :first] = 0
    planes[:, last:] = 0
    if first < last:
        transform(given, MIDDLE, False)
        _real_inverse(given[:, first:last], LAST, planes[:, first:last])


def _planes_used(
    start: int,
    stop: int,
    spectrum: np.ndarray,
    volume: np.ndarray,
    use: Callable[[int, int, np.ndarray], None] | None,
    support: Support | None = None,
) -> None:
    """Planes of a slab from their half spectra, and what is done with them."""
    _planes_inverse(start, stop, spectrum, volume[start:stop], support)
    if use is not None:
        use(start, stop, volume)


def _planes_weighted(start: int, stop: int, spectrum: np.ndarray, weights: np.ndarray, support: Support | None) -> None:
    """Half spectra of the planes of a slab after multiplication of the planes with ``weights``."""
    first, last = (0, weights.shape[1]) if support is None else support.rows[start]
    result = spectrum[start:stop]
    if first < last:
        transform(result, MIDDLE, False)
        rows, factors = result[:, first:last], weights[start:stop, first:last]
        planes = np.empty(factors.shape, dtype=np.float32)
        _real_inverse(rows, LAST, planes)
        _multiply(planes, factors)
        _real_forward(planes, LAST, rows)
    result[:, :first] = 0
    result[:, last:] = 0
    if first < last:
        transform(result, MIDDLE, True)


def _rows(start: int, stop: int, spectrum: np.ndarray, forward: bool) -> None:
    """Transform of a slab of rows across the planes."""
    transform(spectrum[:, start:stop], ACROSS, forward)


def _rows_changed(
    start: int, stop: int, spectra: Sequence[np.ndarray], change: Callable[..., None], arrays: tuple[Any, ...]
) -> None:
    """Transform of a slab of rows across the planes, their change, and transform back."""
    for spectrum in spectra:
        transform(spectrum[:, start:stop], ACROSS, True)
    change(start, stop, *spectra, *arrays)
    for spectrum in spectra:
        transform(spectrum[:, start:stop], ACROSS, False)


def _real_forward(planes: np.ndarray, axes: Sequence[int], result: np.ndarray) -> None:
    """Half spectra of real ``planes`` along ``axes``, the last of which is the last, by the calling thread."""
    if ducc0 is None:
        result[...] = scipy.fft.rfftn(planes, axes=axes, workers=1)
    else:
        ducc0.fft.r2c(planes, axes=axes, out=result, nthreads=1)


def _real_inverse(spectrum: np.ndarray, axes: Sequence[int], result: np.ndarray) -> None:
    """Real volume ``result`` from its half spectra along ``axes``; ``spectrum`` may be destroyed."""
    if ducc0 is None:
        shape = [result.shape[axis] for axis in axes]
        result[...] = scipy.fft.irfftn(spectrum, s=shape, axes=axes, workers=1, overwrite_x=True)
    else:
        length = result.shape[2]
        ducc0.fft.c2r(spectrum, axes=axes, lastsize=length, forward=False, inorm=2, out=result, nthreads=1)


def transform(piece: np.ndarray, axes: Sequence[int], forward: bool) -> None:
    """Complex transform of ``piece``, complex64, along ``axes`` in its own memory, by the calling thread."""
    if ducc0 is not None:
        ducc0.fft.c2c(piece, axes=axes, forward=forward, inorm=0 if forward else 2, out=piece, nthreads=1)
        return
    function = scipy.fft.fftn if forward else scipy.fft.ifftn
    result = function(piece, axes=axes, workers=1, overwrite_x=True)
    if result.ctypes.data != piece.ctypes.data:
        piece[...] = result


@kernel
def _multiply(planes, factors):
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            row, factor = planes[i, j], factors[i, j]
            for k in range(row.size):
                row[k] *= factor[k]


@kernel
def _scale_rows(start, stop, spectrum, transfer):
    for i in range(spectrum.shape[0]):
        for j in range(start, stop):
            for k in range(spectrum.shape[2]):
                spectrum[i, j, k] *= transfer[i, j, k]


@kernel
def _renew_rows(start, stop, spectrum, gain, data):
    for i in range(spectrum.shape[0]):
        for j in range(start, stop):
            for k in range(spectrum.shape[2]):
                spectrum[i, j, k] = data[i, j, k] + gain[i, j, k] * spectrum[i, j, k]


def fast_length(length: int, *, even: bool = False) -> int:
    """Smallest length from ``length`` on that transforms fast."""
    length, following = max(1, int(length)), scipy.fft.next_fast_len if ducc0 is None else ducc0.fft.good_size
    while True:
        length = int(following(length, True))
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
