r"""A digital head in which every tissue has known paramagnetic and diamagnetic sources.

The sizes of both sources of a voxel, :math:`p` and :math:`n` (ppm), give its susceptibility and its relaxation,

.. math:: \chi = p - n, \qquad f = d * (\chi m), \qquad R_2' = D_r \frac{B_0}{3\,\mathrm T} (p + n), \qquad
    R_2^* = R_2 + R_2' ,

with the brain mask m and the Green's dipole d. The noise is that of fits to a multi-echo gradient echo whose first
echo has the signal-to-noise ratio ``snr`` in white matter:

.. math:: \sigma_f = \frac{\sigma}{2\pi\bar\gamma B_0 \sqrt{\sum_e A_e^2 T_e^2}}, \qquad
    \sigma_{R_2^*} = \frac{\sigma}{\sqrt{\sum_e A_e^2 (T_e - \bar T)^2}}, \qquad A_e \propto e^{-R_2^* T_e} .

R2 is taken to be known as well as R2*, so R2' has :math:`\sqrt 2` times its noise. Where the signal is gone before the
first echo, a fit finds no more than the highest rate it reports, 500 1/s, and any phase.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.constants import hz_per_ppm
from qsmxt.geometry import Grid
from qsmxt.phantom.forward import DipoleField
from qsmxt.phantom.head import HeadSettings, simulate

#: Sizes of both sources (ppm) by label; their difference is the susceptibility of the digital head.
SOURCES = {
    1: (0.065, 0.021), 2: (0.160, 0.029), 3: (0.060, 0.022), 4: (0.125, 0.025), 5: (0.175, 0.023), 6: (0.135, 0.024),
    7: (0.045, 0.025), 8: (0.030, 0.060), 9: (0.035, 0.015), 10: (0.019, 0.0), 11: (0.190, 0.0), 14: (0.0, 3.3),
    15: (1.2, 0.0),
}  # fmt: skip

#: R2' per ppm of either source at 3 T, 1/s/ppm.
RELAXIVITY = 137.0

#: R2 at 3 T by label, 1/s, and that of all other tissue.
R2, OTHER_R2 = {10: 0.7, 11: 20.0}, 12.0

#: Highest R2* that a fit reports, and the noise of R2* where there is no signal, 1/s.
HIGHEST_RATE, NO_SIGNAL = 500.0, 100.0

#: Width (mm) and size of the texture of both sources.
TEXTURE, TEXTURE_SIZE = 2.0, 0.1

WHITE_MATTER = 8


@dataclass(frozen=True)
class TwoSources:
    """Truth (ppm), fields (ppm) and rates (1/s) of a head, all 0 outside the mask; diamagnetic is <= 0.

    Attributes
    ----------
    grid, mask, labels, field_strength
        Sampling, brain, tissue by its label, B0 (T).
    paramagnetic, diamagnetic
        Truth, ppm.
    local_field, field_noise
        With noise, and the standard deviation of that noise, ppm.
    r2star, r2, r2prime
        With noise, 1/s.
    true_r2prime, r2prime_noise
        Without noise, and the standard deviation of the noise, 1/s.
    """

    grid: Grid
    mask: np.ndarray
    labels: np.ndarray
    field_strength: float
    paramagnetic: np.ndarray
    diamagnetic: np.ndarray
    local_field: np.ndarray
    field_noise: np.ndarray
    r2star: np.ndarray
    r2: np.ndarray
    r2prime: np.ndarray
    true_r2prime: np.ndarray
    r2prime_noise: np.ndarray

    @property
    def chi(self) -> np.ndarray:
        """Sum of the sources, ppm."""
        return self.paramagnetic + self.diamagnetic


def two_sources(settings: HeadSettings) -> TwoSources:
    """The head of ``settings``: anatomy, voxels, field strength, echo times, noise and seed count.

    Examples
    --------
    >>> head = two_sources(HeadSettings(voxel_size=(8, 8, 8), oversampling=1, snr=float("inf")))
    >>> bool(head.paramagnetic.min() == 0 and head.diamagnetic.max() == 0)
    True
    """
    head = simulate(dataclasses.replace(settings, echo_times=(0.02,), snr=100.0))
    rng = np.random.default_rng([settings.seed, settings.repetition])
    positive, negative = _sizes(head.labels, head.brain, settings, rng)
    strength, brain = settings.field_strength, head.brain
    field = DipoleField(head.grid.shape, head.grid.voxel_size, head.grid.b0_direction)(positive - negative)
    reversible = RELAXIVITY * strength / 3 * (positive + negative)
    r2 = np.full(field.shape, OTHER_R2, dtype=np.float32)
    for label, value in R2.items():
        r2[head.labels == label] = value
    r2 *= np.float32(1 + 0.15 * (strength - 3))
    white = brain & (head.labels == WHITE_MATTER)
    field_noise, rate_noise = noises(r2 + reversible, white, settings)
    draws = [rng.standard_normal(field.shape).astype(np.float32) for _ in range(3)]
    r2star = np.clip(r2 + reversible + rate_noise * draws[1], 0, HIGHEST_RATE)
    r2_measured = r2 + rate_noise * draws[2]
    volumes = {
        "paramagnetic": positive, "diamagnetic": -negative, "local_field": field + field_noise * draws[0],
        "field_noise": field_noise, "r2star": r2star, "r2": r2_measured, "r2prime": r2star - r2_measured,
        "true_r2prime": reversible, "r2prime_noise": np.sqrt(2) * rate_noise,
    }  # fmt: skip
    inside = {name: np.where(brain, volume, 0).astype(np.float32) for name, volume in volumes.items()}
    return TwoSources(head.grid, brain, head.labels, strength, **inside)


def _sizes(
    labels: np.ndarray, brain: np.ndarray, settings: HeadSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of both sources (ppm) with a texture of their own, 0 outside the brain."""
    maps = []
    widths = [TEXTURE / v for v in settings.voxel_size]
    for which in (0, 1):
        table = np.zeros(256, dtype=np.float32)
        for label, sizes in SOURCES.items():
            table[label] = sizes[which]
        texture = ndimage.gaussian_filter(rng.standard_normal(labels.shape), widths)
        factor = np.clip(1 + TEXTURE_SIZE * texture / texture.std(), 0, None)
        maps.append((table[labels] * factor * brain).astype(np.float32))
    return maps[0], maps[1]


def noises(rate: np.ndarray, white: np.ndarray, settings: HeadSettings) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of the field (ppm) and of R2* (1/s) where R2* is ``rate`` (1/s)."""
    times = np.array(settings.echo_times)[:, None, None, None]
    amplitude = np.maximum(np.exp(-rate[None].astype(np.float64) * times), 1e-30)
    unit = float(amplitude[0][white].mean()) / settings.snr
    square = amplitude**2
    mean = (square * times).sum(axis=0) / square.sum(axis=0)
    field = unit / (2 * np.pi * hz_per_ppm(settings.field_strength) * np.sqrt((square * times**2).sum(axis=0)))
    decay = unit / np.sqrt((square * (times - mean) ** 2).sum(axis=0))
    any_phase = np.pi / np.sqrt(3) / (2 * np.pi * hz_per_ppm(settings.field_strength) * settings.echo_times[0])
    return np.minimum(field, any_phase).astype(np.float32), np.minimum(decay, NO_SIGNAL).astype(np.float32)
