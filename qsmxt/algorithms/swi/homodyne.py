r"""Classic susceptibility-weighted imaging with homodyne high-pass filtering of the wrapped phase.

In every slice the complex image :math:`S_e = m_e e^{i\varphi_e}` is divided by its low frequencies,

.. math::

    h_e = \arg\big(S_e\, \overline{L S_e}\big), \qquad
    L(k) = \prod_i \tfrac12 \big(1 + \cos \pi k_i / k_c\big) \text{ for } |k_i| < k_c,\; 0 \text{ otherwise},

so that no unwrapping is needed, and the magnitude is darkened where the phase is positive (veins along B0),

.. math:: w(h) = \begin{cases} 1 - h / \pi & h > 0 \\ 1 & h \le 0 \end{cases}, \qquad
    \mathrm{SWI} = \Big(\sum_e m_e^2\, w(h_e)^{2p}\Big)^{1/2} .

The classic window of 64 of 256 lines over 256 mm is :math:`k_c = 0.125` cycles/mm, whatever the matrix. A larger one
removes more of the background and of large structures. With one echo this is the published method.

Parameters
    ``cutoff``: :math:`k_c`. ``power``: p. ``darken``: sign of the phase that is darkened. ``echo``: the one echo to
    use; 0 for all. ``thickness``: of the slab of the projection.

References
----------
Haacke et al. 2004 (doi:10.1002/mrm.20198).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import cosine, sine
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.echoes import check_echoes, check_times, usable_voxels
from qsmxt.algorithms.swi.projection import PRODUCES, ProjectionParameters, minimum_intensity_projection
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class HomodyneParameters(ProjectionParameters):
    """Parameters of :func:`homodyne`."""

    cutoff: float = parameter(
        0.125, unit="1/mm", above=0, help="frequency at which the low-pass window ends; larger removes more"
    )
    power: float = parameter(4.0, above=0, at_most=32, help="how often the phase mask is multiplied with the magnitude")
    darken: str = parameter("positive", choices=("positive", "negative"), help="sign of the phase that is darkened")
    echo: int = parameter(0, at_least=0, help="the one echo to use, counted from 1; 0 for all")


@method(
    stage="swi",
    key="homodyne",
    title="Classic SWI (homodyne filter)",
    consumes=("wrapped_phase", "magnitude", "echo_times", "mask"),
    produces=PRODUCES,
    parameters=HomodyneParameters,
    references=("haacke2004",),
    sentence=(
        "Susceptibility-weighted images were computed from homodyne-filtered phase (cut-off {cutoff:g} cycles/mm, "
        "{darken} phase mask to the power {power:g}) and projected over {thickness:g} mm."
    ),
    cost=Cost(bytes_per_voxel=29, seconds_per_megavoxel=0.3),
)
def homodyne(
    wrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: HomodyneParameters = HomodyneParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted image and its minimum intensity projection; see the module.

    Parameters
    ----------
    wrapped_phase
        Measured phase, positive for paramagnetic fields, rad, in [-pi, pi), float32 ``(echo, x, y, z)``; what is not
        finite counts as no signal.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``; what is not finite counts as no signal.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    mask
        Where the image is made, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`HomodyneParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    swi
        Weighted image, in the arbitrary unit of the magnitude, float32 ``(x, y, z)``; zero outside the mask.
    minimum_intensity_projection
        Minimum of the weighted image over ``thickness``, in the same arbitrary unit, float32 ``(x, y, z)``; zero
        outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, the mask is empty, or
        there is no echo of the number ``echo``.

    Examples
    --------
    The paramagnetic sphere (1) becomes dark, the diamagnetic one (2) does not:

    >>> from qsmxt.algorithms.swi.homodyne import homodyne
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> image, projection = homodyne(head.wrapped_phase, head.magnitude, head.echo_times, head.mask, head.grid)
    >>> around = image[head.mask & (head.labels == 0)].mean()
    >>> [round(float(image[head.labels == label].mean() / around), 1) for label in (1, 2)]
    [0.8, 1.0]
    >>> bool((projection <= image).all())
    True
    """
    times = check_times(echo_times)
    phase = check_echoes("wrapped_phase", wrapped_phase, grid, times)
    strength = check_echoes("magnitude", magnitude, grid, times)
    if parameters.echo > len(times):
        raise InputError(f"echo: expected a number up to {len(times)}, found {parameters.echo}")
    inside = usable_voxels([], grid, mask)
    axes = tuple(a for a in range(3) if a != grid.slice_axis)
    chosen = range(len(times)) if parameters.echo == 0 else (parameters.echo - 1,)
    swi = np.zeros(grid.shape, dtype=np.float32)
    sign = np.float32(1 if parameters.darken == "positive" else -1)
    for done, echo in enumerate(chosen):
        signal = np.empty(grid.shape, dtype=np.complex64)
        parallel.run(_complex, swi.shape[0], strength[echo], phase[echo], signal)
        low = _low_pass(signal, grid, axes, parameters.cutoff)
        parallel.run(_add_weighted, swi.shape[0], signal, low, inside, sign, np.float32(parameters.power), swi)
        if progress:
            progress((done + 1) / len(chosen))
    swi = np.sqrt(swi)
    return swi, minimum_intensity_projection(swi, inside, grid, parameters.thickness)


def _low_pass(signal: np.ndarray, grid: Grid, axes: tuple[int, ...], cutoff: float) -> np.ndarray:
    spectrum = scipy.fft.fftn(signal, axes=axes, workers=parallel.thread_count())
    for axis in axes:
        k = np.abs(np.fft.fftfreq(grid.shape[axis], grid.voxel_size[axis]))
        window = np.where(k < cutoff, 0.5 * (1 + np.cos(np.pi * k / cutoff)), 0).astype(np.float32)
        spectrum *= np.expand_dims(window, tuple(a for a in range(3) if a != axis))
    return scipy.fft.ifftn(spectrum, axes=axes, workers=parallel.thread_count(), overwrite_x=True)


@kernel
def _complex(start, stop, magnitude, phase, out):
    zero = np.float32(0)
    for x in range(start, stop):
        for y in range(out.shape[1]):
            m, p, target = magnitude[x, y], phase[x, y], out[x, y]
            for z in range(m.size):
                real, imaginary = m[z] * cosine(p[z]), m[z] * sine(p[z])
                good = abs(real) + abs(imaginary) < np.inf
                target[z] = complex(real if good else zero, imaginary if good else zero)


@kernel
def _add_weighted(start, stop, signal, low, inside, sign, power, total):
    """Add the squared weighted magnitude of one echo."""
    for x in range(start, stop):
        for y in range(signal.shape[1]):
            for z in range(signal.shape[2]):
                if not inside[x, y, z]:
                    continue
                a, b = signal[x, y, z], low[x, y, z]
                quotient = a * np.conj(b)
                angle = sign * np.arctan2(quotient.imag, quotient.real)
                weight = (np.float32(1) - angle / np.float32(np.pi)) ** power if angle > 0 else np.float32(1)
                total[x, y, z] += (a.real * a.real + a.imag * a.imag) * weight * weight
