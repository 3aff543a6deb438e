"""Compilation of kernels: ``kernel`` is numba's ``njit`` without the GIL, cached where a cache is possible."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from qsmxt.algorithms import kernel_cache

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

CACHING = kernel_cache.choose()

import llvmlite.binding as llvm  # noqa: E402
import numba  # noqa: E402  (only after the cache folder is settled)
from numba.core.caching import FunctionCache  # noqa: E402
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen  # noqa: E402
from numba.core.runtime import rtsys  # noqa: E402


class LateLibrary(JITCodeLibrary):
    """Machine code from the cache without the intermediate code from which it was made.

    numba reads both and looks through all symbols of the latter, which takes two thirds of the time in which a kernel
    is read. Only a kernel that is compiled later and takes this one in needs it: it is read then.
    """

    _bitcode: bytes | None = None

    @classmethod
    def _unserialize(cls, codegen: Any, state: tuple[str, str, Any]) -> Any:
        name, kind, data = state
        if kind != "object":
            return super()._unserialize(codegen, state)
        library = codegen.create_library(name)
        library.enable_object_caching()
        machine_code, library._bitcode = data
        library._set_compiled_object(machine_code)
        library._finalize_final_module()
        return library

    def _get_module_for_linking(self) -> Any:
        if self._bitcode is not None and self._shared_module is None:
            self._shared_module = llvm.parse_bitcode(self._bitcode)
            self._codegen._engine._load_defined_symbols(self._shared_module)
        return super()._get_module_for_linking()

    def get_pointer_to_function(self, name: str) -> int:
        """Address of a function of this library."""
        if self._bitcode is None:
            return int(super().get_pointer_to_function(name))
        return int(self._codegen._engine.get_function_address(name))


JITCPUCodegen._library_class = LateLibrary


class KernelCache(FunctionCache):
    """numba's cache of a function, which reads a kernel without the tables that the compiler needs to make one.

    numba fills these tables before it looks into its cache, which takes longer than to read all kernels of a run. The
    compiler fills them by itself if it comes to that.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel for a signature, or ``None`` if it was not compiled yet."""
        rtsys.initialize(target_context)  # what kernels allocate with
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


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
    compile_ = numba.njit(nogil=True, **options)

    def cached(plain: Callable[..., Any]) -> Any:
        compiled = compile_(plain)
        if CACHING:
            compiled._cache = KernelCache(plain)
        return compiled

    return cached if function is None else cached(function)
