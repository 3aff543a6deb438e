"""Arrays of a method from NIfTI files, and what JSON files tell of the acquisition and of parameters.

Several volumes of one array are one file with the volumes on its fourth axis, or a file each. Uncombined coils are a
file for every echo with the coils on its fourth axis, or a file for every echo of every coil: these are ordered by
``echo-`` and ``coil-`` in their names, and if the names tell nothing, they are all coils of the first echo, then those
of the second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsmxt.bids.entities import parse_name
from qsmxt.errors import InputError, MissingInputError, ParameterError
from qsmxt.registry.artifacts import ARTIFACTS, STACKED

if TYPE_CHECKING:
    import numpy as np

    from qsmxt.bids.images import Header

#: Entries of a JSON file that are arrays of the acquisition.
ACQUISITION = {"TE": "echo_times", "B0": "field_strength"}
#: Other entries that make a JSON file one of the acquisition.
DIRECTION, VOXELS = "B0_dir", "voxel_size"
#: Largest relative difference of the voxel size that a file states from that of the images.
VOXEL_TOLERANCE = 0.01

#: Images of a single volume that may be given as echoes, of which the root sum of squares is taken.
SUMMED = ("mask_input",)


@dataclass
class Stated:
    """What JSON files state: arrays by name, direction of B0, voxel size (mm), parameters, and what they are not."""

    arrays: dict[str, Any] = field(default_factory=dict)
    b0_direction: tuple[float, ...] | None = None
    voxel_size: tuple[float, ...] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def read_stated(files: Sequence[Path], parameters: Sequence[str]) -> Stated:
    """Everything that ``files`` state, later ones first; ``parameters`` are the names of those of the method.

    A file with ``TE`` (s), ``B0`` (T), ``B0_dir`` (voxel axes) or ``voxel_size`` (mm) describes an acquisition: of its
    other entries those count that are parameters. In any other file all are taken for parameters.

    Raises
    ------
    MissingInputError
        If a file cannot be read.
    ParameterError
        If it is no JSON object, or an entry of the acquisition holds no numbers.
    """
    stated = Stated()
    for file in files:
        values = _json_object(file)
        of_acquisition = bool(values.keys() & {*ACQUISITION, DIRECTION, VOXELS})
        for key, value in values.items():
            if key in ACQUISITION:
                stated.arrays[ACQUISITION[key]] = _numbers(file, key, value)
            elif key == DIRECTION:
                stated.b0_direction = _numbers(file, key, value, 3)
            elif key == VOXELS:
                stated.voxel_size = _numbers(file, key, value, 3)
            elif of_acquisition and key not in parameters:
                stated.ignored += (key,)
            else:
                stated.parameters[key] = value
    return stated


def _json_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"--params {file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ParameterError(f"--params {file}: expected JSON, found {error}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"--params {file}: expected a JSON object, found {type(values).__name__}")
    return values


def _numbers(file: Path, key: str, value: Any, count: int | None = None) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    good = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
    if not good or not numbers or (count is not None and len(numbers) != count):
        expected = "numbers" if count is None else f"{count} numbers"
        raise ParameterError(f"--params {file}: {key}: expected {expected}, found {value!r}")
    return tuple(float(v) for v in numbers)


def load_arrays(given: Mapping[str, Any], owner: str) -> tuple[dict[str, Any], np.ndarray]:
    """All arrays, and the affine that the images share.

    Parameters
    ----------
    given
        Numbers or files by the names of the arrays.
    owner
        Whom messages name.

    Raises
    ------
    InputError
        If images do not share a grid, their number does not agree with the echo times, or there is none.
    """
    import numpy as np

    arrays: dict[str, Any] = {}
    first: Header | None = None
    images = {name: value for name, value in given.items() if ARTIFACTS[name].kind != "acquisition"}
    for name, value in given.items():
        if name not in images:
            numbers = np.asarray(value, dtype=np.float64)
            arrays[name] = float(numbers.reshape(-1)[0]) if name == "field_strength" else np.atleast_1d(numbers)
    for name, value in images.items():
        read = [_read(file, first) for file in (value if isinstance(value, list) else [value])]
        first = first or read[0].header
        arrays[name] = _as_declared(name, read, arrays.get("echo_times"))
    if first is None:
        raise InputError(f"{owner}: expected at least one image, found none")
    return arrays, first.affine


@dataclass(frozen=True)
class _File:
    """A file: where it is, its geometry and its values, (volume, x, y, z) of float32."""

    header: Header
    values: np.ndarray

    @property
    def path(self) -> Path:
        return self.header.path


def _read(path: Path, first: Header | None) -> _File:
    from qsmxt.bids.images import check_same_grid, read_series

    header, values = read_series(path)
    if first is not None:
        check_same_grid(first, header)
    return _File(header, values)


def _as_declared(name: str, files: Sequence[_File], echo_times: Any) -> np.ndarray:
    """The array as methods take it: volumes first, masks bool, C order."""
    import numpy as np

    kind = ARTIFACTS[name].kind
    if kind == "coils":
        return np.stack(list(_coils(name, files, echo_times)), axis=1)
    if kind in STACKED:
        whole = _volumes(name, files)
        if kind == "echoes" and echo_times is not None and len(whole) != len(echo_times):
            raise InputError(
                f"{name}: expected {len(echo_times)} volumes, one for every echo time, found {len(whole)} in "
                f"{_listed(files)}"
            )
        return whole
    (file,) = files
    if name in SUMMED:
        return np.sqrt(np.square(file.values).sum(axis=0)) if len(file.values) > 1 else file.values[0]  # type: ignore[no-any-return]
    if len(file.values) > 1:
        raise InputError(f"{file.path}: expected one volume for {name}, found {len(file.values)}; give one of them")
    if kind == "mask":
        return np.ascontiguousarray(file.values[0] > 0.5)
    return np.rint(file.values[0]).astype(np.int32) if kind == "labels" else file.values[0]  # type: ignore[no-any-return]


def _volumes(name: str, files: Sequence[_File]) -> np.ndarray:
    """Volumes of one file, or of several files that hold one each."""
    import numpy as np

    if len(files) == 1:
        return files[0].values
    for file in files:
        if len(file.values) > 1:
            raise InputError(
                f"{file.path}: expected one volume, as {name} was given {len(files)} files, found {len(file.values)}; "
                "give one file with all volumes on its fourth axis, or a file for each"
            )
    return np.concatenate([file.values for file in files])


def _coils(name: str, files: Sequence[_File], echo_times: Any) -> Sequence[np.ndarray]:
    """Coils of every echo, ``(coil, x, y, z)`` each."""
    import numpy as np

    if echo_times is None:
        raise InputError(f"{name}: expected echo times, which tell coils from echoes, found none; add --echo-times")
    echoes = len(echo_times)
    if len({len(file.values) for file in files}) > 1:
        found = ", ".join(f"{len(file.values)} in {file.path.name}" for file in files)
        raise InputError(f"{name}: expected as many coils in every file, found {found}; export them again")
    if len(files[0].values) > 1 or len(files) == echoes:
        if len(files) != echoes:
            raise InputError(
                f"{name}: expected {echoes} files, one for every echo time with its coils on the fourth axis, found "
                f"{len(files)}: {_listed(files)}"
            )
        return [file.values for file in files]
    if len(files) % echoes:
        raise InputError(
            f"{name}: expected a file for every coil of each of {echoes} echoes, found {len(files)} files, which is no "
            f"multiple of {echoes}"
        )
    coils, ordered = len(files) // echoes, _ordered(name, files, echoes)
    return [np.concatenate([f.values for f in ordered[e * coils : (e + 1) * coils]]) for e in range(echoes)]


def _ordered(name: str, files: Sequence[_File], echoes: int) -> list[_File]:
    """Files of single volumes in the order of echoes and, within, of coils."""
    keys = [(entities.get("echo"), entities.get("coil")) for entities in (parse_name(f.path.name)[0] for f in files)]
    if not all(echo and echo.isdigit() and coil for echo, coil in keys):
        return list(files)
    table = {(int(str(echo)), str(coil)): file for (echo, coil), file in zip(keys, files, strict=True)}
    numbers, coils = sorted({echo for echo, _ in table}), sorted({coil for _, coil in table})
    missing = [f"echo-{e}_coil-{c}" for e in numbers for c in coils if (e, c) not in table]
    if missing or len(numbers) != echoes or len(table) != len(files):
        raise InputError(
            f"{name}: expected every coil once in each of {echoes} echoes, found {len(numbers)} echoes and "
            f"{len(coils)} coils in {len(files)} files{'; not there: ' + ', '.join(missing[:4]) if missing else ''}"
        )
    return [table[key] for key in sorted(table)]


def _listed(files: Sequence[_File]) -> str:
    return ", ".join(file.path.name for file in files)
