"""Open NIfTI images, and say clearly what is wrong with one that cannot be used."""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids import compression
from qsmxt.errors import InputError, MissingInputError

#: First bytes of an unlocked git-annex file whose content is not here.
_ANNEX_POINTER = b"/annex/objects/"

#: Largest displacement of a voxel (fraction of the smallest voxel edge) between images on "the same" grid.
GRID_TOLERANCE = 0.05

#: Angle between the frames of sform and qform (degrees) above which they count as different.
FRAME_TOLERANCE = 1.0

#: The deflate format never shrinks anything more than this.
MOST_COMPRESSION = 1032

_HEADER_BYTES = 348

#: Where the voxels begin in a file of one piece without extensions.
_FIRST_VOXEL = 352

_CODE_NAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI152", 5: "template"}


@dataclass(frozen=True)
class Header:
    """Geometry of an image: shape of the volume, affine (mm), and remarks about how the affine was chosen."""

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    notes: tuple[str, ...] = ()


def open_image(path: Path) -> Any:
    """The nibabel image in ``path``, header read, data untouched.

    Raises
    ------
    MissingInputError
        If the file does not exist, is a broken link, or is a git-annex placeholder.
    InputError
        If it is empty, truncated or no NIfTI image.
    """
    import nibabel

    _check_content(path)
    try:
        image = nibabel.load(path)
    except Exception as error:
        raise InputError(
            f"{path}: expected a NIfTI image, found a file that cannot be read as one ({_one_line(error)}); "
            "convert or copy it again"
        ) from None
    if not isinstance(image, nibabel.Nifti1Pair):
        raise InputError(f"{path}: expected a NIfTI image, found {type(image).__name__}; convert it")
    _check_length(path, image.shape, _announced_bytes(image.header))
    return image


def read_header(path: Path) -> Header:
    """Geometry of the 3-D image in ``path``; errors as in :func:`open_image`, or if it is not one volume."""
    start = _plain_start(path)
    found = None if start is None else _described(start)
    if found is None:
        found = _Described.of(open_image(path).header)
    else:
        _check_length(path, found.shape, found.bytes)
    notes = tuple(f"{path.name}: {note}" for note in found.notes)
    return Header(path, volume_shape(path, found.shape), found.affine, notes)


@dataclass(frozen=True)
class _Described:
    """What a header says: shape, type and place of the voxels, length of the uncompressed file, affine, remarks."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float | None, float | None]
    affine: np.ndarray
    notes: tuple[str, ...]

    @classmethod
    def of(cls, header: Any) -> _Described:
        affine, notes = choose_affine(header)
        affine.setflags(write=False)
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
        return cls(tuple(map(int, shape)), dtype, int(offset), header.get_slope_inter(), affine, tuple(notes))

    @property
    def bytes(self) -> int:
        return self.offset + math.prod(self.shape) * int(self.dtype.itemsize)


def _plain_start(path: Path) -> bytes | None:
    """What decides about voxels and geometry in the header of an ordinary NIfTI-1 file; ``None`` if it is none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES if path.suffix == ".nii" else 4096)
        if path.suffix == ".gz":
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, _HEADER_BYTES)
    except (OSError, zlib.error):
        return None
    if len(start) != _HEADER_BYTES or int.from_bytes(start[:4], "little") != len(start) or start[344:] != b"n+1\0":
        return None
    kept = bytearray(len(start))
    for part in (slice(0, 4), slice(40, 56), slice(70, 74), slice(76, 120), slice(252, 348)):
        kept[part] = start[part]
    return bytes(kept)


@functools.lru_cache(maxsize=1024)
def _described(start: bytes) -> _Described | None:
    """What a header says, looked at once for all images of an acquisition; ``None`` if it is not sound."""
    import nibabel

    try:
        return _Described.of(nibabel.Nifti1Header.from_fileobj(io.BytesIO(start)))
    except Exception:
        return None


def stored_values(path: Path) -> tuple[np.ndarray, float, float]:
    """Numbers as they are stored (x, y, z), with the slope and intercept of the header.

    A slope of 0, or one that is not finite, means that there is no scaling.
    """
    start = _plain_start(path) if path.name.endswith(".nii.gz") else None
    found = None if start is None else _described(start)
    return _checked(path, *(_stored(path) if found is None else _unpacked(path, found)))


def _checked(path: Path, stored: np.ndarray, slope: float, intercept: float) -> tuple[np.ndarray, float, float]:
    """Real numbers with a slope and an intercept that can be used."""
    if stored.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: expected real numbers, found values of type {stored.dtype}; "
            "store magnitude and phase, or real and imaginary part, as separate images"
        )
    if not np.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    return stored, slope, intercept if np.isfinite(intercept) else 0.0


