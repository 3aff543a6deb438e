"""Solvers on arrays of another library: the same map, in the same kind of array."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qsmxt.algorithms.engine import HOST, ArrayEngine, engine_of, to_host
from qsmxt.algorithms.inversion.tikhonov import tikhonov
from qsmxt.algorithms.inversion.tkd import tkd
from qsmxt.algorithms.inversion.tsvd import tsvd
from qsmxt.algorithms.inversion.tv import TVParameters, tv
from qsmxt.errors import InputError, MissingProgramError
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


@pytest.mark.parametrize("method", [tkd, tsvd, tikhonov, tv])
def test_device_and_host_agree(strict, data, method):
    field, mask = data
    expected = method(field, mask, GRID)
    made = method(strict.asarray(field), strict.asarray(mask), GRID)
    assert type(made) is type(strict.asarray(field)) and made.dtype == strict.float32
    np.testing.assert_allclose(to_host(made), expected, atol=1e-4 * np.abs(expected).max())


def test_primitives_agree(strict, data):
    engine = engine_of(strict.asarray(data[0]))
    assert isinstance(engine, ArrayEngine) and engine_of(data[0]) is HOST
    duals = []
    for each in (HOST, engine):
        split, out = each.shrinkage(GRID), each.send(data[0].copy())
        for _ in range(3):
            split.step(each.send(data[0]), 0.005, out)
        duals.append(to_host(out))
    np.testing.assert_allclose(duals[1], duals[0], atol=1e-6)
    assert engine.change(engine.send(data[0]), engine.send(2 * data[0])) == pytest.approx(1)


def test_what_a_device_cannot_do_is_said(strict, data, monkeypatch):
    field, mask = data
    with pytest.raises(InputError, match="field_noise"):
        tv(strict.asarray(field), mask, GRID, TVParameters(), field_noise=np.ones_like(field))
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    with pytest.raises(MissingProgramError, match=r"qsmxt\[gpu\]"):
        tkd(strict.asarray(field), mask, GRID)
