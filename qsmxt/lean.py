"""Large libraries without what they import for features that are not used here.

nibabel imports pydicom, and that a client for the web, for DICOM data inside of NIfTI headers, which stay bytes here.
nipype imports ``scipy.io``, and that all of sparse linear algebra, to read files of SPM; it is imported if it comes
to that. Together they are half a second of every start.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: What the steps of every unit need.
STEPS = ("qsmxt.workflows.unit", "qsmxt.bids.acquisition", "qsmxt.algorithms.quality", "qsmxt.algorithms.cropping")


def import_libraries(*more: str) -> None:
    """Import nibabel, nipype and ``more`` modules, unless they are there already.

    Garbage is not looked for meanwhile, nor later among what they have made: there is none.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _replaced("pydicom", None):
            importlib.import_module("nibabel")
        with _replaced("scipy.io", _Postponed("scipy.io")):
            importlib.import_module("nipype.pipeline.engine")
        for name in more:
            importlib.import_module(name)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


class _Postponed(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _replaced(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """What imports the module ``name`` gets ``stand_in``, or is told that there is none; not if it is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
