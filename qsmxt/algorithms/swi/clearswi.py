r"""CLEAR-SWI: susceptibility-weighted image from all echoes.

.. math:: \mathrm{SWI}(r) = \mathrm{sp}\!\left(\frac{I(r)}{\beta(r)}\right) w(\nu(r))

* :math:`I` is the root sum of squares of the magnitude over the echoes, :math:`\beta` the sensitivity of the receive
  coils (:mod:`qsmxt.algorithms.masking.homogeneity`);
* :math:`\mathrm{sp}(x) = \frac1a\ln\frac{1 + e^{a (x - o)}}{1 + e^{-a o}}, a = 2/o`, a soft threshold that suppresses
  the dark, with half the 80th percentile as the offset o;
* :math:`\nu` (Hz) is the frequency of all echoes after removal of what varies slowly within slices
  (:mod:`qsmxt.algorithms.swi.highpass`);
* :math:`w` is the phase mask (:mod:`qsmxt.algorithms.swi.phase_mask`), which darkens veins.

The unwrapped phase is taken as given: nothing is unwrapped twice, and any phase offset that varies slowly is removed
with the rest.

Departures from the paper
    The width of the high-pass filter is in mm. Percentiles are taken in the mask, and the image is 0 outside it.

Parameters
    ``sensitivity``: smoothing of :math:`\beta`; 0 for none. ``softplus``: whether sp is applied. ``filter_width``: of
    the high-pass filter; larger keeps larger structures. ``phase_mask``, ``strength``: form of w and how dark it is.
    ``thickness``: of the slab of the projection.

References
----------
Eckstein et al. 2021 (doi:10.1016/j.neuroimage.2021.118175).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.echoes import check_echoes, check_times, usable_voxels
from qsmxt.algorithms.exponential import decay
from qsmxt.algorithms.masking.homogeneity import HomogeneityParameters, homogeneity
from qsmxt.algorithms.signal import SAMPLE, combine_magnitude
from qsmxt.algorithms.swi.highpass import combined_frequency
from qsmxt.algorithms.swi.phase_mask import PHASE_MASKS, phase_mask
from qsmxt.algorithms.swi.projection import (
    PRODUCES,
    ProjectionParameters,
    minimum_intensity_projection,
    slices_back,
    slices_last,
)
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Percentile of the magnitude whose half is the offset of the soft threshold.
SOFTPLUS_PERCENTILE = 80.0


@dataclass(frozen=True)
class ClearSWIParameters(ProjectionParameters):
    """Parameters of :func:`clearswi`."""

    phase_mask: str = parameter("tanh", choices=PHASE_MASKS, help="how the frequency becomes a weight")
    strength: float = parameter(4.0, above=0, at_most=100, help="strength of the phase mask; larger is darker")
    filter_width: float = parameter(
        4.0, unit="mm", above=0, help="standard deviation of the high-pass filter within slices"
    )
    softplus: bool = parameter(True, help="suppress dark magnitudes by a soft threshold")
    sensitivity: float = parameter(
        7.0, unit="mm", at_least=0, at_most=100, help="smoothing of the coil sensitivity; 0 leaves it in the magnitude"
    )


@method(
    stage="swi",
    key="clearswi",
    title="CLEAR-SWI",
    consumes=("unwrapped_phase", "magnitude", "echo_times", "mask"),
    produces=PRODUCES,
    parameters=ClearSWIParameters,
    references=("eckstein2021",),
    sentence=(
        "Susceptibility-weighted images were computed from all echoes with CLEAR-SWI ({phase_mask} phase mask, "
        "strength {strength:g}, high-pass filter {filter_width:g} mm) and projected over {thickness:g} mm."
    ),
    cost=Cost(bytes_per_voxel=50, bytes_per_echo=4, seconds_per_megavoxel=0.15),
)
def clearswi(
    unwrapped_phase: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: ClearSWIParameters = ClearSWIParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted image and its minimum intensity projection; see the module.

    Parameters
    ----------
    unwrapped_phase
        Phase without wraps, positive for paramagnetic fields, rad, float32 ``(echo, x, y, z)``; an offset that varies
        slowly may be in it.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``; what is not finite counts as no signal.
    echo_times
        Echo times, s, float ``(echo,)``, ascending; one echo suffices.
    mask
        Where the image is made, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`ClearSWIParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    swi
        Weighted image, in an arbitrary unit, float32 ``(x, y, z)``; zero outside the mask.
    minimum_intensity_projection
        Minimum of the weighted image over ``thickness``, in the same arbitrary unit, float32 ``(x, y, z)``; zero
        outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, times are not ascending and above 0, the mask is empty, or
        the phase has NaN or Inf in the mask.

    Examples
    --------
    The paramagnetic sphere (1) becomes dark, the diamagnetic one (2) does not:

    >>> from qsmxt.algorithms.swi.clearswi import clearswi
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> image, projection = clearswi(head.unwrapped_phase, head.magnitude, head.echo_times, head.mask, head.grid)
    >>> around = image[head.mask & (head.labels == 0)].mean()
    >>> [round(float(image[head.labels == label].mean() / around), 1) for label in (1, 2)]
    [0.6, 1.0]
    >>> bool((projection <= image).all())
    True
    """
    times = check_times(echo_times)
    phase = check_echoes("unwrapped_phase", unwrapped_phase, grid, times)
    strength = check_echoes("magnitude", magnitude, grid, times)
    inside = usable_voxels([], grid, mask)
    box = box_of(inside)
    axis = grid.slice_axis
    within = slices_last(inside[box], axis)
    combined = combine_magnitude(strength)
    lit = slices_last((inside & (combined > 0))[box], axis)  # the phase of voxels without signal is none
    if not lit.any():
        raise InputError("magnitude: expected positive values in the mask, found none; check magnitude and mask")
    echoes = [(slices_last(p[box], axis), slices_last(m[box], axis)) for p, m in zip(phase, strength, strict=True)]
    in_plane = [v for a, v in enumerate(grid.voxel_size) if a != axis]
    sigmas = (parameters.filter_width / in_plane[0], parameters.filter_width / in_plane[1])
    frequency = combined_frequency(echoes, times, lit, sigmas)
    if not np.isfinite(frequency).all():
        raise InputError("unwrapped_phase: expected finite values in the mask, found NaN or Inf; mask them out")
    weight = phase_mask(frequency, lit, parameters.phase_mask, parameters.strength)
    if parameters.sensitivity > 0:
        combined = homogeneity(combined, grid, HomogeneityParameters(sigma=parameters.sensitivity))
    image = slices_last(combined[box], axis)
    if parameters.softplus:
        image = softplus(image, within)
    swi = np.zeros(grid.shape, dtype=np.float32)
    swi[box] = slices_back(np.where(within, image * weight, np.float32(0)), axis)
    return swi, minimum_intensity_projection(swi, inside, grid, parameters.thickness)


def softplus(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Soft threshold of ``image`` at half its 80th percentile in the mask, float32, 0 where the image is 0."""
    sample = image[mask]
    sample = sample[:: max(1, sample.size // SAMPLE)]
    offset = 0.5 * float(np.percentile(sample, SOFTPLUS_PERCENTILE))
    if not offset > 0:
        raise InputError("magnitude: expected positive values in the mask, found none; check magnitude and mask")
    out = np.empty(image.shape, dtype=np.float32)
    parallel.run(_softplus, image.shape[0], image, np.float32(offset), out)
    return out


@kernel
def _softplus(start, stop, image, offset, out):
    """With u = 2 (x / o - 1): o / 2 * (max(u, 0) + ln(1 + exp(-|u|)) - ln(1 + exp(-2)))."""
    limit, two, one, zero = np.float32(80), np.float32(2), np.float32(1), np.float32(0)
    floor = np.float32(np.log(1 + np.exp(-2.0)))
    for x in range(start, stop):
        for y in range(image.shape[1]):
            row, target = image[x, y], out[x, y]
            for z in range(row.size):
                u = two * (row[z] / offset - one)
                target[z] = offset / two * (max(u, zero) + np.log(one + decay(min(abs(u), limit))) - floor)
