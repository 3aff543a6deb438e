"""What every method that iterates must do with ``iterations``, ``tolerance`` and the progress that it tells."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from qsmxt.registry.methods import DeclaredParameter, Method
from tests.contracts.test_methods import GRID, METHODS, PARAMETERS, inputs, names, same

#: Iterations after which little changes here, in total and of outer steps that have their own inside.
LONG, LONG_OUTER = 30, 8
#: A tolerance that some iterations reach.
TIGHT = 1e-3
#: Iterations after which a tolerance that holds from the start may end: most compare with the iterate before,
#: two skip the first steps of their splits, and one goes on with those that it averages.
FIRST = (1, 2, 3, 7, 9)
#: As many rounds are told before a method whose iterations are told by rounds ends.
FIRST_ROUNDS = 4
#: Methods whose mask is the same already after the first iterations in this phantom.
AT_ONCE = ("masking.bet", "masking.gmm")

#: Iterations that happen inside a voxel, a row, or a mesh, and that are told by slabs, steps or rounds instead.
INSIDE = {
    "field.joint_fit": "a few steps in every row, after the unwrapping, whose parts are told",
    "field.nonlinear_fit": "a few steps in every row",
    "separation.decompose": "steps in every voxel, told by slabs",
    "relaxometry.nonlinear": "steps in every voxel, told by slabs",
    "masking.bet": "told every 50 iterations of a mesh",
}

ITERATIVE = [m for m in METHODS.values() if any(d.name == "iterations" for d in m.declared_parameters())]
cases = pytest.mark.parametrize("method", ITERATIVE, ids=lambda m: m.name)


def declared(method: Method) -> dict[str, DeclaredParameter]:
    return {d.name: d for d in method.declared_parameters()}


def extreme(method: Method, *, loose: bool) -> float:
    """The largest tolerance, with which the first iteration suffices, or the smallest one."""
    bounds = declared(method)["tolerance"].declared
    if loose:
        return 1e9 if bounds.below is None else 0.999 * bounds.below
    return 0.0 if bounds.above is None else 1e-12


def count(method: Method, number: int) -> int:
    """``number`` iterations, or the least that there must be."""
    return max(number, int(declared(method)["iterations"].declared.at_least or 1))


def long_run(method: Method) -> int:
    return (
        600
        if method.name == "masking.bet"
        else count(method, LONG_OUTER if "inner_iterations" in declared(method) else LONG)
    )


@cache
def run(name: str, tolerance: float, iterations: int) -> tuple[dict[str, np.ndarray], list[float]]:
    """Products and what was told."""
    method, told = METHODS[name], []
    settings = PARAMETERS[name] | {"tolerance": tolerance, "iterations": iterations}
    return method.run(inputs(names(method)), GRID, settings, told.append), told


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Sum over the products of the norm of their difference over the norm of the second."""
    parts = [(np.float64(a[n]) - np.float64(b[n]), np.float64(b[n])) for n in b]
    return sum(float(np.linalg.norm(d) / max(np.linalg.norm(v), 1e-30)) for d, v in parts)


@cases
def test_what_iterates_has_a_tolerance(method: Method):
    assert "tolerance" in declared(method)


@cases
def test_a_loose_tolerance_ends_after_the_first_iterations(method: Method):
    loose, told = run(method.name, extreme(method, loose=True), long_run(method))
    everything = run(method.name, extreme(method, loose=False), long_run(method))[1]
    fewer = len(told) <= FIRST_ROUNDS < len(everything)
    assert fewer or any(
        same(loose, run(method.name, extreme(method, loose=False), count(method, number))[0]) for number in FIRST
    )


@cases
def test_a_tighter_tolerance_comes_nearer_to_where_it_converges(method: Method):
    converged = run(method.name, extreme(method, loose=False), long_run(method))[0]
    tight = run(method.name, TIGHT, long_run(method))[0]
    loose = run(method.name, extreme(method, loose=True), long_run(method))[0]
    assert distance(tight, converged) <= distance(loose, converged)
    assert same(loose, converged) == (method.name in AT_ONCE)


@cases
def test_every_iteration_is_told(method: Method):
    told = run(method.name, extreme(method, loose=False), count(method, FIRST[-1]))[1]
    assert told == sorted(told) and told[-1] == 1
    if method.name not in INSIDE:
        assert len(told) >= count(method, FIRST[-1])
