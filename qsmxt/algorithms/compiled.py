"""Compilation of kernels: ``kernel`` is numba's ``njit`` without the GIL, cached where a cache is possible.

numba refuses to import a cached function when neither the package folder nor the home can be written (the
usual case in a container run by another user). The folder is therefore chosen before numba is imported:
``NUMBA_CACHE_DIR`` if it can be written, else the package folder, else the user's cache folder, else no cache.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _choose_cache() -> bool:
    """Point numba to a folder that can be written; returns whether there is one."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted:
        if _writable(Path(wanted)):
            return True
        del os.environ["NUMBA_CACHE_DIR"]
    if _writable(Path(__file__).parent / "__pycache__"):
        return True
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(home) / "qsmxt" / "numba"
    if _writable(folder):
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        return True
    return False


CACHING = _choose_cache()

import numba  # noqa: E402  (only after the cache folder is settled)


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function for slabs: no GIL, cached, contraction of multiply and add allowed.

    Options are numba's; ``fastmath`` defaults to ``{"contract", "reassoc", "nsz", "arcp"}``, which keeps NaN and Inf
    meaningful.
    """
    options.setdefault("fastmath", {"contract", "reassoc", "nsz", "arcp"})
    options.setdefault("error_model", "numpy")
    compile_ = numba.njit(nogil=True, cache=CACHING, **options)
    return compile_ if function is None else compile_(function)
