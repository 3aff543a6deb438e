r"""Reliability of the phase, voxel by voxel, before anything is unwrapped.

The quality of a voxel is the mean weight of its six edges in the sense of ROMEO,

.. math:: Q_i = \frac{1}{6} \sum_{j \sim i} W_{ij} \in [0, 1] ,

an edge that leaves the usable voxels counting as 0. The weights are explained in
:mod:`qsmxt.algorithms.unwrapping.weights`. Noise gives about 0.3 with all four weights of ROMEO, tissue more than 0.8.

References
----------
Dymerska et al. 2021 (doi:10.1002/mrm.28563); Hagberg et al. 2022 (doi:10.1002/mrm.29368) on masks from phase quality.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.echoes import check_echoes, check_times, usable_voxels
from qsmxt.algorithms.unwrapping.weights import PRESETS, Edges
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid


def phase_quality(
    wrapped_phase: np.ndarray,
    magnitude: np.ndarray | None,
    echo_times: np.ndarray,
    grid: Grid,
    *,
    weights: str = "quality",
    echo: int = 1,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Quality of the phase of one echo, float32 ``(x, y, z)`` in [0, 1], 0 outside the mask and where not finite.

    Parameters
    ----------
    wrapped_phase
        Phase, rad, ``(echo, x, y, z)``. A phase offset does no harm.
    magnitude
        ``(echo, x, y, z)``, or ``None``: the weights that need it are left out.
    echo_times
        Echo times, s, ascending.
    grid
        Geometry of the volume.
    weights
        ``"quality"`` (coherence and linearity of the phase: independent of contrast and of inhomogeneity) or a preset
        of ROMEO.
    echo
        Echo, counted from 1. The second echo of the gradient coherence is the next one, or the one before the last.
    mask
        Voxels that count.
    """
    if weights not in PRESETS:
        raise ParameterError(f"phase quality: expected weights out of {', '.join(PRESETS)}, found {weights!r}")
    times = check_times(echo_times)
    phase = check_echoes("wrapped_phase", wrapped_phase, grid, times)
    if not 1 <= echo <= len(times):
        raise ParameterError(f"phase quality: expected an echo from 1 to {len(times)}, found {echo}")
    first = echo - 1
    other = first + 1 if first + 1 < len(times) else first - 1
    strength = None if magnitude is None else check_echoes("magnitude", magnitude, grid, times)[first]
    pair = [phase[first]] if other < 0 else [phase[first], phase[other]]
    usable = usable_voxels(pair, grid, mask)
    box = box_of(usable)
    edges = Edges(
        np.ascontiguousarray(phase[first][box]),
        np.ascontiguousarray(usable[box]).view(np.uint8),
        weights,
        None if strength is None else np.ascontiguousarray(strength[box]),
        None if other < 0 else np.ascontiguousarray(phase[other][box]),
        1.0 if other < 0 else times[first] / times[other],
    )
    out = np.zeros(grid.shape, dtype=np.float32)
    out[box] = edges.quality()
    return out
