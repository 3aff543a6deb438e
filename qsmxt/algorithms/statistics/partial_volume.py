r"""Means of regions freed from partial volume.

A voxel v of a map is the mean over what lies in it. With the share :math:`p_{vr}` of region r in each voxel, values
:math:`c_r` that are even within every region, and :math:`c_0` for what surrounds it,

.. math:: x_v = \sum_r p_{vr}\, c_r + \Bigl(1 - \sum_r p_{vr}\Bigr)\, c_0 ,

for all voxels in which the region has a share and their 26 neighbours, by least squares (Asllani 2008,
doi:10.1002/mrm.21670; in emission tomography: Rousset 1998, J Nucl Med 39:904). Other regions in reach have values of
their own. The surroundings are taken to be even over a voxel's length, not over the brain.

The mean over voxels of a small nucleus loses a fifth of its contrast to its border, and how much depends on where the
border falls; the fit does not. It believes the shares: where labels lie beside the nucleus, it errs more than a mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qsmxt.algorithms.cropping import bounding_box

#: Largest condition of the equations; beyond it shares do not tell the region from its surroundings.
_WORST_CONDITION = 1e3


class Mixture:
    """The equations of one region.

    Parameters
    ----------
    index
        Its label.
    shares
        Share of every region in each voxel, ``(x, y, z)``, 0 to 1, by label.
    mask
        Bool volume of the voxels that count; all if ``None``.

    Examples
    --------
    >>> share = np.zeros((5, 5, 5), np.float32)
    >>> share[2, 2, 1:4] = [0.25, 1.0, 0.5]
    >>> round(Mixture(7, {7: share}, None).mean(share * 0.1 + (1 - share) * 0.02), 6)
    0.1
    """

    def __init__(self, index: int, shares: Mapping[int, np.ndarray], mask: np.ndarray | None) -> None:
        from scipy.ndimage import binary_dilation

        own = shares[index]
        self.box: tuple[slice, ...] = (slice(0, 0),) * 3
        self.used = np.zeros((0, 0, 0), dtype=bool)
        self.parts = np.zeros((0, 1))
        if not own.any():
            return
        starts, stops = bounding_box(own > 0)
        self.box = tuple(slice(max(0, a - 1), b + 1) for a, b in zip(starts, stops, strict=True))
        self.used = binary_dilation(own[self.box] > 0, np.ones((3, 3, 3)))
        if mask is not None:
            self.used &= mask[self.box]
        columns = [own[self.box][self.used]]
        for other in (share for key, share in shares.items() if key != index):
            column = other[self.box][self.used]
            if column.any():
                columns.append(column)
        found = np.column_stack(columns).astype(np.float64)
        rest = 1 - found.sum(axis=1)
        self.parts = np.column_stack([found, rest]) if (rest > 1e-6).any() else found

    def mean(self, volume: np.ndarray) -> float | None:
        """Value of the region in a map of any unit; ``None`` where the shares do not tell it from the others."""
        values = volume[self.box][self.used].astype(np.float64)
        finite = np.isfinite(values)
        parts = self.parts[finite]
        parts = parts[:, (parts != 0).any(axis=0)] if parts[:, :1].any() else parts[:, :0]
        if parts.shape[0] < parts.shape[1] or not parts.size or np.linalg.cond(parts) > _WORST_CONDITION:
            return None
        return float(np.linalg.lstsq(parts, values[finite], rcond=None)[0][0])
