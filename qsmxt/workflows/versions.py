"""What code ran: the version for people, and a digest for the cache."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from pathlib import Path

import qsmxt
from qsmxt.bids.provenance import library_version

#: Libraries whose versions may change the last digits of a result.
LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "ducc0")

#: Parts of the package that results do not depend on.
_IRRELEVANT = ("cli", "convert", "phantom")


def version() -> str:
    """Version of this package."""
    return qsmxt.__version__


@functools.cache
def code_digest() -> str:
    """Version, and a digest of the sources and of the libraries' versions: other code, other results."""
    root = Path(qsmxt.__file__).parent
    whole = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for library in LIBRARIES:
        whole.update(f"{library} {library_version(library) or 'none'}\n".encode())
    for folder, folders, files in os.walk(root):
        at = os.path.relpath(folder, root)
        folders[:] = sorted(name for name in folders if at != "." or name not in _IRRELEVANT)
        for name in sorted(files):
            if name.endswith(".py"):
                with open(f"{folder}/{name}", "rb") as stream:  # noqa: PTH123 (twice as fast, for hundreds)
                    whole.update(f"{at}/{name}".encode() + stream.read())
    return f"{version()}+{whole.hexdigest()}"
