r"""ROMEO: rapid opensource minimum spanning tree algorithm for phase unwrapping.

The measured phase of echo e is :math:`\gamma(\varphi_e)`, with :math:`\gamma` wrapping to :math:`[-\pi, \pi)`. Region
growing over the most reliable edges (:mod:`~qsmxt.algorithms.unwrapping.weights`,
:mod:`~qsmxt.algorithms.unwrapping.growing`) finds :math:`\varphi = \gamma(\varphi) + 2\pi n`, n integer; nothing but
multiples of :math:`2\pi` is added, so no information is lost.

Template
    One echo is unwrapped in space. Every other echo is predicted from the echoes before it and shifted to the
    prediction,

    .. math::
        \varphi_e \leftarrow \varphi_e - 2\pi \left[ \frac{\varphi_e - \omega T_e}{2\pi} \right], \qquad
        \omega = \frac{\sum_k m_k^2 T_k \varphi_k}{\sum_k m_k^2 T_k^2} ,

    which needs a phase without offset. One region growing serves all echoes, and errors of single echoes near the
    edge do not spread.
Individual
    Every echo is unwrapped in space, then shifted as a whole by the median multiple of :math:`2\pi` that separates it
    from the prediction of the previous echo.

Departures from the paper: the template predicts with all echoes unwrapped so far instead of the last one; the multiple
of :math:`2\pi` of a region is decided by all of its voxels instead of its seed; unconnected regions are aligned to each
other.

Parameters
    ``weights``: set of edge weights. ``mode``, ``template``: the above; the echo that is unwrapped in space, counted
    from 1. ``max_seeds``: regions that grow at the same time; more isolate noisy bridges. ``merge_regions``: align
    regions that grew apart. ``regrow_below``: quality below which echoes unwrapped in time are unwrapped in space.

References
----------
Dymerska et al. 2021 (doi:10.1002/mrm.28563).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.echoes import check_echoes, check_times, usable_voxels
from qsmxt.algorithms.unwrapping.growing import align_regions, join_touching, regrow, unwrap_regions
from qsmxt.algorithms.unwrapping.weights import PRESETS, Edges
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

_TWO_PI = np.float32(2 * np.pi)
_INVERSE = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class RomeoParameters:
    """Parameters of :func:`romeo`."""

    weights: str = parameter(
        "romeo",
        choices=tuple(PRESETS),
        help="set of edge weights; more weights follow the magnitude more closely, bestpath uses second differences",
    )
    mode: str = parameter(
        "template",
        choices=("template", "individual"),
        help="unwrap one echo in space and the others in time, or every echo in space",
    )
    template: int = parameter(1, at_least=1, help="echo, counted from 1, that is unwrapped in space")
    max_seeds: int = parameter(
        1, at_least=1, at_most=255, help="regions that may grow at the same time; more of them isolate noisy bridges"
    )
    merge_regions: bool = parameter(True, help="align regions that grew apart, also across gaps of the mask")
    regrow_below: float = parameter(
        0.0,
        at_least=0,
        at_most=1,
        help="echoes unwrapped in time are unwrapped in space where their quality is below this; 0 switches it off",
    )


@method(
    stage="unwrapping",
    key="romeo",
    title="ROMEO",
    consumes=("offset_free_phase", "magnitude", "echo_times"),
    optional=("mask",),
    produces=("unwrapped_phase",),
    parameters=RomeoParameters,
    references=("dymerska2021",),
    sentence="Phase was unwrapped with ROMEO (weights {weights}, {mode} mode).",
    cost=Cost(bytes_per_voxel=23.5, bytes_per_echo=4, threads=2, seconds_per_megavoxel=0.2),
)
def romeo(
    offset_free_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: RomeoParameters = RomeoParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Unwrapped phase of all echoes; see the module.

    Parameters
    ----------
    offset_free_phase
        Wrapped phase, rad, float32 ``(echo, x, y, z)``, without offset (``template`` mode, more than one echo).
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`RomeoParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels to unwrap, bool ``(x, y, z)``. Without it all with finite phase are, noise last.

    Returns
    -------
    numpy.ndarray
        Phase without wraps, rad, float32 ``(echo, x, y, z)``; zero outside the mask and where an echo is not finite.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, or no voxel is usable.
    ParameterError
        If there is no echo of the number ``template``.

    Examples
    --------
    Ten times the phase of the phantom has wraps:

    >>> import numpy as np
    >>> from qsmxt.algorithms.unwrapping.romeo import romeo
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> truth = 10 * head.unwrapped_phase
    >>> wrapped = np.angle(np.exp(1j * truth))
    >>> phase = romeo(wrapped, head.magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> bool(np.abs(phase - truth)[:, head.mask].max() < 1e-5)
    True
    """
    times = check_times(echo_times)
    phase = check_echoes("offset_free_phase", offset_free_phase, grid, times)
    strength = check_echoes("magnitude", magnitude, grid, times)
    if parameters.template > len(times):
        raise ParameterError(f"unwrapping.romeo: template echo {parameters.template} of {len(times)} does not exist")
    usable = usable_voxels([phase], grid, mask)
    box = box_of(usable)
    inside = np.ascontiguousarray(usable[box]).view(np.uint8)
    cropped = np.array(phase[(slice(None), *box)], order="C")
    unwrap_echoes(cropped, np.ascontiguousarray(strength[(slice(None), *box)]), times, inside, parameters, progress)
    if cropped.shape == phase.shape:
        return cropped
    out = np.zeros_like(phase)
    out[(slice(None), *box)] = cropped
    return out


