"""Relaxometry, source separation and several orientations against the truth of digital heads.

Parameters were chosen on heads of seed 0 without deformation; all rows are of another anatomy, texture and noise.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.metrics import nrmse, xsim
from qsmxt.geometry import Grid
from qsmxt.phantom.head import HeadSettings
from qsmxt.phantom.sources import TwoSources, two_sources
from qsmxt.registry.methods import Method, lookup, methods

#: Anatomy and echoes of all rows; the echoes are those of the published comparison at 7 T.
HELD_OUT = HeadSettings(
    voxel_size=(2.0, 2.0, 2.0), oversampling=1, echo_times=(0.004, 0.012, 0.020, 0.028), seed=5, deformation=3
)

#: Field strength (T), voxel (mm) and signal-to-noise ratio of the first echo in white matter.
SEPARATIONS = ((7.0, 2.5, 100.0), (7.0, 2.0, 100.0), (3.0, 2.5, 100.0), (3.0, 2.0, 100.0), (3.0, 2.0, 50.0))

#: Methods that are left out because they take hours, and those that are run without R2 as well.
SLOW, WITHOUT_R2 = ("decompose",), ("closedform", "chiseparation")

#: Angles between the first orientation and the other two (degrees), and signal-to-noise ratio at 3 T.
ORIENTATIONS = ((35.0, 100.0), (25.0, 100.0), (15.0, 100.0), (25.0, 50.0))

#: Rates of the rows of relaxometry, 1/s, signal-to-noise ratio and echo times (s).
RATES, SNR, TIMES = (10.0, 20.0, 50.0, 100.0), 50.0, tuple(0.004 + 0.005 * n for n in range(6))

Row = list[str]


def relaxometry(only: str = "") -> list[Row]:
    """Mean and standard deviation of R2* in Rician noise, percent of the truth, for every rate."""
    grid, times, rows = Grid((40, 40, 40)), np.array(TIMES), []
    for key, method in methods("relaxometry").items():
        if only not in key:
            continue
        cells = []
        for rate in RATES:
            rng = np.random.default_rng(int(rate))
            signal = SNR * np.exp(-rate * times)[:, None, None, None] * np.ones((1, *grid.shape))
            noise = rng.standard_normal((2, *signal.shape))
            magnitude = np.hypot(signal + noise[0], noise[1]).astype(np.float32)
            found = method.run({"magnitude": magnitude, "echo_times": times}, grid)["r2star"]
            cells.append(f"{100 * (found.mean() / rate - 1):+.2f} ({100 * found.std() / rate:.1f})")
        rows.append([method.title, *cells])
    return rows


def separation(only: str = "") -> list[Row]:
    """XSIM of both maps for every method, by field strength, voxel and noise; the last rows are without R2."""
    rows = []
    for strength, voxel, snr in SEPARATIONS:
        settings = dataclasses.replace(HELD_OUT, voxel_size=(voxel,) * 3, field_strength=strength, snr=snr)
        head = two_sources(settings)
        arrays = separation_arrays(head, settings)
        name = f"{strength:g} T, {voxel:g} mm, SNR {snr:g}"
        for key, method in methods("separation").items():
            if only in key and key not in SLOW:
                rows.append([name, method.title, *_separated(method, arrays, head)])
        arrays.pop("r2prime")
        for key in WITHOUT_R2:
            if only in key:
                method = lookup("separation", key)
                rows.append([name, f"{method.title}, without R2", *_separated(method, arrays, head)])
    return rows


def _separated(method: Method, arrays: dict[str, Any], head: TwoSources) -> Row:
    """XSIM and NRMSE (percent) of both maps, and CPU seconds."""
    start = time.process_time()
    found = method.run(arrays, head.grid)
    seconds = time.process_time() - start
    maps = found["chi_paramagnetic"], found["chi_diamagnetic"]
    truth = head.paramagnetic, head.diamagnetic
    scores = [f"{xsim(m, t, head.mask):.3f}" for m, t in zip(maps, truth, strict=True)]
    errors = [f"{nrmse(m, t, head.mask):.0f}" for m, t in zip(maps, truth, strict=True)]
    return [*scores, *errors, f"{seconds:.1f}"]


def separation_arrays(head: TwoSources, settings: HeadSettings) -> dict[str, Any]:
    """What separations consume: chi by total variation from the local field; the magnitude is an exponential."""
    arrays: dict[str, Any] = {
        "local_field": head.local_field, "field_noise": head.field_noise, "mask": head.mask, "r2star": head.r2star,
        "r2star_noise": head.r2prime_noise / np.float32(np.sqrt(2)), "r2prime": head.r2prime,
        "field_strength": head.field_strength, "echo_times": np.array(settings.echo_times),
    }  # fmt: skip
    times = arrays["echo_times"][:, None, None, None]
    arrays["magnitude"] = (np.exp(-head.r2star * times) * head.mask).astype(np.float32)
    arrays["chi"] = lookup("inversion", "tv").run(arrays, head.grid)["chi"]
    return arrays


def orientations(only: str = "") -> list[Row]:
    """NRMSE of COSMOS from three orientations (first, pitched, rolled) beside one orientation alone, percent."""
    rows = []
    for angle, snr in ORIENTATIONS:
        settings = dataclasses.replace(HELD_OUT, field_strength=3.0, snr=snr)
        head = two_sources(settings)
        turn = np.radians(angle)
        axes = np.array([(0, 0, 1), (0, np.sin(turn), np.cos(turn)), (np.sin(turn), 0, np.cos(turn))])
        fields = oriented_fields(head, axes)
        noise = np.stack([head.field_noise] * len(axes))
        alone = lookup("inversion", "tv").run({"local_field": fields[0], "mask": head.mask}, head.grid)["chi"]
        given = {"oriented_fields": fields, "b0_directions": axes, "mask": head.mask, "oriented_noise": noise}
        start = time.process_time()
        chi = lookup("orientation", "cosmos").run(given, head.grid)["orientation_chi"]
        seconds = time.process_time() - start
        least = lookup("orientation", "cosmos").run(given, head.grid, {"weight": 0.0})["orientation_chi"]
        errors = [f"{nrmse(m, head.chi, head.mask):.1f}" for m in (chi, least, alone)]
        noise_text = f"{float(np.median(head.field_noise[head.mask])):.5f}"
        rows.append([f"{angle:g} degrees, SNR {snr:g}", noise_text, *errors, f"{seconds:.1f}"])
    return rows


def oriented_fields(head: TwoSources, axes: np.ndarray) -> np.ndarray:
    """Local fields (ppm) of a head for every direction of B0, with noise of their own, by linear convolution."""
    rng = np.random.default_rng(1)
    wide = Grid(tuple(2 * n for n in head.grid.shape), head.grid.voxel_size)  # type: ignore[arg-type]
    part = tuple(slice(0, n) for n in head.grid.shape)
    padded = np.zeros(wide.shape, dtype=np.float32)
    padded[part] = head.chi
    found = []
    for b in axes:
        dipole = kernels.dipole(dataclasses.replace(wide, b0_direction=tuple(b)), "greens")
        field = fourier.filtered(padded, dipole)[part]
        found.append((field + head.field_noise * rng.standard_normal(field.shape)) * head.mask)
    return np.stack(found).astype(np.float32)


#: Tables: title, header, and what makes the rows.
TABLES = (
    ("R2*: bias (standard deviation), percent, at a signal-to-noise ratio of 50",
     ["method", *(f"{rate:g} 1/s" for rate in RATES)], relaxometry),
    ("Source separation on a held-out head, R2' as noisy as two fits of R2*",
     ["head", "method", "XSIM +", "XSIM -", "NRMSE +", "NRMSE -", "CPU s"], separation),
    ("Three orientations on a held-out head, NRMSE, percent",
     ["orientations", "field noise, ppm", "COSMOS", "without prior", "one orientation (TV)", "CPU s"], orientations),
)  # fmt: skip
