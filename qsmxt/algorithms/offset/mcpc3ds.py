r"""MCPC-3D-S: removal of the phase offset by two echoes.

The phase at echo time :math:`T_e` is :math:`\varphi_e = \varphi_0 + \omega T_e`. The phase difference of two echoes has
no offset; it is unwrapped in space (ROMEO) to :math:`\psi = \omega (T_2 - T_1)`, and

.. math:: \varphi_0 = \varphi_1 - \psi\, \frac{T_1}{T_2 - T_1}, \qquad
          \varphi_e \leftarrow \gamma(\varphi_e - \varphi_0) ,

with :math:`\gamma` wrapping to :math:`[-\pi, \pi)`. The offset comes from receive coils and is smooth; smoothing it
keeps its noise out of all echoes.

Departure from the paper: the offset is smoothed by local polynomials of second order with weights
(:mod:`~qsmxt.algorithms.offset.smoothing`) instead of a Gaussian, whose bias in the rim ends up in the field. With
three or more echoes, bipolar readouts are found and corrected (:mod:`~qsmxt.algorithms.offset.bipolar`).

Parameters
    ``smoothing``: width of the local polynomials; smaller follows the offset closer. ``bipolar``: whether the
    difference of odd and even echoes is corrected, or only where it is found. ``weights``: of the edges, for the
    unwrapping.

References
----------
Eckstein et al. 2018 (doi:10.1002/mrm.26963); Eckstein 2021, thesis (doi:10.34726/hss.2021.43447); unwrapping: Dymerska
et al. 2021 (doi:10.1002/mrm.28563).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import wrap
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.dephasing import gradient_coherence
from qsmxt.algorithms.echoes import check_echoes, check_times, usable_voxels
from qsmxt.algorithms.offset.bipolar import bipolar_phase, bipolar_shares
from qsmxt.algorithms.offset.regions import join_large_regions
from qsmxt.algorithms.offset.smoothing import smooth_phase
from qsmxt.algorithms.signal import signal_mask
from qsmxt.algorithms.unwrapping.growing import align_regions, unwrap_regions
from qsmxt.algorithms.unwrapping.weights import PRESETS, Edges
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

_REMEDY = "leave the offset in (it is smooth and mostly removed with the background field)"


@dataclass(frozen=True)
class MCPC3DSParameters:
    """Parameters of :func:`mcpc3ds`."""

    smoothing: float = parameter(
        10.0,
        unit="mm",
        above=0,
        help="width of the local polynomials that smooth the offset; smaller follows it closer",
    )
    bipolar: str = parameter(
        "auto",
        choices=("auto", "on", "off"),
        help="correct the difference between odd and even echoes (3 or more echoes)",
    )
    weights: str = parameter("romeo", choices=tuple(PRESETS), help="edge weights of the unwrapping")


@method(
    stage="offset",
    key="mcpc3ds",
    title="MCPC-3D-S",
    consumes=("wrapped_phase", "magnitude", "echo_times"),
    optional=("mask",),
    produces=("offset_free_phase", "phase_offset"),
    parameters=MCPC3DSParameters,
    references=("eckstein2018", "eckstein2021thesis", "dymerska2021"),
    sentence="Phase offsets were removed with MCPC-3D-S (smoothed over {smoothing} mm).",
    cost=Cost(bytes_per_voxel=45, bytes_per_echo=2.5, threads=2, seconds_per_megavoxel=0.2),
)
def mcpc3ds(
    wrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: MCPC3DSParameters = MCPC3DSParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Phase without its offset at echo time zero, and the offset; see the module.

    Parameters
    ----------
    wrapped_phase
        Measured phase, rad, float32 ``(echo, x, y, z)``.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending, at least two.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`MCPC3DSParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels from which the offset is estimated, bool ``(x, y, z)``. Without it the signal mask of the magnitude.

    Returns
    -------
    offset_free_phase
        Phase, rad, in [-pi, pi), float32 ``(echo, x, y, z)``, everywhere; zero where the phase is not finite.
    phase_offset
        Offset without wraps, rad, float32 ``(x, y, z)``; extrapolated a few widths beyond the mask, then zero.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, there is one echo, times are not ascending and above 0, no
        voxel is usable, or ``bipolar`` is ``on`` with two echoes.

    Examples
    --------
    >>> import numpy as np
    >>> from qsmxt.algorithms.offset.mcpc3ds import mcpc3ds
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> arrays = head.wrapped_phase, head.magnitude, head.echo_times
    >>> phase, offset = mcpc3ds(*arrays, head.grid, mask=head.mask)
    >>> bool(np.abs(offset - head.phase_offset)[head.mask].max() < 0.02)  # rad
    True
    """
    times = check_times(echo_times, at_least=2, remedy=_REMEDY)
    phase = check_echoes("wrapped_phase", wrapped_phase, grid, times)
    strength = check_echoes("magnitude", magnitude, grid, times)
    if parameters.bipolar == "on":
        bipolar_shares(times)
    tell = progress or (lambda fraction: None)
    used = min(3, len(times)) if parameters.bipolar != "off" else 2
    inside = usable_voxels([phase[:used], strength[:used]], grid, signal_mask(strength, grid) if mask is None else mask)
    box = box_of(inside)
    usable = np.ascontiguousarray(inside[box]).view(np.uint8)
    near = [np.where(usable, volumes[(slice(0, used), *box)], np.float32(0)) for volumes in (phase, strength)]
    offset, shares = _estimate(near[0], near[1], times, usable, grid, parameters, tell)
    whole = np.zeros(grid.shape, dtype=np.float32)
    whole[box] = offset
    shift = whole.copy()
    out = np.empty_like(phase)
    for e in range(len(times)):
        if shares is not None:
            shift[box] = offset + shares * np.float32(bipolar_shares(times)[2 + e % 2])
        parallel.run(_subtract, len(phase[e]), phase[e], shift, out[e])
    tell(1.0)
    return out, whole


