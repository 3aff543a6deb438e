r"""The scanner of the digital head: tissue properties, shim, coil, gradient echo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from qsmxt.constants import rad_per_ppm
from qsmxt.phantom.anatomy import INDEX, PARENCHYMA, TISSUES
from qsmxt.phantom.voxels import block_mean

if TYPE_CHECKING:
    from qsmxt.phantom.head import HeadSettings

#: Smoothing of the texture, mm.
TEXTURE_WIDTH = 2.0
#: Signal-to-noise ratio of white matter in the T1-weighted volume.
T1W_SNR = 60.0

Triple = tuple[float, float, float]


def texture(shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, [TEXTURE_WIDTH / h for h in spacing], mode="wrap", truncate=3.0)
    smooth /= smooth.std(dtype=np.float64)
    return smooth


def properties(classes: np.ndarray, pattern: np.ndarray, settings: HeadSettings) -> dict[str, np.ndarray]:
    """Susceptibility, relaxation rate, density and T1-weighted signal on the fine grid."""
    chi = np.array([t.chi for t in TISSUES], dtype=np.float32)
    if settings.haemorrhage:
        chi[INDEX["haemorrhage"]] = settings.haemorrhage
    for name, change in settings.chi_change:
        chi[INDEX[name]] += change
    rate = np.array([t.r2star for t in TISSUES], dtype=np.float32) * np.float32(settings.relaxation)
    density = np.array([t.density for t in TISSUES], dtype=np.float32)
    t1w = np.array([t.t1w * 1000 for t in TISSUES], dtype=np.float32)
    textured = np.isin(np.arange(len(TISSUES)), PARENCHYMA).astype(np.float32)
    slope = textured * (np.float32(0.006) + np.float32(0.08) * np.abs(chi))
    out = {
        "chi": chi[classes] + slope[classes] * pattern,
        "r2star": rate[classes] + (np.float32(0.06) * textured * rate)[classes] * pattern,
        "density": density[classes] + (np.float32(0.03) * textured * density)[classes] * pattern,
        "t1w": t1w[classes] + (np.float32(0.02) * textured * t1w)[classes] * pattern,
    }
    np.maximum(out["r2star"], 0, out=out["r2star"])
    return out


def normalised(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of the samples, -1 to 1 between the faces of the field of view, shaped for broadcasting."""
    x, y, z = (((2 * np.arange(n) + 1) / n - 1).astype(np.float32) for n in shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def shim(fine: np.ndarray, coarse: np.ndarray, brain: np.ndarray, settings: HeadSettings) -> None:
    """Remove the least-squares fit (over the brain) of second-order harmonics from ``fine``, in place."""

    def harmonics(shape: tuple[int, int, int]) -> list[np.ndarray]:
        sides = zip(settings.shape, settings.voxel_size, strict=True)
        halves = [np.float32(n * v / 200) for n, v in sides]  # unit: 100 mm, the same along all axes
        x, y, z = (c * h for c, h in zip(normalised(shape), halves, strict=True))
        return [np.ones((1, 1, 1), np.float32), x, y, z, x * y, y * z, x * z, x * x - y * y, 2 * z * z - x * x - y * y]

    design = np.stack([np.broadcast_to(h, brain.shape)[brain] for h in harmonics(brain.shape)], axis=1)
    weights = np.linalg.lstsq(design.astype(np.float64), coarse[brain].astype(np.float64), rcond=None)[0]
    for weight, harmonic in zip(weights, harmonics(fine.shape), strict=True):  # type: ignore[arg-type]
        fine -= np.float32(weight) * harmonic


def phase_offset(xyz: tuple[np.ndarray, np.ndarray, np.ndarray], wanted: bool) -> np.ndarray:
    x, y, z = xyz
    if not wanted:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=np.float32)
    return (0.8 + 1.1 * x - 0.7 * y + 0.5 * z + 1.3 * x * y - 0.9 * z * z + 0.6 * x * x).astype(np.float32)


def signal(tissue: dict[str, np.ndarray], field: np.ndarray, settings: HeadSettings) -> np.ndarray:
    """Noise-free complex signal ``(echo, x, y, z)`` of the voxels, in slabs of the fine grid."""
    factors, shape = settings.factors, settings.shape
    x, y, z = normalised(field.shape)  # type: ignore[arg-type]
    out = np.empty((len(settings.echo_times), *shape), dtype=np.complex64)
    thick = max(1, 16 // factors[0])
    for start in range(0, shape[0], thick):
        stop = min(start + thick, shape[0])
        part = slice(start * factors[0], stop * factors[0])
        xs = x[part]
        offset = phase_offset((xs, y, z), settings.phase_offset)
        bias = np.exp(np.float32(-0.35) * ((xs - 0.2) ** 2 + (y + 0.1) ** 2 + (z - 0.3) ** 2))
        amplitude = tissue["density"][part] * bias
        for echo, time in enumerate(settings.echo_times):
            phase = field[part] * np.float32(rad_per_ppm(settings.field_strength, time)) + offset
            if settings.bipolar and echo % 2:
                phase += np.float32(0.5) * xs
            size = amplitude * np.exp(np.float32(-time) * tissue["r2star"][part])
            sample = np.empty(phase.shape, dtype=np.complex64)
            sample.real, sample.imag = size * np.cos(phase), size * np.sin(phase)
            out[echo, start:stop] = block_mean(sample, factors)
    return out


def receive(
    signal: np.ndarray, noise: float, settings: HeadSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude and phase (rad, in [-pi, pi)) of the signal after adding noise of standard deviation ``noise``."""
    random = rng.standard_normal((*signal.shape, 2), dtype=np.float32) * np.float32(noise)
    noisy = signal + random.view(np.complex64)[..., 0]
    if settings.conjugate:
        noisy = np.conj(noisy) * (1 - 2 * (np.arange(signal.shape[3]) % 2)).astype(np.float32)
    phase = np.angle(noisy)
    phase[phase >= np.float32(np.pi)] = -np.float32(np.pi)
    return np.abs(noisy), phase


def t1_weighted(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The T1-weighted volume with noise: rectified."""
    return np.abs(mean + rng.standard_normal(mean.shape, dtype=np.float32) * np.float32(1000 / T1W_SNR))
