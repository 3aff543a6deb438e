"""Little data get the right answer or a clear error: one slice, no magnitude, one echo, repeated echo times.

The phantom and its arrays are those of :mod:`tests.contracts.test_methods`; thick slices are in
:mod:`tests.contracts.test_thick_slices`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qsmxt.algorithms import morphology
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.methods import Method
from tests.contracts.test_methods import GRID, MASKED, METHODS, arrays, inputs, names, run, same

#: The slice that stands alone: it cuts all spheres and the fluid.
SLICE = 7
#: Volumes around it: empty ones below and above, or copies of it on either side.
BELOW, ABOVE, COPIES = 5, 6, 31

#: Methods that need what a slice does not have: voxels with six neighbours, spheres, something above and below.
NEED_VOLUMES = {
    "background.lbv", "background.harperella", "background.iharperella", "background.ismv", "background.vsharp",
    "background.resharp", "background.sharp", "background.tvpdf", "inversion.qsmart", "inversion.tfi", "inversion.tgv",
    "inversion.tgv_phase", "inversion.tvtfi",
}  # fmt: skip
#: Stages that see in a slice what they see in every slice of an object that does not change along its axis.
ALONG = ("unwrapping", "masking", "swi", "relaxometry", "spinecho")
#: Of those, the methods that count how many neighbours a voxel has: copies would be more.
COUNTING = ("masking.hagberg",)
#: How far a slice may differ where the extent of the volume limits smoothing, or the whole volume tells the noise.
LOOSER = {"masking.homogeneity": 0.02, "swi.clearswi": 0.02, "relaxometry.nonlinear": 0.002}


def ids(method: Method) -> str:
    return method.name


def _slice(name: str, value: np.ndarray) -> np.ndarray:
    if np.ndim(value) < 3:
        return value
    value = value * arrays()["mask"] if name in MASKED and value.dtype != bool else value
    return np.ascontiguousarray(value[..., SLICE : SLICE + 1])


def _padded(name: str, value: np.ndarray) -> np.ndarray:
    value = _slice(name, value)
    return np.pad(value, ((0, 0),) * (value.ndim - 1) + ((BELOW, ABOVE),)) if np.ndim(value) >= 3 else value


def _copied(name: str, value: np.ndarray) -> np.ndarray:
    value = _slice(name, value)
    return np.repeat(value, COPIES, axis=-1) if np.ndim(value) >= 3 else value


@pytest.mark.parametrize("method", METHODS.values(), ids=ids)
def test_a_single_slice_is_that_slice_of_a_volume(method: Method):
    """Of one with nothing below and above, or, where the neighbours are looked at, of one that repeats it."""
    one = GRID.with_shape((*GRID.shape[:2], 1))
    if method.name in NEED_VOLUMES:
        with pytest.raises(InputError, match=r"mask: expected .*, found .*; (use|take|lower) "):
            run(method, inputs(names(method), _slice), one)
        return
    copies = method.stage in ALONG and method.name not in COUNTING
    made = run(method, inputs(names(method), _slice), one)
    around, place, count = (_copied, COPIES // 2, COPIES) if copies else (_padded, BELOW, BELOW + 1 + ABOVE)
    whole = run(method, inputs(names(method), around), GRID.with_shape((*GRID.shape[:2], count)))
    for name, value in made.items():
        expected, difference = whole[name], value * 1.0
        if value.ndim >= 3:
            inside = inputs(("mask",), _slice)["mask"]
            expected, difference = expected[..., place : place + 1][..., inside], difference[..., inside]
        limit = LOOSER.get(method.name, 1e-4) * max(float(np.abs(expected).max()), 1e-6)
        assert np.abs(difference - expected).max() <= limit, name
    if method.name == "masking.bet":
        return  # a brain of 34 mm is none
    assert any(np.any(value) for value in made.values()) or method.name == "masking.ventricles"


MAGNITUDES = ("magnitude", "coil_magnitude", "spin_echo_magnitude")
#: What the magnitude weights.
WEIGHTED = ("wrapped_phase", "coil_phase", "offset_free_phase", "unwrapped_phase", "total_field", "local_field")
#: Methods to which the magnitude is something else than a weight of the other arrays, with what it is.
NO_WEIGHT = {
    "inversion.medi": "edges", "inversion.tfi": "edges", "inversion.qsmart": "vessels",
}  # fmt: skip
#: What methods make of a magnitude of zero, if they need none: what they make without it, the same phase, nothing.
WITHOUT = ("inversion.medi", "inversion.tfi", "inversion.qsmart", "merging.echo_mean")
UNTOUCHED = {"unwrapping.romeo": "offset_free_phase"}
BLACK = ("swi.homodyne", "swi.smwi", "masking.peel", "masking.ventricles")

WITH_MAGNITUDE = [m for m in METHODS.values() if set(MAGNITUDES) & {*m.consumes, *m.optional}]


def _all_of(method: Method) -> tuple[str, ...]:
    """What a method consumes, the mask and the magnitude."""
    more = [name for name in method.optional if name in ("mask", "magnitude", "echo_times")]
    return tuple(dict.fromkeys((*method.consumes, *more)))


def _dark(name: str, value: np.ndarray) -> np.ndarray:
    return np.zeros_like(value) if name in MAGNITUDES else value


@pytest.mark.parametrize("method", WITH_MAGNITUDE, ids=ids)
def test_a_magnitude_of_zero_everywhere(method: Method):
    """A clear error, or what the method makes without a magnitude."""
    given = inputs(_all_of(method), _dark)
    if method.name in WITHOUT:
        bare = {name: value for name, value in given.items() if name != "magnitude"}
        assert same(run(method, given), run(method, bare))
    elif method.name in UNTOUCHED:
        (made,) = run(method, given).values()
        turns = (made - given[UNTOUCHED[method.name]])[..., arrays()["mask"]] / (2 * np.pi)
        assert np.abs(turns - np.rint(turns)).max() < 1e-4
    elif method.name in BLACK:
        made = run(method, given)
        if method.name == "masking.peel":
            opened = morphology.opening(given["mask"], GRID, 2.0)
            assert same(made, {"mask": opened}), "no fluid is seen; the mask is opened all the same"
        else:
            assert not any(value.any() for value in made.values())
    else:
        with pytest.raises(InputError, match=r"expected (voxels with )?positive (values|weight).* found none; "):
            run(method, given)


@pytest.mark.parametrize("method", [m for m in WITH_MAGNITUDE if set(WEIGHTED) & set(m.consumes)], ids=ids)
def test_voxels_without_magnitude_do_not_matter(method: Method):
    """Whatever the phase or the field is there, the rest is the same."""
    if method.name in NO_WEIGHT:
        return
    hole = np.zeros(GRID.shape, dtype=bool)
    hole[8:11, 10:12, 8:10] = True
    garbage = np.random.default_rng(3).uniform(-1, 1, hole.sum())

    def spoilt(by: float) -> Callable[[str, np.ndarray], np.ndarray]:
        def change(name: str, value: np.ndarray) -> np.ndarray:
            if name in MAGNITUDES:
                value[..., hole] = 0
            elif name in WEIGHTED:
                value[..., hole] = by * garbage * (1.0 if ARTIFACTS[name].unit == "rad" else 0.1)
            return value

        return change

    one, other = (run(method, inputs(_all_of(method), spoilt(by))) for by in (0.0, 2.0))
    rest = arrays()["mask"] & ~hole
    for name, value in one.items():
        limit = 1e-3 * max(float(np.abs(value[..., rest]).max()), 1e-6)
        assert np.abs(other[name] * 1.0 - value * 1.0)[..., rest].max() <= limit, name


#: Methods that need echoes, and how they say it.
SEVERAL = r"echo times: expected at least \d echoes, found 1; "
ONE_ECHO = [m for m in METHODS.values() if "echo_times" in m.consumes]


def _clean() -> dict[str, np.ndarray]:
    """Phases without offset or noise, by every name: all echoes tell the same field, that of ``unwrapped_phase``."""
    unwrapped = arrays()["unwrapped_phase"]
    wrapped = np.angle(np.exp(1j * unwrapped)).astype(np.float32)
    return {"unwrapped_phase": unwrapped, "wrapped_phase": wrapped, "offset_free_phase": wrapped}


def _echoes(count: int) -> Callable[[str, np.ndarray], np.ndarray]:
    def change(name: str, value: np.ndarray) -> np.ndarray:
        value = np.array(_clean().get(name, value), copy=True)
        if name in ("coil_phase", "coil_magnitude"):
            return value[:, :count]
        return value[:count] if name == "echo_times" or ARTIFACTS[name].kind == "echoes" else value

    return change


@pytest.mark.parametrize("method", ONE_ECHO, ids=ids)
def test_one_echo(method: Method):
    """The field of that echo, with all its consequences; or an error that says how many are needed, and what to do."""
    given, mask = inputs(names(method), _echoes(1)), arrays()["mask"]
    alone = {
        "unwrapping.romeo", "field.joint_fit", "field.weighted_fit", "background.harperella", "background.iharperella",
        "inversion.tgv_phase", "swi.clearswi", "swi.homodyne",
    }  # fmt: skip
    if method.name not in alone:
        with pytest.raises(InputError, match=SEVERAL):
            run(method, given)
        return
    made = run(method, given)
    true = arrays()["unwrapped_phase"][0][mask]
    turn = 2 * np.pi
    if method.stage in ("unwrapping", "field"):
        scale = rad_per_ppm(3.0, float(arrays()["echo_times"][0])) if method.stage == "field" else 1.0
        found = made["total_field" if method.stage == "field" else "unwrapped_phase"].reshape(GRID.shape)[mask] * scale
        offset = turn * np.rint(np.median(found - true) / turn)
        assert np.abs(found - true - offset).max() < 2e-3
    elif method.stage == "swi":
        dark = run(method, {name: v * 0 if name.endswith("phase") else v for name, v in given.items()})["swi"]
        flat = np.ones_like(given["magnitude"])
        even = run(method, {**given, "magnitude": flat, names(method)[0]: 0 * flat})["swi"][mask]
        assert even.std() < 1e-2 * even.mean(), "without phase and contrast there is nothing to weight"
        assert made["swi"][mask].sum() < dark[mask].sum()
    else:
        several = run(method, inputs(names(method), _echoes(3)))
        for name, value in made.items():
            limit = 0.05 * float(np.abs(several[name]).max())
            assert np.abs(value * 1.0 - several[name] * 1.0).max() <= limit, name


#: Methods to which the order of the echo times is all that counts, or whose echoes are maps.
ORDERED = {"masking.peel": "mask", "merging.echo_mean": "chi"}


@pytest.mark.parametrize(
    "method", [m for m in METHODS.values() if {"echo_times", "spin_echo_times"} & {*m.consumes, *m.optional}], ids=ids
)
def test_repeated_echo_times(method: Method):
    """Refused where a difference of echo times divides; elsewhere as if they differed by nothing that counts."""

    def times(shift: float) -> Callable[[str, np.ndarray], np.ndarray]:
        def change(name: str, value: np.ndarray) -> np.ndarray:
            if name in ("echo_times", "spin_echo_times"):
                value[1] = value[0] + shift
            return value

        return change

    given = inputs(_all_of(method), times(0.0))
    if method.name in ORDERED:
        near = run(method, inputs(_all_of(method), times(1e-7)))[ORDERED[method.name]]
        assert np.abs(run(method, given)[ORDERED[method.name]] * 1.0 - near * 1.0).max() < 1e-5
        return
    with pytest.raises(InputError, match=r"echo[ _]times: expected (strictly ascending|different) times.*, found"):
        run(method, given)
