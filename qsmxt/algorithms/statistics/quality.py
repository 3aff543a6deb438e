r"""Quality of a reconstruction in numbers that need no reference image.

Every number is declared in :mod:`qsmxt.algorithms.statistics.quality_metrics` with its meaning, its unit, and the
ranges that are usual for the human brain at 1.5 to 7 T; outside of it (other organs, phantoms) only comparison within
a study makes sense.

Definitions, for voxels :math:`i` of the mask M:

noise
    The mixed difference :math:`\Delta = \sum_{abc \in \{0,1\}} (-1)^{a+b+c} x_{i + (a,b,c)}` over the axes longer than
    one voxel vanishes for every sum of functions that leave out one of the axes: flat tissue, ramps, and faces
    parallel to the grid. White noise of standard deviation :math:`\sigma` gives it the standard deviation
    :math:`2^{n/2}\sigma` (n axes), so :math:`\sigma = \mathrm{med}|\Delta| / (0.6745 \cdot 2^{n/2})`. Data that were
    interpolated or filtered have less noise in these differences than in the mean.
field residual
    :math:`\lVert f - D(\chi + c M) \rVert / \lVert f \rVert` over the mask in which the local field f is defined. The
    constant c, least squares, undoes the reference of the susceptibility.
streaking index
    Power of :math:`(\chi - \bar\chi) M` inside the cone :math:`|D(k)| < 0.1` over that outside at the same
    :math:`|k|`, averaged over shells between a tenth and nine tenths of the Nyquist frequency with the power outside
    as weight: 1 for an image without preferred direction, more where the cone is filled with amplified noise (streaks),
    less where it was left empty.
ghost ratio
    Median magnitude of the background where the mask shifted by half the field of view along the phase-encoding axis
    lies, over the median of the other background: 1 without a ghost.

References
----------
Rousseeuw and Croux 1993 (doi:10.1080/01621459.1993.10476408) on the median deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, morphology, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop, box_of
from qsmxt.algorithms.domain import PADDING
from qsmxt.algorithms.kernels import dipole
from qsmxt.algorithms.packing import Packing
from qsmxt.algorithms.quantiles import quantile
from qsmxt.algorithms.runs import Runs
from qsmxt.algorithms.statistics.quality_metrics import EXTREME, FEWEST, METRICS, RIM, median_within
from qsmxt.geometry import Grid

#: Ratio of median absolute value to standard deviation of a normal distribution.
MEDIAN_OF_NORMAL = 0.6744897501960817

#: Below this absolute value of the dipole kernel a frequency belongs to the cone.
CONE = 0.1

#: Distance from the mask at which the background begins, mm.
AIR = 20.0

#: What :func:`measure` looks at.
NEEDED = (
    "mask", "reliable_mask", "eroded_mask", "csf_mask", "magnitude", "phase_quality", "field_noise", "local_field",
    "chi",
)  # fmt: skip


def measure(arrays: Mapping[str, Any], grid: Grid, *, phase_axis: int | None = None) -> dict[str, float]:
    """All numbers that ``arrays`` allow, in the order of :data:`METRICS`; what is undefined is left out.

    Parameters
    ----------
    arrays
        By name of artifact; needed is ``mask``, all others are optional: ``magnitude`` (of the first echo),
        ``phase_quality``, ``field_noise``, ``local_field``, ``eroded_mask``, ``reliable_mask``, ``chi``, ``csf_mask``.
    grid
        Geometry.
    phase_axis
        Axis of phase encoding, if known.
    """
    mask = np.asarray(arrays["mask"], dtype=bool)
    if not mask.any():
        return {}
    found: dict[str, float | None] = {}
    if arrays.get("magnitude") is not None and phase_axis is not None:
        found["ghost_ratio"] = ghost_ratio(arrays["magnitude"], mask, grid, phase_axis)
    box = box_of(mask, (1, 1, 1))
    arrays = {name: np.ascontiguousarray(arrays[name][box]) for name in NEEDED if arrays.get(name) is not None}
    mask = np.asarray(arrays["mask"], dtype=bool)
    grid = grid.with_shape(mask.shape)  # type: ignore[arg-type]
    found["mask_volume"] = float(np.count_nonzero(mask)) * grid.voxel_volume / 1000
    found["mask_pieces"] = float(Runs.of(mask).count)
    if arrays.get("reliable_mask") is not None:
        found["unreliable_share"] = unreliable_share(arrays["reliable_mask"], mask)
    for key, name in (("phase_coherence", "phase_quality"), ("field_noise", "field_noise")):
        if arrays.get(name) is not None:
            found[key] = median_within(arrays[name], mask)
    if arrays.get("magnitude") is not None:
        found["snr"] = signal_to_noise(arrays["magnitude"], mask)
    if arrays.get("chi") is not None:
        found |= _of_susceptibility(arrays, mask, grid)
    return {
        entry.key: float(value)
        for entry in METRICS
        if (value := found.get(entry.key)) is not None and np.isfinite(value)
    }


def _of_susceptibility(arrays: Mapping[str, Any], mask: np.ndarray, grid: Grid) -> dict[str, float | None]:
    chi = arrays["chi"]
    inside = mask if arrays.get("eroded_mask") is None else np.asarray(arrays["eroded_mask"], dtype=bool)
    if not inside.any():
        return {}
    values = chi[inside].astype(np.float64)
    found: dict[str, float | None] = {
        "chi_sd": float(values.std()),
        "reference_offset": float(values.mean()),
        "extreme_share": float(np.mean(np.abs(values) > EXTREME)),
        "streaking": streaking(chi, inside, grid),
        "rim_ratio": rim_ratio(chi, inside, grid),
    }
    if arrays.get("local_field") is not None:
        found["field_residual"] = field_residual(arrays["local_field"], chi, inside, grid)
    if arrays.get("csf_mask") is not None and np.count_nonzero(arrays["csf_mask"]) > 1:
        found["csf_sd"] = float(chi[np.asarray(arrays["csf_mask"], dtype=bool)].std(dtype=np.float64))
    return found


def noise(volume: np.ndarray, mask: np.ndarray) -> float | None:
    """Standard deviation of the white noise of ``volume`` (x, y, z) within ``mask``; ``None`` if it cannot be told."""
    box = box_of(mask)
    difference, inside = volume[box], np.asarray(mask[box], dtype=bool)
    if difference.dtype.kind != "f":
        difference = difference.astype(np.float64)
    axes = [axis for axis in range(3) if difference.shape[axis] > 1]
    for axis in axes:
        first, second = _neighbours(inside, axis)
        inside = first & second
        difference = np.diff(difference, axis=axis)
    if not axes or np.count_nonzero(inside) < FEWEST:
        return None
    return float(quantile(np.abs(difference[inside]), 0.5) / (MEDIAN_OF_NORMAL * 2 ** (len(axes) / 2)))


def _neighbours(volume: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    index = [slice(None)] * 3
    index[axis] = slice(0, -1)
    first = volume[tuple(index)]
    index[axis] = slice(1, None)
    return first, volume[tuple(index)]


def signal_to_noise(magnitude: np.ndarray, mask: np.ndarray) -> float | None:
    """Median of ``magnitude`` in ``mask`` over its noise."""
    sigma = noise(magnitude, mask)
    return median_within(magnitude, mask) / sigma if sigma else None


def unreliable_share(reliable: np.ndarray, mask: np.ndarray) -> float:
    """Share of ``mask`` that is not ``reliable``."""
    return 1.0 - float(np.count_nonzero(np.asarray(reliable, bool) & mask)) / float(np.count_nonzero(mask))


def field_residual(local_field: np.ndarray, chi: np.ndarray, mask: np.ndarray, grid: Grid) -> float | None:
    """Norm of what ``chi`` does not explain of ``local_field`` (both ppm) in ``mask`` over the norm of the field."""
    crop = Crop.around(mask, grid, padding=max(PADDING, 4 * max(grid.voxel_size)))
    inside = crop.extract(np.asarray(mask, dtype=bool))
    packing, kernel, support = Packing(inside), dipole(crop.grid), fourier.Support.of(inside)
    values = packing.pack(crop.extract(chi.astype(np.float32, copy=False)))
    field, explained, of_constant = (
        packing.pack(volume).astype(np.float64)
        for volume in (
            crop.extract(local_field.astype(np.float32, copy=False)),
            fourier.filtered(packing.unpack(values), kernel, support, support),
            fourier.filtered(inside.astype(np.float32), kernel, support, support),
        )
    )
    left = field - explained
    size, square = float(field @ field), float(of_constant @ of_constant)
    if size == 0:
        return None
    if square > 1e-12 * field.size:
        left = left - of_constant * (float(left @ of_constant) / square)
    return float(np.sqrt(float(left @ left) / size))


def streaking(chi: np.ndarray, mask: np.ndarray, grid: Grid, shells: int = 12) -> float | None:
    """Mean power of ``chi`` on the dipole's cone over that beside it, at equal frequency; 1 if there is no streak."""
    crop = Crop.around(mask, grid, padding=2 * max(grid.voxel_size))
    inside = crop.extract(np.asarray(mask, dtype=bool))
    values = crop.extract(chi.astype(np.float32, copy=False))
    values = np.where(inside, values - values[inside].mean(dtype=np.float64), 0).astype(np.float32)
    return cone_ratio(fourier.forward(values), crop.grid, shells)


