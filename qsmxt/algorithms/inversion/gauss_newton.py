r"""Gauss-Newton iteration with conjugate gradients for an edge-weighted total-variation prior.

.. math:: \min_x \tfrac12\|W(e^{iHx} - e^{if})\|_2^2 + \lambda\|M_G\nabla x\|_1
          + \tfrac{\beta}{2}\|C(x - \bar x_C)\|_2^2

:math:`f` is the field and :math:`x` the map in radians, :math:`H` a real convolution, :math:`M_G` 0 on edges of the
magnitude and 1 elsewhere, :math:`C` an optional region of one value. Each outer step solves

.. math:: \left[\nabla^T V\nabla + H W^2 H + \beta C(1 - \overline{\,\cdot\,})\right]\delta = -\text{gradient}, \qquad
          V = \frac{\lambda M_G^2}{\sqrt{(M_G\nabla x)^2 + \epsilon}}

by conjugate gradients. The preconditioner is the same operator with constant weights, diagonal in k-space: it cuts the
iterations about threefold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsmxt.algorithms import kernels
from qsmxt.algorithms.angles import sine
from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import gradient, inverse_sizes
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.algorithms.fourier import Support
from qsmxt.algorithms.packing import Packing
from qsmxt.algorithms.quantiles import quantiles
from qsmxt.algorithms.rows import span
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Progress

#: Smoothing of the absolute value, (ppm/mm)^2.
SMOOTHING = 1e-6

#: Added to the symbol of the preconditioner before it is inverted.
TINY = np.float32(1e-6)


@dataclass
class Problem:
    """What is minimised.

    Attributes
    ----------
    grid
        Grid of all volumes.
    field
        Field, rad.
    squared_weights
        Squared data weights, 0 where there are no data.
    convolution
        Half spectrum of H.
    edges
        Where the prior holds, bool ``(3, x, y, z)``: not on edges.
    scale
        Phase per field (rad/ppm).
    weight
        Weight of the prior, ppm mm.
    constant_region, constant_weight
        Region of one value (bool) and its weight, or ``None``.
    engine
        Where the arrays are.
    support
        Rows out of which there are no data; ``None``: there are data everywhere.
    """

    grid: Grid
    field: Any
    squared_weights: Any
    convolution: Any
    edges: Any
    scale: np.float32
    weight: float
    constant_region: Any = None
    constant_weight: float = 0.0
    engine: Engine = HOST
    support: Support | None = None

    def on(self, engine: Engine) -> Problem:
        """The same with all arrays where ``engine`` computes."""
        arrays: dict[str, Any] = {}
        for name in ("field", "squared_weights", "convolution", "edges", "constant_region"):
            volume = getattr(self, name)
            arrays[name] = None if volume is None else engine.send(volume)
        return replace(self, engine=engine, **arrays)

    def constant(self, x: Any) -> Any:
        """Part of the operator that belongs to the region of one value."""
        if self.constant_region is None:
            return None
        xp, region = self.engine.xp, self.constant_region
        out = xp.zeros_like(x)
        values = x[region]
        mean = float(xp.sum(values, dtype=xp.float64)) / values.shape[0]
        departure = xp.astype(values, xp.float64) - mean
        out[region] = xp.astype(float(np.float32(self.constant_weight)) * departure, xp.float32)
        return out


def edge_mask(magnitude: np.ndarray | None, mask: np.ndarray, grid: Grid, fraction: float) -> np.ndarray:
    """Bool ``(3, x, y, z)``: not on the ``fraction`` of strongest differences of the magnitude in the mask."""
    if magnitude is None or fraction == 0:
        return np.ones((3, *grid.shape), dtype=bool)
    slopes = gradient(np.where(mask, magnitude, np.float32(0)), grid)
    np.abs(slopes, out=slopes)
    packing = Packing(mask)
    inside = np.concatenate([packing.pack(part) for part in slopes])
    limit = quantiles(inside, (1 - fraction,))[0]
    if limit == 0 and not inside.any():
        return np.ones(slopes.shape, dtype=bool)
    return slopes <= limit


def share_of_variation(chi: np.ndarray, edges: np.ndarray, domain: Domain) -> float:
    """Total variation of ``chi`` (ppm) in the mask over that off the ``edges``.

    A prior that sees the part off the edges alone costs as much as one that sees all if its weight is larger by this.
    """
    slopes = np.abs(gradient(chi, domain.grid)) * domain.mask
    off = float((slopes * edges).sum(dtype=np.float64))
    return float(slopes.sum(dtype=np.float64)) / off if off > 0 else 1.0


def minimise(
    problem: Problem,
    *,
    outer: int,
    inner: int,
    tolerance: float,
    inner_tolerance: float,
    scaling: Any = None,
    reweight: Callable[[Problem, Any], None] | None = None,
    progress: Progress | None = None,
) -> Any:
    """The map (rad), where the arrays of the problem are.

    Parameters
    ----------
    problem
        What is minimised.
    outer, tolerance
        Most outer steps, and the relative change of the map at which they end.
    inner, inner_tolerance
        Most conjugate-gradient iterations in a step, and their relative residual.
    scaling
        Diagonal preconditioner in image space: larger where larger values are expected.
    reweight
        Called with the problem and the data residual after every outer step; may change the weights.
    progress
        Told the fraction done.
    """
    engine = problem.engine
    x, predicted = engine.zeros(problem.grid.shape), engine.zeros(problem.grid.shape)
    newton = _Newton(problem, scaling)
    for step in range(outer):
        right = newton.linearise(x, predicted)
        change, _ = conjugate_gradients.solve_fused(
            newton.operator,
            right,
            tolerance=inner_tolerance,
            iterations=inner,
            precondition=newton.precondition,
            engine=engine,
        )
        x += change
        if progress:
            progress((step + 1) / outer)
        size = engine.norm(x)
        if step + 1 == outer or size == 0 or engine.norm(change) < tolerance * size:
            break
        predicted = engine.filtered(x, problem.convolution, None, problem.support, predicted)
        if reweight:
            reweight(problem, engine.xp.sin(predicted - problem.field))
    return x


class _Newton:
    """The linear system of an outer step, in memory that is used again."""

    def __init__(self, problem: Problem, scaling: Any) -> None:
        grid, engine = problem.grid, problem.engine
        self.problem, self.scaling = problem, scaling
        self.inside = problem.squared_weights > 0
        self.laplacian = engine.send(kernels.negative_laplacian(grid))
        self.inverted = engine.zeros(problem.convolution.shape)
        self.inverse = inverse_sizes(grid)
        self.rows = engine.send(_rows(engine.fetch(problem.edges)))
        self.stiffness = engine.zeros((3, *grid.shape))
        self.image, self.conditioned = engine.zeros(grid.shape), engine.zeros(grid.shape)

    def linearise(self, x: Any, predicted: Any) -> Any:
        """The right-hand side about ``x``, whose field is ``predicted``, after stiffness and preconditioner."""
        problem, engine, length = self.problem, self.problem.engine, x.shape[0]
        epsilon = np.float32(SMOOTHING * float(problem.scale) ** 2)
        weight = np.float32(problem.weight * float(problem.scale))
        engine.run(_stiffness, _stiffness_form, length, x, problem.edges, self.inverse, weight, epsilon, self.stiffness)
        typical = np.float32(engine.median(self.stiffness, self.inside))
        convolution, inverted = problem.convolution, self.inverted
        engine.run(_invert, _invert_form, convolution.shape[0], convolution, self.laplacian, typical, TINY, inverted)
        inverted[0, 0, 0] = convolution[0, 0, 0] ** 2  # data hardly tell the constant: a large factor is of rounding
        misfit = engine.passing(
            _misfit, _misfit_form, predicted, problem.field, problem.squared_weights, self.conditioned
        )
        right = engine.filtered(
            self.conditioned, convolution, problem.support, None, make=misfit, use=self._stiff(x, -1)
        )
        constant = problem.constant(x)
        if constant is not None:
            right -= constant
        return right

    def operator(self, v: Any, make: Any) -> tuple[Any, float]:
        """The matrix times ``v``."""
        problem, stiff = self.problem, self._stiff(v, 1)
        image = problem.engine.weighted(
            v, problem.convolution, problem.squared_weights, problem.support, self.image, make=make, use=stiff
        )
        constant, product = problem.constant(v), stiff.total
        if constant is not None:
            image += constant
            product += conjugate_gradients.dot(problem.engine, v, constant)
        return image, product

    def precondition(self, r: Any, make: Any) -> tuple[Any, float]:
        """The matrix with constant weights, inverted, times ``r``."""
        engine, scaling, scaled = self.problem.engine, self.scaling, self.conditioned
        if scaling is None:
            along = engine.passing(conjugate_gradients.dot_rows, conjugate_gradients.dot_form, r)
            return engine.filtered(r, self.inverted, out=self.conditioned, make=make, use=along), along.total
        before = engine.passing(_scale, _scale_form, scaling, r, scaled)
        after = engine.passing(_scale_along, _scale_along_form, scaling, r)
        before = before if make is None else engine.both(make, before)
        return engine.filtered(scaled, self.inverted, out=self.conditioned, make=before, use=after), after.total

    def _stiff(self, v: Any, sign: int) -> Any:
        """A pass that adds ``grad^T V grad v`` times ``sign``."""
        squares = (sign * self.inverse**2).astype(np.float32)
        return self.problem.engine.passing(_add_stiffness, _add_stiffness_form, v, self.stiffness, squares, self.rows)


def _rows(edges: np.ndarray) -> np.ndarray:
    """Rows out of which there is no stiffness, bool ``(x, y)``: none of the prior at a voxel nor one before it."""
    x, y, z = np.asarray(edges.any(axis=3))
    return x | np.roll(x, 1, axis=0) | y | np.roll(y, 1, axis=1) | z


def reject_outliers(problem: Problem, residual: Any) -> None:
    """Lower the weights of voxels whose weighted residual is above six standard deviations (``merit``)."""
    xp, squared = problem.engine.xp, problem.squared_weights
    inside = squared > 0
    weighted = xp.abs(residual[inside]) * xp.sqrt(squared[inside])
    deviation = float(xp.std(xp.astype(weighted, xp.float64)))
    excess = weighted / float(np.float32(6 * deviation + 1e-30))
    squared[inside] = squared[inside] / xp.clip(excess, 1.0, None) ** 4


def add_csf(problem: Problem, domain: Domain, csf_mask: np.ndarray | None, weight: float) -> None:
    """Let the CSF inside the mask tend to one value."""
    if csf_mask is None or weight == 0:
        return
    domain.crop.full.check("csf_mask", csf_mask)
    region = domain.crop.extract(np.asarray(csf_mask).astype(bool)) & domain.mask
    if region.any():
        problem.constant_region, problem.constant_weight = region, weight


def _stiffness_form(xp: Any, x: Any, edges: Any, inverse: list[float], weight: float, epsilon: float, out: Any) -> None:
    for axis, factor in enumerate(inverse):
        g = (xp.roll(x, -1, axis=axis) - x) * factor
        out[axis, ...] = xp.where(edges[axis, ...], weight / xp.sqrt(g * g + epsilon), xp.zeros_like(g))


def _invert_form(xp: Any, convolution: Any, laplacian: Any, typical: float, least: float, out: Any) -> None:
    out[...] = 1 / (convolution * convolution + typical * laplacian + least)


def _misfit_form(xp: Any, predicted: Any, field: Any, weights: Any, out: Any) -> None:
    out[...] = weights * xp.sin(field - predicted)


def _add_stiffness_form(xp: Any, v: Any, stiffness: Any, squares: list[float], rows: Any, out: Any) -> Any:
    for axis, factor in enumerate(squares):
        flow = stiffness[axis, ...] * (xp.roll(v, -1, axis=axis) - v) * factor
        out += xp.roll(flow, 1, axis=axis) - flow
    return xp.sum(v * out, dtype=xp.float64)


def _scale_form(xp: Any, scaling: Any, r: Any, out: Any) -> None:
    out[...] = scaling * r


def _scale_along_form(xp: Any, scaling: Any, r: Any, out: Any) -> Any:
    out *= scaling
    return xp.sum(r * out, dtype=xp.float64)


@kernel
def _conductance(upper, lower, edges, factor, weight, epsilon, out):
    for k in range(out.size):
        g = (upper[k] - lower[k]) * factor
        value = weight / np.sqrt(g * g + epsilon)
        out[k] = value if edges[k] else np.float32(0)


@kernel
def _stiffness(start, stop, x, edges, inverse, weight, epsilon, out):
    nx, ny, nz = x.shape
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            row = x[i, j]
            _conductance(x[after, j], row, edges[0, i, j], inverse[0], weight, epsilon, out[0, i, j])
            _conductance(x[i, below], row, edges[1, i, j], inverse[1], weight, epsilon, out[1, i, j])
            along, kept = out[2, i, j], edges[2, i, j]
            _conductance(row[1:], row[:-1], kept[:-1], inverse[2], weight, epsilon, along[:-1])
            _conductance(row[:1], row[nz - 1 :], kept[nz - 1 :], inverse[2], weight, epsilon, along[nz - 1 :])


@kernel
def _invert(start, stop, convolution, laplacian, typical, least, out):
    for i in range(start, stop):
        for j in range(out.shape[1]):
            values, rough, into = convolution[i, j], laplacian[i, j], out[i, j]
            for k in range(into.size):
                into[k] = np.float32(1) / (values[k] * values[k] + typical * rough[k] + least)


@kernel
def _misfit(start, stop, predicted, field, weights, out):
    for i in range(start, stop):
        for j in range(out.shape[1]):
            a, b = span(weights[i, j])
            found, measured, weight, into = predicted[i, j], field[i, j], weights[i, j], out[i, j]
            into[:a] = 0
            into[b:] = 0
            for k in range(a, b):
                into[k] = weight[k] * sine(measured[k] - found[k])


@kernel
def _scale(start, stop, scaling, r, out):
    for i in range(start, stop):
        for j in range(out.shape[1]):
            factor, row, into = scaling[i, j], r[i, j], out[i, j]
            for k in range(into.size):
                into[k] = factor[k] * row[k]


@kernel
def _scale_along(start, stop, scaling, r, out):
    """out *= scaling; returns the product with ``r``."""
    total = 0.0
    for i in range(start, stop):
        for j in range(out.shape[1]):
            factor, row, into = scaling[i, j], r[i, j], out[i, j]
            part: Any = np.float32(0)
            for k in range(into.size):
                value = factor[k] * into[k]
                into[k] = value
                part += value * row[k]
            total += part
    return total


@kernel
def _flow(upper, lower, conductance, factor, out):
    for k in range(out.size):
        out[k] = (upper[k] - lower[k]) * conductance[k] * factor


@kernel
def _pass_on(upper, lower, conductance, factor, flow, out):
    """What flows in less what flows out; that flows into the next row."""
    for k in range(out.size):
        new = (upper[k] - lower[k]) * conductance[k] * factor
        out[k] += flow[k] - new
        flow[k] = new


@kernel
def _add_stiffness(start, stop, v, stiffness, squares, rows, out):
    """Add to ``out``; returns its product with ``v``. Every flow from voxel to voxel is computed once."""
    nx, ny, nz = v.shape
    across = np.zeros((ny, nz), dtype=np.float32)
    above = np.zeros(nz, dtype=np.float32)
    along = np.empty(nz, dtype=np.float32)
    before = start - 1 if start > 0 else nx - 1
    total = 0.0
    for j in range(ny):
        if rows[start, j]:
            _flow(v[start, j], v[before, j], stiffness[0, before, j], squares[0], across[j])
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        _flow(v[i, 0], v[i, ny - 1], stiffness[1, i, ny - 1], squares[1], above)
        for j in range(ny):
            row, target = v[i, j], out[i, j]
            if rows[i, j]:
                below = j + 1 if j + 1 < ny else 0
                conductance = stiffness[2, i, j]
                _flow(row[1:], row[:-1], conductance[:-1], squares[2], along[:-1])
                along[nz - 1] = (row[0] - row[nz - 1]) * conductance[nz - 1] * squares[2]
                target[0] += along[nz - 1] - along[0]
                for k in range(1, nz):
                    target[k] += along[k - 1] - along[k]
                _pass_on(v[after, j], row, stiffness[0, i, j], squares[0], across[j], target)
                _pass_on(v[i, below], row, stiffness[1, i, j], squares[1], above, target)
            else:
                across[j] = 0
                above[:] = 0
            part: Any = np.float32(0)
            for k in range(nz):
                part += row[k] * target[k]
            total += part
    return total
