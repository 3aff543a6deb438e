r"""Brain extraction by an inflating mesh (BET), made to hold on gradient-echo images, slabs and biased intensities.

A sphere of triangles grows inside the head until it meets the dark skull. In every iteration each vertex moves by

.. math:: u = \tfrac12 s_t + f_2\,s_n + 0.05\,l\,f_3\,\hat n ,

where :math:`s = s_t + s_n` is the vector from the vertex to the mean of its neighbours, split along the surface
and along its outward normal :math:`\hat n`, and l is the mean length of the edges. The second term smooths:
:math:`f_2 = \frac12(1 + \tanh F(1/\rho - E))` with the local radius of curvature :math:`\rho = l^2 / 2|s_n|`,
:math:`E = \frac12(1/r_{min} + 1/r_{max})` and :math:`F = 6 / (1/r_{min} - 1/r_{max})`, :math:`r_{min}` = 3.33 mm,
:math:`r_{max}` = 10 mm. The third pushes outwards or pulls inwards:

.. math:: f_3 = \frac{2\,(I_{min} - t_l)}{I_{max} - t_2}, \qquad t_l = t_2 + b\,(I_{max} - t_2),

with the least intensity :math:`I_{min}` over 20 mm and the greatest :math:`I_{max}` over 10 mm along the inward normal,
both limited by the median :math:`t_m` and the robust minimum :math:`t_2`.

Departures from the paper
    * The sphere starts at the centre and at half the size of the largest thick piece of the signal (the signal eroded
      until the scalp is gone), not at the centre of gravity of the image, which a bright scalp or a long neck
      displaces.
    * Three meshes of 162, 642 and 2562 vertices grow one after the other on block means of about 2 mm, smoothed
      further only if the image is noisy. The inward profiles are sampled every 2 mm from the vertex itself on.
    * b follows how the volume of a coarse mesh depends on it. As long as a step of 0.05 down adds less than 2.5 %, the
      edge is steep and there is nothing to leak into: b goes down to 0.55, which reaches farther into brain that
      dephases beside air. If the first step adds more than 6 %, b is too high for the contrast (T1-weighted cortex in a
      strong receive field): it goes down as long as the steps become smaller. In between, as on most real heads, b
      stays.
    * The default of b is 0.65, not 0.5: the surface of a sphere lies at the same place for all b (the edge is steep),
      but on real heads 0.5 leaks into the orbits and the temporal muscles.
    * With a clearance c the surface ends at least c before the dark outside: where the image falls below 0.4 of the
      brightness inside at a distance g along the normal, g < c, the vertex moves inwards by c - g (mean over it and its
      neighbours), finer than voxels. Where dark fluid separates cortex and bone nothing is lost.
    * Beyond the field of view the image continues with its border values, and vertices are not driven out further
      than 10 mm, so that a slab is cut where it ends and not rounded off.
    * An image without background (a crop inside the head: the darker class of Otsu's threshold is at least 0.65
      times as bright as the brighter one) belongs to the mask as a whole.
    * Inside is where the surface winds around a voxel, so folds leave no holes, and no restart is needed.

Measured
    Dice with the inside of the skull (b = 0.65, no clearance) on the digital head: 0.98 to 0.99 at 1 to 3 mm, 3 and
    7 T. Real T1-weighted heads: 0.952 with the mask of a head with a strong receive field (0.868 without adapting b),
    0.980 with the hull of a cortical surface (1 mm, above the cerebellum). 0.6 s on one core for 256 x 256 x 256.

Parameters
    ``fraction``: b. ``clearance``: c. ``adapt``: whether b follows the volume. ``smoothness``: factor on :math:`f_2`.
    ``iterations``: over all three meshes. ``tolerance``: shift of the surface in 50 iterations, relative to its size,
    below which a mesh is done; 0 runs them all.

References
----------
Smith 2002 (doi:10.1002/hbm.10062).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.masking import mesh
from qsmxt.algorithms.masking.otsu import otsu_threshold
from qsmxt.algorithms.masking.resolution import block_means, blocks, coarse_grid
from qsmxt.algorithms.morphology import largest_component
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Length of the blocks whose means the mesh sees, mm.
BLOCK = 2.0
#: Length of the blocks on which the centre of the brain is looked for, mm.
START_BLOCK = 4.0
#: How far the surface may be driven beyond the field of view, mm.
OVERHANG = 10.0
#: Noise above which the image is smoothed, as a fraction of the median of its bright part.
CALM = 0.08
#: An image whose dark part is at least this bright, relative to its bright part, shows no background.
NO_BACKGROUND = 0.65
#: Fraction of the brightness inside below which the outside is dark.
DARK = 0.4
#: Subdivisions of the meshes that grow one after the other, and the share of the iterations each gets.
LEVELS = (2, 3, 4)
SHARES = (0.4, 0.4, 0.2)
#: Step of b, and growth of the volume per step below which the edge is steep and above which the surface is unstable.
STEP, STEEP, UNSTABLE = 0.05, 0.025, 0.06
#: Smallest b to which a steep edge, and to which an unstable surface leads.
STEEP_LOWEST, LOWEST = 0.55, 0.4
#: Number of samples along the inward normal, 2 mm apart.
REACH = 10
#: Iterations for which the mean length of the edges holds.
ROUND = 50
#: Half thickness of what counts as thick signal, mm; more than that of the scalp.
CORE = 7.0


@dataclass(frozen=True)
class BETParameters:
    """Parameters of :func:`bet`."""

    fraction: float = parameter(
        0.65, above=0, below=1, help="fractional intensity b: the smaller, the larger the brain that is found"
    )
    clearance: float = parameter(
        0.0, unit="mm", at_least=0, at_most=10, help="least distance that the mask keeps from the dark outside"
    )
    adapt: bool = parameter(True, help="lower the fraction by how the volume of the brain depends on it")
    smoothness: float = parameter(1.0, above=0, at_most=10, help="factor on the smoothing of the surface")
    iterations: int = parameter(600, at_least=10, at_most=10000, help="most iterations over all three meshes")
    tolerance: float = parameter(
        0.0, at_least=0, help="shift of the surface in 50 iterations, relative to its size, at which a mesh is done"
    )


@dataclass(frozen=True)
class _Range:
    """Robust minimum and median intensity, and where the mesh starts."""

    low: float
    high: float
    median: float
    centre: np.ndarray
    radius: float


@method(
    stage="masking",
    key="bet",
    title="Brain extraction by a mesh (BET)",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=BETParameters,
    references=("smith2002",),
    sentence="The brain was extracted with an inflating mesh (BET, fractional intensity {fraction:g}).",
    cost=Cost(bytes_per_voxel=21, threads=1, seconds_per_megavoxel=0.1),
)
def bet(
    image: np.ndarray, grid: Grid, parameters: BETParameters = BETParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Brain mask of a magnitude or T1-weighted image; see the module.

    Parameters
    ----------
    image
        Image to look at (``mask_input``), arbitrary unit, float32 ``(x, y, z)``, brain brighter than skull; what is not
        finite counts as zero.
    grid
        Shape and voxel size (mm); the sizes of the model are in mm.
    parameters
        See :class:`BETParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: everything inside the surface; everything if the image has no background.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or the image has no contrast.

    Examples
    --------
    A ball of brain of 50 mm radius, 7 mm of dark skull and 8 mm of bright scalp:

    >>> import numpy as np
    >>> from qsmxt.algorithms.masking.bet import bet
    >>> from qsmxt.algorithms.masking.plausibility import dice
    >>> from qsmxt.geometry import Grid
    >>> from qsmxt.phantom.shapes import ellipsoid
    >>> grid = Grid((40, 40, 40), (4.0, 4.0, 4.0))
    >>> brain, skull, scalp = (ellipsoid(grid, radius) for radius in (50.0, 57.0, 65.0))
    >>> image = np.where(brain, 1.0, 1.5 * (scalp & ~skull)).astype(np.float32)
    >>> bool(dice(bet(image, grid), brain) > 0.99)
    True
    """
    grid.check("mask_input", image)
    factors = blocks(grid, BLOCK)
    coarse = coarse_grid(grid, factors)
    small = block_means(np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0), factors)
    small = _calmed(small, coarse)
    start = _start(small, coarse)
    if start is None:
        return np.ones(grid.shape, dtype=bool)
    if parameters.adapt:
        parameters = replace(parameters, fraction=_adapted_fraction(small, coarse, start, parameters))
    vertices, faces = _grow(small, coarse, start, parameters, progress)
    if parameters.clearance > 0:
        vertices = _keep_clear(small, coarse, vertices, parameters.clearance)
    # The centre of the first voxel lies half a block before that of the first block.
    vertices += [0.5 * (f - 1) * v for f, v in zip(factors, grid.voxel_size, strict=True)]
    return mesh.enclosed(vertices, faces, grid)


