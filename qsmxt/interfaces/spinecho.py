"""Spin echoes and maps of R2 on the grid of the gradient echo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.registration import Volume

#: A median above this is a T2 in ms.
LONGEST_SECONDS = 5.0

#: Difference of affines below which two grids are the same, mm.
SAME_GRID = 1e-3


def spin_echo_arrays(source: Mapping[str, Any], magnitude: Volume, folder: Path) -> dict[str, Any]:
    """``r2``, or ``spin_echo_magnitude`` and ``spin_echo_times``, on the grid of ``magnitude``.

    An image on the same grid is taken as it is; any other is registered rigidly, by its first echo or its own contrast.

    Parameters
    ----------
    source
        ``kind`` (R2map, T2map or MESE), ``files`` and ``echo_times`` (s).
    magnitude
        Combined magnitude of the gradient echo.
    folder
        For the files of registration.
    """
    volumes = [reg.read_volume(file) for file in source["files"]]
    if source["kind"] != "MESE":
        volumes = [volumes[0].with_array(as_rate(volumes[0].array, source["kind"], Path(source["files"][0])))]
    arrays = on_grid(volumes, magnitude, folder)
    if source["kind"] != "MESE":
        return {"r2": arrays[0]}
    times = np.asarray(source["echo_times"], dtype=np.float64)
    return {"spin_echo_magnitude": np.stack(arrays), "spin_echo_times": times}


def as_rate(values: np.ndarray, kind: str, file: Path) -> np.ndarray:
    """R2 (1/s) from a map of R2 or of T2 (s, or ms as its sidecar or its values tell), float32."""
    values = values.astype(np.float32)
    if kind == "R2map":
        return np.clip(values, 0, None)
    positive = values[values > 0]
    unit = _unit(file)
    milliseconds = unit == "ms" or (not unit and positive.size > 0 and float(np.median(positive)) > LONGEST_SECONDS)
    factor = np.float32(1000 if milliseconds else 1)
    return np.divide(factor, values, out=np.zeros_like(values), where=values > 0)


def _unit(file: Path) -> str:
    try:
        sidecar = json.loads(file.with_name(f"{file.name.partition('.')[0]}.json").read_text(encoding="utf-8"))
        return str(sidecar.get("Units", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def on_grid(volumes: Sequence[Volume], magnitude: Volume, folder: Path) -> list[np.ndarray]:
    """The volumes, which share a grid, on that of ``magnitude``, float32."""
    first = volumes[0]
    same = first.array.shape == magnitude.array.shape and np.allclose(first.affine, magnitude.affine, atol=SAME_GRID)
    if same:
        return [np.ascontiguousarray(volume.array, dtype=np.float32) for volume in volumes]
    transform = reg.register_rigid(reg.correct_bias(magnitude), reg.correct_bias(first), None, folder)
    return [reg.resample(volume, magnitude, [transform]) for volume in volumes]
