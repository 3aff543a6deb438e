r"""Iterative solvers for linear least squares, with scalars in float64 and sums in a fixed order.

:func:`lsmr` solves :math:`\min_x \|A x - b\|_2` for an operator that is known by its products with vectors, by the
Golub-Kahan bidiagonalisation of Fong and Saunders 2011; stopped early it regularises. Vectors are float32 arrays of
any shape.

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

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.registry.methods import Progress

Operator = Callable[[np.ndarray], np.ndarray]

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

    x: np.ndarray
    iterations: int
    residual: float


def norm(volume: np.ndarray) -> float:
    """Euclidean norm, summed in float64 in a fixed order."""
    flat = volume.reshape(-1)
    return math.sqrt(float(parallel.total(_square, flat.size, flat)))


def lsmr(
    forward: Operator,
    adjoint: Operator,
    right: np.ndarray,
    *,
    tolerance: float = 1e-6,
    iterations: int = 100,
    progress: Progress | None = None,
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

    >>> a = np.diag([1.0, 2.0, 4.0]).astype(np.float32)
    >>> lsmr(lambda x: a @ x, lambda y: a.T @ y, np.array([1, 2, 4], np.float32)).x.round(4).tolist()
    [1.0, 1.0, 1.0]
    """
    u = np.array(right, dtype=np.float32)
    beta = norm(u)
    v = adjoint(u) if beta == 0 else _scaled(adjoint(_scaled(u, 1 / beta)), 1.0)
    alpha = norm(v) if beta > 0 else 0.0
    x = np.zeros_like(v)
    if alpha == 0:
        return Solution(x, 0, 0.0)
    _scaled(v, 1 / alpha)
    h, hbar = v.copy(), np.zeros_like(v)
    zeta_bar, alpha_bar, rho, rho_bar, c_bar, s_bar = alpha * beta, alpha, 1.0, 1.0, 1.0, 0.0
    first, norm_square, ratio = alpha * beta, alpha * alpha, 1.0
    beta_dd, beta_d, rho_dold, tau_old, theta_tilde, zeta = beta, 0.0, 1.0, 0.0, 0.0, 0.0
    count = 0
    for count in range(1, iterations + 1):
        fresh = forward(v)
        _combine(u, -alpha, fresh)
        u = fresh
        beta = norm(u)
        if beta > 0:
            _scaled(u, 1 / beta)
            fresh = adjoint(u)
            _combine(v, -beta, fresh)
            v = fresh
            alpha = norm(v)
            if alpha > 0:
                _scaled(v, 1 / alpha)
        else:
            alpha = 0.0
        rho_old, (c, s, rho) = rho, _rotation(alpha_bar, beta)
        theta, alpha_bar = s * alpha, c * alpha
        rho_bar_old, zeta_old = rho_bar, zeta
        theta_bar = s_bar * rho
        rho_temp = c_bar * rho
        c_bar, s_bar, rho_bar = _rotation(rho_temp, theta)
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar
        _combine(hbar, -theta_bar * rho / (rho_old * rho_bar_old), h, into_first=True)
        _combine(hbar, zeta / (rho * rho_bar), x)
        _combine(h, -theta / rho, v, into_first=True)
        # norm of the residual by plane rotations (Fong and Saunders, section 5)
        beta_hat, beta_dd = c * beta_dd, -s * beta_dd
        theta_tilde_old = theta_tilde
        ct, st, rho_tilde = _rotation(rho_dold, theta_bar)
        theta_tilde, rho_dold = st * rho_bar, ct * rho_bar
        beta_d = -st * beta_d + ct * beta_hat
        tau_old = (zeta_old - theta_tilde_old * tau_old) / rho_tilde
        tau = (zeta - theta_tilde * tau_old) / rho_dold
        residual = math.sqrt(max(0.0, (beta_d - tau) ** 2 + beta_dd**2))
        norm_square += beta * beta
        ratio = abs(zeta_bar) / (math.sqrt(norm_square) * residual) if residual > 0 else 0.0
        norm_square += alpha * alpha
        if progress:
            progress(count / iterations)
        if ratio <= tolerance or alpha == 0 or abs(zeta_bar) <= tolerance * 1e-3 * first:
            break
    return Solution(x, count, ratio)


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


def _scaled(x: np.ndarray, factor: float) -> np.ndarray:
    x *= np.float32(factor)
    return x


def _combine(a: np.ndarray, factor: float, b: np.ndarray, *, into_first: bool = False) -> None:
    """``b += factor * a``, or ``a = factor * a + b`` if ``into_first``."""
    first, second = a.reshape(-1), b.reshape(-1)
    if into_first:
        parallel.run(_scale_add, first.size, first, np.float32(factor), second)
    else:
        parallel.run(_add, first.size, second, np.float32(factor), first)


@kernel
def _square(start, stop, x):
    total = 0.0
    for i in range(start, stop):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@kernel
def _add(start, stop, y, factor, x):
    for i in range(start, stop):
        y[i] += factor * x[i]


@kernel
def _scale_add(start, stop, y, factor, x):
    for i in range(start, stop):
        y[i] = factor * y[i] + x[i]


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
