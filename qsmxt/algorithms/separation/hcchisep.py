r"""Hollow-cylinder constrained separation: the diamagnetic source of white matter from the shape of the decay.

The relaxivity of myelin depends on the angle :math:`\theta` of its fibres to B0, so in white matter R2' alone does
not tell the size of its susceptibility. But the decay of white matter is no exponential. Myelin water (fraction m),
axonal and outer water have frequencies of their own,

.. math::

    \nu_a &= \bar\gamma B_0\, \tfrac34 \chi_A \ln\tfrac1g\, \sin^2\theta, \qquad \nu_o = 0, \\
    \nu_m &= \bar\gamma B_0 \Big[\tfrac{\chi_I}{2} \big(\tfrac23 - \sin^2\theta\big)
        + \tfrac{\chi_A}{2} \big(\tfrac16 - \tfrac56 \sin^2\theta\big) + \tfrac34 \chi_A \ln\tfrac1g \sin^2\theta
        + E\Big],

    |S(t)| &\propto e^{-r t} \Big|\sum_p f_p\, e^{-t / T_{2p}}\, e^{2\pi i \nu_p t}\Big| ,

with the susceptibility of a sheath of the ratio g of radii, isotropic :math:`\chi_I` and anisotropic :math:`\chi_A`,
the exchange E (ppm), and a further reversible rate r. The reversible rate of the pools and r together must be R2': that
anchor leaves two unknowns, :math:`\theta` and m, which are looked up in a table. Then

.. math:: |\chi_-| = K m, \qquad \chi_+ = \max(0, \chi + |\chi_-|)

where the decay (smoothed a little) fits hollow cylinders better than an exponential and :math:`\chi` is not positive,
and the closed form elsewhere, with a smooth transition (weight w, from 0 to 1). Without R2' or R2, or where nothing
looks like hollow cylinders, the result is the closed form.

The frequencies grow with B0: at 7 T the shape shows at a signal-to-noise ratio of 100, at 3 T hardly.

Departures from the paper
    The paper gives the model of white matter; the anchor and the weight are ours.

Parameters
    ``per_fraction``: K. ``smoothing``: of the magnitudes before the look-up and of the fractions after it.
    ``relaxivity``, ``r2star_relaxivity``: :math:`D_r` of R2', and of R2* where it stands in, at 3 T.

References
----------
Wharton and Bowtell 2012 (doi:10.1073/pnas.1211075109) for the model; Shin et al. 2021
(doi:10.1016/j.neuroimage.2021.118371) for the closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.echoes import check_field_strength, check_times
from qsmxt.algorithms.separation.sources import (
    PRODUCES,
    Pair,
    Rates,
    RelaxivityParameters,
    checked,
    checked_echoes,
    closed_form,
    inside,
)
from qsmxt.constants import hz_per_ppm
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter, portion

#: Sheath: isotropic and anisotropic susceptibility and exchange (ppm), ratio of radii.
ISOTROPIC, ANISOTROPIC, EXCHANGE, RATIO = -0.1, -0.1, 0.02, 0.7

#: T2 of myelin, axonal and outer water (s), and the share of axons in what is no myelin water.
T2, AXONS = (0.010, 0.064, 0.048), 0.55

#: Angles (rad) and myelin-water fractions of the table.
ANGLES, FRACTIONS = np.radians(np.linspace(0, 90, 31)), np.linspace(0.02, 0.26, 25)

#: Susceptibility at which the diamagnetic gate is half open, and its width, ppm.
GATE, GATE_WIDTH = 0.01, 0.01

#: Ratio of the misfits at which white matter is as likely as not, and the steepness of the transition.
EVEN, STEEPNESS = 0.5, 4.0


@dataclass(frozen=True)
class HCChiSepParameters(RelaxivityParameters):
    """Parameters of :func:`hcchisep`."""

    per_fraction: float = parameter(
        0.317, unit="ppm", above=0, help="size of the diamagnetic susceptibility per myelin-water fraction"
    )
    smoothing: float = parameter(
        2.0, unit="mm", at_least=0, help="standard deviation of the smoothing of magnitudes and fractions"
    )


@method(
    stage="separation",
    key="hcchisep",
    title="Hollow-cylinder constrained separation",
    consumes=("chi", "r2star", "magnitude", "echo_times", "mask", "field_strength"),
    optional=("r2prime", "r2"),
    produces=PRODUCES,
    parameters=HCChiSepParameters,
    references=("wharton2012", "shin2021"),
    sentence=(
        "Para- and diamagnetic sources were separated with a hollow-cylinder model of the decay in white matter "
        "({per_fraction:g} ppm per myelin-water fraction) and in closed form elsewhere (relaxivity at 3 T "
        "{relaxivity:g} 1/s/ppm)."
    ),
    cost=Cost(bytes_per_voxel=68, bytes_per_echo=4, seconds_per_megavoxel=12.0),
    status="experimental",
)
def hcchisep(
    chi: np.ndarray,
    r2star: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    mask: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: HCChiSepParameters = HCChiSepParameters(),
    *,
    progress: Progress | None = None,
    r2prime: np.ndarray | None = None,
    r2: np.ndarray | None = None,
) -> Pair:
    """Paramagnetic and diamagnetic susceptibility (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``, referenced to tissue without sources.
    r2star
        Effective transverse relaxation rate, 1/s, float32 ``(x, y, z)``.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``; at least three echoes.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    mask
        Where to separate, bool ``(x, y, z)``.
    field_strength
        Strength of B0, T, float.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`HCChiSepParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    r2prime
        Reversible transverse relaxation rate, 1/s, float32 ``(x, y, z)``. Without it ``r2star`` less ``r2`` stands in.
    r2
        Transverse relaxation rate of a spin echo, 1/s, float32 ``(x, y, z)``. Without it and ``r2prime``, R2* with a
        relaxivity of its own stands in.

    Returns
    -------
    chi_paramagnetic
        Susceptibility of paramagnetic sources, at least zero, ppm, float32 ``(x, y, z)``; zero outside the mask.
    chi_diamagnetic
        Susceptibility of diamagnetic sources, at most zero, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If there are fewer than three echoes, times are not ascending and above 0, a shape is not that of the grid, the
        mask is empty or not of 0 and 1, an array has NaN or Inf in the mask, or the field strength is none.

    Examples
    --------
    The phantom has no fibres, so the decay shows none, and the closed form is left as it is:

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> from qsmxt.algorithms.separation.hcchisep import hcchisep
    >>> reversible = 137 * abs(head.chi)  # 1/s at 3 T
    >>> arrays = head.chi, head.r2star, head.magnitude, head.echo_times, head.mask, head.field_strength
    >>> sources = hcchisep(*arrays, head.grid, r2prime=reversible)
    >>> truth = head.chi_paramagnetic, head.chi_diamagnetic
    >>> [round(nrmse(a, b, head.mask)) for a, b in zip(sources, truth)]  # percent of the true sources
    [0, 0]
    """
    values, region = checked(chi, mask, grid)
    times = check_times(echo_times, at_least=3, remedy="use the closed form")
    signal = checked_echoes(magnitude, times, region, grid)
    strength = check_field_strength(field_strength)
    rates = Rates(r2star, strength, r2prime, r2)
    total = rates.source_sum(region, grid, parameters)
    positive, negative = closed_form(values, total, region)
    if (r2prime is None and r2 is None) or len(times) < 4:
        return positive, negative
    reversible = total * np.float32(parameters.relaxivity * strength / 3)
    widths = [parameters.smoothing / v for v in grid.voxel_size]
    within = ndimage.gaussian_filter(region.astype(np.float32), widths)
    smooth = np.empty_like(signal)
    for echo, out in zip(signal, smooth, strict=True):
        out[:] = _smoothed(inside("magnitude", echo, region, grid), within, region, widths)
    fraction, better = look_up(smooth, reversible, region, times, strength, portion(progress, 0.1, 0.8))
    del smooth, reversible
    quiet = _smoothed(values, within, region, widths)
    weight = 1 / (1 + (better / EVEN) ** STEEPNESS) / (1 + np.exp((quiet - GATE) / GATE_WIDTH))
    weight = np.where(region, weight, 0).astype(np.float32)
    known = ndimage.gaussian_filter(weight, widths)
    myelin = ndimage.gaussian_filter(weight * fraction, widths) / np.maximum(known, 1e-3)
    size = np.where(region, np.float32(parameters.per_fraction) * myelin, 0).astype(np.float32)
    size = np.maximum(size, -values)
    above = np.maximum(values + size, 0)
    mixed_positive = weight * above + (1 - weight) * positive
    mixed_negative = -weight * size + (1 - weight) * negative
    return mixed_positive.astype(np.float32), mixed_negative.astype(np.float32)


def _smoothed(volume: np.ndarray, within: np.ndarray, region: np.ndarray, widths: list[float]) -> np.ndarray:
    """Mean of ``volume`` (0 outside ``region``) around every voxel, over the region only, float32."""
    found: np.ndarray = np.where(region, ndimage.gaussian_filter(volume, widths) / np.maximum(within, 1e-6), 0)
    return found.astype(np.float32)


def decays(times: np.ndarray, field_strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes of gradient echoes and of spin echoes of hollow cylinders without further dephasing.

    Float64 ``(angle, fraction, echo)`` and ``(fraction, echo)``.
    """
    square = np.sin(ANGLES) ** 2
    sheath = 0.75 * ANISOTROPIC * math.log(1 / RATIO) * square
    myelin = ISOTROPIC / 2 * (2 / 3 - square) + ANISOTROPIC / 2 * (1 / 6 - 5 / 6 * square) + sheath + EXCHANGE
    frequency = hz_per_ppm(field_strength) * np.stack([myelin, sheath, np.zeros_like(sheath)])
    shares = np.stack([FRACTIONS, (1 - FRACTIONS) * AXONS, (1 - FRACTIONS) * (1 - AXONS)])
    decay = np.exp(-times[None] / np.array(T2)[:, None])
    turn = np.exp(2j * np.pi * frequency[:, :, None] * times)
    gradient_echo = np.abs(np.einsum("pm,pe,pae->ame", shares, decay, turn))
    return gradient_echo, np.einsum("pm,pe->me", shares, decay)


def look_up(
    magnitude: np.ndarray,
    reversible: np.ndarray,
    region: np.ndarray,
    times: np.ndarray,
    field_strength: float,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Myelin-water fraction, and the misfit of hollow cylinders over that of an exponential, float32 ``(x, y, z)``."""
    gradient_echo, spin_echo = decays(times, field_strength)
    away = np.log(spin_echo[None] / gradient_echo)
    centred = times - times.mean()
    own = np.maximum((away * centred).sum(axis=2) / (centred**2).sum(), 0)
    fraction: np.ndarray = np.zeros(region.shape, dtype=np.float32)
    ratio: np.ndarray = np.full(region.shape, np.float32(1e3))
    parallel.run(
        _look_up, region.shape[0], magnitude, reversible, region, times, gradient_echo, own, FRACTIONS, fraction, ratio,
        progress=progress,
    )  # fmt: skip
    return fraction, ratio


@kernel
def _look_up(start, stop, magnitude, reversible, region, times, table, own, fractions, fraction, ratio):
    count = times.size
    m, decay = np.empty(count), np.empty(count)
    for x in range(start, stop):
        for y in range(region.shape[1]):
            for z in range(region.shape[2]):
                if not region[x, y, z] or not magnitude[count - 1, x, y, z] > 0:
                    continue
                power = 0.0
                for e in range(count):
                    m[e] = magnitude[e, x, y, z]
                    power += m[e] * m[e]
                anchor = np.float64(reversible[x, y, z])
                best, chosen = np.inf, 0
                for a in range(table.shape[0]):
                    for k in range(table.shape[1]):
                        if own[a, k] > anchor:
                            continue
                        rest = anchor - own[a, k]
                        cross, square = 0.0, 0.0
                        for e in range(count):
                            value = table[a, k, e] * np.exp(-rest * times[e])
                            cross += value * m[e]
                            square += value * value
                        misfit = power - cross * cross / square
                        if misfit < best:
                            best, chosen = misfit, k
                fraction[x, y, z] = fractions[chosen]
                single = _exponential_misfit(m, times, power, decay)
                ratio[x, y, z] = np.sqrt(max(best, 0.0) / max(single, 1e-12 * power)) if best < np.inf else 1e3


@kernel
def _exponential_misfit(m, times, power, decay):
    """Least misfit of an exponential, by golden sections in its rate."""
    low, high = 0.0, 300.0
    golden = 0.6180339887498949
    for _ in range(40):
        span = high - low
        first = _misfit(m, times, power, high - golden * span)
        second = _misfit(m, times, power, low + golden * span)
        if first < second:
            high = low + golden * span
        else:
            low = high - golden * span
    return _misfit(m, times, power, 0.5 * (low + high))


@kernel
def _misfit(m, times, power, rate):
    cross, square = 0.0, 0.0
    for e in range(times.size):
        value = np.exp(-rate * times[e])
        cross += value * m[e]
        square += value * value
    return power - cross * cross / square
