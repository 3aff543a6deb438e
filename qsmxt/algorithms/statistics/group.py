r"""Statistics over a cohort: effect sizes, linear models, false discovery rate, agreement of repeated scans.

Difference of two groups of sizes :math:`n_1, n_2`, with the pooled standard deviation :math:`s`:

.. math:: g = J\,\frac{\bar x_1 - \bar x_2}{s}, \qquad J = 1 - \frac{3}{4 (n_1 + n_2 - 2) - 1},

Hedges' correction J taking the bias of small samples from Cohen's d. Its variance is
:math:`1/n_1 + 1/n_2 + g^2 / 2(n_1 + n_2)`; the interval of the difference itself and its p value are Welch's, which do
not assume equal variances.

Linear models are fitted by ordinary least squares, or, where participants have several scans, as mixed models with a
random intercept :math:`u_j` per participant, :math:`y_{ij} = x_{ij}^T \beta + u_j + \epsilon_{ij}`, by restricted
maximum likelihood. Formulas are written as in R (``chi ~ age + sex``).

The expected share of false ones among the effects called significant is held below q by the rule of Benjamini and
Hochberg (doi:10.1111/j.2517-6161.1995.tb02031.x): with sorted p values of m tests, the adjusted value of rank k is
:math:`\min_{j \ge k} m p_j / j`.

Repeated scans agree within :math:`\bar d \pm 1.96\, s_d` of their differences d (Bland and Altman,
doi:10.1016/S0140-6736(86)90837-8); the standard deviation within a participant is :math:`\sqrt{\overline{d^2} / 2}`.
Effect sizes follow Hedges 1981 (doi:10.3102/10769986006002107).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.errors import InputError, ParameterError

#: Quantile of the normal distribution for intervals of 95 %.
_Z = 1.959963984540054


def region_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One word for the region of every row of a table: with its side, and with the atlas where two know the name.

    >>> rows = [{"region": "GP", "hemisphere": "L", "atlas": "A"}, {"region": "SN", "atlas": "A"}]
    >>> region_labels(rows), region_labels([*rows, {"region": "SN", "atlas": "B"}])
    (['L_GP', 'SN'], ['L_GP', 'A_SN', 'B_SN'])
    """
    labels, atlases = [], [str(row.get("atlas") or "") for row in rows]
    known: dict[str, set[str]] = {}
    for row, atlas in zip(rows, atlases, strict=True):
        side, name = str(row.get("hemisphere") or ""), str(row["region"])
        labels.append(f"{side}_{name}" if side and not name.startswith(("Left", "Right", "L_", "R_")) else name)
        known.setdefault(labels[-1], set()).add(atlas)
    several = {label for label, found in known.items() if len(found) > 1}
    return [f"{a}_{x}" if a and x in several else x for x, a in zip(labels, atlases, strict=True)]


@dataclass(frozen=True)
class Difference:
    """First group less second; ``low`` and ``high`` bound the difference, ``g_low`` and ``g_high`` its size (95 %)."""

    n_first: int
    n_second: int
    mean_first: float
    mean_second: float
    difference: float
    low: float
    high: float
    g: float
    g_low: float
    g_high: float
    t: float
    p: float


