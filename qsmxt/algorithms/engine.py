r"""Where the arrays of a solver live: in the memory of the host, or on a device such as a GPU.

A solver says what it does with an engine, in one source. :data:`HOST` is the compiled kernels on float32 NumPy arrays;
:class:`ArrayEngine` does the same with any library of the array API standard, which CuPy and PyTorch follow. The engine
comes from the array that the user gives (:func:`engine_of`), and the result is of the same kind. Checks, cropping and
transfer functions are made on the host, once; all iterations run where the array is.

Results agree with the host to rounding, not to the byte. Needs ``array-api-compat`` (extra ``gpu``) besides the library
of the arrays.

References
----------
Python array API standard 2023.12, https://data-apis.org/array-api/2023.12/.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsmxt.algorithms import domain as host
from qsmxt.algorithms import fourier
from qsmxt.algorithms.differences import UNLIMITED, Shrinkage
from qsmxt.errors import MissingProgramError
from qsmxt.geometry import Grid

_AXES = (0, 1, 2)


class Engine:
    """Primitives on NumPy arrays: :mod:`qsmxt.algorithms.fourier`, :mod:`qsmxt.algorithms.domain`.

    ``scale`` and ``update`` work in place. What a transform with a ``support`` leaves out of it is not to be looked at:
    0 here, anything elsewhere.
    """

    forward = staticmethod(fourier.forward)
    inverse = staticmethod(fourier.inverse)
    filtered = staticmethod(fourier.filtered)
    scale = staticmethod(fourier.scale)
    update = staticmethod(host.update)
    change = staticmethod(host.change)

    def send(self, volume: np.ndarray) -> Any:
        """``volume`` where the engine computes."""
        return volume

    def fetch(self, volume: Any) -> np.ndarray:
        """``volume`` on the host."""
        return volume  # type: ignore[no-any-return]

    def copy(self, volume: Any) -> Any:
        """An array of its own."""
        return volume.copy()

    def zeros(self, shape: tuple[int, int, int]) -> Any:
        """Float32 zeros."""
        return np.zeros(shape, dtype=np.float32)

    def shrinkage(
        self, grid: Grid, weights: np.ndarray | None = None, relaxation: float = 1.0, limit: float = math.inf
    ) -> Any:
        """Split of a total-variation prior; see :class:`qsmxt.algorithms.differences.Shrinkage`."""
        return Shrinkage(grid, weights, relaxation, limit)

    def finish(self, domain: host.Domain, chi: Any) -> Any:
        """The map on the uncropped grid, zero outside the mask, where the engine computes."""
        return self.send(domain.finish(self.fetch(chi)))


class ArrayEngine(Engine):
    """The same on arrays of the namespace ``xp`` on ``device``."""

    def __init__(self, xp: Any, device: Any) -> None:
        self.xp, self.device = xp, device

    def send(self, volume: np.ndarray) -> Any:
        return self.xp.asarray(np.ascontiguousarray(volume), device=self.device)

    def fetch(self, volume: Any) -> np.ndarray:
        return to_host(volume)

    def copy(self, volume: Any) -> Any:
        return self.xp.asarray(volume, copy=True)

    def zeros(self, shape: tuple[int, int, int]) -> Any:
        return self.xp.zeros(shape, dtype=self.xp.float32, device=self.device)

    def forward(self, volume: Any, support: Any = None) -> Any:  # type: ignore[override]
        return self.xp.fft.rfftn(volume, axes=_AXES)

    def inverse(self, spectrum: Any, shape: tuple[int, int, int], support: Any = None) -> Any:  # type: ignore[override]
        return self.xp.fft.irfftn(spectrum, s=shape, axes=_AXES)

    def filtered(self, volume: Any, transfer: Any, support: Any = None) -> Any:  # type: ignore[override]
        spectrum = self.forward(volume)
        self.scale(spectrum, transfer)
        return self.inverse(spectrum, tuple(volume.shape))

    def scale(self, spectrum: Any, transfer: Any) -> None:  # type: ignore[override]
        spectrum *= transfer

    def update(self, spectrum: Any, gain: Any, data: Any) -> None:  # type: ignore[override]
        spectrum *= gain
        spectrum += data

    def change(self, new: Any, old: Any) -> float:  # type: ignore[override]
        step = new - old
        size = float(self.xp.sum(new * new))
        return (float(self.xp.sum(step * step)) / size) ** 0.5 if size > 0 else 0.0

    def shrinkage(
        self, grid: Grid, weights: np.ndarray | None = None, relaxation: float = 1.0, limit: float = math.inf
    ) -> Any:
        factors = self.send(np.ones((1, 1, 1), dtype=np.float32) if weights is None else weights)
        return _ArrayShrinkage(self.xp, grid, factors, relaxation, min(limit, UNLIMITED))


class _ArrayShrinkage:
    """Split of the gradient on periodic forward differences: dual, soft threshold and adjoint, axis by axis."""

    def __init__(self, xp: Any, grid: Grid, weights: Any, relaxation: float, limit: float) -> None:
        self.xp = xp
        self.sizes = grid.voxel_size
        self.weights, self.relaxation, self.limit = weights, relaxation, limit
        self.state: list[Any] = [None, None, None]

    def _dual(self, v: Any, threshold: float) -> Any:
        """:math:`u` of the state :math:`v`."""
        xp, t = self.xp, threshold * self.weights
        clipped = xp.minimum(xp.maximum(v, -t), t)
        if self.limit >= UNLIMITED:
            return clipped
        end = threshold * self.limit
        return clipped * xp.clip((end - xp.abs(v)) / max(end - threshold, 1e-30), 0.0, 1.0)

    def step(self, volume: Any, threshold: float, out: Any) -> Any:
        """``out`` becomes the adjoint of ``z - u``."""
        xp = self.xp
        out[...] = 0
        for axis, size in enumerate(self.sizes):
            v = self.relaxation * ((xp.roll(volume, -1, axis=axis) - volume) / size)
            old = self.state[axis]
            if old is not None:
                v += self.relaxation * self._dual(old, threshold) + (1 - self.relaxation) * old
            self.state[axis] = v
            split = v - 2 * self._dual(v, threshold)
            out += (xp.roll(split, 1, axis=axis) - split) / size
        return out


HOST = Engine()


def engine_of(array: Any) -> Engine:
    """The engine for arrays like ``array``."""
    if isinstance(array, np.ndarray) or not hasattr(array, "device"):
        return HOST
    try:
        from array_api_compat import array_namespace, device
    except ImportError:
        raise MissingProgramError(
            f"array-api-compat: needed for arrays of {type(array).__module__}, not installed; "
            "run: pip install 'qsmxt[gpu]'"
        ) from None
    return ArrayEngine(array_namespace(array), device(array))


def placed(name: str, field: Any, mask: Any, grid: Grid) -> tuple[Engine, host.Domain]:
    """The engine for ``field`` (called ``name`` in messages), and field and mask checked and cropped on the host."""
    return engine_of(field), host.Domain.around(name, to_host(field), to_host(mask), grid)


def to_host(array: Any) -> Any:
    """``array`` as a NumPy array: itself, or a copy from its device; ``None`` stays."""
    if array is None or isinstance(array, np.ndarray):
        return array
    if hasattr(array, "get"):  # CuPy
        return np.asarray(array.get())
    if hasattr(array, "cpu"):  # PyTorch
        return np.asarray(array.detach().cpu())
    return np.asarray(array) if hasattr(array, "__array__") else np.from_dlpack(array)