def _calmed(image: np.ndarray, grid: Grid) -> np.ndarray:
    """The image, smoothed by 1-2-1 along every axis as often as its noise asks for (at most three times).

    The noise is the median absolute second difference in the bright part, whose weights 1, -2, 1 have the norm sqrt(6).
    """
    if image.min() == image.max():
        return image
    bright = image > otsu_threshold(image, zeros=True)
    for _ in range(3):
        noise = []
        for axis in (a for a in range(3) if image.shape[a] > 3):
            inner = [slice(None)] * 3
            inner[axis] = slice(1, -1)
            curved = np.abs(np.diff(image, 2, axis)[bright[tuple(inner)]])
            noise.append(np.median(curved) / (0.6745 * 6**0.5) if curved.size else 0.0)
        if not noise or min(noise) < CALM * np.median(image[bright]):
            break
        for axis in (a for a in range(3) if image.shape[a] > 3):
            image = ndimage.convolve1d(image, [0.25, 0.5, 0.25], axis, mode="nearest")
    return image


def _start(image: np.ndarray, grid: Grid) -> _Range | None:
    """Intensities and the initial sphere; ``None`` if the object fills the field of view."""
    factors = blocks(grid, START_BLOCK)
    offset = [0.5 * (f - 1) * v for f, v in zip(factors, grid.voxel_size, strict=True)]
    image, grid = block_means(image, factors), coarse_grid(grid, factors)
    low, high = (float(q) for q in np.percentile(image, (2, 98)))
    if not high > low:
        raise InputError(
            f"mask_input: expected an image with contrast, found values from {low:g} to {high:g}; choose another input"
        )
    threshold = otsu_threshold(image, zeros=True)
    dark = image[image < threshold]
    if dark.mean() > NO_BACKGROUND * image[image >= threshold].mean():
        return None
    # In noisy images the floor of the noise lies above a tenth of the range.
    signal = image > max(low + 0.1 * (high - low), 1.5 * float(np.percentile(dark, 25)))
    core = _thickest(signal, grid)
    index = np.argwhere(core)
    radius = (len(index) * grid.voxel_volume / (4 / 3 * np.pi)) ** (1 / 3)
    median = float(np.median(image[core]))
    return _Range(low, high, median, index.mean(axis=0) * grid.voxel_size + offset, radius)


