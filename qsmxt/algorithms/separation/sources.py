r"""What all separations share: the second equation, from whatever relaxation rates there are.

Paramagnetic sources :math:`\chi_+ \ge 0` and diamagnetic sources :math:`\chi_- \le 0` of a voxel add up in the
susceptibility, but their sizes add up in the reversible relaxation (static dephasing):

.. math:: \chi = \chi_+ + \chi_-, \qquad \rho = \frac{R_2'}{D_r} = |\chi_+| + |\chi_-|, \qquad
    D_r(B_0) = D_r(3\,\mathrm T)\, \frac{B_0}{3\,\mathrm T} .

:math:`\rho` (ppm) comes from

1. ``r2prime``, if it is given;
2. ``r2star`` - ``r2``, cut at 0, if a spin-echo R2 is given;
3. ``r2star`` alone with its own, larger relaxivity: all of R2* is then counted as if it were reversible, and what the
   map calls paramagnetic and diamagnetic is relative to that convention.

Published at 3 T: :math:`D_r` = 137 (Shin 2021) and 114 1/s/ppm; 274 1/s/ppm for R2* (Dimov 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.echoes import check_echoes, check_field_strength, check_signal
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import parameter

#: What every method of the stage makes, in order.
PRODUCES = ("chi_paramagnetic", "chi_diamagnetic")

#: Field strength at which relaxivities are given, T.
REFERENCE_FIELD = 3.0

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class RelaxivityParameters:
    """Parameters of separations that use R2' where it is known."""

    relaxivity: float = parameter(
        137.0, unit="1/s/ppm", above=0, help="R2' per ppm of either source at 3 T; scales with the field strength"
    )
    r2star_relaxivity: float = parameter(
        274.0,
        unit="1/s/ppm",
        above=0,
        help="the same for R2*, which stands in where neither R2' nor R2 is known",
    )


@dataclass(frozen=True)
class Rates:
    """Relaxation rates (1/s) of which at least R2* is known, and the field strength (T)."""

    r2star: np.ndarray
    field_strength: float
    r2prime: np.ndarray | None = None
    r2: np.ndarray | None = None

    def source_sum(self, mask: np.ndarray, grid: Grid, parameters: RelaxivityParameters) -> np.ndarray:
        """rho, the sum of the sizes of both sources, ppm, float32, 0 outside the mask."""
        relaxivity = parameters.relaxivity
        if self.r2prime is not None:
            rate = inside("r2prime", self.r2prime, mask, grid)
        else:
            rate = inside("r2star", self.r2star, mask, grid)
            if self.r2 is None:
                relaxivity = parameters.r2star_relaxivity
            else:
                rate = rate - inside("r2", self.r2, mask, grid)
        factor = check_field_strength(self.field_strength) / REFERENCE_FIELD
        return np.maximum(rate, 0) / np.float32(relaxivity * factor)


def checked_echoes(magnitude: np.ndarray, times: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Magnitude ``(echo, x, y, z)``; :class:`InputError` if it does not fit or is not finite in the mask."""
    signal = check_echoes("magnitude", magnitude, grid, times)
    if not np.isfinite(signal[:, mask]).all():
        raise InputError("magnitude: expected finite values in the mask, found NaN or Inf; mask them out")
    check_signal("magnitude", signal, np.asarray(mask, dtype=bool))
    return signal


def inside(name: str, volume: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """``volume`` as float32, 0 outside the mask; :class:`InputError` if it does not fit or is not finite."""
    grid.check(name, volume)
    out = np.where(mask, volume, 0).astype(np.float32)
    broken = int(np.count_nonzero(~np.isfinite(out)))
    if broken:
        raise InputError(
            f"{name}: expected finite values in the mask, found {broken} voxels with NaN or Inf; mask them"
        )
    return out


def closed_form(chi: np.ndarray, source_sum: np.ndarray, mask: np.ndarray) -> Pair:
    r"""Both sources from :math:`\chi_\pm = (\chi \pm \rho) / 2`, cut at 0; ppm, float32.

    >>> chi, rho = np.full((1, 1, 1), 0.02), np.full((1, 1, 1), 0.06)
    >>> [round(float(v[0, 0, 0]), 3) for v in closed_form(chi, rho, rho > 0)]
    [0.04, -0.02]
    """
    half = np.float32(0.5)
    positive = np.where(mask, np.maximum(half * (chi + source_sum), 0), 0)
    negative = np.where(mask, np.minimum(half * (chi - source_sum), 0), 0)
    return positive.astype(np.float32), negative.astype(np.float32)


def checked(chi: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Susceptibility (0 outside the mask) and mask, checked."""
    mask = checked_mask(mask, grid)
    return inside("chi", chi, mask, grid), mask
