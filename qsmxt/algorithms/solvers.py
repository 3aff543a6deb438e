r"""Iterative solvers for linear least squares, with scalars in float64 and sums in a fixed order.

:func:`lsmr` solves :math:`\min_x \|A x - b\|_2` for an operator that is known by its products with vectors, by the
Golub-Kahan bidiagonalisation of Fong and Saunders 2011; stopped early it regularises. Vectors are float32 arrays of
any shape. :func:`lsmr_of_data` and :func:`lsmr_of_normal` find the same by products with :math:`AA^T` and with
:math:`A^TA`, without the vectors of the other space: what they need of those are scalars. That pays where one space is
much smaller, or where the product costs less than two products with :math:`A`.

:func:`diagonal_filter` gives what LSMR does after a few iterations when :math:`A` is diagonal, as convolution with the
dipole is in k-space: the solution is then :math:`x = D\,q(D^2)\,b` with the polynomial :math:`q` of degree
``iterations - 1`` that minimises :math:`\|D(b - Dx)\|`, and :math:`q` follows from a histogram of
:math:`|b|^2` over :math:`D^2`, without a single vector operation.

References
----------
Fong and Saunders 2011 (doi:10.1137/10079687X).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.registry.methods import Progress

Operator = Callable[[Any], Any]

#: Bins of the histogram over the squared dipole.
BINS = 4096


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes
    ----------
    x
        Solution, float32.
    iterations
        Number of iterations done.
    residual
        Norm of the normal residual relative to norm of operator times norm of residual.
    """

    x: Any
    iterations: int
    residual: float


def lsmr(
    forward: Operator,
    adjoint: Operator,
    right: Any,
    *,
    tolerance: float = 1e-6,
    iterations: int = 100,
    progress: Progress | None = None,
    engine: Engine = HOST,
) -> Solution:
    """Least-squares solution of ``forward(x) = right`` from zero.

    Parameters
    ----------
    forward, adjoint
        The operator and its adjoint; they must return new arrays.
    right
        Right-hand side, any shape, float32.
    tolerance
        Stop when the normal residual is below it, relative to operator and residual.
    iterations
        Most iterations.
    engine
        Where the vectors are.

    >>> a = np.diag([1.0, 2.0, 4.0]).astype(np.float32)
    >>> lsmr(lambda x: a @ x, lambda y: a.T @ y, np.array([1, 2, 4], np.float32)).x.round(4).tolist()
    [1.0, 1.0, 1.0]
    """
    u = engine.xp.asarray(right, dtype=engine.xp.float32, copy=True)
    beta = engine.norm(u)
    v = adjoint(u) if beta == 0 else engine.scaled(adjoint(engine.scaled(u, 1 / beta)), 1.0)
    alpha = engine.norm(v) if beta > 0 else 0.0
    x = engine.xp.zeros_like(v)
    if alpha == 0:
        return Solution(x, 0, 0.0)
    h, hbar = engine.copy(engine.scaled(v, 1 / alpha)), engine.xp.zeros_like(v)
    rotations = _Rotations(alpha, beta)
    for _ in range(iterations):
        fresh = forward(v)
        beta, u = engine.blend(fresh, 1.0, u, -alpha), fresh
        alpha = 0.0
        if beta > 0:
            fresh = adjoint(engine.scaled(u, 1 / beta))
            alpha, v = engine.blend(fresh, 1.0, v, -beta), fresh
        if alpha > 0:
            engine.scaled(v, 1 / alpha)
        engine.advance(rotations.step(alpha, beta), v, h, hbar, x)
        if progress:
            progress(rotations.count / iterations)
        if rotations.done(tolerance):
            break
    return Solution(x, rotations.count, rotations.ratio)


