r"""Registration of images of one subject to each other and of a template to the subject, with ANTs.

An image here is a :class:`Volume`: an array and its affine. A transform is a list of files in the order in which ANTs
takes them: a point of the fixed image goes through the first one first, so the transforms of A -> B -> C are the
list of C's followed by those of B's.

Settings follow measurements on digital heads deformed by 4 mm: the susceptibility map as a second metric of the
deformable stage is worth more than any schedule (Dice of the deep nuclei .77 -> .88). Anatomy is compared by mutual
information, susceptibility, which has the same unit in both, by local cross-correlation (.88 against .86). All runs are
repeatable to the byte: fixed seed, regular sampling, one thread of ITK (its sums depend on the number of threads).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.cropping import bounding_box
from qsmxt.algorithms.statistics.similarity import correlation, mutual_information
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Seed of whatever is random in ANTs.
SEED = 20200318

#: Range of susceptibility that guides registration, ppm; veins, bleedings and noise beyond it are clipped.
CHI_RANGE = (-0.15, 0.25)

#: Grid on which two placements are compared, mm.
_COARSE = 4.0

#: Voxels that a linear stage looks at; six or twelve parameters gain nothing from more.
_SAMPLES = 60_000

#: Oversampling of labels in transport, and most points for which it is affordable.
_FINE, _MOST_POINTS = 2, 30_000_000


@dataclass(frozen=True)
class Volume:
    """An image: array (x, y, z) and voxel-to-scanner matrix, mm."""

    array: np.ndarray
    affine: np.ndarray

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel edges, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def with_array(self, array: np.ndarray) -> Volume:
        """Other values on the same grid."""
        return Volume(array, self.affine)


def ants() -> Any:
    """The ANTs library, held to one thread for good: what it computes must not depend on their number."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["ANTS_RANDOM_SEED"] = str(SEED)
    import ants

    return ants


def read_volume(path: str | Path) -> Volume:
    """The image in ``path``, values scaled as its header says, float32 unless they are integers without scale."""
    from qsmxt.bids.images import choose_affine, open_image, stored_values

    stored, slope, intercept = stored_values(Path(path))
    affine, _ = choose_affine(open_image(Path(path)).header)
    if stored.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0):
        return Volume(np.ascontiguousarray(stored), affine)
    values = stored.astype(np.float32)
    if (slope, intercept) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(intercept)
    return Volume(np.ascontiguousarray(np.nan_to_num(values, posinf=0, neginf=0)), affine)


