r"""Physical constants and the only unit conversions of the package.

The reduced gyromagnetic ratio of the proton links field and frequency,

.. math:: \nu = \bar\gamma\, \Delta B, \qquad \varphi(T_E) = 2\pi\, \bar\gamma\, B_0\, f\, T_E ,

with :math:`f = \Delta B / B_0` the relative field. Everything from the total field onwards is
expressed in ppm of B0; time is in seconds, length in millimetres, angle in radians, B0 in tesla.

References
----------
CODATA 2022 recommended values, proton gyromagnetic ratio over 2 pi (doi:10.1103/RevModPhys.97.025002).
"""

from __future__ import annotations

import math

#: Reduced gyromagnetic ratio of the proton, Hz/T (CODATA 2022).
GAMMA_BAR_HZ_PER_T = 42.577478461e6

#: One part per million.
PPM = 1e-6


def hz_per_ppm(field_strength: float) -> float:
    """Larmor frequency shift (Hz) of a relative field of 1 ppm at ``field_strength`` (T)."""
    return GAMMA_BAR_HZ_PER_T * PPM * float(field_strength)


def rad_per_ppm(field_strength: float, echo_time: float) -> float:
    """Phase (rad) that a relative field of 1 ppm builds up in ``echo_time`` (s) at ``field_strength`` (T)."""
    return 2.0 * math.pi * hz_per_ppm(field_strength) * float(echo_time)
