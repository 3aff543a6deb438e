"""Primitives on arrays of another library; what methods make of them is in ``tests/contracts/test_devices.py``."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qsmxt.algorithms.engine import HOST, ArrayEngine, engine_of, to_host
from qsmxt.algorithms.inversion.tkd import tkd
from qsmxt.errors import MissingProgramError
from qsmxt.geometry import Grid

GRID = Grid((17, 14, 15), (1.0, 1.5, 2.0), (0.2, -0.3, 0.9))


@pytest.fixture(scope="module")
def strict():
    pytest.importorskip("array_api_compat", reason="array-api-compat finds the library of an array (extra: gpu)")
    return pytest.importorskip("array_api_strict", reason="stands for a GPU library here (extra: test)")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[2:15, 1:12, 3:13] = True
    return (0.02 * rng.standard_normal(GRID.shape)).astype(np.float32), mask


def test_primitives_agree(strict, data):
    engine = engine_of(strict.asarray(data[0]))
    assert isinstance(engine, ArrayEngine) and engine_of(data[0]) is HOST
    for options in ((), (data[1].astype(np.float32), 1.7, 3.0)):
        duals = []
        for each in (HOST, engine):
            split, out = each.shrinkage(GRID, *options), each.send(data[0].copy())
            for _ in range(3):
                split.step(each.send(data[0]), 0.005, out)
            duals.append(to_host(out))
        np.testing.assert_allclose(duals[1], duals[0], atol=1e-6)
    slopes = HOST.gradient(data[0], GRID)
    np.testing.assert_allclose(to_host(engine.gradient(engine.send(data[0]), GRID)), slopes, atol=1e-6)
    back = HOST.divergence(slopes, GRID)
    np.testing.assert_allclose(to_host(engine.divergence(engine.send(slopes), GRID)), back, atol=1e-6)
    fractions = (0, 0.31, 0.6, 1)
    for each in (HOST, engine):
        found = each.quantiles(each.send(data[0]), fractions)
        np.testing.assert_allclose(found, np.quantile(data[0], fractions), atol=1e-7)
    for each in (HOST, engine):
        middle = each.median(each.send(slopes), each.send(data[1]))
        assert middle == pytest.approx(float(np.median(slopes[:, data[1]])), abs=1e-7)
        assert each.norm(each.send(data[0])) == pytest.approx(float(np.linalg.norm(data[0])), rel=1e-6)
    assert engine.change(engine.send(data[0]), engine.send(2 * data[0])) == pytest.approx(1)


def test_a_library_that_is_missing_is_named(strict, data, monkeypatch):
    field, mask = data
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    with pytest.raises(MissingProgramError, match=r"qsmxt\[gpu\]"):
        tkd(strict.asarray(field), mask, GRID)
