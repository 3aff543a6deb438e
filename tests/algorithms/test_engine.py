"""Solvers on arrays of another library: the same map, in the same kind of array."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qsmxt.algorithms.engine import HOST, ArrayEngine, engine_of, to_host
from qsmxt.algorithms.inversion.hdqsm import hdqsm
from qsmxt.algorithms.inversion.l1qsm import l1qsm
from qsmxt.algorithms.inversion.ndi import ndi
from qsmxt.algorithms.inversion.nltv import nltv
from qsmxt.algorithms.inversion.rts import rts
from qsmxt.algorithms.inversion.tikhonov import tikhonov
from qsmxt.algorithms.inversion.tkd import tkd
from qsmxt.algorithms.inversion.tsvd import tsvd
from qsmxt.algorithms.inversion.tv import tv
from qsmxt.algorithms.inversion.tvtfi import tvtfi
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


@pytest.mark.parametrize("method", [tkd, tsvd, tikhonov, tv, rts, ndi, nltv, l1qsm, hdqsm])
def test_device_and_host_agree(strict, data, method):
    field, mask = data
    expected = method(field, mask, GRID)
    made = method(strict.asarray(field), strict.asarray(mask), GRID)
    assert type(made) is type(strict.asarray(field)) and made.dtype == strict.float32
    np.testing.assert_allclose(to_host(made), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", [tv, ndi, nltv, l1qsm, hdqsm, tvtfi])
def test_device_and_host_agree_with_noise(strict, data, method):
    field, mask = data
    noise = np.random.default_rng(1).uniform(0.5, 2, GRID.shape).astype(np.float32)
    expected = method(field, mask, GRID, field_noise=noise)
    made = method(strict.asarray(field), mask, GRID, field_noise=strict.asarray(noise))
    for one, other in zip(made, expected, strict=True) if method is tvtfi else [(made, expected)]:
        assert one.dtype == strict.float32
        np.testing.assert_allclose(to_host(one), other, atol=1e-4 * np.abs(other).max())


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
    assert engine.change(engine.send(data[0]), engine.send(2 * data[0])) == pytest.approx(1)


def test_a_library_that_is_missing_is_named(strict, data, monkeypatch):
    field, mask = data
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    with pytest.raises(MissingProgramError, match=r"qsmxt\[gpu\]"):
        tkd(strict.asarray(field), mask, GRID)
