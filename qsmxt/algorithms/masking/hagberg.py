r"""Phase-based mask: where the sign of the wrapped phase changes rarely.

In air the phase is random and its sign changes from voxel to voxel; in tissue it changes only at wraps and zeros.
With the Laplacian of the six neighbours,

.. math:: T = \big\langle |\nabla^2 \operatorname{sign}\varphi| \big\rangle_{B} ,

averaged over a sphere B, is 6 in pure noise and near 0 in tissue. The mask is :math:`T < t`, closed and opened with the
same sphere. The published threshold of 3000 for the sum over a sphere of 6 voxels radius (925 voxels) is t = 3.24
for the mean.

Departures from the paper
    The radius is in mm and at least 2 voxels of the finest axis, so it means the same at any resolution; of several
    echoes the T are averaged; the sphere is cut off at the edge of the volume instead of padded with zeros.

Parameters
    ``radius``: of the sphere B. ``threshold``: t.

References
----------
Hagberg et al. 2022 (doi:10.1002/mrm.29368).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier, kernels, morphology, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class HagbergParameters:
    """Parameters of :func:`hagberg`."""

    radius: float = parameter(4.0, unit="mm", above=0, at_most=50, help="radius of the averaging sphere")
    threshold: float = parameter(3.24, above=0, at_most=12, help="largest mean Laplacian; 6 is noise")


@method(
    stage="masking",
    key="hagberg",
    title="Phase-based mask (PB)",
    consumes=("wrapped_phase",),
    produces=("mask",),
    parameters=HagbergParameters,
    references=("hagberg2022",),
    sentence="A mask was made where the sign of the phase changes rarely (sphere of {radius:g} mm).",
    cost=Cost(bytes_per_voxel=28, seconds_per_megavoxel=0.5),
)
def hagberg(
    wrapped_phase: np.ndarray,
    grid: Grid,
    parameters: HagbergParameters = HagbergParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask from phase alone; see the module.

    Parameters
    ----------
    wrapped_phase
        Measured phase, rad, in [-pi, pi), float32 ``(echo, x, y, z)`` or ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`HagbergParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where the sign of the phase changes rarely; it may be empty.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    The phase is random where there is no signal:

    >>> import numpy as np
    >>> from qsmxt.algorithms.masking.hagberg import hagberg
    >>> from qsmxt.algorithms.masking.plausibility import dice
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> noise = np.random.default_rng(0).uniform(-np.pi, np.pi, head.wrapped_phase.shape)
    >>> phase = np.where(head.mask, head.wrapped_phase, noise).astype(np.float32)
    >>> bool(dice(hagberg(phase, head.grid), head.mask) > 0.9)
    True
    """
    echoes = wrapped_phase if wrapped_phase.ndim == 4 else wrapped_phase[None]
    grid.check("wrapped_phase", echoes, echoes=echoes.shape[0])
    roughness = np.zeros(grid.shape, dtype=np.float32)
    for echo in echoes:
        sign = np.where(echo >= 0, 1, -1).astype(np.int8)
        parallel.run(_add_laplacian, grid.shape[0], sign, np.float32(1 / len(echoes)), roughness)
    radius = max(parameters.radius, 2 * min(grid.voxel_size))
    mask = _sphere_mean(roughness, grid, radius) < parameters.threshold
    return morphology.opening(morphology.closing(mask, grid, radius), grid, radius)


@kernel
def _add_laplacian(start, stop, sign, weight, out):
    nx, ny, nz = sign.shape
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                here = sign[x, y, z]
                total = 0
                if x > 0:
                    total += sign[x - 1, y, z] - here
                if x < nx - 1:
                    total += sign[x + 1, y, z] - here
                if y > 0:
                    total += sign[x, y - 1, z] - here
                if y < ny - 1:
                    total += sign[x, y + 1, z] - here
                if z > 0:
                    total += sign[x, y, z - 1] - here
                if z < nz - 1:
                    total += sign[x, y, z + 1] - here
                out[x, y, z] += weight * abs(total)


def _sphere_mean(volume: np.ndarray, grid: Grid, radius: float) -> np.ndarray:
    """Mean over the part of the sphere that lies in the volume."""
    crop = Crop.around(np.ones(grid.shape, dtype=bool), grid, padding=radius)
    transfer = kernels.spherical_mean(crop.grid, radius)
    total = fourier.filtered(crop.extract(volume), transfer)[crop.target]
    share = fourier.filtered(crop.extract(np.ones(grid.shape, dtype=np.float32)), transfer)[crop.target]
    return total / np.maximum(share, np.float32(1e-3))
