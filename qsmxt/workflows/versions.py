"""What code ran: the version for people, and a digest for the cache."""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib import metadata
from pathlib import Path

import qsmxt

#: Libraries whose versions may change the last digits of a result.
LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "ducc0")

#: Parts of the package that results do not depend on.
_IRRELEVANT = ("cli", "convert", "phantom")


def version() -> str:
    """Version of this package."""
    return qsmxt.__version__


def library_version(name: str) -> str:
    """Version of a library, or ``none``: one of them is optional."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


@functools.cache
def code_digest() -> str:
    """Version, and a digest of the sources and of the libraries' versions: other code, other results."""
    root = Path(qsmxt.__file__).parent
    whole = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for library in LIBRARIES:
        whole.update(f"{library} {library_version(library)}\n".encode())
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in _IRRELEVANT:
            whole.update(relative.as_posix().encode() + path.read_bytes())
    return f"{version()}+{whole.hexdigest()}"
