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
from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import gradient, inverse_sizes
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.algorithms.fourier import Support
from qsmxt.algorithms.packing import Packing
from qsmxt.algorithms.quantiles import quantiles
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Progress

#: Smoothing of the absolute value, (ppm/mm)^2.
SMOOTHING = 1e-6


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
        Prior weights, ``(3, x, y, z)``, 0 on edges.
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
    """Prior weights ``(3, x, y, z)``: 0 on the ``fraction`` of strongest differences of the magnitude in the mask."""
    if magnitude is None or fraction == 0:
        return np.ones((3, *grid.shape), dtype=np.float32)
    slopes = gradient(np.where(mask, magnitude, np.float32(0)), grid)
    np.abs(slopes, out=slopes)
    packing = Packing(mask)
    inside = np.concatenate([packing.pack(part) for part in slopes])
    limit = quantiles(inside, (1 - fraction,))[0]
    if limit == 0 and not inside.any():
        return np.ones_like(slopes)
    return np.less_equal(slopes, limit, out=slopes)


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
    grid, engine = problem.grid, problem.engine
    x, predicted, response, image, conditioned = (engine.zeros(grid.shape) for _ in range(5))
    laplacian = engine.send(kernels.negative_laplacian(grid))
    square = problem.convolution * problem.convolution
    inverse = inverse_sizes(grid)
    stiffness = engine.empty((3, *grid.shape))
    epsilon = np.float32(SMOOTHING * float(problem.scale) ** 2)
    weight = np.float32(problem.weight * float(problem.scale))
    inside = problem.squared_weights > 0
    for step in range(outer):
        engine.run(_stiffness, _stiffness_form, grid.shape[0], x, problem.edges, inverse, weight, epsilon, stiffness)
        right = _apply(
            problem, stiffness, inverse, x, engine.xp.sin(predicted - problem.field), engine.zeros(grid.shape)
        )
        right *= -1
        typical = float(np.float32(engine.median(stiffness, inside)))
        inverted = 1 / (square + typical * laplacian + 1e-6)
        inverted[0, 0, 0] = square[0, 0, 0]  # data hardly tell the constant, and a large factor makes one of rounding

        def operator(v: Any) -> Any:
            field = engine.filtered(v, problem.convolution, None, problem.support, response)
            return _apply(problem, stiffness, inverse, v, field, image)

        def precondition(r: Any, inverted: Any = inverted) -> Any:
            if scaling is None:
                return engine.filtered(r, inverted, None, None, conditioned)
            return scaling * engine.filtered(r * scaling, inverted, None, None, conditioned)

        change, _ = conjugate_gradients.solve(
            operator, right, tolerance=inner_tolerance, iterations=inner, precondition=precondition, engine=engine
        )
        x += change
        predicted = engine.filtered(x, problem.convolution, None, problem.support, predicted)
        if progress:
            progress((step + 1) / outer)
        size = engine.norm(x)
        if size == 0 or engine.norm(change) < tolerance * size:
            break
        if reweight:
            reweight(problem, engine.xp.sin(predicted - problem.field))
    return x


def reject_outliers(problem: Problem, residual: Any) -> None:
    """Lower the weights of voxels whose weighted residual is above six standard deviations (``merit``)."""
    xp, squared = problem.engine.xp, problem.squared_weights
    inside = squared > 0
    weighted = xp.abs(residual[inside]) * xp.sqrt(squared[inside])
    deviation = float(xp.std(xp.astype(weighted, xp.float64)))
    excess = weighted / float(np.float32(6 * deviation + 1e-30))
    squared[inside] = squared[inside] / xp.clip(excess, 1.0, None) ** 4


def _apply(problem: Problem, stiffness: Any, inverse: np.ndarray, v: Any, response: Any, out: Any) -> Any:
    """``grad^T V grad v + H W^2 response`` and the constant region, perhaps in ``out``; ``response`` is overwritten."""
    engine = problem.engine
    response *= problem.squared_weights
    out = engine.filtered(response, problem.convolution, problem.support, None, out)
    engine.run(_add_stiffness, _add_stiffness_form, v.shape[0], v, stiffness, inverse, out)
    constant = problem.constant(v)
    if constant is not None:
        out += constant
    return out


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
        edge = edges[axis, ...]
        g = edge * ((xp.roll(x, -1, axis=axis) - x) * factor)
        out[axis, ...] = weight * edge / xp.sqrt(g * g + epsilon)


def _add_stiffness_form(xp: Any, x: Any, stiffness: Any, inverse: list[float], out: Any) -> None:
    for axis, factor in enumerate(inverse):
        flow = stiffness[axis, ...] * (xp.roll(x, -1, axis=axis) - x) * factor**2
        out += xp.roll(flow, 1, axis=axis) - flow


@kernel
def _stiffness(start, stop, x, edges, inverse, weight, epsilon, out):
    nx, ny, nz = x.shape
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                right = k + 1 if k + 1 < nz else 0
                value = x[i, j, k]
                g = edges[0, i, j, k] * (x[after, j, k] - value) * inverse[0]
                out[0, i, j, k] = weight * edges[0, i, j, k] / np.sqrt(g * g + epsilon)
                g = edges[1, i, j, k] * (x[i, below, k] - value) * inverse[1]
                out[1, i, j, k] = weight * edges[1, i, j, k] / np.sqrt(g * g + epsilon)
                g = edges[2, i, j, k] * (x[i, j, right] - value) * inverse[2]
                out[2, i, j, k] = weight * edges[2, i, j, k] / np.sqrt(g * g + epsilon)


@kernel
def _add_flow(upper, lower, conductance, factor, out):
    for k in range(out.size):
        out[k] += (lower[k] - upper[k]) * conductance[k] * factor


@kernel
def _add_stiffness(start, stop, x, stiffness, inverse, out):
    nx, ny, nz = x.shape
    sx, sy, sz = inverse[0] * inverse[0], inverse[1] * inverse[1], inverse[2] * inverse[2]
    for i in range(start, stop):
        after, before = (i + 1 if i + 1 < nx else 0), (i - 1 if i > 0 else nx - 1)
        for j in range(ny):
            below, above = (j + 1 if j + 1 < ny else 0), (j - 1 if j > 0 else ny - 1)
            row, target = x[i, j], out[i, j]
            _add_flow(x[after, j], row, stiffness[0, i, j], sx, target)
            _add_flow(x[before, j], row, stiffness[0, before, j], sx, target)
            _add_flow(x[i, below], row, stiffness[1, i, j], sy, target)
            _add_flow(x[i, above], row, stiffness[1, i, above], sy, target)
            along = stiffness[2, i, j]
            _add_flow(row[1:], row[:-1], along[:-1], sz, target[:-1])
            _add_flow(row[:-1], row[1:], along[:-1], sz, target[1:])
            wrap = (row[0] - row[nz - 1]) * along[nz - 1] * sz
            target[0] += wrap
            target[nz - 1] -= wrap
