"""Compilation of kernels: ``kernel`` is numba's ``njit`` without the GIL, cached where a cache is possible."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from qsmxt.algorithms import kernel_cache

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

CACHING = kernel_cache.choose()

import numba  # noqa: E402  (only after the cache folder is settled)


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function for slabs: no GIL, cached, contraction of multiply and add allowed.

    Options are numba's; ``fastmath`` defaults to ``{"contract", "reassoc", "nsz", "arcp"}``, which keeps NaN and Inf
    meaningful. Kernels that call kernels take them in whole (``forceinline``): a call would reach whichever copy of the
    callee the process got first, its own or that of the caller, which are rounded differently, so that a run that
    compiles would differ in the last bit from one that reads the cache.
    """
    options.setdefault("fastmath", {"contract", "reassoc", "nsz", "arcp"})
    options.setdefault("error_model", "numpy")
    options.setdefault("forceinline", True)
    compile_ = numba.njit(nogil=True, cache=CACHING, **options)
    return compile_ if function is None else compile_(function)
