"""Read the headers of many DICOM files at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from qsmxt.convert.archives import Problem
from qsmxt.convert.headers import Frame, read_frames
from qsmxt.errors import InputError

#: Called with the number of files done and the number of all files.
FilesDone = Callable[[int, int], None]

#: Fewer files than this are read by one process: starting others would take longer.
SERIAL_BELOW = 600
_CHUNK = 64


@dataclass
class Index:
    """Headers of a source tree.

    Attributes
    ----------
    frames
        All image planes, in the order of the files.
    problems
        Files that begin like DICOM but cannot be read.
    files, ignored
        Number of files looked at, and of those that hold no MR image.
    """

    frames: list[Frame] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    ignored: int = 0


def build_index(paths: Sequence[Path], *, workers: int | None = None, done: FilesDone | None = None) -> Index:
    """Index ``paths``; the result does not depend on ``workers`` (default: all cores, at most 8)."""
    workers = min(8, len(os.sched_getaffinity(0))) if workers is None else workers
    chunks = [[str(path) for path in paths[i : i + _CHUNK]] for i in range(0, len(paths), _CHUNK)]
    index = Index(files=len(paths))
    if workers > 1 and len(paths) >= SERIAL_BELOW:
        try:
            context = multiprocessing.get_context("forkserver")
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                _collect(index, pool.map(_read_chunk, chunks), done)
            return index
        except (BrokenProcessPool, OSError):
            index = Index(files=len(paths))
    _collect(index, map(_read_chunk, chunks), done)
    return index


_Read = tuple[list[Frame], list[Problem], int, int]


def _read_chunk(paths: list[str]) -> _Read:
    frames: list[Frame] = []
    problems: list[Problem] = []
    ignored = 0
    for path in paths:
        try:
            found = read_frames(path)
        except InputError as error:
            problems.append(Problem(path, str(error)))
            continue
        except OSError as error:
            problems.append(Problem(path, f"{path}: cannot be opened ({error.strerror})"))
            continue
        frames.extend(found)
        ignored += not found
    return frames, problems, ignored, len(paths)


def _collect(index: Index, results: Iterable[_Read], done: FilesDone | None) -> None:
    total = 0
    for frames, problems, ignored, count in results:
        index.frames += frames
        index.problems += problems
        index.ignored += ignored
        total += count
        if done is not None:
            done(total, index.files)
