"""Write files in one step: a reader, or a run after a crash, sees the old file or the new one, never a half.

The new content goes to a hidden file of the same folder, which is then renamed. Text and JSON are written in the
same bytes for the same content: sorted keys, one line feed at the end.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.errors import OutputError


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


#: Read once: it can only be read by setting it, which other threads would notice.
UMASK = _read_umask()


def write_bytes(path: Path, content: bytes) -> Path:
    """Replace ``path`` by ``content``, making its folder if there is none.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(stream.fileno(), 0o666 & ~UMASK)
                stream.write(content)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); check the permissions and the space of the disk"
        ) from error
    return path


def write_text(path: Path, content: str) -> Path:
    """Replace ``path`` by UTF-8 text."""
    return write_bytes(path, content.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Replace ``path`` by a JSON object with sorted keys; NaN and Inf become ``null``."""
    text = json.dumps(plain(values), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_text(path, f"{text}\n")


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: numpy numbers and arrays, tuples and paths converted."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
