r"""Where the arrays of a solver live: in the memory of the host, or on a device such as a GPU.

A solver says what it does with an engine, in one source. :data:`HOST` is the compiled kernels on float32 NumPy arrays;
:class:`ArrayEngine` does the same with any library of the array API standard, which CuPy and PyTorch follow. A step
that only one method takes stands beside it as a kernel and as an expression of whole arrays (its *form*), with the same
arguments; :meth:`Engine.run` and :meth:`Engine.total` choose. The engine comes from the array that the user gives
(:func:`engine_of`), and the result is of the same kind. Checks, cropping, transfer functions, and whatever is done once
before or after (boundary values by multigrid, solid harmonics) are made on the host; all iterations run where the array
is, and only numbers leave it.

Results agree with the host to rounding, not to the byte. Needs ``array-api-compat`` (extra ``gpu``) besides the library
of the arrays.

References
----------
Python array API standard 2023.12, https://data-apis.org/array-api/2023.12/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qsmxt.algorithms import differences, fourier, parallel, vectors
from qsmxt.algorithms import domain as host
from qsmxt.algorithms.differences import UNLIMITED, Shrinkage
from qsmxt.algorithms.packing import Packing
from qsmxt.algorithms.quantiles import quantiles
from qsmxt.errors import MissingProgramError
from qsmxt.geometry import Grid

_AXES = (0, 1, 2)


class Pass:
    """A pass over planes, slab by slab, which a transform takes along while the planes are in the cache.

    Parameters
    ----------
    kernel
        Called with the ends of a slab, the arguments, and the result of the transform if it comes after that. What it
        returns is summed.
    arguments
        The others.
    """

    def __init__(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        self._kernel, self._arguments = kernel, arguments
        self._parts: dict[int, Any] = {}

    def __call__(self, start: int, stop: int, *result: Any) -> None:
        self._parts[start] = self._kernel(start, stop, *self._arguments, *result)

    @property
    def total(self) -> float:
        """Sum of what the kernel returned, float64, in the order of the slabs."""
        return float(np.array([self._parts[start] for start in sorted(self._parts)], dtype=np.float64).sum())


class _ArrayPass:
    """The same on whole arrays: ``form`` is called with their namespace."""

    def __init__(self, xp: Any, form: Callable[..., Any], *arguments: Any) -> None:
        self._xp, self._form, self._arguments = xp, form, arguments
        self._sum: Any = 0.0

    def __call__(self, *result: Any) -> None:
        self._sum = self._form(self._xp, *map(_plain, self._arguments), *result)

    @property
    def total(self) -> float:
        """What the form returned."""
        return float(self._sum)


class Engine:
    """Primitives on NumPy arrays: :mod:`qsmxt.algorithms.fourier`, :mod:`qsmxt.algorithms.domain`.

    ``scale`` works in place. What a transform leaves out of the rows that are wanted is not to be looked at: 0 here,
    anything elsewhere; and it need not use the memory of an ``out``.

    ``gradient``, ``divergence`` and ``stiffness`` are those of :mod:`qsmxt.algorithms.differences`, operations on
    vectors those of :mod:`qsmxt.algorithms.vectors`; ``xp`` is the namespace of the
    arrays, for expressions that are the same everywhere.
    """

    xp: Any = np
    forward = staticmethod(fourier.forward)
    inverse = staticmethod(fourier.inverse)
    filtered = staticmethod(fourier.filtered)
    weighted = staticmethod(fourier.weighted)
    scale = staticmethod(fourier.scale)
    change = staticmethod(host.change)
    gradient = staticmethod(differences.gradient)
    divergence = staticmethod(differences.divergence)
    stiffness = staticmethod(differences.stiffness)
    norm = staticmethod(vectors.norm)
    product = staticmethod(vectors.product)
    scaled = staticmethod(vectors.scaled)
    blend = staticmethod(vectors.blend)
    add = staticmethod(vectors.add)
    advance = staticmethod(vectors.advance)
    packing = staticmethod(Packing)
    quantiles = staticmethod(quantiles)

    def run(self, kernel: Callable[..., Any], form: Callable[..., Any], length: int, *arguments: Any) -> None:
        """``kernel`` on the slabs of ``length`` planes; elsewhere ``form(xp, *arguments)``. Both work in place."""
        parallel.run(kernel, length, *arguments)

    def total(self, kernel: Callable[..., Any], form: Callable[..., Any], length: int, *arguments: Any) -> float:
        """The same for what returns a sum, float64."""
        return float(parallel.total(kernel, length, *arguments))

    def passing(self, kernel: Callable[..., Any], form: Callable[..., Any], *arguments: Any) -> Any:
        """A :class:`Pass` with ``kernel``, elsewhere with ``form``, for the ``make`` and ``use`` of transforms."""
        return Pass(kernel, *arguments)

    def both(self, first: Any, second: Any) -> Any:
        """A pass that is one pass and then another."""

        def passes(*slab: int) -> None:
            first(*slab)
            second(*slab)

        return passes

    def do(self, made: Any, length: int) -> None:
        """A pass over ``length`` planes, now."""
        parallel.run(made, length)

    def median(self, field: Any, mask: Any) -> float:
        """Median of all components of a vector field ``(3, x, y, z)`` in ``mask``."""
        packing = Packing(mask)
        return float(quantiles(np.concatenate([packing.pack(part) for part in field]), (0.5,))[0])

    def send(self, volume: Any) -> Any:
        """``volume`` where the engine computes, if it is not there yet."""
        return volume

    def fetch(self, volume: Any) -> np.ndarray:
        """``volume`` on the host."""
        return volume  # type: ignore[no-any-return]

    def copy(self, volume: Any) -> Any:
        """An array of its own."""
        return volume.copy()

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Float32 memory to write to."""
        return np.empty(shape, dtype=np.float32)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Float32 zeros."""
        return np.zeros(shape, dtype=np.float32)

    def renewed(self, split: Any, volume: Any, threshold: float, gain: Any, data: Any) -> tuple[Any, float]:
        """Volume of the half spectrum ``data + gain * F right``, and its relative change from ``volume``.

        A step of ``split`` makes ``right`` of ``volume``, which may be overwritten.
        """
        spectrum = fourier.empty_spectrum(volume.shape)
        fourier.planes_forward(spectrum, volume.shape[2], split.planes(split.relax(volume), threshold))
        fourier.renewed(spectrum, gain, data)
        return volume, host.replaced(volume, spectrum)

    def shrinkage(
        self, grid: Grid, weights: np.ndarray | None = None, relaxation: float = 1.0, limit: float = math.inf
    ) -> Any:
        """Split of a total-variation prior; see :class:`qsmxt.algorithms.differences.Shrinkage`."""
        return Shrinkage(grid, weights, relaxation, limit)

    def mapped(self, domain: host.Domain, transfer: np.ndarray) -> Any:
        """:meth:`finish` of the map whose half spectrum is that of the field times ``transfer``, of the host."""
        field, rows = self.send(domain.field), domain.support
        return self.finish(domain, self.filtered(field, self.send(transfer), rows, rows, field))

    def finish(self, domain: host.Domain, chi: Any) -> Any:
        """The map on the uncropped grid, zero outside the mask, where the engine computes."""
        return self.send(domain.finish(self.fetch(chi)))


class ArrayEngine(Engine):
    """The same on arrays of the namespace ``xp`` on ``device``."""

    def __init__(self, xp: Any, device: Any) -> None:
        self.xp, self.device = xp, device

    def send(self, volume: Any) -> Any:
        if not isinstance(volume, np.ndarray):
            return volume
        return self.xp.asarray(np.ascontiguousarray(volume), device=self.device)

    def fetch(self, volume: Any) -> np.ndarray:
        return to_host(volume)

    def copy(self, volume: Any) -> Any:
        return self.xp.asarray(volume, copy=True)

    def run(self, kernel: Callable[..., Any], form: Callable[..., Any], length: int, *arguments: Any) -> None:
        form(self.xp, *map(_plain, arguments))

    def total(self, kernel: Callable[..., Any], form: Callable[..., Any], length: int, *arguments: Any) -> float:
        return float(form(self.xp, *map(_plain, arguments)))

    def empty(self, shape: tuple[int, ...]) -> Any:
        return self.xp.empty(shape, dtype=self.xp.float32, device=self.device)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self.xp.zeros(shape, dtype=self.xp.float32, device=self.device)

    def forward(self, volume: Any, support: Any = None) -> Any:  # type: ignore[override]
        return self.xp.fft.rfftn(volume, axes=_AXES)

    def inverse(self, spectrum: Any, shape: tuple[int, int, int], support: Any = None) -> Any:  # type: ignore[override]
        return self.xp.fft.irfftn(spectrum, s=shape, axes=_AXES)

    def passing(self, kernel: Callable[..., Any], form: Callable[..., Any], *arguments: Any) -> Any:
        return _ArrayPass(self.xp, form, *arguments)

    def do(self, made: Any, length: int) -> None:
        made()

    def filtered(  # type: ignore[override]
        self,
        volume: Any,
        transfer: Any,
        support: Any = None,
        wanted: Any = None,
        out: Any = None,
        *,
        make: Any = None,
        use: Any = None,
    ) -> Any:
        if make is not None:
            make()
        spectrum = self.forward(volume)
        self.scale(spectrum, transfer)
        result = self.inverse(spectrum, tuple(volume.shape))
        if use is not None:
            use(result)
        return result

    def weighted(  # type: ignore[override]
        self,
        volume: Any,
        transfer: Any,
        weights: Any,
        support: Any = None,
        out: Any = None,
        *,
        make: Any = None,
        use: Any = None,
    ) -> Any:
        between = self.filtered(volume, transfer, make=make)
        between *= weights
        return self.filtered(between, transfer, use=use)

    def scale(self, spectrum: Any, transfer: Any) -> None:  # type: ignore[override]
        spectrum *= transfer

    def renewed(self, split: Any, volume: Any, threshold: float, gain: Any, data: Any) -> tuple[Any, float]:
        spectrum = self.forward(split.step(volume, threshold, self.empty(volume.shape)))
        spectrum *= gain
        spectrum += data
        new = self.inverse(spectrum, tuple(volume.shape))
        return new, self.change(new, volume)

    def change(self, new: Any, old: Any) -> float:  # type: ignore[override]
        step = new - old
        size = float(self.xp.sum(new * new))
        return (float(self.xp.sum(step * step)) / size) ** 0.5 if size > 0 else 0.0

    def gradient(self, volume: Any, grid: Grid, out: Any = None) -> Any:  # type: ignore[override]
        roll, sizes = self.xp.roll, grid.voxel_size
        slopes = self.xp.stack([(roll(volume, -1, axis=axis) - volume) / sizes[axis] for axis in _AXES])
        return _written(slopes, out)

    def divergence(self, field: Any, grid: Grid, out: Any = None) -> Any:  # type: ignore[override]
        total = None
        for axis, size in enumerate(grid.voxel_size):
            part = field[axis, ...]
            part = (self.xp.roll(part, 1, axis=axis) - part) / size
            total = part if total is None else total + part
        return _written(total, out)

    def stiffness(self, volume: Any, weights: Any, grid: Grid, out: Any = None, rows: Any = None) -> Any:  # type: ignore[override]
        return _written(self.divergence(weights * self.gradient(volume, grid), grid), out)

    def quantiles(self, values: Any, fractions: Sequence[float]) -> np.ndarray:  # type: ignore[override]
        order = self.xp.sort(self.xp.reshape(values, (-1,)))
        last = order.shape[0] - 1
        found = []
        for fraction in fractions:
            position = last * float(fraction)
            below = min(int(position), last)
            low, high = float(order[below]), float(order[min(below + 1, last)])
            found.append(low + (position - below) * (high - low))
        return np.array(found, dtype=np.float32)

    def median(self, field: Any, mask: Any) -> float:
        return float(self.quantiles(self.xp.concat([field[axis, ...][mask] for axis in _AXES]), (0.5,))[0])

    def packing(self, mask: np.ndarray, factors: np.ndarray | None = None) -> Any:  # type: ignore[override]
        return _ArrayPacking(self, mask, factors)

    def norm(self, volume: Any) -> float:  # type: ignore[override]
        return math.sqrt(max(0.0, self.product(volume, volume)))

    def product(self, a: Any, b: Any) -> float:  # type: ignore[override]
        """Of complex vectors the real part, which is the product of their real and imaginary parts side by side."""
        both = self.xp.real(self.xp.conj(a) * b) if self.xp.isdtype(a.dtype, "complex floating") else a * b
        return float(self.xp.sum(both, dtype=self.xp.float64))

    def scaled(self, x: Any, factor: float) -> Any:  # type: ignore[override]
        x *= factor
        return x

    def blend(self, y: Any, keep: float, x: Any, add: float) -> float:  # type: ignore[override]
        self.add(y, keep, x, add)
        return self.norm(y)

    def add(self, y: Any, keep: float, x: Any, add: float) -> None:  # type: ignore[override]
        y *= keep
        y += add * x

    def advance(self, factors: tuple[float, float, float], v: Any, h: Any, hbar: Any, x: Any) -> None:  # type: ignore[override]
        a, b, c = factors
        self.add(hbar, a, h, 1.0)
        x += b * hbar
        self.add(h, c, v, 1.0)

    def shrinkage(
        self, grid: Grid, weights: np.ndarray | None = None, relaxation: float = 1.0, limit: float = math.inf
    ) -> Any:
        factors = self.send(np.ones((1, 1, 1), dtype=np.float32) if weights is None else weights)
        return _ArrayShrinkage(self.xp, grid, factors, relaxation, min(limit, UNLIMITED))


class _ArrayPacking:
    """:class:`qsmxt.algorithms.packing.Packing`; spectra stay complex."""

    def __init__(self, engine: ArrayEngine, mask: np.ndarray, factors: np.ndarray | None) -> None:
        self._engine, self._mask = engine, engine.send(mask)
        kept = np.broadcast_to(np.float32(1) if factors is None else factors, mask.shape)[mask]
        self._down, self._up = engine.send(kept), engine.send(1 / kept)

    def pack(self, volume: Any) -> Any:
        return volume[self._mask] * self._down

    def unpack(self, values: Any, out: Any = None) -> Any:
        xp = self._engine.xp
        volume = xp.zeros(self._mask.shape, dtype=values.dtype, device=self._engine.device)
        volume[self._mask] = values * self._up
        return volume

    pack_spectrum, unpack_spectrum = pack, unpack


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


def _plain(argument: Any) -> Any:
    """NumPy's numbers and short vectors as Python's, which every library takes."""
    return argument.tolist() if isinstance(argument, (np.generic, np.ndarray)) else argument


def _written(result: Any, out: Any) -> Any:
    """``result``, in the memory of ``out`` if that is given."""
    if out is None:
        return result
    out[...] = result
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


def to_host_all(*arrays: Any) -> tuple[Any, ...]:
    """:func:`to_host` of each."""
    return tuple(map(to_host, arrays))


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