def _thickest(signal: np.ndarray, grid: Grid) -> np.ndarray:
    """Largest piece of the signal that is thicker than twice ``CORE``, or of the signal if nothing is."""
    padded = np.pad(signal, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, grid.voxel_size)[1:-1, 1:-1, 1:-1]
    for reach in (2 * CORE, CORE, 0.5 * CORE, 0.0):
        thick = depth > reach
        if thick.any():
            return largest_component(thick)
    return signal


def _adapted_fraction(image: np.ndarray, grid: Grid, start: _Range, parameters: BETParameters) -> float:
    """b by the growth of the volume with every step down; see the departures from the paper."""
    volumes: dict[int, float] = {}

    def growth(steps: int) -> float:
        """Of the step that ends ``steps`` below the parameter."""
        for number in (steps - 1, steps):
            if number not in volumes:
                chosen = replace(parameters, fraction=parameters.fraction - number * STEP)
                volumes[number] = mesh.volume(*_grow(image, grid, start, chosen, None, levels=LEVELS[:-1]))
        before, after = volumes[steps - 1], volumes[steps]
        # A surface that turned inside out tells nothing.
        return float(np.log(after / before)) if min(before, after) > 0 else np.inf

    def possible(steps: int, lowest: float) -> bool:
        return parameters.fraction - steps * STEP > lowest - STEP / 2

    steps = 0
    if possible(1, LOWEST) and growth(1) > UNSTABLE:
        while possible(steps + 2, LOWEST) and growth(steps + 2) < growth(steps + 1):
            steps += 1
    else:
        while possible(steps + 1, STEEP_LOWEST) and growth(steps + 1) < STEEP:
            steps += 1
    return parameters.fraction - steps * STEP


