"""Separation of sources: exact where the model holds, and scores on a head with known sources."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.inversion.tv import tv
from qsmxt.algorithms.metrics import nrmse, xsim
from qsmxt.algorithms.separation import chiseparation, closedform, r2starqsm, wavesep
from qsmxt.algorithms.separation.chiseparation import map_noise
from qsmxt.algorithms.separation.wavesep import shrink_details
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom.forward import DipoleField
from qsmxt.phantom.head import HeadSettings
from qsmxt.phantom.sources import two_sources

SHAPE = (9, 10, 11)
GRID = Grid(SHAPE)


@pytest.fixture
def voxels():
    """Random sources (ppm) and a mask."""
    rng = np.random.default_rng(0)
    positive, negative = 0.2 * rng.random(SHAPE), -0.1 * rng.random(SHAPE)
    return positive, negative, rng.random(SHAPE) < 0.9


@pytest.mark.parametrize("strength", [1.5, 3.0, 7.0])
@pytest.mark.parametrize("known", ["r2prime", "r2", "r2star"])
def test_closed_form_is_exact_where_the_model_holds(voxels, strength, known):
    positive, negative, mask = voxels
    size = positive - negative
    r2 = 15 + np.zeros(SHAPE)
    if known == "r2star":
        rates = {"r2star": 274 * strength / 3 * size}
    else:
        r2prime = 137 * strength / 3 * size
        rates = {"r2star": r2prime + r2} | ({"r2prime": r2prime} if known == "r2prime" else {"r2": r2})
    found = closedform.method.run({"chi": positive + negative, "mask": mask, "field_strength": strength, **rates}, GRID)
    np.testing.assert_allclose(found["chi_paramagnetic"], np.where(mask, positive, 0), atol=1e-6)
    np.testing.assert_allclose(found["chi_diamagnetic"], np.where(mask, negative, 0), atol=1e-6)


def test_r2starqsm_is_the_closed_form_of_r2star_alone(voxels):
    positive, negative, mask = voxels
    rate = 274 * 7 / 3 * (positive - negative)
    found = r2starqsm(positive + negative, rate, mask, 7.0, GRID)
    np.testing.assert_allclose(found[0], np.where(mask, positive, 0), atol=1e-6)
    np.testing.assert_allclose(found[1], np.where(mask, negative, 0), atol=1e-6)


def test_sources_never_change_sign(voxels):
    _, _, mask = voxels
    rng = np.random.default_rng(1)
    chi, rate = rng.standard_normal(SHAPE), 50 * rng.standard_normal(SHAPE)
    positive, negative = closedform(chi, rate, mask, 3.0, GRID, r2prime=rate)
    assert positive.min() == 0 and negative.max() == 0
    one_sided = mask & (np.abs(chi) > np.maximum(rate, 0) / 137)
    assert not (positive[one_sided] * negative[one_sided]).any()


#: Another anatomy, texture and noise than those for which weights were chosen; four echoes, signal-to-noise ratio 100.
SETTINGS = HeadSettings(
    voxel_size=(2.5, 2.5, 2.5),
    oversampling=1,
    echo_times=(0.004, 0.012, 0.020, 0.028),
    snr=100.0,
    seed=5,
    deformation=3,
)


@pytest.fixture(scope="module")
def head():
    return two_sources(dataclasses.replace(SETTINGS, field_strength=7.0))


def _run(function, head, **values):
    first = head.local_field if "local_field" in function.method.consumes else values.pop("chi")
    given = {name: values.pop(name, None) for name in ("field_noise", "r2star_noise", "chi")}
    more = {name: array for name, array in given.items() if array is not None}
    settings = function.method.configure(values)
    return function(
        first, head.r2star, head.mask, head.field_strength, head.grid, settings, r2prime=head.r2prime, **more
    )


def _scores(found, head):
    truth = (head.paramagnetic, head.diamagnetic)
    return [xsim(v, t, head.mask) for v, t in zip(found, truth, strict=True)]


@pytest.mark.parametrize(("strength", "least"), [(7.0, (0.915, 0.97)), (3.0, (0.87, 0.955))])
def test_joint_separation_beats_the_closed_form(head, strength, least):
    """At both field strengths; the best published scores are 0.904 and 0.887 (7 T, another phantom)."""
    head = head if strength == 7 else two_sources(dataclasses.replace(SETTINGS, field_strength=strength))
    chi = tv(head.local_field, head.mask, head.grid, field_noise=head.field_noise)
    baseline = _scores(_run(closedform, head, chi=chi), head)
    noises = {"field_noise": head.field_noise, "r2star_noise": head.r2prime_noise / np.float32(np.sqrt(2))}
    joint = _scores(_run(chiseparation, head, chi=chi, **noises), head)
    print("xsim at", strength, "T: closed form", baseline, "joint", joint)
    assert joint[0] >= least[0] and joint[1] >= least[1]
    assert joint[0] > baseline[0] + 0.05 and joint[1] > baseline[1] + 0.01


def test_joint_separation_without_noise_is_nearly_exact():
    clean = two_sources(dataclasses.replace(SETTINGS, voxel_size=(4.0,) * 3, snr=float("inf")))
    settings = {"weight": 1e-6, "coupling": 0.1, "iterations": 300, "tolerance": 0.0}
    found = _run(chiseparation, clean, **settings)
    assert nrmse(found[0], clean.paramagnetic, clean.mask) < 12
    assert nrmse(found[1], clean.diamagnetic, clean.mask) < 9
    assert xsim(found[0], clean.paramagnetic, clean.mask) > 0.97


def test_field_of_great_noise_does_not_count(head):
    noise = np.where(head.mask, 0.001, 0).astype(np.float32)
    even, plain = (_run(chiseparation, head, field_noise=n, iterations=15) for n in (noise, None))
    np.testing.assert_array_equal(even[0], plain[0])
    spot = (slice(30, 33), slice(40, 43), slice(38, 41))
    field = head.local_field.copy()
    field[spot] += 0.3
    noise[spot] = 10
    broken = dataclasses.replace(head, local_field=field)
    trusted, weighted = (_run(chiseparation, broken, field_noise=n, iterations=15) for n in (None, noise))
    errors = [np.linalg.norm(found[0] - plain[0]) for found in (trusted, weighted)]
    assert errors[1] < 0.1 * errors[0]


def test_relaxation_of_great_noise_does_not_count():
    """Where R2* is unknown, the field and the neighbours decide."""
    head = two_sources(dataclasses.replace(SETTINGS, voxel_size=(4.0,) * 3, field_strength=7.0))
    noise = np.where(head.mask, 1, 0).astype(np.float32)
    plain = _run(chiseparation, head, r2star_noise=noise, iterations=25)
    spot = (slice(19, 22), slice(25, 28), slice(24, 27))
    rate = head.r2prime.copy()
    rate[spot] += 200
    noise[spot] = 100
    broken = dataclasses.replace(head, r2prime=rate)
    trusted, weighted = (_run(chiseparation, broken, r2star_noise=n, iterations=25) for n in (None, noise))
    errors = [np.linalg.norm(found[1] - plain[1]) for found in (trusted, weighted)]
    assert errors[1] < 0.05 * errors[0]


def test_a_map_of_the_inversion_tells_where_the_field_is_wrong():
    """A source of the background that its removal left, and a map whose reference is another."""
    head = two_sources(dataclasses.replace(SETTINGS, voxel_size=(4.0,) * 3, field_strength=7.0, snr=float("inf")))
    outside = np.zeros(head.grid.shape, dtype=np.float32)
    outside[np.unravel_index(np.argmax(head.mask), head.mask.shape)] = 9.0
    remnant = DipoleField(head.grid.shape, head.grid.voxel_size, head.grid.b0_direction)(outside)
    broken = dataclasses.replace(head, local_field=head.local_field + remnant * head.mask)
    errors = []
    for chi in (None, head.chi, head.chi + np.float32(0.1) * head.mask):
        found = _run(chiseparation, broken, chi=chi, iterations=30)
        errors.append(nrmse(found[0] + found[1], head.chi, head.mask & (outside == 0)))
    print("error without and with a map", errors)
    assert errors[1] < 0.5 * errors[0] and errors[2] == pytest.approx(errors[1], rel=0.05)


def test_joint_separation_keeps_signs_and_region(head):
    positive, negative = _run(chiseparation, head, iterations=5)
    assert positive.min() == 0 and negative.max() == 0
    assert not positive[~head.mask].any() and not negative[~head.mask].any()


def test_noise_of_a_map_is_found_in_the_presence_of_anatomy(head):
    found = map_noise(head.r2prime, head.mask)
    assert abs(found / np.median(head.r2prime_noise[head.mask]) - 1) < 0.4


@pytest.mark.parametrize("coupling", [0.3, 1.0, 4.0])
def test_wavelets_without_threshold_are_the_closed_form(voxels, coupling):
    positive, negative, mask = voxels
    chi, rate = positive + negative, 137 * (positive - negative)
    settings = wavesep.method.configure({"strength": 0.0, "coupling": coupling, "iterations": 200})
    found = wavesep(chi, rate, mask, 3.0, GRID, settings, r2prime=rate)
    for a, b in zip(found, closedform(chi, rate, mask, 3.0, GRID, r2prime=rate), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_wavelets_are_orthonormal_and_remove_noise():
    rng = np.random.default_rng(3)
    volume = rng.standard_normal((21, 16, 19)).astype(np.float32)
    np.testing.assert_allclose(shrink_details(volume, 0.0, (3, 5, 1)), volume, atol=1e-5)
    steps = np.zeros((32, 32, 32), dtype=np.float32)
    steps[8:24, 8:16] = 1
    np.testing.assert_allclose(shrink_details(steps, 5.0), steps, atol=1e-5)
    noisy = steps + 0.1 * rng.standard_normal(steps.shape).astype(np.float32)
    assert np.std(shrink_details(noisy, 0.3) - steps) < 0.02


def test_wavelets_improve_the_paramagnetic_map(head):
    chi = tv(head.local_field, head.mask, head.grid, field_noise=np.ones_like(head.local_field))
    baseline, found = (_run(f, head, chi=chi) for f in (closedform, wavesep))
    scores = [xsim(v[0], head.paramagnetic, head.mask) for v in (baseline, found)]
    assert scores[1] > scores[0] + 0.01
    assert xsim(found[1], head.diamagnetic, head.mask) > 0.94


@pytest.mark.parametrize("function", [closedform, chiseparation, wavesep])
def test_bad_input_is_named(function, voxels):
    positive, negative, mask = voxels
    chi, rate = positive + negative, 100 * positive
    first = function.method.consumes[0]
    with pytest.raises(InputError, match="empty mask"):
        function(chi, rate, np.zeros(SHAPE, dtype=bool), 3.0, GRID)
    with pytest.raises(InputError, match="r2star: expected shape"):
        function(chi, rate[1:], mask, 3.0, GRID)
    with pytest.raises(InputError, match="field strength"):
        function(chi, rate, mask, 3e8, GRID)
    with pytest.raises(InputError, match=rf"{first}.*finite"):
        function(np.where(mask, np.nan, 0), rate, mask, 3.0, GRID)


def test_same_bytes_for_any_number_of_threads():
    small = two_sources(dataclasses.replace(SETTINGS, voxel_size=(8.0,) * 3))
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(b"".join(v.tobytes() for v in _run(chiseparation, small, iterations=4)))
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
