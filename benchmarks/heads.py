"""Digital heads of the benchmarks, simulated once and kept in a cache folder."""

from __future__ import annotations

import math
import os
from pathlib import Path

from qsmxt.phantom.head import Head, HeadSettings, simulate

#: Settings of every head by name.
HEADS: dict[str, HeadSettings] = {
    "3T": HeadSettings(),
    "3T, 25 degrees oblique": HeadSettings(tilt=math.radians(25)),
    "3T, 1 x 1 x 3 mm": HeadSettings(voxel_size=(1.0, 1.0, 3.0)),
    "7T": HeadSettings(field_strength=7.0),
    "3T, SNR 20": HeadSettings(snr=20.0),
    "3T, one echo": HeadSettings(echo_times=(0.017,)),
    "7T, 1 mm, SNR 100": HeadSettings(
        voxel_size=(1.0, 1.0, 1.0),
        field_of_view=(164.0, 205.0, 205.0),
        field_strength=7.0,
        echo_times=(0.004, 0.012, 0.020, 0.028),
        snr=100.0,
    ),
}

#: Heads on which nothing was tuned: other anatomies, veins, texture and noise, another tilt, a haemorrhage.
HELD_OUT: dict[str, HeadSettings] = {
    "held out: 3T, 15 degrees oblique, haemorrhage": HeadSettings(
        deformation=11, deformation_amplitude=4.0, seed=7, tilt=math.radians(15), haemorrhage=2.5
    ),
    "held out: 7T, 10 degrees oblique": HeadSettings(
        field_strength=7.0, deformation=23, deformation_amplitude=4.0, seed=5, tilt=math.radians(-10)
    ),
}
HEADS |= HELD_OUT


def head(name: str) -> Head:
    """The head ``name``, from the cache or simulated now."""
    return cached(name, HEADS[name])


def cached(name: str, settings: HeadSettings) -> Head:
    """The head of ``settings``, kept in the cache folder as ``name``."""
    folder = Path(os.environ.get("QSMXT_BENCHMARK_CACHE", Path.home() / ".cache" / "qsmxt" / "benchmarks"))
    path = folder / (name.replace(",", "").replace(":", "").replace(" ", "_") + ".npz")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        simulate(settings).save(path)
    return Head.load(path)
