"""What every registered method of every stage must do, from its declaration alone.

A check that does not apply to a method is listed in ``EXEMPT`` with the reason, never skipped silently. New methods are
tested as soon as they are in a roster; if one consumes an array that the phantom cannot make,
``test_the_phantom_can_make_every_array`` fails. The phantom is that of the examples, :mod:`qsmxt.phantom.example`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.errors import InputError, QSMxTError
from qsmxt.geometry import Grid
from qsmxt.phantom import example
from qsmxt.registry.artifacts import ARTIFACTS, STACKED
from qsmxt.registry.methods import Method, all_methods

#: Methods with weights of the user are tested with a network of a few nodes in ``inversion/test_network.py``.
METHODS = {name: m for name, m in all_methods().items() if m.extra is None}

GRID, SHAPE = example.GRID, example.GRID.shape
#: Anisotropic voxels of the same extent about, oblique field.
OBLIQUE = Grid(SHAPE, (2.0, 1.8, 2.4), (0.2, -0.4, 0.9))


def arrays() -> Mapping[str, np.ndarray]:
    """Every artifact by name."""
    return example.phantom().arrays


def inputs(names: tuple[str, ...], change: Callable[[str, np.ndarray], np.ndarray] | None = None) -> dict:
    """Fresh copies of the arrays ``names``, each passed through ``change``; the field strength is a float."""
    made = {}
    for name in names:
        value = np.array(arrays()[name], copy=True)
        value = value if change is None else change(name, value)
        made[name] = float(value) if name == "field_strength" else value
    return made


#: Arrays that vanish when there is no field, and products that must vanish then.
FIELDS = {
    "wrapped_phase", "coil_phase", "offset_free_phase", "unwrapped_phase", "phase_offset",
    "total_field", "local_field", "chi", "reliable_chi", "filled_chi", "echo_chi",
    "chi_paramagnetic", "chi_diamagnetic", "r2prime",
    "oriented_fields", "orientation_chi", "susceptibility_tensor", "tensor_mean", "tensor_anisotropy",
}  # fmt: skip
#: Products that are zero outside the mask if the method is given one.
MASKED = {
    "unwrapped_phase", "total_field", "field_noise", "fit_quality", "local_field", "eroded_mask", "chi",
    "chi_paramagnetic", "chi_diamagnetic", "r2star", "r2star_noise", "t2star", "t2star_noise", "r2", "r2prime",
    "orientation_chi", "susceptibility_tensor", "tensor_mean", "tensor_anisotropy",
}  # fmt: skip

#: (check, method or stage) -> why the check does not apply.
EXEMPT: dict[tuple[str, str], str] = {
    ("zero", "separation"): "without a field there is still relaxation: sources of both signs that cancel",
    ("empty", "masking"): "a step may leave nothing and the next section add to it; the first user of the mask refuses",
}

#: Numbers of iterations that suffice here: what is tested holds after any number.
FEW = {"iterations": 10, "streak_iterations": 5, "rounds": 1}


def _few(method: Method) -> dict[str, object]:
    """Less work than by default, for inversions."""
    declared = {d.name: d.default for d in method.declared_parameters()} if method.stage == "inversion" else {}
    return {name: few for name, few in FEW.items() if isinstance(declared.get(name), int) and declared[name] > few}


#: Parameters that are not the default.
PARAMETERS = {name: _few(m) for name, m in METHODS.items()} | {"referencing.region": {"labels": (1,)}}


def exempt(check: str, method: Method) -> bool:
    return (check, method.name) in EXEMPT or (check, method.stage) in EXEMPT


def cases(check: str):
    return [pytest.param(m, id=m.name) for m in METHODS.values() if not exempt(check, m)]


def names(method: Method) -> tuple[str, ...]:
    """What a method is given: all it consumes, and the mask if it takes one."""
    return method.consumes + tuple(n for n in method.optional if n == "mask")


def run(method: Method, given: dict, grid: Grid = GRID, **more) -> dict[str, np.ndarray]:
    return method.run(given, grid, PARAMETERS[method.name], **more)


@cache
def plain(key: str) -> dict[str, np.ndarray]:
    """Products of a method for the phantom."""
    method = METHODS[key]
    return run(method, inputs(names(method)))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_every_stage_has_its_methods():
    assert len(METHODS) > 40
    assert len({m.stage for m in METHODS.values()}) > 5


def test_the_phantom_can_make_every_array():
    wanted = {name for m in METHODS.values() for name in (*m.consumes, *m.optional)}
    assert wanted <= set(arrays()), f"add to qsmxt.phantom.example: {sorted(wanted - set(arrays()))}"


def test_exemptions_name_what_exists():
    for _, owner in EXEMPT:
        assert owner in METHODS or owner in {m.stage for m in METHODS.values()}, owner


@pytest.mark.parametrize("method", cases("shape"))
def test_shape_and_type(method: Method):
    products = plain(method.name)
    assert set(products) == set(method.produces)
    for name, value in products.items():
        kind = ARTIFACTS[name].kind
        assert isinstance(value, np.ndarray), name
        if kind in STACKED:
            assert value.shape[1:] == GRID.shape, name
        elif kind != "acquisition":
            assert value.shape == GRID.shape, name
        expected = {"mask": np.bool_, "labels": np.integer}.get(kind, np.float32)
        assert np.issubdtype(value.dtype, expected), (name, value.dtype)
        assert value.flags.c_contiguous, name


@pytest.mark.parametrize("method", cases("optional"))
def test_optional_arrays_are_accepted(method: Method):
    products = run(method, inputs(method.consumes + method.optional))
    for name, value in products.items():
        assert value.shape == plain(method.name)[name].shape
        assert np.isfinite(value).all(), name


@pytest.mark.parametrize("method", cases("zero"))
def test_nothing_comes_from_nothing(method: Method):
    def zero(name: str, value: np.ndarray) -> np.ndarray:
        return np.zeros_like(value) if name in FIELDS else value

    products = run(method, inputs(names(method), zero))
    checked = [name for name in method.produces if name in FIELDS]
    for name in checked:
        assert np.abs(products[name]).max() <= 1e-6, name


@pytest.mark.parametrize("method", cases("masked"))
def test_zero_outside_the_mask(method: Method):
    mask = arrays()["mask"]
    for name, value in plain(method.name).items():
        if name in MASKED:
            assert not value[..., ~mask].any(), name
            if not name.endswith("_noise"):  # the phantom has none, so an estimate may be exactly zero
                assert value[..., mask].any(), name


@pytest.mark.parametrize("method", cases("untouched"))
def test_inputs_are_left_alone_and_progress_is_told(method: Method):
    given = inputs(names(method))
    before = {name: np.asarray(value).tobytes() for name, value in given.items()}
    told: list[float] = []
    products = run(method, given, progress=told.append)
    assert {name: np.asarray(value).tobytes() for name, value in given.items()} == before
    assert same(products, plain(method.name))
    assert all(0 <= value <= 1 for value in told)
    assert told == sorted(told) and told[-1] == 1


@pytest.mark.parametrize("method", cases("threads"))
def test_same_bytes_for_any_number_of_threads(method: Method):
    try:
        for threads in (2, 8):
            parallel.set_thread_count(threads)
            assert same(run(method, inputs(names(method))), plain(method.name)), threads
    finally:
        parallel.set_thread_count(None)


@pytest.mark.parametrize("method", cases("order"))
def test_memory_order_and_precision_of_the_input_do_not_matter(method: Method):
    def other(name: str, value: np.ndarray) -> np.ndarray:
        wide = value.astype(np.float64) if value.dtype == np.float32 else value
        return np.asfortranarray(wide) if wide.ndim else wide

    assert same(run(method, inputs(names(method), other)), plain(method.name))


@pytest.mark.parametrize("method", cases("oblique"))
def test_anisotropic_voxels_and_oblique_field(method: Method):
    b = OBLIQUE.b0_direction
    opposite = type(OBLIQUE)(OBLIQUE.shape, OBLIQUE.voxel_size, (-b[0], -b[1], -b[2]))
    given = inputs(names(method))
    first, second = run(method, given, OBLIQUE), run(method, given, opposite)
    for name, value in first.items():
        assert np.isfinite(value).all(), name
        assert np.array_equal(value, second[name]), f"{name} depends on the sign of B0"


@pytest.mark.parametrize("method", cases("nan"))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers(method: Method, bad: float):
    """In the mask: a clear error, or a finite result. Outside: always a finite result, if the mask is given."""
    volumes = [n for n in method.consumes if ARTIFACTS[n].kind in ("volume", *STACKED)]
    for victim in volumes:
        for where in ((10, 11, 9), (0, 0, 0)):

            def spoil(name: str, value: np.ndarray) -> np.ndarray:
                if name == victim:  # noqa: B023
                    value[(..., *where)] = bad  # noqa: B023
                return value

            try:
                products = run(method, inputs(names(method), spoil))
            except QSMxTError as error:
                assert victim in str(error), f"the message does not name {victim}: {error}"
                assert where != (0, 0, 0) or "mask" not in names(method), f"{victim} outside the mask: {error}"
                continue
            for name, value in products.items():
                assert np.isfinite(value).all(), (victim, name)


@pytest.mark.parametrize("method", cases("empty"))
def test_an_empty_mask_is_refused(method: Method):
    if "mask" not in names(method):
        assert "mask" not in method.consumes
        return

    def empty(name: str, value: np.ndarray) -> np.ndarray:
        return np.zeros_like(value) if ARTIFACTS[name].kind == "mask" else value

    with pytest.raises(InputError, match="mask"):
        run(method, inputs(names(method), empty))


@pytest.mark.parametrize("method", cases("shape error"))
def test_a_wrong_shape_is_named(method: Method):
    for victim in names(method):
        if ARTIFACTS[victim].kind == "acquisition":
            continue

        def cut(name: str, value: np.ndarray) -> np.ndarray:
            return value[..., :-1] if name == victim else value  # noqa: B023

        with pytest.raises(InputError, match=victim):
            run(method, inputs(names(method), cut))


@pytest.mark.parametrize("method", [pytest.param(m, id=m.name) for m in METHODS.values() if m.linear])
def test_methods_called_linear_scale_with_the_field(method: Method):
    def double(name: str, value: np.ndarray) -> np.ndarray:
        return value * np.float32(2.5) if name in FIELDS else value

    scaled = run(method, inputs(names(method), double))
    for name, value in plain(method.name).items():
        if name in FIELDS:
            assert np.abs(scaled[name] - 2.5 * value).max() <= 1e-4 * np.abs(2.5 * value).max(), name
        else:
            assert np.array_equal(scaled[name], value), name


def _box(*ranges: slice) -> Callable[[str, np.ndarray], np.ndarray]:
    """Change that cuts a box out of every volume."""
    return lambda name, value: np.ascontiguousarray(value[(..., *ranges)]) if np.ndim(value) >= 3 else value


def _vanish(name: str, value: np.ndarray) -> np.ndarray:
    dark = ("magnitude", "coil_magnitude", "combined_magnitude", "homogeneous_magnitude", "mask_input", "s0")
    return np.zeros_like(value) if name in dark else value


def _first_echo(name: str, value: np.ndarray) -> np.ndarray:
    if name == "echo_times":
        return value[:1]
    if name in ("coil_phase", "coil_magnitude"):
        return value[:, :1]
    return value[:1] if ARTIFACTS[name].kind == "echoes" else value


def _equal_times(name: str, value: np.ndarray) -> np.ndarray:
    return np.array([0.005, 0.005, 0.015]) if name == "echo_times" else value


#: Input that breaks careless code: change of the arrays, grid.
AWKWARD: dict[str, tuple[Callable[[str, np.ndarray], np.ndarray], Grid]] = {
    "prime sizes and a mask up to the border": (
        _box(slice(1, 18), slice(2, 21), slice(3, 16)), Grid((17, 19, 13), (2.0, 2.0, 2.0))
    ),
    "one slice": (_box(slice(None), slice(None), slice(9, 10)), Grid((20, 22, 1), (2.0, 2.0, 2.0))),
    "thick slices": (_box(slice(None), slice(None), slice(2, 17, 5)), Grid((20, 22, 3), (2.0, 2.0, 10.0))),
    "no magnitude": (_vanish, GRID),
    "one echo": (_first_echo, GRID),
    "equal echo times": (_equal_times, GRID),
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("method", cases("awkward"))
def test_awkward_input_is_served_or_refused(method: Method, case: str):
    """A result with the shape of its grid, finite, zero outside the mask; or an error that names what is wrong."""
    change, grid = AWKWARD[case]
    given = inputs(names(method), change)
    if grid is GRID and all(np.array_equal(value, arrays()[name]) for name, value in given.items()):
        return  # the method does not see the difference
    try:
        products = run(method, given, grid)
    except QSMxTError as error:
        told = str(error)
        assert any(name in told.replace(" ", "_") for name in (*ARTIFACTS, "grid")), told
        assert "expected" in told and "found" in told, told
        return
    for name, value in products.items():
        assert np.isfinite(value).all(), name
        if ARTIFACTS[name].kind not in ("echoes", "acquisition"):
            assert value.shape[value.ndim - 3 :] == grid.shape, name
            assert (value.ndim > 3) == (ARTIFACTS[name].kind == "components"), name
        if name in MASKED and "mask" in given:
            assert not value[..., ~given["mask"]].any(), name
        if case == "equal echo times" and name in ("total_field", "r2star"):
            good = plain(method.name)[name][given["mask"]] if "mask" in given else plain(method.name)[name]
            assert np.abs(value).max() <= 100 * np.abs(good).max(), f"{name} is divided by a difference of zero"
