r"""Alternating direction method of multipliers (ADMM) with one split for the data and one for the prior.

.. math:: \min_\chi \sum_r \phi_r\big((D\chi)(r)\big) + \lambda R(\chi)

The data split :math:`z_2 = D\chi` (scaled dual :math:`s`, penalty :math:`\mu`) makes any pointwise :math:`\phi_r`
cheap: noise weights, phase differences, absolute values. The prior split (penalty :math:`\rho`) is an object whose
``step`` returns :math:`\nabla^T(z - u)`, as :class:`qsmxt.algorithms.differences.Shrinkage` does. The map follows from

.. math:: \chi \leftarrow F^{-1}\frac{\mu D F(z_2 - s) + \rho F\nabla^T(z-u)}{\mu D^2 + \rho L},

two pairs of Fourier transforms an iteration. A data step gets the prediction :math:`D\chi`, updates its dual with
:math:`v = D\chi + s`, :math:`z_2 = \mathrm{prox}_{\phi/\mu}(v)`, :math:`s = v - z_2`, and leaves
:math:`z_2 - s = 2z_2 - v` in ``target``.

:math:`\mu` below 1 lets the map move where there are no data: with :math:`\mu = 0.1` 50 iterations reach what 400 do
with 1.

On the host a volume that only goes from one transform into the next never exists as a whole: its planes are made, used
and transformed slab by slab, while they are in the cache.

Both splits can be over-relaxed (:math:`\alpha`, 1.8 saves half of the iterations): the data step then sees
:math:`\alpha D\chi + (1 - \alpha) z_2`, the prior the same of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import Shrinkage
from qsmxt.algorithms.domain import Domain, replaced
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.algorithms.rows import span
from qsmxt.registry.methods import Progress

#: Penalty of the data split.
DATA_PENALTY = 0.1

#: Most steps of Newton's method for the phase of a voxel, and the change (rad) of one that is not followed by another.
NEWTON_STEPS = 10
SETTLED = 1e-4


class Prior(Protocol):
    """The split of a prior; :class:`qsmxt.algorithms.differences.Shrinkage` is one."""

    def step(self, volume: np.ndarray, threshold: float, out: np.ndarray) -> np.ndarray:
        """Update the dual and write the adjoint of the split to ``out``."""
        ...


class Splitting:
    """An ADMM solver and its state; several calls of :meth:`iterate` go on where the last one stopped.

    Parameters
    ----------
    domain
        Cropped field and mask.
    prior, threshold
        Split of the prior and the threshold of its shrinkage.
    rho, mu
        Penalties of the prior and of the data split.
    dipole
        Half spectrum of the dipole; the continuous one if ``None``.
    symbol
        Half spectrum of the prior's operator times its adjoint; that of the gradient if ``None``.
    engine
        Where prior, data step and iterations compute.
    """

    def __init__(
        self,
        domain: Domain,
        prior: Prior,
        threshold: float,
        rho: float,
        mu: float,
        dipole: np.ndarray | None = None,
        symbol: np.ndarray | None = None,
        engine: Engine = HOST,
    ) -> None:
        grid = domain.grid
        self.grid, self.engine = grid, engine
        self.prior, self.threshold = prior, threshold
        dipole = domain.dipole() if dipole is None else dipole
        denominator = np.float32(rho) * (kernels.negative_laplacian(grid) if symbol is None else symbol)
        denominator += np.float32(mu) * dipole * dipole
        denominator[0, 0, 0] = np.inf
        self._gain = engine.send(np.float32(rho) / denominator)
        self._back = engine.send(np.divide(np.float32(mu) * dipole, denominator, out=denominator))
        self.dipole = engine.send(dipole)
        self.chi = engine.zeros(grid.shape)
        self._target: Any = None
        self._right: Any = None
        self._spectra: list[np.ndarray] = []

    def start(self, data: DataTerm, chi: Any = None) -> None:
        """Take the data into the split before the first iteration; begin with the map ``chi`` instead of 0."""
        engine, shape = self.engine, self.grid.shape
        predicted = engine.zeros(shape) if chi is None else engine.filtered(chi, self.dipole)
        if chi is not None:
            self._right = self.prior.step(chi, self.threshold, engine.empty(shape))
        elif engine is not HOST:
            self._right = engine.zeros(shape)
        self._target = engine.copy(predicted)
        data(predicted, self._target)
        if engine is HOST:
            self._spectra = [np.zeros_like(fourier.empty_spectrum(shape)) for _ in range(2)]
            for spectrum, volume in zip(self._spectra, (self._right, self._target), strict=True):
                if volume is not None:
                    fourier.planes_forward(spectrum, shape[2], fourier.planes_of(volume))
            self._right, self._target = None, self._target if data.relaxed else None

    def iterate(self, data: DataTerm, iterations: int, tolerance: float, progress: Progress | None = None) -> Any:
        """Iterate until the map changes by less than ``tolerance``, or ``iterations`` times; returns the map.

        Its memory is used again by later iterations.
        """
        advance = self._advance if self.engine is HOST else self._advance_elsewhere
        for iteration in range(iterations):
            moved = advance(data)
            if progress:
                progress((iteration + 1) / iterations)
            if iteration > 0 and moved < tolerance:
                break
        return self.chi

    def _advance(self, data: DataTerm) -> float:
        """One iteration; returns the relative change of the map."""
        right, target = self._spectra
        fourier.rows_changed(self._spectra, _solve_rows, self._gain, self._back, self.dipole)
        moved = replaced(self.chi, right)
        fourier.planes_exchanged(target, self.grid.shape[2], partial(data.planes, self._target))
        self._transform_prior(right)
        return moved

    def _transform_prior(self, spectrum: np.ndarray) -> None:
        """Planes of what the prior makes of the map, transformed into ``spectrum``."""
        if isinstance(self.prior, Shrinkage):
            make = self.prior.planes(self.prior.relax(self.chi), self.threshold)
        else:
            make = fourier.planes_of(self.prior.step(self.chi, self.threshold, np.empty_like(self.chi)))
        fourier.planes_forward(spectrum, self.grid.shape[2], make)

    def _advance_elsewhere(self, data: DataTerm) -> float:
        engine, shape, old = self.engine, self.grid.shape, self.chi
        spectrum = self._back * engine.forward(self._target) + self._gain * engine.forward(self._right)
        self.chi = engine.inverse(engine.copy(spectrum), shape)
        data(engine.inverse(self.dipole * spectrum, shape), self._target)
        self.prior.step(self.chi, self.threshold, self._right)
        return float(engine.change(self.chi, old))


@kernel
def _solve_rows(start, stop, right, data, gain, back, dipole):
    """Spectrum of the map into ``right``, which holds that of the prior; of its field into ``data``."""
    for i in range(right.shape[0]):
        for j in range(start, stop):
            for k in range(right.shape[2]):
                r, f, a, b, d = right[i, j, k], data[i, j, k], gain[i, j, k], back[i, j, k], dipole[i, j, k]
                real, imag = b * f.real + a * r.real, b * f.imag + a * r.imag
                right[i, j, k] = complex(real, imag)
                data[i, j, k] = complex(d * real, d * imag)


@kernel
def _relax(predicted, dual, target, relaxation):
    """Relaxed prediction into ``target``, which holds what the split was less its dual."""
    keep = np.float32(1) - relaxation
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            for k in range(target.shape[2]):
                target[i, j, k] = relaxation * predicted[i, j, k] + keep * (target[i, j, k] + dual[i, j, k])


@kernel
def _squared(planes, field, weights, spans, mu, dual):
    """The data step on planes of the prediction, which become ``z2 - s``."""
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            for k in range(spans[i, j, 0], spans[i, j, 1]):
                v = planes[i, j, k] + dual[i, j, k]
                w = weights[i, j, k]
                z = (w * field[i, j, k] + mu * v) / (w + mu)
                dual[i, j, k] = v - z
                planes[i, j, k] = 2 * z - v


@kernel
def _absolute(planes, field, weights, spans, mu, dual):
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            for k in range(spans[i, j, 0], spans[i, j, 1]):
                v = planes[i, j, k] + dual[i, j, k]
                limit = weights[i, j, k] / mu
                step = min(max(v - field[i, j, k], -limit), limit)
                dual[i, j, k] = step
                planes[i, j, k] = v - 2 * step


@kernel
def _sine(x):
    """Sine of up to a quarter turn, to rounding."""
    q = x * x
    high = np.float32(-1 / 5040) + q * (np.float32(1 / 362880) - q * np.float32(1 / 39916800))
    return x * (np.float32(1) + q * (np.float32(-1 / 6) + q * (np.float32(1 / 120) + q * high)))


@kernel
def _cosine(x):
    """Cosine of up to a quarter turn, to rounding."""
    q = x * x
    high = np.float32(1 / 40320) - q * (np.float32(1 / 3628800) - q * np.float32(1 / 479001600))
    return np.float32(1) + q * (
        np.float32(-0.5) + q * (np.float32(1 / 24) + q * (np.float32(-1 / 720) + q * high))
    )  # fmt: skip


@kernel
def _compare(planes, field, weights, mu, dual, i, j, first, last, distance, ratio):
    """How far a row is from the nearest turn of the phase, and its weight over the penalty."""
    turn = np.float32(2 * np.pi)
    for k in range(first, last):
        d = planes[i, j, k] + dual[i, j, k] - field[i, j, k]
        distance[k] = d - turn * np.rint(d / turn)
        ratio[k] = weights[i, j, k] / mu


@kernel
def _settle(planes, dual, i, j, first, last, distance, rest):
    """The dual is what the ``rest`` of the distance leaves."""
    for k in range(first, last):
        v = planes[i, j, k] + dual[i, j, k]
        s = distance[k] - rest[k]
        dual[i, j, k] = s
        planes[i, j, k] = v - np.float32(2) * s


@kernel
def _newton_of_squares(first, last, distance, ratio, rest):
    """A step for ``rest + ratio sin(rest) = distance``; how many have not settled."""
    one, two = np.float32(1), np.float32(2)
    moving = 0
    for k in range(first, last):
        r, x = ratio[k], rest[k]
        s, c = _sine(np.float32(0.5) * x), _cosine(np.float32(0.5) * x)
        slope = max(one + r * (one - two * s * s), np.float32(0.25) * (one + r))
        change = (x - distance[k] + two * r * s * c) / slope
        rest[k] = x - change
        moving += abs(change) >= np.float32(SETTLED)
    return moving


@kernel
def _phase(planes, field, weights, spans, mu, dual):
    nz = planes.shape[2]
    distance, ratio = np.empty(nz, dtype=np.float32), np.empty(nz, dtype=np.float32)
    rest = np.empty(nz, dtype=np.float32)
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            first, last = spans[i, j, 0], spans[i, j, 1]
            _compare(planes, field, weights, mu, dual, i, j, first, last, distance, ratio)
            for k in range(first, last):
                rest[k] = distance[k] / (np.float32(1) + ratio[k])
            for _ in range(NEWTON_STEPS):
                if _newton_of_squares(first, last, distance, ratio, rest) == 0:
                    break
            _settle(planes, dual, i, j, first, last, distance, rest)


@kernel
def _newton_of_absolutes(first, last, distance, ratio, rest):
    """A step for ``rest + ratio cos(rest / 2) = |distance|`` where that exceeds the ratio, else 0 is the solution."""
    one, half = np.float32(1), np.float32(0.5)
    moving = 0
    for k in range(first, last):
        r, x, size = ratio[k], half * rest[k], abs(distance[k])
        slope = max(one - half * r * _sine(x), np.float32(0.25))
        change = (rest[k] - size + r * _cosine(x)) / slope
        beyond = size > r
        rest[k] = min(max(rest[k] - change, np.float32(0)), size) if beyond else np.float32(0)
        moving += beyond and abs(change) >= np.float32(SETTLED)
    return moving


@kernel
def _absolute_phase(planes, field, weights, spans, mu, dual):
    nz = planes.shape[2]
    distance, ratio = np.empty(nz, dtype=np.float32), np.empty(nz, dtype=np.float32)
    rest = np.empty(nz, dtype=np.float32)
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            first, last = spans[i, j, 0], spans[i, j, 1]
            _compare(planes, field, weights, mu, dual, i, j, first, last, distance, ratio)
            for k in range(first, last):
                rest[k] = max(abs(distance[k]) - ratio[k], np.float32(0))
            for _ in range(NEWTON_STEPS):
                if _newton_of_absolutes(first, last, distance, ratio, rest) == 0:
                    break
            for k in range(first, last):
                rest[k] = rest[k] if distance[k] > 0 else -rest[k]
            _settle(planes, dual, i, j, first, last, distance, rest)


@kernel
def _find_spans(start, stop, weights, spans):
    """Widen the ``spans`` of rows to where there are weights."""
    for i in range(start, stop):
        for j in range(weights.shape[1]):
            first, last = span(weights[i, j])
            if last > first:
                old = spans[i, j, 1] > spans[i, j, 0]
                spans[i, j, 0] = min(first, spans[i, j, 0]) if old else first
                spans[i, j, 1] = max(last, spans[i, j, 1])


class DataTerm:
    r"""Data step of a pointwise :math:`\phi`, on the host by its kernel, elsewhere by :meth:`nearest`.

    Called with the prediction and the ``target`` of the last step, it leaves that of the next in the second.

    Parameters
    ----------
    field, weights
        Data and weights on the box, float32 ``(x, y, z)``, of the host.
    mu, relaxation
        Penalty and over-relaxation of the split.
    engine
        Where the predictions lie.

    Attributes
    ----------
    relaxed
        Whether the split is over-relaxed, so that the last target matters.
    """

    kernel: Callable[..., None]

    def __init__(
        self, field: np.ndarray, weights: np.ndarray, mu: float, relaxation: float = 1.0, engine: Engine = HOST
    ) -> None:
        self._engine, self._mu, self._relaxation = engine, np.float32(mu), np.float32(relaxation)
        self.relaxed = relaxation != 1
        self._field = engine.send(field)
        # out of the rows' parts with weights the dual is 0; unsigned indices let loops over parts be vectorised
        self._spans = np.zeros((*field.shape[:2], 2), dtype=np.uint64)
        self.reweight(weights)
        self._dual = engine.zeros(field.shape)  # type: ignore[arg-type]

    def reweight(self, weights: np.ndarray) -> None:
        """Other weights from now on."""
        if self._engine is HOST:
            parallel.run(_find_spans, weights.shape[0], weights, self._spans)
        self._weights = self._engine.send(weights)

    def __call__(self, predicted: Any, target: Any) -> None:
        if self._engine is HOST:
            parallel.run(self._volume, predicted.shape[0], predicted, target)
            return
        alpha, mu, dual = float(self._relaxation), float(self._mu), self._dual
        v = alpha * predicted + (1 - alpha) * (target + dual) + dual
        z = self.nearest(self._engine.xp, v, self._field, self._weights, mu)
        dual[...] = v - z
        target[...] = 2 * z - v

    def _volume(self, start: int, stop: int, predicted: np.ndarray, target: np.ndarray) -> None:
        planes = predicted[start:stop].copy()
        self.planes(target if self.relaxed else None, start, stop, planes)
        target[start:stop] = planes

    def planes(self, target: np.ndarray | None, start: int, stop: int, planes: np.ndarray) -> None:
        """The step on ``planes`` of the prediction, which become those of the target, on the host.

        If the split is over-relaxed they are written to ``target`` too, which holds that of the last step.
        """
        dual = self._dual[start:stop]
        if target is not None:
            _relax(planes, dual, target[start:stop], self._relaxation)
            planes[...] = target[start:stop]
        parts = (volume[start:stop] for volume in (self._field, self._weights, self._spans))
        self.kernel(planes, *parts, self._mu, dual)
        if target is not None:
            target[start:stop] = planes

    def first_planes(self, start: int, stop: int, planes: np.ndarray) -> None:
        """The step on a prediction of 0, which leaves the first target."""
        planes[...] = 0
        self.planes(None, start, stop, planes)

    @staticmethod
    def nearest(xp: Any, v: Any, field: Any, weights: Any, mu: float) -> Any:
        r""":math:`\arg\min_z \phi(z) + \tfrac\mu2 (z - v)^2` of every voxel, arrays of the namespace ``xp``."""
        raise NotImplementedError


class SquaredData(DataTerm):
    r"""Data step of :math:`\tfrac12 w (z - f)^2` with ``weights`` :math:`w`."""

    kernel = staticmethod(_squared)

    @staticmethod
    def nearest(xp: Any, v: Any, field: Any, weights: Any, mu: float) -> Any:
        return (weights * field + mu * v) / (weights + mu)


class AbsoluteData(DataTerm):
    r"""Data step of :math:`w |z - f|` with ``weights`` :math:`w` in the unit of the field."""

    kernel = staticmethod(_absolute)

    @staticmethod
    def nearest(xp: Any, v: Any, field: Any, weights: Any, mu: float) -> Any:
        limit = weights / mu
        return v - xp.maximum(xp.minimum(v - field, limit), -limit)


class PhaseData(DataTerm):
    r"""Data step of :math:`\tfrac12 w\,|e^{iz} - e^{if}|^2 = w (1 - \cos(z - f))`, all phases in rad."""

    kernel = staticmethod(_phase)

    @staticmethod
    def nearest(xp: Any, v: Any, field: Any, weights: Any, mu: float) -> Any:
        field = field + 2 * math.pi * xp.round((v - field) / (2 * math.pi))
        z = (weights * field + mu * v) / (weights + mu)
        for _ in range(10):
            slope = xp.maximum(weights * xp.cos(z - field) + mu, (weights + mu) / 4)
            z = z - (weights * xp.sin(z - field) + mu * (z - v)) / slope
        return xp.where(weights > 0, z, v)


class AbsolutePhaseData(DataTerm):
    r"""Data step of :math:`w\,|e^{iz} - e^{if}| = 2 w\,|\sin((z - f)/2)|`, all phases in rad."""

    kernel = staticmethod(_absolute_phase)

    @staticmethod
    def nearest(xp: Any, v: Any, field: Any, weights: Any, mu: float) -> Any:
        limit = weights / mu
        field = field + 2 * math.pi * xp.round((v - field) / (2 * math.pi))
        distance = xp.abs(v - field)
        left = xp.maximum(distance - limit, 0 * distance)
        for _ in range(10):
            slope = xp.clip(1 - limit * xp.sin(left / 2) / 2, 0.25, None)
            change = (left - distance + limit * xp.cos(left / 2)) / slope
            left = xp.minimum(xp.maximum(left - change, 0 * distance), distance)
        left = xp.where(distance <= limit, 0 * distance, left)
        return xp.where(limit > 0, field + xp.sign(v - field) * left, v)
