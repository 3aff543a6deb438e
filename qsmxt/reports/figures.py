"""Arrays to pictures: mosaics of slices at a fixed grey window, contours of a mask, PNG files.

Slices are shown in neurological orientation (the subject's left on the left), with the aspect of the voxels, and cut
to the mask. A window is fixed in physical units, so that maps of different subjects can be compared by eye.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

PLANES = ("sagittal", "coronal", "axial")

#: Length of a pixel of a mosaic, mm.
PIXEL = 0.5

#: Width of the band of voxels kept around the mask, mm.
MARGIN = 6.0

#: Colour of a mask's contour.
CONTOUR = (255, 80, 40)


@dataclass(frozen=True)
class Upright:
    """A volume turned so that its axes run to the subject's right, front and top, as far as voxel axes allow."""

    array: np.ndarray
    voxel_size: tuple[float, float, float]


def upright(array: np.ndarray, affine: np.ndarray) -> Upright:
    """``array`` with its axes permuted and flipped to the nearest of right, anterior, superior."""
    directions = np.asarray(affine, dtype=float)[:3, :3]
    size = np.sqrt((directions**2).sum(axis=0))
    cosines = np.abs(directions / size)
    order = _assignment(cosines)
    turned = np.transpose(array, order)
    for axis, source in enumerate(order):
        if directions[axis, source] < 0:
            turned = np.flip(turned, axis)
    return Upright(turned, (float(size[order[0]]), float(size[order[1]]), float(size[order[2]])))


def _assignment(cosines: np.ndarray) -> tuple[int, int, int]:
    """Voxel axis of every world axis: the permutation with the largest sum of cosines."""
    from itertools import permutations

    orders = [(x, y, z) for x, y, z in permutations(range(3))]
    return max(orders, key=lambda order: float(sum(cosines[world, order[world]] for world in range(3))))


def slice_positions(mask: np.ndarray, axis: int, count: int) -> list[int]:
    """Positions of ``count`` slices spread evenly over the mask along ``axis``, away from its ends."""
    others = tuple(other for other in range(3) if other != axis)
    filled = np.flatnonzero(mask.any(axis=others))
    if filled.size == 0:
        filled = np.arange(mask.shape[axis])
    first, last = int(filled[0]), int(filled[-1])
    positions = np.linspace(first, last, count + 2)[1:-1]
    return [round(float(position)) for position in positions]


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey levels 0 to 255 of ``values`` between ``low`` and ``high``, uint8."""
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def mosaic(
    volume: Upright, mask: Upright, window: tuple[float, float], *, count: int = 7, contour: Upright | None = None
) -> np.ndarray:
    """Three rows of slices (sagittal, coronal, axial), uint8 ``(height, width, 3)``.

    Parameters
    ----------
    volume
        What is shown.
    mask
        Where slices are taken and to what they are cut.
    window
        Values shown black and white.
    count
        Slices in a row.
    contour
        A mask whose outline is drawn.
    """
    box = _box(mask)
    rows = []
    for axis in range(3):
        tiles = [
            _tile(volume, axis, position, box, window, contour) for position in slice_positions(mask.array, axis, count)
        ]
        rows.append(_row(tiles))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_widened(row, width) for row in rows], axis=0)


def _box(mask: Upright) -> tuple[slice, slice, slice]:
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.array.any(axis=others))
        margin = int(np.ceil(MARGIN / mask.voxel_size[axis]))
        if filled.size == 0:
            slices.append(slice(0, mask.array.shape[axis]))
        else:
            slices.append(slice(max(0, int(filled[0]) - margin), int(filled[-1]) + 1 + margin))
    return slices[0], slices[1], slices[2]


def _tile(
    volume: Upright,
    axis: int,
    position: int,
    box: tuple[slice, slice, slice],
    window: tuple[float, float],
    contour: Upright | None,
) -> np.ndarray:
    picture = grey(_cut(volume, axis, position, box), *window)
    tile = np.repeat(picture[:, :, None], 3, axis=2)
    if contour is not None:
        inside = _cut(contour, axis, position, box) > 0.5
        tile[_outline(inside)] = CONTOUR
    return tile


def _cut(volume: Upright, axis: int, position: int, box: tuple[slice, slice, slice]) -> np.ndarray:
    """One slice, rows from top to bottom, at square pixels."""
    index: list[slice | int] = list(box)
    index[axis] = position
    plane = volume.array[tuple(index)]
    sizes = [size for other, size in enumerate(volume.voxel_size) if other != axis]
    across, up = (_sampled(length, size) for length, size in zip(plane.shape, sizes, strict=True))
    return plane[np.ix_(across, up)].T[::-1]


def _sampled(length: int, size: float) -> np.ndarray:
    """Index of the voxel under every pixel."""
    pixels = max(1, round(length * size / PIXEL))
    return np.minimum(((np.arange(pixels) + 0.5) * length / pixels).astype(int), length - 1)


def _outline(inside: np.ndarray) -> np.ndarray:
    """Pixels of ``inside`` with a neighbour outside."""
    padded = np.pad(inside, 1)
    kept = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: np.ndarray = inside & ~kept
    return outline


def _row(tiles: list[np.ndarray]) -> np.ndarray:
    height = max(tile.shape[0] for tile in tiles)
    return np.concatenate([np.pad(tile, ((0, height - tile.shape[0]), (1, 1), (0, 0))) for tile in tiles], axis=1)


def _widened(row: np.ndarray, width: int) -> np.ndarray:
    missing = width - row.shape[1]
    return np.pad(row, ((1, 1), (missing // 2, missing - missing // 2), (0, 0)))


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 ``(height, width, 3)``; the same bytes for the same pixels."""
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    lines[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
