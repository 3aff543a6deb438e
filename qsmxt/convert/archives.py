"""Every file below a source folder, with zip and tar archives unpacked into a scratch folder.

An archive is untrusted. One that names a member outside itself, holds links or devices, or expands to more than
:data:`EXPANSION` times its own size (and more than :data:`FREE_BYTES`) is refused as a whole, by name; the bytes
are counted while they are written, not taken from its directory.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from qsmxt.errors import InputError, MissingInputError

#: Largest factor by which an archive may grow.
EXPANSION = 100
#: Size (bytes) up to which an archive may grow whatever its own size is.
FREE_BYTES = 1 << 30
#: Most members of an archive.
MOST_MEMBERS = 2_000_000

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """Something that could not be used, by name, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.name in self.reason else f"{self.name}: {self.reason}"


@dataclass
class SourceFiles:
    """Files found, and archives or folders that were refused."""

    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def list_sources(source: str | Path, scratch: str | Path) -> SourceFiles:
    """All regular files below ``source`` (a folder, an archive or one file), in the order of their names.

    Archives are unpacked below ``scratch``; those inside other archives are not.

    Raises
    ------
    MissingInputError
        If ``source`` does not exist.
    """
    root = Path(source)
    if not root.exists():
        raise MissingInputError(f"source: expected a folder, an archive or a file, found nothing at {root}")
    found = SourceFiles()
    for number, path in enumerate([root] if root.is_file() else _walk(root, found.problems)):
        if not is_archive(path):
            found.files.append(path)
            continue
        target = Path(scratch) / f"archive-{number:04d}"
        try:
            unpack(path, target)
        except InputError as error:
            found.problems.append(Problem(str(path), str(error)))
            shutil.rmtree(target, ignore_errors=True)
            continue
        for member in _walk(target, found.problems):
            if is_archive(member):
                found.problems.append(Problem(f"{path}/{member.relative_to(target)}", "an archive inside an archive"))
            else:
                found.files.append(member)
    return found


def is_archive(path: Path) -> bool:
    """Whether the name of a file is that of a zip or tar archive."""
    return _ARCHIVE.search(path.name) is not None


def unpack(archive: Path, target: Path) -> None:
    """Unpack ``archive`` into the new folder ``target``.

    Raises
    ------
    InputError
        If the archive is damaged, encrypted, hostile or too large when unpacked.
    """
    target.mkdir(parents=True)
    allowed = max(FREE_BYTES, EXPANSION * archive.stat().st_size)
    allowed = min(allowed, shutil.disk_usage(target).free)
    written = count = 0
    try:
        for name, stream in _members(archive):
            path = _safe_path(archive, target, name)
            count += 1
            if count > MOST_MEMBERS:
                raise InputError(f"{archive}: expected at most {MOST_MEMBERS} members, found more; unpack it yourself")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                while block := stream.read(1 << 20):
                    written += len(block)
                    if written > allowed:
                        raise InputError(
                            f"{archive}: refused, it expands to more than {allowed / 1e9:.1f} GB at member {name!r}; "
                            "unpack it yourself if you trust it"
                        )
                    out.write(block)
    except InputError:
        raise
    except FileExistsError as error:
        raise InputError(f"{archive}: refused, it holds a member twice ({error.filename})") from error
    except (
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        ValueError,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as e:
        raise InputError(f"{archive}: cannot be unpacked ({e})") from e
    except Exception as error:  # zlib.error, lzma.LZMAError: no common base
        raise InputError(f"{archive}: cannot be unpacked, it is damaged ({error})") from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise InputError(f"{archive}: refused, member {info.filename!r} is a link or a device")
                if info.is_dir():
                    _safe_path(archive, Path(), info.filename)
                    continue
                with opened.open(info) as stream:
                    yield info.filename, stream
        return
    with tarfile.open(archive) as opened_tar:
        for member in opened_tar:
            if member.isdir():
                _safe_path(archive, Path(), member.name)
                continue
            stream_or_none = opened_tar.extractfile(member) if member.isreg() else None
            if stream_or_none is None:
                raise InputError(f"{archive}: refused, member {member.name!r} is a link or a device")
            yield member.name, stream_or_none


def _safe_path(archive: Path, target: Path, name: str) -> Path:
    parts = re.split(r"[\\/]+", name)
    outside = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name
    if outside:
        raise InputError(f"{archive}: refused, member {name!r} points outside the archive")
    kept = [part for part in parts if part not in ("", ".")]
    return target.joinpath(*kept) if kept else target


def _walk(root: Path, problems: list[Problem]) -> Iterator[Path]:
    """Files below ``root`` by name; folders that are links are not entered, so that no loop can trap the walk."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(str(root), f"cannot be read ({error.strerror})"))
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), problems)
        elif entry.is_file() and not entry.name.startswith("._") and entry.name.upper() != "DICOMDIR":
            yield Path(entry.path)
