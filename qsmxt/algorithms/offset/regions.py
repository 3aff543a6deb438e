r"""The whole turns between unconnected parts of a mask, decided by the continuity of the phase offset.

Region growing leaves a multiple of :math:`2\pi` open between parts that no edge connects (the brain and the scalp, two
hemispheres). A turn more of the unwrapped phase shifts the offset that follows from it by a known angle, and the offset
is smooth, so that the right number of turns is the one with which the offset continues across the gap. The field itself
may change by more than a wrap there.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.unwrapping.growing import contacts

#: Regions smaller than this part of the largest one do not tell the offset.
LEAST_REGION = 0.05

#: Length of the mean unit vector of the steps of the offset from region to region, below which they contradict.
LEAST_AGREEMENT = 0.9

#: Step of the offset from region to region beyond which the region does not belong, rad.
LARGEST_STEP = 1.0

#: A turn more must lessen the step by this, rad.
COST_OF_A_TURN = 0.02

_TURNS = (0, 1, -1, 2, -2, 3, -3)


def join_large_regions(
    unwrapped: np.ndarray, regions: np.ndarray, offset: np.ndarray, weight: np.ndarray, ratio: float
) -> np.ndarray:
    """Shift the large regions in place so that the offset continues; returns where those lie that fit, bool.

    Parameters
    ----------
    unwrapped
        Phase unwrapped by regions, rad; shifted in place.
    regions
        Labels of the regions, 0 for none.
    offset
        Noisy offset, rad, wrapped or not; shifted in place by ``ratio`` times the shift of ``unwrapped``.
    weight
        Reliability of the offset.
    ratio
        Angle by which the offset turns when ``unwrapped`` turns by one.
    """
    sizes = np.bincount(regions.reshape(-1))
    sizes[0] = 0
    main = int(np.argmax(sizes))
    chosen = sizes > LEAST_REGION * sizes[main]
    if np.count_nonzero(chosen) > 1:
        voxels, sources = contacts(regions, main)
        labels = regions.reshape(-1)[voxels]
        step = offset.reshape(-1)[voxels] - offset.reshape(-1)[sources]
        strength = np.minimum(weight.reshape(-1)[voxels], weight.reshape(-1)[sources]).astype(np.float64)
        for region in np.flatnonzero(chosen):
            if region == main:
                continue
            here = labels == region
            mean = (strength[here] * np.exp(1j * step[here])).sum() / max(strength[here].sum(), 1e-300)
            misfit = [abs(np.angle(mean * np.exp(2j * np.pi * n * ratio))) + COST_OF_A_TURN * abs(n) for n in _TURNS]
            turns = _TURNS[int(np.argmin(misfit))]
            chosen[region] = abs(mean) > LEAST_AGREEMENT and min(misfit) < LARGEST_STEP
            if turns:
                inside = regions == region
                unwrapped[inside] += np.float32(2 * np.pi * turns)
                offset[inside] += np.float32(2 * np.pi * turns * ratio)
    return chosen[regions]