def read_series(path: Path) -> tuple[Header, np.ndarray]:
    """Geometry and values (float32, scaled by the header) of one or several volumes, ``(volume, x, y, z)``.

    Raises
    ------
    MissingInputError, InputError
        As :func:`open_image`; or if there are more than four axes longer than one.
    """
    if len(shape := open_image(path).shape) <= 3 or all(n == 1 for n in shape[3:]):
        stored, slope, intercept = stored_values(path)
        return read_header(path), _scaled(stored, slope, intercept)[None]
    image = open_image(path)
    more = [n for n in shape[3:] if n != 1]
    if len(more) > 1:
        raise InputError(
            f"{path}: expected volumes on the fourth axis, found shape {tuple(shape)}; split it into files of four axes"
        )
    volume = (int(shape[0]), int(shape[1]), int(shape[2]))
    affine, notes = choose_affine(image.header)
    stored, slope, intercept = _checked(path, *_unscaled(path, image, (*volume, more[0])))
    values = np.moveaxis(_scaled(stored, slope, intercept), -1, 0)
    return Header(path, volume, affine, tuple(notes)), np.ascontiguousarray(values)


def _scaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    return np.ascontiguousarray(stored * slope + intercept, dtype=np.float32)


def _stored(path: Path) -> tuple[np.ndarray, float, float]:
    """Voxels, slope and intercept of any image that nibabel reads."""
    image = open_image(path)
    return _unscaled(path, image, volume_shape(path, image.shape))


def _unscaled(path: Path, image: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, float, float]:
    proxy: Any = image.dataobj
    try:
        stored = np.asanyarray(proxy.get_unscaled())
    except Exception as error:
        raise _ends_early(path, image.shape, error) from None
    return stored.reshape(shape), float(proxy.slope), float(proxy.inter)


def _unpacked(path: Path, found: _Described) -> tuple[np.ndarray, float, float]:
    """Voxels, slope and intercept of a compressed file whose header is sound."""
    shape = volume_shape(path, found.shape)
    _check_length(path, found.shape, found.bytes)
    try:
        content = compression.read(path, found.bytes)
    except compression.DAMAGED as error:
        raise _ends_early(path, found.shape, error) from None
    slope, intercept = found.scaling
    stored = content[found.offset :].view(found.dtype).reshape(shape, order="F")
    return stored, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _ends_early(path: Path, shape: tuple[int, ...], error: BaseException) -> InputError:
    return InputError(
        f"{path}: expected {tuple(shape)} voxels, found a file that ends early ({_one_line(error)}); copy it again"
    )


def multiplied(stored: np.ndarray, factor: float, target: np.ndarray) -> None:
    """Write ``stored`` times ``factor`` to ``target`` (float32), both of shape (x, y, z).

    Files run along x and arrays along z: plane by plane, both stay in the processor's cache.
    """
    for y in range(stored.shape[1]):
        np.multiply(stored[:, y], np.float32(factor), out=target[:, y], casting="unsafe")


def file_content(image: Any) -> bytearray:
    """The NIfTI-1 file of an image of three or four axes in memory: the bytes of nibabel, in a tenth of its time."""
    header, array = image.header.copy(), np.asarray(image.dataobj)
    if header.get_slope_inter() == (None, None):
        header.set_slope_inter(1.0, 0.0)
    header["magic"], header["vox_offset"] = b"n+1", _FIRST_VOXEL
    content = bytearray(_FIRST_VOXEL + array.nbytes)
    content[:_HEADER_BYTES] = header.binaryblock
    stored = np.frombuffer(content, array.dtype, offset=_FIRST_VOXEL).reshape(array.shape, order="F")
    for y in range(array.shape[1]):
        stored[:, y] = array[:, y]
    return content


def volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of a single volume; trailing axes of length one are dropped."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise InputError(
            f"{path}: expected one volume (three axes), found shape {tuple(shape)}; "
            "store every echo in a file of its own, as BIDS requires"
        )
    x, y, z = (*shape, 1)[:3]
    return int(x), int(y), int(z)


