r"""Field of a susceptibility distribution by linear convolution with the dipole, in little memory.

.. math:: f = d * \chi,\qquad d(r) = V\,\frac{3 (r\cdot b)^2 - r^2}{4\pi r^5}

The Lorentz-corrected Green's function is sampled at the grid points; within six samples it is the exact field of a
uniformly magnetised sample instead (a cube's nearest neighbours along B0 see 15 % less than the point dipole says).
Zero padding to twice the size makes the
convolution linear; the padded volume is never stored, because each axis is padded only when its transform is taken,
and the kernel is even in x when B0 lies in the y-z plane, so that an eighth of it suffices.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from qsmxt.algorithms.fourier import fast_length
from qsmxt.algorithms.kernels import voxel_dipole
from qsmxt.algorithms.parallel import thread_count
from qsmxt.errors import InputError

_CHUNK = 16
#: Samples along each axis within which the dipole is that of a uniformly magnetised sample.
_NEAR = 6


class DipoleField:
    """Linear convolution with the dipole on one grid.

    Parameters
    ----------
    shape, spacing
        Samples and their distance (mm) along each axis.
    b0_direction
        Unit vector of the main field, its x component zero.
    below
        Length by which the lowest slice is continued downwards (mm): the neck does not end at the field of view.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        b0_direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
        *,
        below: float = 0.0,
    ) -> None:
        if abs(b0_direction[0]) > 1e-9:
            raise InputError(f"b0_direction: expected a field in the y-z plane, found {b0_direction}")
        self.shape, self.spacing, self.direction = shape, spacing, b0_direction
        self.below = round(below / spacing[2])
        sizes = (2 * shape[0], 2 * shape[1], 2 * (shape[2] + self.below))
        self.padded = tuple(fast_length(n, even=True) for n in sizes)
        self.transfer = self._transfer()

    def _transfer(self) -> np.ndarray:
        """Spectrum of the kernel for non-negative frequencies of x and z, float32."""
        px, py, pz = self.padded
        hx, hy, hz = (np.float32(h) for h in self.spacing)
        y = (np.fft.fftfreq(py) * py).astype(np.float32)[None, :, None] * hy
        z = (np.fft.fftfreq(pz) * pz).astype(np.float32)[None, None, :] * hz
        along = np.float32(self.direction[1]) * y + np.float32(self.direction[2]) * z
        along = 3 * along * along
        reach = [min(_NEAR, p // 2 - 1) for p in self.padded]
        near = [np.arange(-m, m + 1) for m in reach]
        exact = voxel_dipole(near, np.array(self.spacing), np.array(self.direction))[reach[0] :]
        out = np.empty((px // 2 + 1, py, pz // 2 + 1), dtype=np.float32)
        volume = np.float32(float(hx) * float(hy) * float(hz) / (4 * np.pi))
        for start in range(0, len(out), 4):
            x = np.arange(start, min(start + 4, len(out)), dtype=np.float32)[:, None, None] * hx
            square = x * x + y * y + z * z
            if start == 0:
                square[0, 0, 0] = 1
            planes = (along - square) * volume
            planes /= square * square * np.sqrt(square)
            for index in range(start, min(start + len(planes), len(exact))):
                planes[index - start][np.ix_(near[1], near[2])] = exact[index]
            out[start : start + 4] = scipy.fft.rfft2(planes, axes=(1, 2), workers=thread_count()).real
        for start in range(0, py, _CHUNK):
            part = (slice(None), slice(start, start + _CHUNK))
            out[part] = scipy.fft.dct(out[part], type=1, axis=0, workers=thread_count())
        return out

    def __call__(self, chi: np.ndarray) -> np.ndarray:
        """Relative field (ppm) of ``chi`` (ppm), float32, on the same grid."""
        (nx, ny, nz), (px, py, pz), workers = self.shape, self.padded, thread_count()
        spectrum = np.empty((nx, py, pz // 2 + 1), dtype=np.complex64)
        for start in range(0, nx, _CHUNK):
            part = chi[start : start + _CHUNK]
            column = np.zeros((len(part), ny, pz), dtype=np.float32)
            column[..., :nz] = part
            if self.below:
                column[..., pz - self.below :] = part[..., :1]
            lines = scipy.fft.rfft(column, axis=2, workers=workers)
            spectrum[start : start + _CHUNK] = scipy.fft.fft(lines, n=py, axis=1, workers=workers)
        mirror = np.minimum(np.arange(px), px - np.arange(px))
        for start in range(0, py, _CHUNK):
            piece = scipy.fft.fft(spectrum[:, start : start + _CHUNK], n=px, axis=0, workers=workers)
            piece *= self.transfer[:, start : start + _CHUNK][mirror]
            spectrum[:, start : start + _CHUNK] = scipy.fft.ifft(piece, axis=0, workers=workers, overwrite_x=True)[:nx]
        field = np.empty(self.shape, dtype=np.float32)
        for start in range(0, nx, _CHUNK):
            lines = scipy.fft.ifft(spectrum[start : start + _CHUNK], axis=1, workers=workers)[:, :ny]
            field[start : start + _CHUNK] = scipy.fft.irfft(lines, n=pz, axis=2, workers=workers)[..., :nz]
        return field