def _grow(
    image: np.ndarray,
    grid: Grid,
    start: _Range,
    parameters: BETParameters,
    progress: Progress | None,
    levels: tuple[int, ...] = LEVELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (mm) and faces of the final surface, or of a coarser one of fewer levels."""
    shares = SHARES[: len(levels)]
    vertices = start.centre + 0.5 * start.radius * mesh.icosphere(levels[0])[0]
    limits = np.array([start.low, start.high, start.median])
    for stage, (level, share) in enumerate(zip(levels, shares, strict=True)):
        if stage:
            vertices = mesh.refine(vertices, level)
        rings = mesh.icosphere(level)[2]
        count = max(1, round(share * parameters.iterations))
        size, done = np.array(grid.voxel_size), sum(shares[:stage])
        for first in range(0, count, ROUND):
            old, number = vertices, min(ROUND, count - first)
            vertices = _evolve(image, size, old, rings, limits, parameters.fraction, parameters.smoothness, number)
            if progress:
                progress(done + share * (first + number) / count)
            spread = np.linalg.norm(vertices - vertices.mean(axis=0))
            if np.linalg.norm(vertices - old) < parameters.tolerance * spread:
                break
    return vertices, mesh.icosphere(levels[-1])[1]


def _keep_clear(image: np.ndarray, grid: Grid, vertices: np.ndarray, clearance: float) -> np.ndarray:
    """The surface moved inwards where the dark outside is closer than ``clearance``."""
    rings = mesh.icosphere(LEVELS[-1])[2]
    normals = mesh.outward_normals(vertices, rings)
    gap = _gap_to_dark(image, np.array(grid.voxel_size), vertices, normals, clearance)
    inset = mesh.ring_means(clearance - gap, rings)
    return vertices - inset[:, None] * normals


@kernel
def _gap_to_dark(image, size, vertices, normals, longest):
    """Distance from every vertex outwards to where the image falls below ``DARK`` of its maximum inside, mm."""
    gap = np.full(vertices.shape[0], longest)
    for vertex in range(vertices.shape[0]):
        px, py, pz = vertices[vertex]
        nx, ny, nz = normals[vertex]
        brightest = 0.0
        for step in range(REACH // 2):
            d = -2.0 * step
            value = mesh.interpolated(image, (px + d * nx) / size[0], (py + d * ny) / size[1], (pz + d * nz) / size[2])
            brightest = max(brightest, value)
        d = 0.0
        while d < longest:
            value = mesh.interpolated(image, (px + d * nx) / size[0], (py + d * ny) / size[1], (pz + d * nz) / size[2])
            if value < DARK * brightest:
                gap[vertex] = d
                break
            d += 0.1
    return gap


@kernel
def _evolve(image, size, vertices, rings, limits, fraction, smoothness, iterations):
    low, high, median = limits
    small, large = 10.0 / 3.0, 10.0
    middle = 0.5 * (1 / small + 1 / large)
    steepness = 6.0 / (1 / small - 1 / large)
    threshold = low + 0.1 * (high - low)
    current = vertices.copy()
    moved = vertices.copy()
    extent = np.array([(image.shape[a] - 1) * size[a] for a in range(3)])
    edge = mesh.mean_edge(current, rings)
    for _ in range(iterations):
        for vertex in range(current.shape[0]):
            nx, ny, nz = mesh.outward_normal(current, rings, vertex)
            px, py, pz = current[vertex]
            valence = rings.shape[1] if rings[vertex, rings.shape[1] - 1] >= 0 else rings.shape[1] - 1
            sx = sy = sz = 0.0
            for place in range(valence):
                other = rings[vertex, place]
                sx += current[other, 0]
                sy += current[other, 1]
                sz += current[other, 2]
            sx, sy, sz = sx / valence - px, sy / valence - py, sz / valence - pz
            along = sx * nx + sy * ny + sz * nz
            curvature = 2 * abs(along) / (edge * edge)
            inward = 0.5 * (1 + np.tanh(steepness * (curvature - middle))) * smoothness * along
            least, greatest = median, threshold
            for step in range(REACH):
                distance = 2.0 * step
                value = mesh.interpolated(
                    image,
                    (px - distance * nx) / size[0],
                    (py - distance * ny) / size[1],
                    (pz - distance * nz) / size[2],
                )
                least = min(least, value)
                if step < REACH // 2:
                    greatest = max(greatest, value)
            least, greatest = max(low, least), min(median, greatest)
            local = low + fraction * (greatest - low)
            push = 0.05 * edge * 2 * (least - local) / (greatest - low)
            outside = max(-px, px - extent[0], -py, py - extent[1], -pz, pz - extent[2])
            if outside > OVERHANG and push > 0:
                push = 0.0
            normal = inward + push
            moved[vertex, 0] = px + 0.5 * (sx - along * nx) + normal * nx
            moved[vertex, 1] = py + 0.5 * (sy - along * ny) + normal * ny
            moved[vertex, 2] = pz + 0.5 * (sz - along * nz) + normal * nz
        current, moved = moved, current
    return current
