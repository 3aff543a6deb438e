"""What passes between nodes: where the arrays are, their geometry, and all that was done to get them.

A state travels as JSON text. It carries a fingerprint: a digest of the input files' contents, of every step with
all its parameters, and of the code that ran. Two nodes that get the same text therefore do the same work.
(nipype by itself would compare neither the contents of the files nor numbers beyond ten decimals.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.geometry import Grid


@dataclass(frozen=True)
class State:
    """Arrays on disk and their history.

    Attributes
    ----------
    fingerprint
        Digest of everything that determines the arrays.
    grid, affine
        Geometry; the affine is the voxel-to-scanner matrix in mm, row by row.
    arrays
        Artifact -> file (``.npy``).
    steps
        What ran, in order: ``{"method": ..., "parameters": ...}``.
    notes
        What a reader should know: corrections, warnings.
    statistics
        Numbers worth reporting, by step.
    corrections
        Corrections of the input, for sidecars.
    digests
        SHA-256 of the images of the unit, file by file.
    """

    fingerprint: str
    grid: dict[str, Any]
    affine: list[list[float]]
    arrays: dict[str, str] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    corrections: dict[str, Any] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Text that :meth:`from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> State:
        """Inverse of :meth:`to_json`."""
        return cls(**json.loads(text))

    def sampling(self) -> Grid:
        """The grid as an object."""
        return Grid(
            tuple(self.grid["shape"]),  # type: ignore[arg-type]
            tuple(self.grid["voxel_size"]),
            tuple(self.grid["b0_direction"]),
        )

    def load(self, name: str) -> Any:
        """Array ``name``; it may be written to without changing the file. ``None`` if there is none."""
        file = self.arrays.get(name)
        if file is None:
            return None
        array = np.load(file, mmap_mode="c", allow_pickle=False)
        return np.asarray(array) if array.ndim else array[()]

    def extended(self, arrays: Mapping[str, str], *, fingerprint: str, **changes: Any) -> State:
        """The state after a node: more arrays, another fingerprint, lists and mappings of ``changes`` appended."""
        appended: dict[str, Any] = {}
        for name, value in changes.items():
            present = getattr(self, name)
            appended[name] = {**present, **value} if isinstance(present, dict) else [*present, *value]
        return dataclasses.replace(self, arrays={**self.arrays, **arrays}, fingerprint=fingerprint, **appended)

    def united(self, other: State) -> State:
        """Both states of one unit together; what they share comes first."""
        return dataclasses.replace(
            self,
            fingerprint=digest(self.fingerprint, other.fingerprint),
            arrays={**self.arrays, **other.arrays},
            steps=[*self.steps, *(step for step in other.steps if step not in self.steps)],
            notes=[*self.notes, *(note for note in other.notes if note not in self.notes)],
            statistics={**self.statistics, **other.statistics},
            corrections={**self.corrections, **other.corrections},
        )


def describe_grid(grid: Grid) -> dict[str, Any]:
    """The grid as plain values."""
    return {key: list(value) for key, value in dataclasses.asdict(grid).items()}


def save_arrays(folder: Path, arrays: Mapping[str, Any]) -> dict[str, str]:
    """Write every array to ``folder`` and return where it is."""
    files = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        files[name] = str(path)
    return files


def digest(*values: Any) -> str:
    """Digest of plain values; floats count with all their digits."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def digest_files(files: Sequence[str]) -> str:
    """Digest of the contents of files and of their names, in the order given."""
    return digest(digest_each(files), [Path(file).name for file in files])


def digest_each(files: Sequence[str]) -> list[str]:
    """SHA-256 of the contents of every file."""
    found = []
    for file in files:
        with Path(file).open("rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return found