def cone_ratio(spectrum: np.ndarray, grid: Grid, shells: int = 12) -> float | None:
    """Mean power of a half ``spectrum`` on the cone over that beside it, shell by shell."""
    frequencies = [k.ravel() for k in fourier.frequencies(grid)]
    resolved = [size for size, n in zip(grid.voxel_size, grid.shape, strict=True) if n > 1]
    per_frequency = np.float32(2 * max(resolved or grid.voxel_size) * shells / 0.8)
    weights = fourier.spectrum_weights(grid).ravel()
    power, counts = parallel.total(
        _shell_power, grid.shape[0], spectrum, dipole(grid), *frequencies, weights, per_frequency, shells
    )
    usable = (counts[0] > 0) & (counts[1] > 0)
    if not usable.any():
        return None
    on, beside = power[:, usable] / counts[:, usable]
    return float(on.sum() / beside.sum()) if beside.sum() > 0 else None


@kernel
def _shell_power(start, stop, spectrum, dipole, kx, ky, kz, weights, per_frequency, shells):
    """Power and number of samples on the cone and beside it in shells from a tenth of the Nyquist frequency on."""
    sums, first = np.zeros((2, 2, shells)), np.float32(shells / 8)
    for x in range(start, stop):
        for y in range(ky.size):
            across = kx[x] * kx[x] + ky[y] * ky[y]
            for z in range(kz.size):
                shell = int(np.floor(np.sqrt(across + kz[z] * kz[z]) * per_frequency - first))
                if 0 <= shell < shells:
                    place = 0 if abs(dipole[x, y, z]) < CONE else 1
                    value = spectrum[x, y, z]
                    square = value.real * value.real + value.imag * value.imag
                    sums[0, place, shell] += square * weights[z]
                    sums[1, place, shell] += weights[z]
    return sums


def rim_ratio(chi: np.ndarray, mask: np.ndarray, grid: Grid) -> float | None:
    """Root mean square of ``chi`` about its median in the outer 3 mm of ``mask`` over that inside."""
    core = morphology.erode(mask, grid, RIM)
    rim = mask & ~core
    if not core.any() or not rim.any():
        return None
    middle = median_within(chi, mask)
    outer, inner = (float(np.mean((chi[part].astype(np.float64) - middle) ** 2)) for part in (rim, core))
    return float(np.sqrt(outer / inner)) if inner > 0 else None


def ghost_ratio(magnitude: np.ndarray, mask: np.ndarray, grid: Grid, axis: int) -> float | None:
    """Median background under the mask shifted by half the field of view along ``axis`` over the other background.

    Voxels of exactly 0 do not count: many scanners blank the background.
    """
    background = ~morphology.dilate(mask, grid, AIR) & (magnitude > 0)
    shifted = np.roll(mask, mask.shape[axis] // 2, axis)
    ghost, rest = magnitude[background & shifted], magnitude[background & ~shifted]
    if min(ghost.size, rest.size) < FEWEST:
        return None
    return float(np.median(ghost) / np.median(rest))