def lsmr_of_data(
    gram: Operator,
    right: Any,
    *,
    tolerance: float,
    iterations: int,
    engine: Engine = HOST,
    progress: Progress | None = None,
) -> Solution:
    r"""What :func:`lsmr` finds, as :math:`A^T x` with ``x`` in the space of the data.

    With :math:`G = AA^T`, :math:`v_k = A^T t_k` and :math:`q_k = A v_k`,

    .. math:: \beta_{k+1} u_{k+1} = q_k - \alpha_k u_k, \quad
              \alpha_{k+1}^2 = u_{k+1}^T G u_{k+1} - \beta_{k+1}^2, \quad
              \alpha_{k+1} t_{k+1} = u_{k+1} - \beta_{k+1} t_k, \quad
              \alpha_{k+1} q_{k+1} = G u_{k+1} - \beta_{k+1} q_k .

    Parameters
    ----------
    gram
        Product with :math:`AA^T`; must return a new array.
    right, tolerance, iterations, engine, progress
        As for :func:`lsmr`.

    >>> a = np.array([[1, 1, 0], [0, 2, 1]], np.float32)
    >>> found = lsmr_of_data(lambda y: a @ (a.T @ y), np.array([2, 3], np.float32), tolerance=1e-6, iterations=9)
    >>> (a @ (a.T @ found.x)).round(4).tolist()
    [2.0, 3.0]
    """
    u = engine.xp.asarray(right, dtype=engine.xp.float32, copy=True)
    x, t, q = (engine.xp.zeros_like(u) for _ in range(3))
    beta = engine.norm(u)
    alpha = _to_data(engine, gram, u, t, q, beta, 0.0)
    if alpha == 0:
        return Solution(x, 0, 0.0)
    h, hbar = engine.copy(t), engine.xp.zeros_like(u)
    rotations = _Rotations(alpha, beta)
    for _ in range(iterations):
        beta = engine.blend(u, -alpha, q, 1.0)
        alpha = _to_data(engine, gram, u, t, q, beta, beta)
        engine.advance(rotations.step(alpha, beta), t, h, hbar, x)
        if progress:
            progress(rotations.count / iterations)
        if rotations.done(tolerance):
            break
    return Solution(x, rotations.count, rotations.ratio)


def _to_data(engine: Engine, gram: Operator, u: Any, t: Any, q: Any, size: float, beta: float) -> float:
    """Next ``t`` and ``q`` of :func:`lsmr_of_data` from ``u`` of norm ``size``, which is normalised; returns alpha."""
    if size == 0:
        return 0.0
    image = gram(engine.scaled(u, 1 / size))
    alpha = math.sqrt(max(0.0, engine.product(u, image) - beta * beta))
    if alpha > 0:
        engine.add(t, -beta / alpha, u, 1 / alpha)
        engine.add(q, -beta / alpha, image, 1 / alpha)
    return alpha


def lsmr_of_normal(
    normal: Operator,
    right: Any,
    size: float,
    *,
    tolerance: float,
    iterations: int,
    engine: Engine = HOST,
    progress: Progress | None = None,
) -> Solution:
    r"""What :func:`lsmr` finds, from :math:`A^T b` and the norm of :math:`b`.

    With :math:`N = A^TA` and :math:`p_k = A^T u_k`,

    .. math:: \beta_{k+1}^2 = v_k^T N v_k - \alpha_k^2, \quad \beta_{k+1} p_{k+1} = N v_k - \alpha_k p_k, \quad
              \alpha_{k+1} v_{k+1} = p_{k+1} - \beta_{k+1} v_k .

    Parameters
    ----------
    normal
        Product with :math:`A^TA`; must return a new array.
    right, size
        :math:`A^T b` and :math:`\|b\|`.
    tolerance, iterations, engine, progress
        As for :func:`lsmr`.

    >>> a, b = np.diag([1.0, 2.0, 4.0]).astype(np.float32), np.array([1, 2, 4], np.float32)
    >>> lsmr_of_normal(lambda x: a @ (a @ x), a @ b, 21**0.5, tolerance=1e-6, iterations=9).x.round(4).tolist()
    [1.0, 1.0, 1.0]
    """
    x = engine.xp.zeros_like(right)
    if size == 0 or engine.norm(right) == 0:
        return Solution(x, 0, 0.0)
    p = right / float(np.float32(size))
    beta, alpha = size, engine.norm(p)
    v = p / float(np.float32(alpha))
    h, hbar = engine.copy(v), engine.xp.zeros_like(x)
    rotations = _Rotations(alpha, beta)
    for _ in range(iterations):
        image = normal(v)
        beta = math.sqrt(max(0.0, engine.product(v, image) - alpha * alpha))
        old, alpha = alpha, 0.0
        if beta > 0:
            engine.add(p, -old / beta, image, 1 / beta)
            alpha = engine.blend(v, -beta, p, 1.0)
        if alpha > 0:
            engine.scaled(v, 1 / alpha)
        engine.advance(rotations.step(alpha, beta), v, h, hbar, x)
        if progress:
            progress(rotations.count / iterations)
        if rotations.done(tolerance):
            break
    return Solution(x, rotations.count, rotations.ratio)