def difference(first: np.ndarray, second: np.ndarray) -> Difference | None:
    """Difference of the means of two independent groups; ``None`` with fewer than two finite values in one.

    Examples
    --------
    >>> found = difference(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]))
    >>> found.difference, round(found.g, 2), round(found.p, 3)
    (2.0, 1.6, 0.07)
    """
    import scipy.stats

    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    n, m = a.size, b.size
    if min(n, m) < 2:
        return None
    delta = float(a.mean() - b.mean())
    v, w = a.var(ddof=1) / n, b.var(ddof=1) / m
    if v + w == 0:
        return None
    freedom = (v + w) ** 2 / (v**2 / (n - 1) + w**2 / (m - 1))
    error = float(np.sqrt(v + w))
    half = float(scipy.stats.t.ppf(0.975, freedom)) * error
    pooled = float(np.sqrt(((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2)))
    g = (1 - 3 / (4 * (n + m - 2) - 1)) * delta / pooled
    spread = _Z * float(np.sqrt(1 / n + 1 / m + g * g / (2 * (n + m))))
    return Difference(
        n_first=n, n_second=m, mean_first=float(a.mean()), mean_second=float(b.mean()), difference=delta,
        low=delta - half, high=delta + half, g=g, g_low=g - spread, g_high=g + spread, t=delta / error,
        p=float(2 * scipy.stats.t.sf(abs(delta / error), freedom)),
    )  # fmt: skip


@dataclass(frozen=True)
class Association:
    """Linear relation of a quantity to a covariate: correlation with its 95 % interval, slope and intercept."""

    n: int
    r: float
    low: float
    high: float
    slope: float
    intercept: float
    p: float


def association(covariate: np.ndarray, values: np.ndarray) -> Association | None:
    """Pearson's correlation, its interval by Fisher's transform, and the line; ``None`` with fewer than four pairs."""
    import scipy.stats

    x, y = np.asarray(covariate, dtype=np.float64), np.asarray(values, dtype=np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if x.size < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    line = scipy.stats.linregress(x, y)
    r = float(np.clip(line.rvalue, -1, 1))
    z, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), _Z / np.sqrt(x.size - 3)
    return Association(
        x.size, r, float(np.tanh(z - half)), float(np.tanh(z + half)), float(line.slope), float(line.intercept),
        float(line.pvalue),
    )  # fmt: skip


def adjusted(p: Sequence[float | None] | np.ndarray) -> np.ndarray:
    """p values adjusted for the false discovery rate; those that are missing stay NaN and do not count as tests.

    Examples
    --------
    >>> adjusted([0.01, 0.04, 0.03, None]).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    import scipy.stats

    values = np.array([np.nan if value is None else value for value in p], dtype=np.float64)
    tested = np.isfinite(values)
    out = np.full(values.shape, np.nan)
    if tested.any():
        out[tested] = scipy.stats.false_discovery_control(values[tested])
    return out


@dataclass(frozen=True)
class Term:
    """One coefficient of a model, with its standard error, 95 % interval and p value."""

    name: str
    estimate: float
    error: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Fit:
    """A fitted model: ``kind`` is ``ols`` or ``mixed``; ``explained`` is R^2 (least squares only)."""

    kind: str
    n: int
    participants: int
    terms: tuple[Term, ...]
    explained: float | None = None
    converged: bool = True


def fit_model(formula: str, columns: Mapping[str, Sequence[Any]], participant: Sequence[str]) -> Fit | None:
    """Fit one linear model.

    Parameters
    ----------
    formula
        Such as ``chi ~ age + sex``; all names are columns.
    columns
        Values by name, one per scan; text makes categories. Scans with a missing value are left out.
    participant
        Who every scan belongs to; a mixed model is fitted where one occurs twice.

    Returns
    -------
    fit
        ``None`` where there are no more scans than coefficients.

    Raises
    ------
    ParameterError
        If the formula cannot be read or names an unknown column.
    """
    import pandas
    import statsmodels.formula.api as models

    frame = pandas.DataFrame(dict(columns)).assign(_participant=list(participant))
    used = [name for name in formula_names(formula, list(columns))]
    frame = frame.dropna(subset=used).reset_index(drop=True)
    repeated = bool(frame["_participant"].duplicated().any())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            if repeated:
                model = models.mixedlm(formula, frame, groups=frame["_participant"])
            else:
                model = models.ols(formula, frame)
            if model.exog.shape[0] <= model.exog.shape[1] or np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
                return None
            fitted = model.fit()
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return None
        except Exception as error:
            raise ParameterError(f"model {formula!r}: cannot be fitted ({_last_line(error)})") from None
    converged = not repeated or (fitted.converged and not any("converge" in str(w.message).lower() for w in told))
    names = list(model.exog_names)
    bounds = np.asarray(fitted.conf_int())[: len(names)]
    terms = tuple(
        Term(name, float(estimate), float(error), float(low), float(high), float(p))
        for name, estimate, error, (low, high), p in zip(
            names, np.asarray(fitted.params), np.asarray(fitted.bse), bounds, np.asarray(fitted.pvalues), strict=False
        )
    )
    people = int(frame["_participant"].nunique())
    explained = None if repeated else float(fitted.rsquared)
    return Fit("mixed" if repeated else "ols", len(frame), people, terms, explained, bool(converged))


@dataclass(frozen=True)
class Design:
    """Columns of a model without its intercept, ``(row, column)``, and which rows are complete (bool)."""

    names: tuple[str, ...]
    matrix: np.ndarray
    complete: np.ndarray


def design(formula: str, columns: Mapping[str, Sequence[Any]]) -> Design:
    """The right side of a formula as numbers; see :func:`fit_model`.

    Examples
    --------
    >>> made = design("y ~ a + b", {"y": [0.0] * 3, "a": [1.0, 2.0, None], "b": ["M", "F", "F"]})
    >>> made.names, made.matrix.tolist(), made.complete.tolist()
    (('b[T.M]', 'a'), [[1.0, 1.0], [0.0, 2.0]], [True, True, False])
    """
    import pandas
    import statsmodels.formula.api as models

    frame = pandas.DataFrame(dict(columns))
    complete = frame[formula_names(formula, list(columns))].notna().all(axis=1).to_numpy(dtype=bool)
    try:
        model = models.ols(formula, frame[complete].reset_index(drop=True))
    except Exception as error:
        raise ParameterError(f"model {formula!r}: cannot be set up ({_last_line(error)})") from None
    kept = [number for number, name in enumerate(model.exog_names) if name != "Intercept"]
    return Design(tuple(model.exog_names[k] for k in kept), np.asarray(model.exog, dtype=float)[:, kept], complete)


def formula_names(formula: str, columns: Sequence[str]) -> list[str]:
    """The columns that a formula uses, response first.

    Raises
    ------
    ParameterError
        If there is no response, or none of the columns is on the right side.
    """
    import re

    left, tilde, right = formula.partition("~")
    response = left.strip()
    if not tilde or not response.isidentifier() or not right.strip():
        raise ParameterError(f"model {formula!r}: expected something like 'chi ~ age + sex'")
    words = re.findall(r"(?<![\w.])[A-Za-z_]\w*(?!\s*\()", right)
    known = [word for word in dict.fromkeys(words) if word in columns]
    unknown = [word for word in dict.fromkeys(words) if word not in columns and word not in _FORMULA_WORDS]
    if unknown or response not in columns:
        missing = ", ".join(unknown or [response])
        raise ParameterError(f"model {formula!r}: unknown {missing}; expected one of {', '.join(sorted(columns))}")
    return [response, *known]


#: Words of a formula that are no columns.
_FORMULA_WORDS = ("C", "Q", "I", "np", "center", "scale", "standardize", "Treatment", "Sum", "reference", "bs", "poly")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@dataclass(frozen=True)
class Agreement:
    """Agreement of two scans of the same people: bias, limits, and the standard deviation within a participant."""

    n: int
    bias: float
    sd: float
    low: float
    high: float
    within_sd: float


def agreement(first: np.ndarray, second: np.ndarray) -> Agreement | None:
    """Second scan less first; ``None`` with fewer than two pairs.

    Raises
    ------
    InputError
        If there are not as many of one as of the other.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(f"repeated scans: expected as many first as second ones, found {a.size} and {b.size}")
    delta = (b - a)[np.isfinite(a) & np.isfinite(b)]
    if delta.size < 2:
        return None
    bias, sd = float(delta.mean()), float(delta.std(ddof=1))
    within = float(np.sqrt(np.mean(delta**2) / 2))
    return Agreement(delta.size, bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, within)


def outliers(values: Sequence[float] | np.ndarray, limit: float = 3.5) -> np.ndarray:
    """Which values lie further from the median than ``limit`` robust standard deviations (1.4826 times the MAD).

    With a MAD of 0, nothing is an outlier that equals the median and everything else is.
    """
    x = np.asarray(values, dtype=np.float64)
    middle = np.nanmedian(x) if np.isfinite(x).any() else np.nan
    deviation = np.abs(x - middle)
    flagged: np.ndarray = deviation > limit * 1.4826 * np.nanmedian(deviation) if x.size else np.zeros(0, bool)
    return flagged & (deviation > 1e-9 * max(1e-30, abs(float(middle)))) if x.size else flagged
