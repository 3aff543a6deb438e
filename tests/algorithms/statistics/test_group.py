"""Cohort statistics against closed forms and simulated cohorts with known effects."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from qsmxt.algorithms.statistics.group import (
    adjusted,
    agreement,
    association,
    difference,
    fit_model,
    formula_names,
    outliers,
)
from qsmxt.errors import InputError, ParameterError


def test_difference_is_welchs_and_shrinks_cohens_d():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 12), rng.normal(0, 2, 9)
    found = difference(a, b)
    reference = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-10) and found.t == pytest.approx(reference.statistic)
    interval = reference.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    pooled = np.sqrt((11 * a.var(ddof=1) + 8 * b.var(ddof=1)) / 19)
    assert found.g == pytest.approx((a.mean() - b.mean()) / pooled * (1 - 3 / 75))
    assert difference(b, a).g == pytest.approx(-found.g)


def test_hedges_g_is_unbiased_and_its_interval_covers():
    rng = np.random.default_rng(1)
    found = [difference(rng.normal(0.8, 1, 8), rng.normal(0, 1, 8)) for _ in range(3000)]
    assert np.mean([f.g for f in found]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([f.g_low <= 0.8 <= f.g_high for f in found]) == pytest.approx(0.95, abs=0.02)


def test_nothing_is_said_about_too_few():
    assert difference(np.array([1.0]), np.array([1.0, 2.0])) is None
    assert difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])) is None
    assert association(np.arange(3.0), np.arange(3.0)) is None
    assert agreement(np.array([1.0]), np.array([1.0])) is None


def test_association_recovers_the_line():
    age = np.linspace(20, 80, 30)
    noise = np.random.default_rng(2).normal(0, 0.005, 30)
    found = association(age, 0.05 + 0.0006 * age + noise)
    assert found.slope == pytest.approx(0.0006, abs=5e-5) and found.low < found.r < found.high
    assert found.p == pytest.approx(scipy.stats.pearsonr(age, 0.05 + 0.0006 * age + noise).pvalue, rel=1e-8)


def test_adjusted_values_by_hand_and_the_missing_do_not_count():
    p = [0.005, 0.011, 0.02, 0.04, 0.13, None]
    np.testing.assert_allclose(adjusted(p)[:5], [0.025, 0.0275, 1 / 30, 0.05, 0.13])
    assert np.isnan(adjusted(p)[5]) and np.isnan(adjusted([None])).all()


def test_false_discoveries_are_held_below_the_level():
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(400):
        z = rng.normal(0, 1, 40) + np.where(np.arange(40) < 10, 3.5, 0)
        found = adjusted(2 * scipy.stats.norm.sf(np.abs(z))) < 0.1
        shares.append(found[10:].sum() / max(1, found.sum()))
    assert np.mean(shares) < 0.1


def test_least_squares_recovers_every_coefficient():
    rng = np.random.default_rng(4)
    age, sex = rng.uniform(20, 80, 60), rng.choice(["F", "M"], 60)
    chi = 0.02 + 0.0005 * age + 0.01 * (sex == "M") + rng.normal(0, 0.002, 60)
    fit = fit_model("chi ~ age + sex", {"chi": chi, "age": age, "sex": sex}, [str(n) for n in range(60)])
    terms = {term.name: term for term in fit.terms}
    assert fit.kind == "ols" and fit.n == fit.participants == 60
    assert terms["age"].estimate == pytest.approx(0.0005, abs=6e-5)
    assert terms["sex[T.M]"].low < 0.01 < terms["sex[T.M]"].high and terms["sex[T.M]"].p < 1e-6


def test_repeated_scans_make_a_mixed_model_whose_error_knows_that_people_are_not_scans():
    rng = np.random.default_rng(5)
    people = np.repeat(np.arange(20), 5)
    patient = np.where(people % 2 == 0, "yes", "no")
    chi = rng.normal(0, 0.02, 20)[people] + rng.normal(0, 0.001, 100)
    columns = {"chi": 1000 * chi, "patient": patient}
    mixed = fit_model("chi ~ patient", columns, [str(n) for n in people])
    naive = fit_model("chi ~ patient", columns, [str(n) for n in range(100)])
    assert (mixed.kind, naive.kind) == ("mixed", "ols") and mixed.participants == 20
    assert mixed.terms[1].error > 1.8 * naive.terms[1].error


def test_missing_values_leave_a_scan_out_and_confounded_designs_say_nothing():
    columns = {"chi": [1.0, 2.0, 2.9, 4.1, np.nan], "age": [1.0, 2.0, 3.0, 4.0, 5.0]}
    assert fit_model("chi ~ age", columns, list("abcde")).n == 4
    columns["twice"] = [2 * value for value in columns["age"]]
    assert fit_model("chi ~ age + twice", columns, list("abcde")) is None
    assert fit_model("chi ~ age", {k: v[:2] for k, v in columns.items()}, list("ab")) is None


def test_formulas_name_what_they_do_not_know():
    assert formula_names("chi ~ np.log(age) + C(sex)", ["chi", "age", "sex"]) == ["chi", "age", "sex"]
    with pytest.raises(ParameterError, match="unknown agee; expected one of age, chi"):
        formula_names("chi ~ agee", ["chi", "age"])
    with pytest.raises(ParameterError, match="expected something like"):
        formula_names("chi", ["chi", "age"])


def test_agreement_of_scans_with_known_noise():
    rng = np.random.default_rng(6)
    truth = rng.normal(0, 1, 4000)
    found = agreement(truth + rng.normal(0, 0.1, 4000), truth + 0.02 + rng.normal(0, 0.1, 4000))
    assert found.bias == pytest.approx(0.02, abs=0.01) and found.within_sd == pytest.approx(0.1, rel=0.05)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 * np.sqrt(2), rel=0.05)
    with pytest.raises(InputError, match="found 2 and 3"):
        agreement(np.zeros(2), np.zeros(3))


def test_outliers_by_the_median():
    assert outliers([1.0, 1.1, 0.9, 1.05, 0.95, 5.0]).tolist() == [False] * 5 + [True]
    assert not outliers([2.0, 2.0, 2.0]).any() and outliers([]).size == 0
