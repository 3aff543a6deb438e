r"""From ppm to the radians of methods that compare complex signals.

A method that minimises :math:`|e^{iD\chi} - e^{if}|` works with :math:`s f`, where :math:`s` (rad/ppm) says how much
phase a field of 1 ppm builds up. Weights are given in the units of the linear methods, so that for small phases the
map does not depend on :math:`s`; a larger one makes the methods forgive voxels whose field is wrong by whole turns,
and lose strong sources whose field exceeds half a turn.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.domain import Domain
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError

#: Phase (rad) that the strongest field in the mask gets if the echo time is chosen automatically.
LARGEST_PHASE = 3.0


def phase_scale(domain: Domain, reference_echo_time: float | str, field_strength: float | None) -> np.float32:
    r"""Phase per field (rad/ppm).

    Parameters
    ----------
    domain
        Field (ppm) and mask.
    reference_echo_time
        Echo time (s) at which phases are compared, or ``"auto"``: that at which the strongest field has 3 rad, so
        that no phase difference is ambiguous.
    field_strength
        B0 (T); needed only for a given echo time.
    """
    if reference_echo_time == "auto":
        strongest = float(np.abs(domain.field).max())
        return np.float32(LARGEST_PHASE / strongest if strongest > 0 else 1.0)
    if field_strength is None:
        raise InputError(
            f"field_strength: expected a value in T to use a reference echo time of {reference_echo_time} s, found "
            'none; give it or set the reference echo time to "auto"'
        )
    return np.float32(rad_per_ppm(float(np.asarray(field_strength)), float(reference_echo_time)))
