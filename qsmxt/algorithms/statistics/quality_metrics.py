"""Numbers of quality and what they mean; :mod:`qsmxt.algorithms.statistics.quality` measures them.

Pages and tables need the meaning only, and are spared the compiler that measuring takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Depth of the rim of a mask, mm.
RIM = 3.0

#: Susceptibility that healthy tissue does not reach, ppm.
EXTREME = 0.5

#: Fewest voxels from which a median is taken.
FEWEST = 50


@dataclass(frozen=True)
class Metric:
    """What a number means.

    Attributes
    ----------
    key, title, unit
        Names in tables and on pages; unit ``"1"`` if it has none.
    meaning
        In one sentence.
    good, fair
        Bounds, included, between which it is unremarkable, or still usable; ``None`` where there is none.
    low, high
        What to do if it lies below or above.
    """

    key: str
    title: str
    unit: str
    meaning: str
    good: tuple[float | None, float | None] = (None, None)
    fair: tuple[float | None, float | None] = (None, None)
    low: str = ""
    high: str = ""

    def grade(self, value: float | None) -> str:
        """``"good"``, ``"look"`` (usable, see why), ``"poor"``, or ``"no range"`` for what has none or is missing."""
        if value is None or not np.isfinite(value) or self.good == (None, None):
            return "no range"
        if _within(value, self.good):
            return "good"
        return "look" if _within(value, self.fair) else "poor"

    def advice(self, value: float | None) -> str:
        """What to do about ``value``; empty if it is good."""
        if self.grade(value) not in ("look", "poor") or value is None:
            return ""
        low = self.good[0]
        return self.low if low is not None and value < low else self.high


def _within(value: float, bounds: tuple[float | None, float | None]) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)


METRICS: tuple[Metric, ...] = (
    Metric("snr", "Signal to noise", "1", "median magnitude of the first echo in the mask over its noise",
           (20, None), (8, None), "Average, use larger voxels, or check the coil; fine structure will be noise."),
    Metric("phase_coherence", "Phase coherence", "1", "median quality of the phase in the mask (1: no noise)",
           (0.7, None), (0.5, None), "The phase is noisy or badly combined over coils; look at the phase image."),
    Metric("field_noise", "Noise of the field", "ppm", "median standard deviation of the total field in the mask",
           (None, 0.01), (None, 0.03), high="Use more or later echoes, and weight echoes by their noise."),
    Metric("field_residual", "Field residual", "1", "local field that the susceptibility does not explain, relative",
           (None, 0.5), (None, 0.8),
           high="The inversion left much of the field: lower its regularisation, or check the background field."),
    Metric("unreliable_share", "Unreliable voxels", "1", "share of the mask in which the phase cannot be trusted",
           (None, 0.1), (None, 0.25), high="Check the phase near air; consider two-pass or shorter echoes."),
    Metric("streaking", "Streaking index", "1", "power on the dipole's cone relative to that beside it (1: even)",
           (None, 1.5), (None, 3.0), high="Streaks: raise the regularisation or exclude unreliable voxels."),
    Metric("extreme_share", "Extreme values", "1", f"share of the mask with susceptibility beyond {EXTREME} ppm",
           (None, 0.002), (None, 0.01),
           high="Dots or bleeding: look for voxels of noise in the mask, haemorrhage or calcification."),
    Metric("rim_ratio", "Rim", "1", f"RMS of susceptibility in the outer {RIM:g} mm of the mask over inside",
           (None, 2.0), (None, 4.0), high="Background field is left at the border: tighten or erode the mask."),
    Metric("chi_sd", "Spread of susceptibility", "ppm", "standard deviation in the mask",
           (0.015, 0.08), (0.008, 0.15), "The map is over-smoothed: lower the regularisation.",
           "Artefacts dominate the map: look at the field and the mask."),
    Metric("reference_offset", "Mean of the mask", "ppm", "mean susceptibility of the mask after referencing",
           (-0.03, 0.03), (-0.08, 0.08), "The reference region lies high: check where it is.",
           "The reference region lies low: check where it is."),
    Metric("csf_sd", "Spread in the fluid", "ppm", "standard deviation of susceptibility in ventricular fluid",
           (None, 0.04), (None, 0.08), high="Streaks or vessels reach the ventricles; the reference is uncertain."),
    Metric("deep_grey_contrast", "Deep grey contrast", "ppm", "median of the deep grey nuclei less that of the mask",
           (0.015, 0.12), (0.0, 0.25), "Check the labels, the sign of the phase, and the regularisation.",
           "Check the labels; strong iron deposition or a wrong field strength would do this."),
    Metric("mask_volume", "Volume of the mask", "ml", "volume of the region of reconstruction",
           (900, 1900), (700, 2300), "The mask cuts the brain, or only part of the brain was imaged.",
           "The mask holds more than the brain."),
    Metric("mask_pieces", "Pieces of the mask", "1", "connected components of the mask",
           (1, 1), (1, 5), high="Keep the largest component."),
    Metric("alignment_similarity", "Alignment", "1",
           "least informational correlation (0 to 1) of the images that were registered to each other",
           (0.5, None), (0.35, None), "Look at the outlines of the labels; check the T1-weighted image."),
    Metric("alignment_overlap", "Overlap with the template", "1",
           "Dice coefficient of the mask and the brain of the template after registration",
           (0.8, None), (0.65, None), "Look at the outlines of the labels; check mask and T1-weighted image."),
    Metric("ghost_ratio", "Ghost", "1", "background at half the field of view from the head over other background",
           (None, 1.5), (None, 3.0), high="Motion, flow or instability: look at the magnitude outside the head."),
)  # fmt: skip


def metric(key: str) -> Metric:
    """The entry of :data:`METRICS` called ``key``."""
    return next(entry for entry in METRICS if entry.key == key)


def deep_grey_contrast(chi: np.ndarray, nuclei: np.ndarray, mask: np.ndarray) -> float | None:
    """Median of ``chi`` in the deep grey ``nuclei`` less that in the rest of ``mask``, ppm."""
    inside, rest = nuclei & mask, mask & ~nuclei
    return median_within(chi, inside) - median_within(chi, rest) if inside.any() and rest.any() else None


def median_within(volume: np.ndarray, mask: np.ndarray) -> float:
    """Median of ``volume`` in ``mask``."""
    from qsmxt.algorithms.quantiles import quantile

    return quantile(np.asarray(volume)[mask], 0.5)