def to_ants(volume: Volume) -> Any:
    """The volume as an image of ANTs, float32; its world runs to left, back and top."""
    matrix = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(volume.affine, dtype=float)[:3]
    size = np.linalg.norm(matrix[:, :3], axis=0)
    array = np.ascontiguousarray(volume.array, dtype=np.float32)
    return ants().from_numpy(
        array, origin=matrix[:, 3].tolist(), spacing=size.tolist(), direction=_nearest_rotation(matrix[:, :3] / size)
    )


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal matrix nearest to one whose columns are not quite perpendicular."""
    left, _, right = np.linalg.svd(matrix)
    product: np.ndarray = left @ right
    return product


def correct_bias(volume: Volume) -> Volume:
    """The image without the slow inhomogeneity of the coils, its bright tissue at 1 and brighter spots cut off."""
    from qsmxt.algorithms.masking.homogeneity import homogeneity

    positive = np.clip(volume.array.astype(np.float32), 0, None)
    if not positive.any():
        raise InputError("image to register: expected positive intensities, found none; check the magnitude or T1w")
    values = homogeneity(positive, Grid.from_affine(volume.affine, volume.array.shape))
    signal = values[positive > 0.1 * positive.max()]
    top = float(np.percentile(signal, 99)) * 1.2
    return volume.with_array(np.minimum(values, np.float32(top)) / np.float32(top))


def placements(fixed: Volume, moving: Volume) -> list[np.ndarray]:
    """Where a search may start: scanner coordinates as they are, and centres of the heads on each other.

    Each is a 4 x 4 matrix from the fixed to the moving image's world, mm.
    """
    shift = np.eye(4)
    shift[:3, 3] = _centre(moving) - _centre(fixed)
    return [np.eye(4), shift]


def _centre(volume: Volume) -> np.ndarray:
    """Centre of the intensities in scanner coordinates."""
    weight = np.clip(volume.array, 0, None).astype(np.float64)
    total = weight.sum()
    axes = ((1, 2), (0, 2), (0, 1))
    middle = [
        float(weight.sum(axis=other) @ np.arange(n)) / total for other, n in zip(axes, volume.array.shape, strict=True)
    ]
    point: np.ndarray = volume.affine[:3, :3] @ np.array(middle) + volume.affine[:3, 3]
    return point


def write_affine(matrix: np.ndarray, path: Path) -> str:
    """Write a matrix from the fixed to the moving world (right, front, top) as a transform file of ANTs."""
    turned = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix @ np.diag([-1.0, -1.0, 1.0, 1.0])
    transform = ants().create_ants_transform(
        transform_type="AffineTransform", precision="double", dimension=3, matrix=turned[:3, :3], offset=turned[:3, 3]
    )
    ants().write_transform(transform, str(path))
    return str(path)


def read_affine(path: str) -> np.ndarray:
    """Inverse of :func:`write_affine`, for any linear transform file of ANTs."""
    transform = ants().read_transform(path)
    values, centre = np.asarray(transform.parameters), np.asarray(transform.fixed_parameters)
    if values.size == 6:
        points = np.vstack([np.zeros(3), np.eye(3)])
        moved = np.array([transform.apply_to_point(point.tolist()) for point in points])
        linear, offset = (moved[1:] - moved[0]).T, moved[0]
    else:
        linear = values[:9].reshape(3, 3)
        offset = values[9:] + centre - linear @ centre
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, offset
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    product: np.ndarray = flip @ matrix @ flip
    return product


@dataclass(frozen=True)
class Stage:
    """A linear stage: kind of transform, grid (mm) and iterations of every level."""

    kind: str
    levels: tuple[float, ...]
    iterations: tuple[int, ...]

    def arguments(self, fixed: Volume, metric: str) -> list[str]:
        """Options of antsRegistration; images are smoothed by half the length of a level.

        Levels finer than the image would repeat the one before and are left out.
        """
        factors = [max(1, round(level / min(fixed.voxel_size))) for level in self.levels]
        used = {factor: place for place, factor in reversed(list(enumerate(factors)))}
        levels = [(self.levels[k], self.iterations[k], factor) for factor, k in sorted(used.items(), reverse=True)]
        return [
            "--transform", f"{self.kind}[0.1]", "--metric", metric,
            "--convergence", f"[{'x'.join(str(steps) for _, steps, _ in levels)},1e-6,10]",
            "--shrink-factors", "x".join(str(factor) for _, _, factor in levels),
            "--smoothing-sigmas", "x".join(f"{0.5 * level * (f > 1):g}" for level, _, f in levels) + "mm",
        ]  # fmt: skip


def register_rigid(
    fixed: Volume,
    moving: Volume,
    mask: np.ndarray | None,
    folder: Path,
    *,
    starts: Sequence[np.ndarray] | None = None,
) -> str:
    """Rigid transform of ``moving`` to ``fixed`` by mutual information; returns its file.

    The fixed image should be the one with the smaller coverage. The search starts from every placement (or from
    ``starts``, matrices from the fixed to the moving world) on a coarse grid, and the best of the results is refined.
    """
    best = search(fixed, moving, mask, folder / "rigid", starts)
    fine = Stage("Rigid", (4.0, 2.0, 1.0), (200, 100, 30))
    return run_linear(fixed, moving, [fine], best, folder / "rigid", mask)


def search(
    fixed: Volume,
    moving: Volume,
    mask: np.ndarray | None,
    prefix: Path,
    starts: Sequence[np.ndarray] | None = None,
) -> str:
    """The best rigid transform on coarse grids from all placements."""
    coarse = Stage("Rigid", (8.0, 6.0), (500, 250))
    found = []
    for number, start in enumerate(placements(fixed, moving) if starts is None else starts):
        initial = write_affine(start, Path(f"{prefix}-start{number}.mat"))
        file = run_linear(fixed, moving, [coarse], initial, Path(f"{prefix}-coarse{number}-"), mask)
        found.append((similarity(fixed, moving, [file], mask), -number, file))
    return max(found)[2]


def mirrored_similarity(fixed: Volume, moving: Volume, rigid: str, mask: np.ndarray | None, folder: Path) -> float:
    """Similarity of ``fixed`` to the mirror image of ``moving``, aligned on a coarse grid from the transform ``rigid``.

    Heads are nearly symmetric, but not quite: where the mirror image fits better, one of the images has left and right
    exchanged.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * _centre(moving)[0]
    turned = Volume(moving.array, mirror @ moving.affine)
    found = run_linear(fixed, turned, [Stage("Rigid", (8.0, 4.0), (200, 100))], rigid, folder / "mirrored", mask)
    return similarity(fixed, turned, [found], mask)


