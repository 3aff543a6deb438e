"""Methods on arrays of another library: the same products, in the same kind of array, or a refusal that says why.

The phantom is that of :mod:`tests.contracts.test_methods`. ``array_api_strict`` stands for CuPy and PyTorch: it has
what the standard says and nothing else.
"""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.engine import ArrayEngine, to_host
from qsmxt.errors import InputError
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.methods import Method, all_methods
from tests.contracts.test_methods import OBLIQUE, PARAMETERS, inputs, names

METHODS = all_methods()
ON_DEVICE = [m for m in METHODS.values() if m.on_device]

#: Stages whose methods compute on devices, but for these, and why not.
STAGES = ("background", "inversion", "unwrapping")
HOST_ONLY = {
    "background.lbv": "multigrid in compiled kernels, without a Fourier transform",
    "inversion.network": "the runtime of the network decides where it computes",
    "inversion.totalnetwork": "the runtime of the network decides where it computes",
    "unwrapping.romeo": "grows a region voxel by voxel",
}

#: Conjugate gradients on nearly singular systems blow rounding up: a change of the field by 1e-7 moves the result by up
#: to a percent of its largest value, on the host as well. A few steps do not.
FEW: dict[str, dict[str, object]] = {
    "background.pdf": {"iterations": 10},
    "background.harperella": {"iterations": 10},
    "background.iharperella": {"iterations": 10},
    "background.msmv": {"initial": "vsharp"},
    "inversion.medi": {"iterations": 2, "inner_iterations": 2},
    "inversion.tfi": {"iterations": 2, "inner_iterations": 2},
}


@pytest.fixture(scope="module")
def strict():
    pytest.importorskip("array_api_compat", reason="array-api-compat finds the library of an array (extra: gpu)")
    return pytest.importorskip("array_api_strict", reason="stands for a GPU library here (extra: test)")


def ids(method: Method) -> str:
    return method.name


def sent(strict, given: dict) -> dict:
    """Volumes as arrays of the other library; times and field strength as they are."""
    return {n: v if ARTIFACTS[n].kind == "acquisition" else strict.asarray(v) for n, v in given.items()}


def parameters(method: Method) -> dict:
    return PARAMETERS.get(method.name, {}) | FEW.get(method.name, {})


def test_what_computes_on_the_host_alone_is_known():
    assert {m.name for m in METHODS.values() if m.stage in STAGES and not m.on_device} == set(HOST_ONLY)


@pytest.mark.parametrize("method", ON_DEVICE, ids=ids)
def test_device_and_host_agree(strict, method: Method):
    """With only what the method needs, and with all that it can use."""
    for wanted in {names(method), method.consumes + method.optional}:
        expected = method.run(inputs(wanted), OBLIQUE, parameters(method))
        made = method.run(sent(strict, inputs(wanted)), OBLIQUE, parameters(method))
        for name, value in expected.items():
            assert type(made[name]) is type(strict.asarray(value)), name
            found = to_host(made[name])
            assert found.dtype == value.dtype, name
            largest = np.abs(value * 1.0).max()
            np.testing.assert_allclose(found * 1.0, value * 1.0, atol=1e-4 * largest, rtol=0, err_msg=name)


@pytest.mark.parametrize("method", [m for m in ON_DEVICE if hasattr(m.parameters, "iterations")], ids=ids)
def test_iterations_stay_on_the_device(strict, method: Method, monkeypatch: pytest.MonkeyPatch):
    """Two more iterations fetch and send no more volumes."""
    moved: list[bool] = []

    def counting(original, outwards: bool):
        def count(engine: ArrayEngine, volume):
            moved.append(outwards or isinstance(volume, np.ndarray))
            return original(engine, volume)

        return count

    monkeypatch.setattr(ArrayEngine, "fetch", counting(ArrayEngine.fetch, True))
    monkeypatch.setattr(ArrayEngine, "send", counting(ArrayEngine.send, False))
    counts = []
    for iterations in (8, 10):
        moved.clear()
        method.run(sent(strict, inputs(names(method))), OBLIQUE, parameters(method) | {"iterations": iterations})
        counts.append(sum(moved))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("method", [m for m in METHODS.values() if not m.on_device], ids=ids)
def test_what_computes_on_the_host_says_so(strict, method: Method):
    with pytest.raises(InputError, match=r"expected a NumPy array, found one of array_api_strict; .* \.cpu\(\)\.numpy"):
        method.run(sent(strict, inputs(names(method))), OBLIQUE, PARAMETERS.get(method.name))