def unwrap_echoes(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    usable: np.ndarray,
    parameters: RomeoParameters,
    progress: Progress | None = None,
) -> None:
    """Unwrap ``phase`` in place; 0 where ``usable`` (uint8) is 0. Arguments otherwise as of :func:`romeo`."""
    count = len(times)
    tell = progress or (lambda fraction: None)
    template = parameters.template - 1
    phase[:, usable == 0] = 0
    if parameters.mode == "template" or count == 1:
        reference = 1 if template == 0 else template - 1
        _in_space(phase, magnitude, times, usable, template, reference, parameters)
        tell(0.7)
        order = np.array([template, *range(template + 1, count), *range(template - 1, -1, -1)], dtype=np.int64)
        if count > 1:
            unwrap_in_time(phase, magnitude, times, order)
            if parameters.regrow_below > 0:
                _regrow_uncertain(phase, magnitude, times, usable, order, parameters)
    else:
        for e in range(count):
            _in_space(phase, magnitude, times, usable, e, e - 1 if e else 1, parameters)
            if e:
                turns = (phase[e - 1] * np.float32(times[e] / times[e - 1]) - phase[e])[usable.view(bool)] * _INVERSE
                phase[e] += _TWO_PI * np.median(np.rint(turns))
            tell((e + 1) / count)
    phase[:, usable == 0] = 0
    tell(1.0)


def _in_space(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    usable: np.ndarray,
    echo: int,
    reference: int,
    parameters: RomeoParameters,
) -> None:
    """Unwrap echo number ``echo`` in place with ``reference`` as second echo (the same echo: none)."""
    alone = len(times) == 1
    second = None if alone else phase[reference]
    ratio = 1.0 if alone else times[echo] / times[reference]
    costs = Edges(phase[echo], usable, parameters.weights, magnitude[echo], second, ratio).costs()
    regions = unwrap_regions(phase[echo], costs, parameters.max_seeds)
    if parameters.merge_regions and parameters.max_seeds > 1:
        join_touching(phase[echo], costs, regions)
    align_regions(phase[echo], regions, second=second, ratio=ratio, across_gaps=parameters.merge_regions)


def unwrap_in_time(phase: np.ndarray, magnitude: np.ndarray, times: np.ndarray, order: np.ndarray) -> None:
    """Shift the echoes in place to what the echoes before them in ``order`` predict; the first one is left alone."""
    count = len(times)
    parallel.run(
        _predict_echoes, phase.shape[1], phase, magnitude, times.astype(np.float32), order.astype(np.int64), count
    )


@kernel
def _predict_echoes(start, stop, phase, magnitude, times, order, count):
    ny, nz = phase.shape[2:]
    numerator = np.empty(nz, dtype=np.float32)
    denominator = np.empty(nz, dtype=np.float32)
    for x in range(start, stop):
        for y in range(ny):
            numerator[:] = 0
            denominator[:] = np.float32(1e-37)
            for n in range(count):
                e = order[n]
                row, m, t = phase[e, x, y], magnitude[e, x, y], times[e]
                if n > 0:
                    for z in range(nz):
                        excess = row[z] - t * numerator[z] / denominator[z]
                        row[z] -= _TWO_PI * np.floor(excess * _INVERSE + np.float32(0.5))
                for z in range(nz):
                    w = m[z] * m[z] * t
                    w = w if w > 0 and w < np.inf else np.float32(1e-30)
                    numerator[z] += w * row[z]
                    denominator[z] += w * t


def _regrow_uncertain(
    phase: np.ndarray,
    magnitude: np.ndarray,
    times: np.ndarray,
    usable: np.ndarray,
    order: np.ndarray,
    parameters: RomeoParameters,
) -> None:
    """Unwrap in space the voxels of every echo whose step to a neighbour disagrees with the echo before it."""
    for previous, e in itertools.pairwise(order):
        previous = order[0] if e < order[0] else previous
        half = Edges(
            phase[e] * np.float32(0.5),
            usable,
            parameters.weights,
            magnitude[e],
            phase[previous] * np.float32(0.5 * times[e] / times[previous]),
        )
        trusted = half.quality() > parameters.regrow_below
        costs = Edges(
            phase[e], usable, parameters.weights, magnitude[e], phase[previous], times[e] / times[previous]
        ).costs()
        regrow(phase[e], costs, trusted & usable.view(bool))
