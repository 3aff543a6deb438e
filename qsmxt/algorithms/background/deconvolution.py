r"""Undoing the subtraction of the spherical mean.

Over a region E of centres the background obeys :math:`(\delta - S) * f_b = 0`, with S the mean over a sphere, so

.. math:: g = (\delta - S) * f = (\delta - S) * f_l \quad\text{in } E .

Taking g as zero outside E, division by :math:`1 - \hat S(k)` gives the local field. The divisor vanishes at low
spatial frequency, :math:`1 - \hat S \approx (2\pi k\rho)^2 / 10` for a sphere of radius :math:`\rho`. What is not
divided is set to zero: all :math:`|k|` up to a cutoff (1/mm), and all divisors below a threshold. The threshold of 0.05
of the first papers is a cutoff of :math:`0.113/\rho`, so it changes with the radius; the cutoff does not (Özbay et al.
2017, doi:10.1002/nbm.3550).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.engine import HOST, Engine


def deconvolved(
    g: Any, kept: np.ndarray, spheres: Spheres, cutoff: float, threshold: float, engine: Engine = HOST
) -> Any:
    """Local field (ppm) where ``kept``, from ``g``, the field less its spherical mean.

    Parameters
    ----------
    g
        Float32 volume, ppm.
    kept
        Where it is known, bool; elsewhere it is zero, and the result has no meaning.
    spheres
        The spheres; the first is the one whose mean is undone.
    cutoff
        Spatial frequencies up to this are set to zero, 1/mm. The mean is always.
    threshold
        So are those at which the divisor is smaller than this.
    engine
        Where ``g`` is, and the result.
    """
    divisor = 1 - spheres.transfer()
    kx, ky, kz = fourier.frequencies(spheres.grid)
    small = np.abs(divisor) < max(threshold, 1e-6)
    small |= kx * kx + ky * ky + kz * kz <= np.float32(cutoff * cutoff)
    divisor[small] = np.inf
    rows = fourier.Support.of(kept)
    return engine.filtered(g, engine.send(np.reciprocal(divisor, out=divisor)), rows, rows)