def run_linear(
    fixed: Volume, moving: Volume, stages: Sequence[Stage], initial: str, prefix: Path, mask: np.ndarray | None
) -> str:
    """Linear stages; returns the one file into which they are collapsed."""
    images = Pointers()
    f, m = images.add(fixed), images.add(moving)
    arguments = ["--dimensionality", "3", "-r", initial]
    for stage in stages:
        metric = f"MI[{f},{m},1,32,Regular,{_sampling(fixed, mask):g}]"
        arguments += [*stage.arguments(fixed, metric), "-x", images.masks(fixed, mask)]
    call(arguments, images, prefix)
    return f"{prefix}0GenericAffine.mat"


def _sampling(fixed: Volume, mask: np.ndarray | None) -> float:
    """Share of the voxels that a linear stage looks at."""
    count = fixed.array.size if mask is None or not mask.any() else int(mask.sum())
    return float(np.clip(_SAMPLES / count, 0.02, 1.0))


class Pointers:
    """Images as arguments of ANTs, kept alive while it works."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def add(self, volume: Volume) -> str:
        from ants.internal import get_pointer_string

        self.kept.append(to_ants(volume).clone("float"))
        return str(get_pointer_string(self.kept[-1]))

    def masks(self, fixed: Volume, mask: np.ndarray | None) -> str:
        if mask is None or not mask.any():
            return "[NA,NA]"
        from ants.internal import get_pointer_string

        self.kept.append(to_ants(fixed.with_array(mask)).clone("unsigned char"))
        return f"[{get_pointer_string(self.kept[-1])},NA]"


def call(arguments: list[str], images: Pointers, prefix: Path) -> None:
    """Run antsRegistration with a fixed seed."""
    fixed = ["-u", "0", "-z", "1", "--float", "1", "--random-seed", str(SEED), "--write-composite-transform", "0"]
    try:
        ants().registration(fixed=[*arguments, *fixed, "--output", str(prefix)], moving=None)
    except RuntimeError as error:
        raise InputError(
            f"registration failed ({error}); expected two images of a head that overlap, check their orientation"
        ) from None


def resample(
    moving: Volume,
    reference: Volume,
    transforms: Sequence[str],
    inverted: Sequence[bool] | None = None,
    *,
    interpolation: str = "linear",
) -> np.ndarray:
    """``moving`` on the grid of ``reference`` in one interpolation, float32."""
    result = ants().apply_transforms(
        fixed=to_ants(reference), moving=to_ants(moving), transformlist=list(transforms), interpolator=interpolation,
        whichtoinvert=list(inverted) if inverted is not None else [False] * len(transforms),
    )  # fmt: skip
    array: np.ndarray = np.ascontiguousarray(result.numpy(), dtype=np.float32)
    return array


@dataclass(frozen=True)
class Transported:
    """Labels on another grid; ``shares`` is how much of each voxel every label fills, where it was found out."""

    labels: np.ndarray
    shares: dict[int, np.ndarray]


def transport_labels(
    labels: Volume, reference: Volume, transforms: Sequence[str], inverted: Sequence[bool] | None = None
) -> Transported:
    """Labels on the grid of ``reference`` in one interpolation through all transforms.

    The nearest label is looked up at eight points of every voxel. A voxel gets the label that fills most of it; the
    fractions are the shares. Where that would take too many points (an atlas of the whole brain at high resolution),
    one point must do and there are no shares.
    """
    present = np.unique(labels.array)
    if present.size and present.max() > np.iinfo(np.int32).max:
        raise InputError(f"labels: expected indices below 2^31, found {present.max()}")
    codes = np.searchsorted(present, labels.array).astype(np.float32)
    coded = labels.with_array(codes)
    zero = int(np.searchsorted(present, 0)) if 0 in present else -1
    once = resample(coded, reference, transforms, inverted, interpolation="nearestNeighbor").astype(np.int32)
    values = _with_background(present)
    if zero < 0:
        return Transported(values[once], {})
    box = box_around(once != zero)
    if box is None or _FINE**3 * np.prod([s.stop - s.start for s in box]) > _MOST_POINTS:
        return Transported(values[once], {})
    fine = _refined(reference, box)
    looked_up = resample(coded, fine, transforms, inverted, interpolation="nearestNeighbor").astype(np.int32)
    shape = once[box].shape
    best, most = np.full(shape, zero, np.int32), np.zeros(shape, np.float32)
    shares: dict[int, np.ndarray] = {}
    for code in np.unique(looked_up).tolist():
        share = _block_mean(looked_up == code)
        larger = share > most
        best[larger], most[larger] = code, share[larger]
        if code != zero:
            full = np.zeros(once.shape, np.float32)
            full[box] = share
            shares[int(values[code])] = full
    chosen = np.full(once.shape, zero, np.int32)
    chosen[box] = best
    return Transported(values[chosen], shares)


def _with_background(present: np.ndarray) -> np.ndarray:
    kind = np.int16 if present.size == 0 or present.max() <= np.iinfo(np.int16).max else np.int32
    return present.astype(kind)


def box_around(mask: np.ndarray, margin: Sequence[float] = (1, 1, 1)) -> tuple[slice, slice, slice] | None:
    """Box of a mask with a margin in voxels, cut at the edge; ``None`` if the mask is empty."""
    if not mask.any():
        return None
    starts, stops = bounding_box(mask)
    sides = zip(starts, stops, mask.shape, margin, strict=True)
    x, y, z = (slice(max(0, a - round(m)), min(n, b + round(m))) for a, b, n, m in sides)
    return x, y, z


def _refined(reference: Volume, box: tuple[slice, slice, slice]) -> Volume:
    """Grid of the points at the eighths of every voxel of ``box``."""
    scale = np.diag([1 / _FINE] * 3 + [1.0])
    scale[:3, 3] = [s.start - 0.5 + 0.5 / _FINE for s in box]
    shape = tuple(_FINE * (s.stop - s.start) for s in box)
    return Volume(np.zeros(shape, np.float32), reference.affine @ scale)


def _block_mean(fine: np.ndarray) -> np.ndarray:
    x, y, z = (n // _FINE for n in fine.shape)
    blocks = fine.reshape(x, _FINE, y, _FINE, z, _FINE)
    mean: np.ndarray = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return mean


def part(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    """A box of the volume."""
    shift = np.eye(4)
    shift[:3, 3] = [s.start for s in box]
    return Volume(np.ascontiguousarray(volume.array[box]), volume.affine @ shift)


def regridded(volume: Volume, size: Sequence[float]) -> Volume:
    """Empty grid that covers the volume with voxels of about ``size`` mm."""
    lengths = [n * v for n, v in zip(volume.array.shape, volume.voxel_size, strict=True)]
    shape = tuple(max(1, round(length / edge)) for length, edge in zip(lengths, size, strict=True))
    factors = [n / m for n, m in zip(volume.array.shape, shape, strict=True)]
    scale = np.diag([*factors, 1.0])
    scale[:3, 3] = [0.5 * f - 0.5 for f in factors]
    return Volume(np.zeros(shape, np.float32), volume.affine @ scale)


def at_resolution(volume: Volume, size: float, box: tuple[slice, slice, slice] | None = None) -> Volume:
    """Grid that covers the volume, or a box of it, with isotropic voxels of ``size`` mm, no finer than the volume."""
    inside = volume if box is None else part(volume, box)
    return regridded(inside, [max(size, edge) for edge in volume.voxel_size])


def similarity(fixed: Volume, moving: Volume, transforms: Sequence[str], mask: np.ndarray | None) -> float:
    """Informational correlation (0 to 1) of two images under a transform, on a coarse grid of the fixed one."""
    coarse = at_resolution(fixed, _COARSE)
    here = resample(fixed, coarse, [])
    there = resample(moving, coarse, transforms)
    inside = here > 0 if mask is None or not mask.any() else resample(fixed.with_array(mask), coarse, []) > 0.5
    if np.count_nonzero(inside) < 100:
        return 0.0
    return correlation(mutual_information(here, there, inside, bins=16))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0