def choose_affine(header: Any) -> tuple[np.ndarray, list[str]]:
    """Voxel-to-scanner matrix of a NIfTI header, with remarks.

    The direction of B0 follows from it, so the transform to scanner coordinates (code 1) is preferred, the
    sform before the qform; then one that was aligned to another image (code 2); one to a template (3, 4) turns
    B0 and is used only if there is nothing else.
    """
    codes = {"sform": int(header["sform_code"]), "qform": int(header["qform_code"])}
    matrices: dict[str, np.ndarray] = {}
    rank, notes = {1: 0, 2: 1}, []
    for kind in (kind for kind in ("sform", "qform") if codes[kind] > 0):
        try:
            matrices[kind] = _transform(header, kind)
        except ValueError as error:
            notes.append(f"the {kind} holds no transform ({_one_line(error)}) and is not used")
    known = list(matrices)
    if not known:
        missing = "neither sform nor qform is set; B0 is taken to lie along the third axis of the image"
        return header.get_base_affine(), [*notes, missing]
    chosen = min(known, key=lambda kind: rank.get(codes[kind], 2))
    if len(known) == 2:
        angle = _frame_angle(matrices["sform"], matrices["qform"])
        if angle > FRAME_TOLERANCE:
            names = {kind: _CODE_NAMES.get(codes[kind], str(codes[kind])) for kind in known}
            notes.append(
                f"sform ({names['sform']}) and qform ({names['qform']}) differ by {angle:.1f} degrees; "
                f"the {chosen} gives the direction of B0"
            )
    if rank.get(codes[chosen], 2) == 2:
        space = _CODE_NAMES.get(codes[chosen], "another")
        notes.append(f"the only transform leads to {space} space, not to the scanner; B0 may lie elsewhere")
    return np.asarray(matrices[chosen], dtype=np.float64), notes


def _transform(header: Any, kind: str) -> np.ndarray:
    """Matrix of the sform or qform; :class:`ValueError` if its numbers are none."""
    matrix: np.ndarray = header.get_sform() if kind == "sform" else header.get_qform()
    if not np.isfinite(matrix).all():
        raise ValueError("its numbers are not finite")
    return matrix


def check_same_grid(first: Header, other: Header) -> None:
    """Raise :class:`InputError` unless both images have the same voxels in the same places."""
    if first.shape != other.shape:
        raise InputError(
            f"{other.path}: expected the shape {first.shape} of {first.path.name}, found {other.shape}; "
            "all images of one acquisition must share one grid"
        )
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    corners[:, :3] *= first.shape
    distance = float(np.abs((first.affine - other.affine) @ corners.T)[:3].max())
    voxel = float(np.linalg.norm(first.affine[:3, :3], axis=0).min())
    if not distance <= GRID_TOLERANCE * voxel:
        raise InputError(
            f"{other.path}: expected the affine of {first.path.name}, found one that moves voxels by up to "
            f"{distance:.3g} mm; all images of one acquisition must share one grid"
        )


def _frame_angle(first: np.ndarray, second: np.ndarray) -> float:
    cosines = []
    for a, b in zip(first[:3, :3].T, second[:3, :3].T, strict=True):
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosines.append(float(a @ b) / norm if norm > 0 else 1.0)
    return float(np.degrees(np.arccos(np.clip(min(cosines), -1.0, 1.0))))


def _check_content(path: Path) -> None:
    if not path.exists():
        if path.is_symlink():
            raise MissingInputError(
                f"{path}: expected an image, found a broken link; fetch its content (datalad get, git annex get)"
            )
        raise MissingInputError(f"{path}: expected an image, found no such file")
    if not path.is_file():
        raise MissingInputError(f"{path}: expected an image, found a folder")
    try:
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise MissingInputError(f"{path}: expected a readable image, found {error.strerror}") from None
    if not start:
        raise InputError(f"{path}: expected a NIfTI image, found an empty file; convert or copy it again")
    if start.startswith(_ANNEX_POINTER):
        raise MissingInputError(
            f"{path}: expected an image, found a git-annex placeholder; fetch its content (datalad get)"
        )


def _announced_bytes(header: Any) -> int:
    voxels = math.prod(map(int, header.get_data_shape()))
    return int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)


def _check_length(path: Path, shape: Sequence[int], expected: int) -> None:
    """A truncated file has a sound header: compare the length it announces with the length there is."""
    if path.name.endswith(".gz"):
        found = _uncompressed_length(path, expected)
    else:
        found = path.stat().st_size
    if found < expected:
        raise InputError(
            f"{path}: expected {expected} bytes for {tuple(shape)} voxels, found {found}: the file is truncated; "
            "convert or copy it again"
        )


def _uncompressed_length(path: Path, expected: int) -> int:
    """Length of the content of a gzip file, counted up to ``expected``.

    The last four bytes of a sound file hold it modulo 2^32; only if they disagree is the file read. No file holds more
    than :data:`MOST_COMPRESSION` times its own length.
    """
    with path.open("rb") as stream:
        stored = stream.seek(0, 2)
        stream.seek(-min(4, stored), 2)
        announced = int.from_bytes(stream.read(4), "little")
    most = MOST_COMPRESSION * stored
    if expected > most:
        return most
    if announced == expected % 2**32:
        return expected
    return compression.length(path, expected)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
