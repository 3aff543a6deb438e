"""Arrays to pictures: mosaics of slices at a fixed grey window, contours of masks and labels, PNG files.

Slices are shown in neurological orientation (the subject's left on the left), with the aspect of the voxels, and cut
to the mask. A window is fixed in physical units, so that maps of different subjects can be compared by eye. Tiles of a
mosaic are apart from each other: every plane has rows of its own, as many as its tiles need.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmxt.bids.compression import compress_stream

PLANES = ("sagittal", "coronal", "axial")

#: Greatest width of a mosaic, pixels.
WIDTH = 1400

#: Gap between tiles, pixels, and its grey level: tiles themselves end in black.
GAP, GAP_LEVEL = 6, 70

#: Smallest pixel, as a part of the shortest side of a voxel: finer ones would only repeat voxels.
FINEST = 0.25

#: Width of the band of voxels kept around the mask, mm.
MARGIN = 6.0

#: Colours of contours, in their order; they differ in brightness as well.
CONTOURS = ((255, 80, 40), (90, 220, 255), (255, 225, 60))

#: Filter of the rows of a PNG file.
_DIFFERENCE_TO_ROW_ABOVE = 2

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Upright:
    """A volume turned so that its axes run to the subject's right, front and top, as far as voxel axes allow."""

    array: np.ndarray
    voxel_size: tuple[float, float, float]

    @functools.cached_property
    def filled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions along every axis at which a slice has voxels other than 0; all positions if there is none."""
        above, before = (np.asarray(self.array.any(axis=axis)) for axis in (2, 0))
        lines = (np.asarray(above.any(axis=1)), np.asarray(above.any(axis=0)), np.asarray(before.any(axis=0)))
        first, second, third = (np.flatnonzero(line if line.any() else ~line) for line in lines)
        return first, second, third


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


def slice_positions(mask: Upright, axis: int, count: int) -> list[int]:
    """Positions of up to ``count`` slices spread evenly over the mask along ``axis``, away from its ends."""
    filled = mask.filled[axis]
    first, last = int(filled[0]), int(filled[-1])
    if last - first < count:
        return list(range(first, last + 1))
    positions = np.linspace(first, last, count + 2)[1:-1]
    return sorted({round(float(position)) for position in positions})


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey levels 0 to 255 of ``values`` between ``low`` and ``high``, uint8."""
    scaled = values.astype(np.float64)
    scaled -= low
    scaled *= 255.0 / (high - low)
    scaled[np.isnan(scaled)] = 0
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def mosaic(
    volume: Upright, mask: Upright, window: tuple[float, float], *, count: int = 7, contours: Sequence[Upright] = ()
) -> np.ndarray:
    """Slices in three planes (sagittal, coronal, axial), uint8 ``(height, width)``, or with contours ``(..., 3)``.

    Parameters
    ----------
    volume
        What is shown.
    mask
        Where slices are taken and to what they are cut.
    window
        Values shown black and white.
    count
        Most slices of a plane.
    contours
        Masks or labels whose outlines are drawn.
    """
    box = bounding(mask)
    pixel = pixel_length(mask, box, count)
    planes = []
    for axis in range(3):
        places = [(axis, position, box, pixel) for position in slice_positions(mask, axis, count)]
        planes.append(arranged([_tile(volume, place, window, contours) for place in places]))
    width = max(plane.shape[1] for plane in planes)
    return np.concatenate([_widened(plane, width) for plane in planes], axis=0)


def pixel_length(mask: Upright, box: Box, count: int) -> float:
    """Length of a pixel, mm, with which ``count`` of the widest tiles fill a row."""
    extents = [(part.stop - part.start) * size for part, size in zip(box, mask.voxel_size, strict=True)]
    widest = max(extents[0], extents[1])
    return max(widest * count / (WIDTH - (count + 1) * GAP - count), FINEST * min(mask.voxel_size))


def bounding(mask: Upright) -> Box:
    """Box around the mask with a margin, as far as there are voxels."""
    slices = []
    for filled, length, size in zip(mask.filled, mask.array.shape, mask.voxel_size, strict=True):
        margin = int(np.ceil(MARGIN / size))
        slices.append(slice(max(0, int(filled[0]) - margin), min(length, int(filled[-1]) + 1 + margin)))
    return slices[0], slices[1], slices[2]


def arranged(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles of equal size in rows, with a gap around each."""
    height, width = tiles[0].shape[:2]
    columns = max(1, min(len(tiles), (WIDTH - GAP) // (width + GAP)))
    rows = -(-len(tiles) // columns)
    shape = (GAP + rows * (height + GAP), GAP + columns * (width + GAP), *tiles[0].shape[2:])
    picture = np.full(shape, GAP_LEVEL, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top = GAP + (index // columns) * (height + GAP)
        left = GAP + (index % columns) * (width + GAP)
        picture[top : top + height, left : left + width] = tile
    return picture


def _widened(plane: np.ndarray, width: int) -> np.ndarray:
    missing = width - plane.shape[1]
    room = ((0, 0), (missing // 2, missing - missing // 2), *((0, 0),) * (plane.ndim - 2))
    return np.pad(plane, room, constant_values=GAP_LEVEL)


def _tile(
    volume: Upright,
    place: tuple[int, int, Box, float],
    window: tuple[float, float],
    contours: Sequence[Upright],
) -> np.ndarray:
    picture = _enlarged(grey(_cut(volume, *place[:3]), *window), volume, place)
    if not contours:
        return picture
    tile = np.repeat(picture[:, :, None], 3, axis=2)
    for contour, colour in zip(contours, CONTOURS, strict=False):
        tile[outline(_enlarged(_cut(contour, *place[:3]), contour, place))] = colour
    return tile


def _cut(volume: Upright, axis: int, position: int, box: Box) -> np.ndarray:
    """The voxels of one slice."""
    index: list[slice | int] = list(box)
    index[axis] = position
    plane: np.ndarray = volume.array[tuple(index)]
    return plane


def _enlarged(plane: np.ndarray, volume: Upright, place: tuple[int, int, Box, float]) -> np.ndarray:
    """One slice of ``volume``, rows from top to bottom, at square pixels."""
    axis, _, _, pixel = place
    sizes = [size for other, size in enumerate(volume.voxel_size) if other != axis]
    across, up = (_sampled(length, size, pixel) for length, size in zip(plane.shape, sizes, strict=True))
    return plane.take(across, axis=0).take(up[::-1], axis=1).T


@functools.lru_cache(maxsize=64)
def _sampled(length: int, size: float, pixel: float) -> np.ndarray:
    """Index of the voxel under every pixel."""
    pixels = max(1, round(length * size / pixel))
    return np.minimum(((np.arange(pixels) + 0.5) * length / pixels).astype(int), length - 1)


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels of a label (or of a mask) with a neighbour that has another one."""
    padded = np.pad(labels, 1)
    values = padded[1:-1, 1:-1]
    edge: np.ndarray = padded[:-2, 1:-1] != values
    for neighbour in (padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge |= neighbour != values
    edge &= values != 0
    return edge


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 ``(height, width)`` or ``(height, width, 3)``; the same bytes for the same pixels."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    rows = pixels.reshape(height, channels * width)
    lines = np.full((height, 1 + channels * width), _DIFFERENCE_TO_ROW_ABOVE, dtype=np.uint8)
    lines[:1, 1:] = rows[:1]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", compress_stream(lines.data.cast("B"))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
