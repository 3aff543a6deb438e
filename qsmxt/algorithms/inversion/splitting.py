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

Both splits can be over-relaxed (:math:`\alpha`, 1.8 saves half of the iterations): the data step then sees
:math:`\alpha D\chi + (1 - \alpha) z_2`, the prior the same of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.registry.methods import Progress

#: Penalty of the data split.
DATA_PENALTY = 0.1

DataStep = Callable[[Any, Any], None]


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
        self._right, self.target, self.chi = (engine.zeros(grid.shape) for _ in range(3))

    def start(self, data_step: DataStep, chi: Any = None) -> None:
        """Take the data into ``target`` before the first iteration; begin with the map ``chi`` instead of 0."""
        if chi is None:
            data_step(self.engine.zeros(self.grid.shape), self.target)
            return
        predicted = self.engine.filtered(chi, self.dipole)
        self.target[...] = predicted
        data_step(predicted, self.target)
        self.prior.step(chi, self.threshold, self._right)

    def iterate(self, data_step: DataStep, iterations: int, tolerance: float, progress: Progress | None = None) -> Any:
        """Iterate until the map changes by less than ``tolerance``, or ``iterations`` times; returns the map."""
        engine = self.engine
        for iteration in range(iterations):
            old = self.chi
            self.chi, predicted = self._solve()
            data_step(predicted, self.target)
            del predicted
            self.prior.step(self.chi, self.threshold, self._right)
            if progress:
                progress((iteration + 1) / iterations)
            if iteration > 0 and engine.change(self.chi, old) < tolerance:
                break
        return self.chi

    def _solve(self) -> tuple[Any, Any]:
        """Map and its field from the two splits."""
        engine, shape = self.engine, self.grid.shape
        if engine is HOST:
            chi, field = fourier.through((self._right, self.target), _solve_rows, self._gain, self._back, self.dipole)
            return chi, field
        spectrum = self._back * engine.forward(self.target) + self._gain * engine.forward(self._right)
        return engine.inverse(engine.copy(spectrum), shape), engine.inverse(self.dipole * spectrum, shape)


@kernel
def _solve_rows(start, stop, right, data, gain, back, dipole):
    """Spectrum of the map into ``right``, which holds that of the prior; of its field into ``data``."""
    for i in range(right.shape[0]):
        for j in range(start, stop):
            for k in range(right.shape[2]):
                chi = back[i, j, k] * data[i, j, k] + gain[i, j, k] * right[i, j, k]
                right[i, j, k] = chi
                data[i, j, k] = dipole[i, j, k] * chi


@kernel
def _relaxed(predicted, dual, target, relaxation):
    """What a data step compares with the field: the relaxed prediction and the dual."""
    return relaxation * predicted + (np.float32(1) - relaxation) * (target + dual) + dual


@kernel
def _squared(start, stop, predicted, field, weights, mu, relaxation, dual, target):
    for i in range(start, stop):
        for j in range(predicted.shape[1]):
            for k in range(predicted.shape[2]):
                v = _relaxed(predicted[i, j, k], dual[i, j, k], target[i, j, k], relaxation)
                w = weights[i, j, k]
                z = (w * field[i, j, k] + mu * v) / (w + mu)
                dual[i, j, k] = v - z
                target[i, j, k] = 2 * z - v


@kernel
def _absolute(start, stop, predicted, field, weights, mu, relaxation, dual, target):
    for i in range(start, stop):
        for j in range(predicted.shape[1]):
            for k in range(predicted.shape[2]):
                v = _relaxed(predicted[i, j, k], dual[i, j, k], target[i, j, k], relaxation)
                limit = weights[i, j, k] / mu
                step = min(max(v - field[i, j, k], -limit), limit)
                dual[i, j, k] = step
                target[i, j, k] = v - 2 * step


@kernel
def _phase(start, stop, predicted, field, weights, mu, relaxation, dual, target):
    turn = np.float32(2 * np.pi)
    for i in range(start, stop):
        for j in range(predicted.shape[1]):
            for k in range(predicted.shape[2]):
                v = _relaxed(predicted[i, j, k], dual[i, j, k], target[i, j, k], relaxation)
                w = weights[i, j, k]
                z = v
                if w > 0:
                    f = field[i, j, k]
                    f += turn * np.float32(np.rint((v - f) / turn))
                    z = (w * f + mu * v) / (w + mu)
                    for _ in range(10):
                        slope = max(w * np.cos(z - f) + mu, np.float32(0.25) * (w + mu))
                        change = (w * np.sin(z - f) + mu * (z - v)) / slope
                        z -= change
                        if abs(change) < np.float32(1e-4):
                            break
                dual[i, j, k] = v - z
                target[i, j, k] = 2 * z - v


@kernel
def _absolute_phase(start, stop, predicted, field, weights, mu, relaxation, dual, target):
    turn = np.float32(2 * np.pi)
    half = np.float32(0.5)
    for i in range(start, stop):
        for j in range(predicted.shape[1]):
            for k in range(predicted.shape[2]):
                v = _relaxed(predicted[i, j, k], dual[i, j, k], target[i, j, k], relaxation)
                limit = weights[i, j, k] / mu
                z = v
                if limit > 0:
                    f = field[i, j, k]
                    f += turn * np.float32(np.rint((v - f) / turn))
                    distance = abs(v - f)
                    if distance <= limit:
                        z = f
                    else:
                        left = distance - limit
                        for _ in range(10):
                            slope = max(1 - half * limit * np.sin(half * left), np.float32(0.25))
                            change = (left - distance + limit * np.cos(half * left)) / slope
                            left = min(max(left - change, np.float32(0)), distance)
                            if abs(change) < np.float32(1e-4):
                                break
                        z = f + left if v > f else f - left
                dual[i, j, k] = v - z
                target[i, j, k] = 2 * z - v


class DataTerm:
    r"""Data step of a pointwise :math:`\phi`, on the host by its kernel, elsewhere by :meth:`nearest`.

    Parameters
    ----------
    field, weights
        Data and weights on the box, float32 ``(x, y, z)``, of the host.
    mu, relaxation
        Penalty and over-relaxation of the split.
    engine
        Where the predictions lie.
    """

    kernel: Callable[..., None]

    def __init__(
        self, field: np.ndarray, weights: np.ndarray, mu: float, relaxation: float = 1.0, engine: Engine = HOST
    ) -> None:
        self._engine = engine
        dual = engine.zeros(field.shape)  # type: ignore[arg-type]
        self._arguments = (engine.send(field), engine.send(weights), np.float32(mu), np.float32(relaxation), dual)

    def reweight(self, weights: np.ndarray) -> None:
        """Other weights from now on."""
        self._arguments = (self._arguments[0], self._engine.send(weights), *self._arguments[2:])

    def __call__(self, predicted: Any, target: Any) -> None:
        if self._engine is HOST:
            parallel.run(self.kernel, predicted.shape[0], predicted, *self._arguments, target)
            return
        field, weights, mu, relaxation, dual = self._arguments
        v = float(relaxation) * predicted + (1 - float(relaxation)) * (target + dual) + dual
        z = self.nearest(self._engine.xp, v, field, weights, float(mu))  # type: ignore[attr-defined]
        dual[...] = v - z
        target[...] = 2 * z - v

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