def _estimate(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    usable: np.ndarray,
    grid: Grid,
    parameters: MCPC3DSParameters,
    tell: Progress,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Offset and, for bipolar readouts, G on the box; both rad."""
    box = grid.with_shape(usable.shape)  # type: ignore[arg-type]
    ratio = np.float32(times[0] / (times[1] - times[0]))
    difference, weight = np.empty(usable.shape, dtype=np.float32), np.empty(usable.shape, dtype=np.float32)
    parallel.run(_echo_difference, len(usable), phase, magnitude, ratio, difference, weight)
    product = np.sqrt(magnitude[0] * magnitude[1])
    regions = unwrap_regions(difference, Edges(difference, usable, parameters.weights, product).costs())
    del product
    align_regions(difference, regions)
    tell(0.5)
    trust = gradient_coherence(difference, usable) ** 4
    rough = phase[0] - ratio * difference
    trust *= join_large_regions(difference, regions, rough, weight * trust, -float(ratio))
    weight *= trust
    offset = smooth_phase(rough, weight, box, parameters.smoothing)
    del regions, rough, weight
    tell(0.8)
    if parameters.bipolar == "off" or len(times) < 3:
        return offset, None
    phase = phase - offset
    turns = np.rint((phase[1] - (ratio + 1) * difference) * np.float32(1 / (2 * np.pi)))
    phase[1] -= np.float32(2 * np.pi) * turns
    always = parameters.bipolar == "on"
    return offset, bipolar_phase(phase, magnitude, times, trust, box, parameters.smoothing, always=always)


@kernel
def _echo_difference(start, stop, phase, magnitude, ratio, difference, weight):
    """Wrapped phase difference of the first two echoes, and the inverse variance of the offset that follows from it."""
    one = np.float32(1)
    for x in range(start, stop):
        for y in range(difference.shape[1]):
            a, b, m, n = phase[0, x, y], phase[1, x, y], magnitude[0, x, y], magnitude[1, x, y]
            out, w = difference[x, y], weight[x, y]
            for z in range(out.size):
                out[z] = wrap(b[z] - a[z])
            for z in range(out.size):
                p, q = m[z] * m[z], n[z] * n[z]
                variance = (one + ratio) * (one + ratio) * q + ratio * ratio * p
                w[z] = p * q / variance if variance > 0 else np.float32(0)


@kernel
def _subtract(start, stop, phase, offset, out):
    for x in range(start, stop):
        for y in range(out.shape[1]):
            a, b, row = phase[x, y], offset[x, y], out[x, y]
            for z in range(row.size):
                row[z] = wrap(a[z] - b[z]) if abs(a[z]) < np.inf else np.float32(0)
