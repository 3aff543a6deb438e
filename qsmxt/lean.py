"""Large libraries without what they import for features that are not used here.

nibabel imports pydicom, and that a client for the web, for DICOM data inside of NIfTI headers, which stay bytes here.
nipype imports ``scipy.io``, and that all of sparse linear algebra, to read files of SPM; the transforms of scipy bring
special functions for one transform that nobody asks for, and the names of numpy a translator of Fortran. Such modules
are imported if it comes to that. Several libraries look through the metadata of all packages that are installed for
plugins of their own: none is wanted. Together that is a second of every start.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

#: What the steps of every unit need.
STEPS = ("qsmxt.workflows.unit", "qsmxt.bids.acquisition", "qsmxt.algorithms.quality", "qsmxt.algorithms.cropping")

#: What looks for the input.
DISCOVERY = ("bids.layout", "sqlalchemy.dialects.sqlite", "qsmxt.bids.queries")

#: Modules that are imported when something of them is used; what others derive classes from is a builtin.
POSTPONED = (
    "asyncio",
    "bids.external.inflect",
    "filelock",
    "nipype.utils.provenance",
    "numpy.f2py",
    "numpy.testing",
    "scipy.fft",
    "scipy.io",
    "scipy.special",
    "traits.observation.parsing",
    "urllib.request",
    "yaml",
)

#: Parts of networkx that a workflow does not need.
_UNUSED_GRAPHS = ("algorithms", "drawing", "generators", "linalg", "readwrite")

#: Those that it needs of them.
_USED_GRAPHS = ("networkx.algorithms.dag", "networkx.algorithms.traversal.depth_first_search")


def import_libraries(*more: str) -> None:
    """Import nibabel, nipype and ``more`` modules, unless they are there already.

    Garbage is not looked for meanwhile, nor later among what they have made: there is none.
    """
    with ExitStack() as stack:
        stack.enter_context(no_garbage())
        stack.enter_context(_no_plugins())
        with _replaced("pydicom", None), ExitStack() as postponed:
            importlib.import_module("numpy")
            for name in POSTPONED:
                postponed.enter_context(_replaced(name, _Postponed(name)))
            importlib.import_module("nibabel")
            importlib.import_module("nipype.pipeline.engine")
            _import_graphs()
            for name in more:
                importlib.import_module(name)
        if "numba" in sys.modules:
            importlib.import_module("numba.core.entrypoints").init_all()


@contextmanager
def no_garbage() -> Iterator[None]:
    """Do not look for garbage meanwhile, nor later among what is made."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def _no_plugins() -> Iterator[None]:
    """Libraries that look for plugins meanwhile find none."""
    found = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints()  # type: ignore[assignment]
    try:
        yield
    finally:
        importlib.metadata.entry_points = found


class _Postponed(ModuleType):
    """Stands for a module until something of it is used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.importing:
            return TimeoutError if name == TimeoutError.__name__ else _Name(self.__name__, name)
        return getattr(importlib.import_module(self.__name__), name)


class _Name:
    """Stands for something of a module, until it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _found(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._found()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._found()[key]


@contextmanager
def _replaced(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """What imports the module ``name`` gets ``stand_in``, or is told that there is none; not if it is there already."""
    if name in sys.modules:
        yield
        return
    parent, _, last = name.rpartition(".")
    package = sys.modules.get(parent)
    sys.modules[name] = stand_in  # type: ignore[assignment]
    if package is not None:
        setattr(package, last, stand_in)
    try:
        yield
    finally:
        del sys.modules[name]
        if package is not None:
            delattr(package, last)
        if isinstance(stand_in, _Postponed):
            stand_in.importing = False


def _import_graphs() -> None:
    """Import networkx with what sorts the nodes of a workflow; anything else is imported when it is asked for."""
    if "networkx" in sys.modules:
        return
    with ExitStack() as stack:
        for part in _UNUSED_GRAPHS:
            stack.enter_context(_replaced(f"networkx.{part}", _package(f"networkx.{part}")))
        networkx = importlib.import_module("networkx")
        for name in _USED_GRAPHS:
            module = importlib.import_module(name)
            vars(networkx).update({public: getattr(module, public) for public in module.__all__})
        loaded = [name for name in sys.modules if name.startswith("networkx.algorithms.")]
    # nipype asks for its old name first
    networkx.dfs_preorder = networkx.dfs_preorder_nodes  # type: ignore[attr-defined]
    usual = vars(networkx).pop("__getattr__", None)

    def find(name: str) -> Any:
        del networkx.__getattr__
        if usual is not None:
            networkx.__getattr__ = usual  # type: ignore[method-assign]
        for part in _UNUSED_GRAPHS:
            exec(f"from networkx.{part} import *", vars(networkx))
        for used in loaded:  # the package that they belong to has come after them
            parent, _, last = used.rpartition(".")
            setattr(sys.modules[parent], last, sys.modules[used])
        return getattr(networkx, name)

    networkx.__getattr__ = find  # type: ignore[method-assign]


def _package(name: str) -> ModuleType:
    """An empty stand-in for a package, whose modules can be imported one by one."""
    parent, _, last = name.rpartition(".")
    folders = importlib.util.find_spec(parent).submodule_search_locations  # type: ignore[union-attr]
    module = ModuleType(name)
    module.__path__ = [f"{folder}/{last}" for folder in folders or ()]
    return module
