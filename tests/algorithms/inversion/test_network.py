"""A network of the user gets the field as it was promised, and its answer comes back in place."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qsmxt.algorithms.inversion.learned import NetworkParameters
from qsmxt.algorithms.inversion.network import network
from qsmxt.algorithms.inversion.totalnetwork import totalnetwork
from qsmxt.errors import InputError, MissingInputError, MissingProgramError, ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import methods

GRID = Grid((9, 14, 11), (1.0, 1.0, 1.0))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[2:8, 1:13, 3:10] = True
    return (rng.standard_normal(GRID.shape) * 0.01).astype(np.float32), mask


def write(path, nodes, inputs=("field",), shape=(1, 1, None, None, None), outputs=("chi",), constants=()):
    """A network of a few nodes."""
    onnx = pytest.importorskip("onnx", reason="onnx makes the network of this test (extra: test)")
    pytest.importorskip("onnxruntime", reason="onnxruntime runs it (extra: onnx)")
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        [helper.make_node(kind, list(given), [name], **more) for kind, given, name, more in nodes],
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def shift(axis):
    """Kernel of a convolution that moves a volume by one voxel along ``axis``."""
    kernel = np.zeros((1, 1, 3, 3, 3), dtype=np.float32)
    index = [1, 1, 1]
    index[axis] = 0
    kernel[(0, 0, *index)] = 1
    return kernel


@pytest.mark.parametrize("function", [network, totalnetwork])
@pytest.mark.parametrize("along", [0, 1, 2])
def test_b0_is_along_the_last_axis_of_the_network(tmp_path, data, function, along):
    field, mask = data
    nodes = [("Conv", ("field", "kernel"), "chi", {"pads": [1] * 6})]
    path = write(tmp_path / "n.onnx", nodes, constants=[("kernel", shift(2))])
    b0 = tuple(float(a == along) for a in range(3))
    chi = function(field, mask, Grid(GRID.shape, GRID.voxel_size, b0), NetworkParameters(weights=path, multiple=8))
    moved = np.roll(np.where(mask, field, 0), 1, axis=along)
    np.testing.assert_allclose(chi, np.where(mask, moved, 0), atol=1e-7)


def test_field_and_mask_come_by_name_and_in_the_wanted_unit(tmp_path, data):
    field, mask = data
    path = write(tmp_path / "n.onnx", [("Add", ("field", "brain_mask"), "chi", {})], inputs=("brain_mask", "field"))
    chi = network(field, mask, GRID, NetworkParameters(weights=path, input_scale=100, output_scale=0.01))
    np.testing.assert_allclose(chi, np.where(mask, field + 0.01, 0), atol=1e-7)


def test_channels_may_be_last_and_sizes_fixed(tmp_path, data):
    field, mask = data
    path = write(tmp_path / "n.onnx", [("Neg", ("field",), "chi", {})], shape=(1, 20, 24, 16, 1))
    np.testing.assert_array_equal(
        network(field, mask, GRID, NetworkParameters(weights=path)), np.where(mask, -field, 0)
    )
    small = write(tmp_path / "s.onnx", [("Neg", ("field",), "chi", {})], shape=(1, 1, 8, 8, 8))
    with pytest.raises(InputError, match="8 voxels"):
        network(field, mask, GRID, NetworkParameters(weights=small))


def test_what_is_missing_is_said_with_the_remedy(tmp_path, data, monkeypatch):
    with pytest.raises(ParameterError, match="QSMxT brings no weights"):
        network(*data, GRID)
    with pytest.raises(MissingInputError, match="check the path"):
        network(*data, GRID, NetworkParameters(weights=str(tmp_path / "absent.onnx")))
    path = tmp_path / "text.onnx"
    path.write_text("no network")
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingProgramError, match=r"qsmxt\[onnx\]"):
            network(*data, GRID, NetworkParameters(weights=str(path)))
    pytest.importorskip("onnxruntime", reason="onnxruntime reads the file (extra: onnx)")
    with pytest.raises(InputError, match="cannot be read"):
        network(*data, GRID, NetworkParameters(weights=str(path)))


def test_unusable_input_is_refused(tmp_path, data):
    field, mask = data
    path = write(tmp_path / "n.onnx", [("Neg", ("field",), "chi", {})])
    given = NetworkParameters(weights=path)
    with pytest.raises(InputError, match="found 45"):
        network(field, mask, Grid(GRID.shape, GRID.voxel_size, (0.0, 1.0, 1.0)), given)
    with pytest.raises(InputError, match="mask"):
        network(field, np.zeros_like(mask), GRID, given)
    broken = field.copy()
    broken[4, 4, 4] = np.nan
    with pytest.raises(InputError, match="total_field"):
        totalnetwork(broken, mask, GRID, given)
    root = write(tmp_path / "r.onnx", [("Sqrt", ("field",), "chi", {})])
    with pytest.raises(InputError, match="NaN"):
        network(field, mask, GRID, NetworkParameters(weights=root))


def test_only_learned_methods_need_the_extra():
    assert {key for key, m in methods("inversion").items() if m.extra} == {"network", "totalnetwork"}
    assert {m.extra for m in methods("inversion").values()} == {None, "onnx"}
