r"""What the magnitude alone tells: where there is signal, how strong the noise is, and the combined image.

The magnitude of a complex signal of true amplitude A in Gaussian noise of standard deviation :math:`\sigma` per
channel is Rice distributed; where A = 0 it follows the Rayleigh distribution

.. math:: p(m) = \frac{m}{\sigma^2} e^{-m^2 / 2\sigma^2}, \qquad Q(p) = \sigma \sqrt{-2 \ln(1 - p)} .

None of the functions depends on the scale of the magnitude beyond returning values in its unit.

References
----------
Gudbjartsson and Patz 1995 (doi:10.1002/mrm.1910340618); Donoho 1995 (doi:10.1109/18.382009); the head mask follows the
robust mask of MriResearchTools (Eckstein et al. 2021, doi:10.1016/j.neuroimage.2021.118175).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Number of voxels from which quantiles are taken.
SAMPLE = 200_000

#: Medians of the chi-squared distribution of 1 to 15 degrees of freedom; scipy.special takes longer to import than a
#: small field map to fit.
CHI_SQUARED_MEDIANS = (
    0.454936423119572, 1.386294361119891, 2.3659738843753377, 3.3566939800333224, 4.351460191095526,
    5.348120627447118, 6.345811195521515, 7.344121497701794, 8.342832692252955, 9.34181776559197,
    10.340998074391827, 11.34032237742414, 12.339755882563905, 13.33927414909954, 14.338859510956645,
)  # fmt: skip

#: Half width of the box that smooths the head mask, mm.
SMOOTHING_HALF_WIDTH = 2.0


def combine_magnitude(magnitude: np.ndarray) -> np.ndarray:
    """Root sum of squares over the echoes, float32 ``(x, y, z)``; NaN and Inf count as zero.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)``, or one volume, of which the finite absolute values are returned.
    """
    echoes = _as_echoes(magnitude)
    out: np.ndarray = np.empty(echoes.shape[1:], dtype=np.float32)
    parallel.run(_root_sum_of_squares, out.shape[0], echoes, out)
    return out


def signal_mask(magnitude: np.ndarray, grid: Grid) -> np.ndarray:
    """The region with signal (the head), bool ``(x, y, z)``; enclosed cavities belong to it.

    The threshold is a fifth of the typical signal or five times the mean of the lowest voxels, whichever is higher.
    The typical signal is the mean of the upper half of the voxels above the threshold, found by iteration, so that
    it does not depend on how much of the field of view the head fills. The mask is smoothed by boxes of about
    5 mm and its holes are filled.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)`` or ``(x, y, z)``, any unit.
    grid
        Geometry of the volume.

    Raises
    ------
    InputError
        If the magnitude has no positive finite voxel or does not lie on the grid.
    """
    combined = combine_magnitude(magnitude)
    grid.check("magnitude", combined)
    shape, size = grid.shape, grid.voxel_size
    mask = (combined > _signal_threshold(combined)).view(np.uint8)
    half = [0 if n == 1 else max(1, round(SMOOTHING_HALF_WIDTH / v)) for n, v in zip(shape, size, strict=True)]
    mask = _box_vote(mask, half, 0.4)
    _fill_holes(mask)
    narrow = [min(1, h) for h in half]
    mask = _box_vote(_box_vote(mask, narrow, 0.5), narrow, 0.5)
    return mask.view(bool)


def chi_squared_median(degrees: int) -> float:
    """Median of the chi-squared distribution, by which a median of squared misfits tells their variance."""
    if 0 < degrees <= len(CHI_SQUARED_MEDIANS):
        return CHI_SQUARED_MEDIANS[degrees - 1]
    return float(2 * special.gammaincinv(degrees / 2, 0.5))


def noise_level(magnitude: np.ndarray) -> float:
    """Standard deviation of the noise in one channel (real or imaginary), in the unit of the magnitude.

    If at least 0.5 % of the volume is non-zero background, the quartile and the median of the background of the last
    echo are compared with those of a Rayleigh distribution and the smaller estimate counts (ghosts raise it).
    Otherwise (background set to zero, or a crop inside the head) it is the median absolute third difference along
    the three axes inside the signal, which upper-bounds the noise where there is fine structure.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)`` or ``(x, y, z)``, as measured (not corrected for inhomogeneity).
    """
    echoes = _as_echoes(magnitude)
    grid = Grid(echoes.shape[1:])
    head = signal_mask(echoes, grid)
    near = _box_vote(head.view(np.uint8), [0 if n == 1 else 4 for n in grid.shape], 0.0).view(bool)
    last = echoes[-1]
    background = last[~near]
    background = background[np.isfinite(background) & (background > 0)]
    if background.size >= max(100, 0.005 * last.size):
        quarter, half = np.quantile(_sample(background), (0.25, 0.5))
        return float(min(quarter / math.sqrt(-2 * math.log(0.75)), half / math.sqrt(-2 * math.log(0.5))))
    return _difference_noise(last, head)


def _as_echoes(magnitude: np.ndarray) -> np.ndarray:
    if magnitude.ndim not in (3, 4):
        raise InputError(
            f"magnitude: expected (x, y, z) or (echo, x, y, z), found an array of {magnitude.ndim} dimensions"
        )
    echoes = np.ascontiguousarray(magnitude, dtype=np.float32)
    return echoes if echoes.ndim == 4 else echoes[None]


def _sample(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)]


def _signal_threshold(combined: np.ndarray) -> float:
    values = np.sort(_sample(combined))
    values = values[np.searchsorted(values, 0.0, side="right") :]
    if values.size == 0:
        values = np.sort(combined[combined > 0])
    if values.size == 0:
        raise InputError("magnitude: expected positive values, found none; check the magnitude images")
    low, top = (np.quantile(values, q) for q in (0.80, 0.99))
    high = float(values[(values >= low) & (values <= top)].mean(dtype=np.float64))
    noise = 0.0
    for quantile in (0.15, 0.05):
        lowest = float(values[values <= np.quantile(values, quantile)].mean(dtype=np.float64))
        if lowest <= high / 10:
            noise = lowest
            break
    threshold = max(5 * noise, high / 5)
    for _ in range(4):
        above = values[np.searchsorted(values, min(threshold, top)) :]
        upper = above[above.size // 2 :]
        typical = float(upper[: max(1, int(0.98 * upper.size))].mean(dtype=np.float64))
        threshold = max(5 * noise, typical / 5)
    return threshold


def _difference_noise(volume: np.ndarray, mask: np.ndarray) -> float:
    """Noise from third differences of neighbours, whose weights 1, -3, 3, -1 have the norm sqrt(20)."""
    estimates = []
    for axis in range(3):
        if volume.shape[axis] < 4:
            continue
        inside = np.moveaxis(mask, axis, 0)
        v = np.moveaxis(np.where(np.isfinite(volume), volume, 0.0), axis, 0)
        good = inside[:-3] & inside[1:-2] & inside[2:-1] & inside[3:]
        third = (v[3:] - 3 * v[2:-1] + 3 * v[1:-2] - v[:-3])[good]
        if third.size >= 20:
            estimates.append(float(np.median(np.abs(_sample(third)))) / (0.67449 * math.sqrt(20)))
    if not estimates:
        raise InputError(
            "magnitude: expected background or a region with signal at least 4 voxels wide to measure the noise, "
            f"found neither in a volume of shape {volume.shape}"
        )
    return min(estimates)


@kernel
def _root_sum_of_squares(start, stop, echoes, out):
    for x in range(start, stop):
        for y in range(out.shape[1]):
            row = out[x, y]
            row[:] = 0.0
            for e in range(echoes.shape[0]):
                source = echoes[e, x, y]
                for z in range(row.size):
                    value = source[z] * source[z]
                    row[z] += value if value < np.inf else np.float32(0.0)
            for z in range(row.size):
                row[z] = np.sqrt(row[z])


def _box_vote(mask: np.ndarray, half: list[int], fraction: float) -> np.ndarray:
    """1 where more than ``fraction`` of the box of ``2 half + 1`` voxels is 1, as far as the box lies in the volume."""
    shape = mask.shape
    counts = np.empty(shape, dtype=np.uint16)
    parallel.run(_count_rows, shape[0], mask, counts, half[1], half[2])
    out = np.empty(shape, dtype=np.uint8)
    sizes = [
        np.array([min(n - 1, i + h) - max(0, i - h) + 1 for i in range(n)], dtype=np.int32)
        for n, h in zip(shape, half, strict=True)
    ]
    parallel.run(_vote_planes, shape[0], counts, out, half[0], *sizes, np.float32(fraction))
    return out


@kernel
def _count_rows(start, stop, mask, counts, half_y, half_z):
    ny, nz = mask.shape[1:]
    along = np.empty((ny, nz), dtype=np.uint16)
    running = np.empty(nz, dtype=np.uint16)
    for x in range(start, stop):
        for y in range(ny):
            total = np.uint16(0)
            for z in range(min(half_z, nz)):
                total += mask[x, y, z]
            for z in range(nz):
                if z + half_z < nz:
                    total += mask[x, y, z + half_z]
                along[y, z] = total
                if z - half_z >= 0:
                    total -= mask[x, y, z - half_z]
        running[:] = 0
        for y in range(min(half_y, ny)):
            for z in range(nz):
                running[z] += along[y, z]
        for y in range(ny):
            if y + half_y < ny:
                for z in range(nz):
                    running[z] += along[y + half_y, z]
            for z in range(nz):
                counts[x, y, z] = running[z]
            if y - half_y >= 0:
                for z in range(nz):
                    running[z] -= along[y - half_y, z]


@kernel
def _vote_planes(start, stop, counts, out, half, size_x, size_y, size_z, fraction):
    nx, ny, nz = counts.shape
    running = np.empty(nz, dtype=np.uint32)
    for x in range(start, stop):
        for y in range(ny):
            running[:] = 0
            for n in range(max(0, x - half), min(nx, x + half + 1)):
                for z in range(nz):
                    running[z] += counts[n, y, z]
            needed = fraction * np.float32(size_x[x] * size_y[y])
            for z in range(nz):
                out[x, y, z] = np.float32(running[z]) > needed * np.float32(size_z[z])


def _fill_holes(mask: np.ndarray) -> None:
    """Set to 1, in place, every 0 that is not connected through faces to the border along an axis longer than 1."""
    flat = mask.reshape(-1)
    _flood_background(flat, *mask.shape)
    np.not_equal(mask, 2, out=mask, casting="unsafe")


@kernel
def _flood_background(mask, nx, ny, nz):
    stack = np.empty(mask.size, dtype=np.int32)
    depth = 0
    for x in range(nx):
        for y in range(ny):
            edge = (nx > 1 and (x == 0 or x == nx - 1)) or (ny > 1 and (y == 0 or y == ny - 1))
            step = 1 if edge or nz == 1 else nz - 1
            if nz == 1 and not edge:
                continue
            for z in range(0, nz, step):
                i = (x * ny + y) * nz + z
                if mask[i] == 0:
                    mask[i] = 2
                    stack[depth] = i
                    depth += 1
    while depth:
        depth -= 1
        i = stack[depth]
        z = i % nz
        y = (i // nz) % ny
        x = i // (ny * nz)
        for d in range(6):
            if d == 0:
                inside, j = z > 0, i - 1
            elif d == 1:
                inside, j = z < nz - 1, i + 1
            elif d == 2:
                inside, j = y > 0, i - nz
            elif d == 3:
                inside, j = y < ny - 1, i + nz
            elif d == 4:
                inside, j = x > 0, i - ny * nz
            else:
                inside, j = x < nx - 1, i + ny * nz
            if inside and mask[j] == 0:
                mask[j] = 2
                stack[depth] = j
                depth += 1