class _Rotations:
    """Scalars of LSMR: from the bidiagonal matrix to the weights of its vectors and the norm of the residual.

    Attributes
    ----------
    count
        Iterations done.
    ratio
        Norm of the normal residual over norm of operator times norm of residual.
    """

    def __init__(self, alpha: float, beta: float) -> None:
        self._alpha_bar, self._alpha = alpha, alpha
        self._rho, self._rho_bar, self._c_bar, self._s_bar = 1.0, 1.0, 1.0, 0.0
        self._zeta, self._zeta_bar, self._first = 0.0, alpha * beta, alpha * beta
        self._norm_square = alpha * alpha
        self._beta_dd, self._beta_d, self._rho_dold, self._tau, self._theta_tilde = beta, 0.0, 1.0, 0.0, 0.0
        self.count, self.ratio = 0, 1.0

    def step(self, alpha: float, beta: float) -> tuple[float, float, float]:
        """Take the next two elements; the factors of :func:`qsmxt.algorithms.vectors.advance`."""
        rho_old, (c, s, self._rho) = self._rho, _rotation(self._alpha_bar, beta)
        theta, self._alpha_bar = s * alpha, c * alpha
        rho_bar_old, zeta_old = self._rho_bar, self._zeta
        theta_bar = self._s_bar * self._rho
        self._c_bar, self._s_bar, self._rho_bar = _rotation(self._c_bar * self._rho, theta)
        self._zeta, self._zeta_bar = self._c_bar * self._zeta_bar, -self._s_bar * self._zeta_bar
        residual = self._residual(c, s, theta_bar, zeta_old)
        self._norm_square += beta * beta
        scale = math.sqrt(self._norm_square) * residual
        self.ratio = abs(self._zeta_bar) / scale if residual > 0 else 0.0
        self._norm_square += alpha * alpha
        self._alpha = alpha
        self.count += 1
        rho = self._rho
        return -theta_bar * rho / (rho_old * rho_bar_old), self._zeta / (rho * self._rho_bar), -theta / rho

    def _residual(self, c: float, s: float, theta_bar: float, zeta_old: float) -> float:
        """Norm of the residual by plane rotations (Fong and Saunders, section 5)."""
        beta_hat, self._beta_dd = c * self._beta_dd, -s * self._beta_dd
        theta_tilde_old = self._theta_tilde
        ct, st, rho_tilde = _rotation(self._rho_dold, theta_bar)
        self._theta_tilde, self._rho_dold = st * self._rho_bar, ct * self._rho_bar
        self._beta_d = -st * self._beta_d + ct * beta_hat
        self._tau = (zeta_old - theta_tilde_old * self._tau) / rho_tilde
        tau = (self._zeta - self._theta_tilde * self._tau) / self._rho_dold
        return math.sqrt(max(0.0, (self._beta_d - tau) ** 2 + self._beta_dd**2))

    def done(self, tolerance: float) -> bool:
        """Whether the normal residual is small, or nothing is left."""
        return self.ratio <= tolerance or self._alpha == 0 or abs(self._zeta_bar) <= tolerance * 1e-3 * self._first


def diagonal_filter(diagonal: np.ndarray, data: np.ndarray, weights: np.ndarray, iterations: int) -> np.ndarray:
    """Factor of ``data`` that LSMR with a real ``diagonal`` operator reaches after ``iterations``.

    Parameters
    ----------
    diagonal
        Real operator, float32 half spectrum.
    data
        Complex half spectrum of the right-hand side.
    weights
        How often samples along the last axis occur in the full spectrum.
    iterations
        Number of iterations; the regularisation weakens with it.
    """
    largest = float(np.abs(diagonal).max()) ** 2
    if largest == 0:
        return np.zeros_like(diagonal)
    factor = np.float64((BINS - 1) / largest)
    power = parallel.total(_histogram, diagonal.shape[0], diagonal, data, weights.ravel(), factor)
    t = np.arange(BINS) / (BINS - 1)
    basis = np.polynomial.legendre.legvander(2 * t - 1, iterations - 1)
    root = np.sqrt(power * t)
    coefficients = np.linalg.lstsq(root[:, None] * t[:, None] * basis, root, rcond=None)[0]
    table = (basis @ coefficients / largest).astype(np.float32)
    out = np.empty_like(diagonal)
    parallel.run(_look_up, diagonal.shape[0], diagonal, table, factor, out)
    return out


def _rotation(a: float, b: float) -> tuple[float, float, float]:
    r = math.hypot(a, b)
    return (1.0, 0.0, 0.0) if r == 0 else (a / r, b / r, r)


@kernel
def _histogram(start, stop, diagonal, data, weights, factor):
    counts = np.zeros(4096)
    for i in range(start, stop):
        for j in range(diagonal.shape[1]):
            for k in range(diagonal.shape[2]):
                d = diagonal[i, j, k]
                value = data[i, j, k]
                power = np.float64(value.real) ** 2 + np.float64(value.imag) ** 2
                counts[int(d * d * factor + 0.5)] += weights[k] * power
    return counts


@kernel
def _look_up(start, stop, diagonal, table, factor, out):
    for i in range(start, stop):
        for j in range(diagonal.shape[1]):
            for k in range(diagonal.shape[2]):
                d = diagonal[i, j, k]
                position = min(d * d * factor, table.size - 1.0)
                below = min(int(position), table.size - 2)
                part = np.float32(position - below)
                out[i, j, k] = d * (table[below] + part * (table[below + 1] - table[below]))
