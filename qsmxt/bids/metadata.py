"""Sidecar metadata of images, merged after the inheritance principle of BIDS.

A JSON file applies to an image if it lies in the image's folder or in one above it (up to the dataset root),
has the same suffix, and carries no entity that the image lacks. Files nearer to the image, and among those of
one folder the more specific ones, take precedence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import parse_name
from qsmxt.errors import InputError, MissingInputError

#: Bytes of a JSON file beyond which it cannot be metadata.
LARGEST_JSON = 50_000_000

#: Echo times above this (s) can only be milliseconds: no gradient echo survives a second.
LONGEST_ECHO_TIME = 1.0

#: Field strengths above this (T) can only be another unit.
STRONGEST_FIELD = 30.0


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    InputError
        If it is not JSON, or not an object.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no regular file")
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(
                f"{path}: expected at most {LARGEST_JSON // 10**6} MB of metadata, found {path.stat().st_size} bytes; "
                "repair the file"
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(
            f"{path}: expected a readable JSON file, found {type(error).__name__} ({error}); fetch or repair the file"
        ) from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: expected valid JSON, found a fault at line {error.lineno}, column {error.colno} "
            f"({error.msg}); repair the file"
        ) from None
    except (ValueError, RecursionError) as error:
        found = "too deep a nesting" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: expected metadata in JSON, found {found}; repair the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}; repair the file")
    return values


class Sidecars:
    """Reads sidecars below ``root``; every folder and every file is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, list[tuple[dict[str, str], str, Path]]] = {}
        self._files: dict[Path, dict[str, Any]] = {}

    def merged(self, image: Path) -> dict[str, Any]:
        """Metadata that apply to ``image``."""
        values: dict[str, Any] = {}
        for path in self.applicable(image):
            if path not in self._files:
                self._files[path] = read_json(path)
            values.update(self._files[path])
        return values

    def applicable(self, image: Path) -> list[Path]:
        """JSON files that apply to ``image``, in ascending precedence."""
        entities, suffix, _ = parse_name(image.name)
        found = []
        for folder in self._folders_above(image):
            here = [
                (len(own), path)
                for own, own_suffix, path in self._json_files(folder)
                if own_suffix == suffix and own.items() <= entities.items()
            ]
            found += [path for _, path in sorted(here)]
        return found

    def _folders_above(self, image: Path) -> list[Path]:
        inside = image.relative_to(self.root).parent
        return [self.root, *(self.root.joinpath(*inside.parts[: n + 1]) for n in range(len(inside.parts)))]

    def _json_files(self, folder: Path) -> list[tuple[dict[str, str], str, Path]]:
        if folder not in self._folders:
            try:
                paths = [path for path in folder.iterdir() if path.name.endswith(".json")]
            except OSError as error:
                raise MissingInputError(f"{folder}: expected a readable folder, found {error.strerror}") from None
            self._folders[folder] = [(*parse_name(path.name)[:2], path) for path in paths]
        return self._folders[folder]


def echo_time(image: Path, *sources: Mapping[str, Any]) -> float:
    """``EchoTime`` (s) of ``image`` from the first of ``sources`` that has it.

    Raises
    ------
    MissingInputError
        If none has it.
    InputError
        If it is not a positive number of seconds.
    """
    value = _first("EchoTime", sources)
    if value is None:
        raise MissingInputError(
            f"{image}: expected EchoTime (s) in the JSON sidecar, found none; add it, as BIDS requires"
        )
    number = _number(image, "EchoTime", "a number of seconds", value)
    if number > LONGEST_ECHO_TIME:
        raise InputError(
            f"{image}: EchoTime: expected seconds (at most {LONGEST_ECHO_TIME:g}), found {number:g}, which looks like "
            "milliseconds; divide it by 1000 in the JSON sidecar"
        )
    if number <= 0:
        raise InputError(f"{image}: EchoTime: expected a positive number of seconds, found {number:g}; correct it")
    return number


def magnetic_field_strength(image: Path, *sources: Mapping[str, Any]) -> float:
    """``MagneticFieldStrength`` (T) of ``image`` from the first of ``sources`` that has it; errors as above."""
    value = _first("MagneticFieldStrength", sources)
    if value is None:
        raise MissingInputError(
            f"{image}: expected MagneticFieldStrength (T) in the JSON sidecar, found none; add it, or give "
            "--field-strength"
        )
    number = _number(image, "MagneticFieldStrength", "a number of teslas", value)
    if not 0 < number <= STRONGEST_FIELD:
        raise InputError(
            f"{image}: MagneticFieldStrength: expected teslas (above 0, at most {STRONGEST_FIELD:g}), found "
            f"{number:g}; correct the JSON sidecar"
        )
    return number


def _first(key: str, sources: tuple[Mapping[str, Any], ...]) -> Any:
    return next((source[key] for source in sources if source.get(key) is not None), None)


def _number(image: Path, key: str, expected: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{image}: {key}: expected {expected}, found {repr(value)[:80]}; correct the JSON sidecar")
    return number
