r"""mSMV: maximum spherical mean value filter, a local field without erosion.

A harmonic function takes its largest values on the boundary. What an earlier method left of the background is
therefore found near the edge of the mask, where the field is larger than tissue can make it. With f the local field of
the earlier method and S the mean over the part in the mask of spheres of ``radius``,

.. math:: f \leftarrow f - S f \quad\text{where } r \in M \setminus M_\rho \;\text{and}\; |f - \tilde f| > c\,\sigma ,

is repeated until nothing exceeds the limit, but at most ``passes`` times. :math:`\tilde f` and :math:`\sigma` are the
median and 1.48 times the median absolute deviation of the first field inside the eroded mask :math:`M_\rho`. The filter
takes smooth residuals away, no single wrong voxels. Vessels have large fields of their own: where R2* exceeds its
median by ``vessel_limit`` deviations are left alone, if R2* is given.

Parameters
    ``initial``: the method that removes most of the background, at its default parameters.
    ``radius``: of the spheres and width of the rim, mm. ``limit``: c. ``passes``: most repetitions.
    ``prefilter``: subtract the mean over the sphere everywhere first, as the paper does. The result is then a filtered
    field, good only for inversions whose dipole is filtered alike.

Departures from the paper: no filter everywhere by default; the limit in deviations of the field instead of a phase; R2*
itself instead of a vessel filter of it.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Roberts et al. 2024 (doi:10.1002/mrm.29963); PDF: Liu et al. 2011 (doi:10.1002/nbm.1670).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.background.lbv import lbv
from qsmxt.algorithms.background.pdf import pdf
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.background.vsharp import vsharp
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import masked
from qsmxt.algorithms.engine import Engine, engine_of, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Part of a sphere in the mask below which its mean is not trusted to be nonzero.
LEAST_PART = 1e-3

#: Initial methods that compute where the field lies.
ON_DEVICE = ("pdf", "vsharp")


@dataclass(frozen=True)
class MSMVParameters:
    """Parameters of :func:`msmv`."""

    initial: str = parameter("pdf", choices=("pdf", "lbv", "vsharp"), help="method that is refined")
    radius: float = parameter(5.0, unit="mm", above=0, help="radius of the sphere and width of the rim")
    limit: float = parameter(6.0, above=0, help="field of the rim that is filtered, in standard deviations inside")
    passes: int = parameter(5, at_least=1, help="most repetitions of the filter")
    prefilter: bool = parameter(False, help="subtract the spherical mean everywhere first")
    vessel_limit: float = parameter(3.0, above=0, help="R2* of protected voxels, in deviations from its median")


@method(
    stage="background",
    key="msmv",
    title="Maximum spherical mean value",
    consumes=("total_field", "mask"),
    optional=("field_noise", "r2star"),
    produces=("local_field", "eroded_mask"),
    parameters=MSMVParameters,
    references=("roberts2024", "liu2011pdf"),
    sentence=(
        "The background field was removed by {initial} and what it left near the edge by maximum spherical mean value "
        "filtering (spheres of {radius:g} mm radius)."
    ),
    cost=Cost(bytes_per_voxel=26, seconds_per_megavoxel=0.8),
    on_device=True,
)
def msmv(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: MSMVParameters = MSMVParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    r2star: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Local field (ppm) and the region where it is defined, from the total field (ppm); see the module.

    Parameters
    ----------
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Where the field is known, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`MSMVParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``, for the weights of PDF. Without it all voxels weigh
        the same.
    r2star
        Effective transverse relaxation rate, 1/s, float32 ``(x, y, z)``, which protects vessels. Without it nothing is
        protected.

    Returns
    -------
    local_field
        Field of the sources in the mask, ppm, float32 ``(x, y, z)``; zero outside ``eroded_mask``.
    eroded_mask
        Where the local field is defined, bool ``(x, y, z)``: the region that the ``initial`` method keeps.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the total field is complex or has
        NaN or Inf in the mask; if the input is unusable for the ``initial`` method; if ``r2star`` has NaN or Inf in the
        mask.

    Examples
    --------
    >>> from qsmxt.algorithms.background.msmv import MSMVParameters, msmv
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> local, kept = msmv(head.total_field, head.mask, head.grid, MSMVParameters(initial="lbv"))
    >>> nrmse(local, head.local_field, kept) < 23  # percent of the true local field
    True
    >>> background = head.total_field - head.local_field
    >>> left, _ = msmv(background, head.mask, head.grid, MSMVParameters(initial="lbv"))
    >>> round(float(100 * left[kept].std() / background[kept].std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(total_field)
    total_field, mask, field_noise, r2star = to_host_all(total_field, mask, field_noise, r2star)
    given = engine.send(total_field) if parameters.initial in ON_DEVICE else total_field
    local, kept = to_host_all(*_initial(given, mask, grid, parameters, progress, field_noise))
    crop = Crop.around(kept, grid, padding=parameters.radius)
    inside = crop.extract(kept)
    spheres = Spheres.on(crop.grid, max(parameters.radius, *grid.voxel_size))
    core = morphology.erode(inside, crop.grid, spheres.radii[0])
    open_to_filter = inside & ~core
    if r2star is not None:
        rate = masked("r2star", r2star, kept, crop)
        middle, deviation = _spread(rate[inside])
        open_to_filter &= rate <= middle + parameters.vessel_limit * deviation
    field = crop.extract(local)
    middle, deviation = _spread(field[core] if core.any() else field[inside])
    field = _filtered(engine, field, inside, open_to_filter, middle, parameters.limit * deviation, spheres, parameters)
    if progress:
        progress(1.0)
    return engine.send(crop.restore(engine.fetch(field))), engine.send(kept)


def _filtered(
    engine: Engine,
    field: Any,
    inside: Any,
    open_to_filter: Any,
    middle: np.float32,
    limit: np.float32,
    spheres: Spheres,
    parameters: MSMVParameters,
) -> Any:
    """``field`` less its mean over the sphere where it is ``open_to_filter`` and farther than ``limit`` from usual."""
    xp, transfer = engine.xp, engine.send(spheres.transfer())
    part = engine.filtered(engine.send(inside.astype(np.float32)), transfer)
    part = xp.maximum(part, xp.full_like(part, LEAST_PART))
    field, inside, open_to_filter = engine.send(field), engine.send(inside), engine.send(open_to_filter)
    if parameters.prefilter:
        field = xp.where(inside, field - engine.filtered(field, transfer) / part, xp.zeros_like(field))
    for _ in range(parameters.passes):
        wrong = open_to_filter & (xp.abs(field - float(middle)) > float(limit))
        if not bool(xp.any(wrong)):
            break
        mean = engine.filtered(field, transfer) / part
        field = xp.where(wrong, field - mean, field)
    return field


def _initial(
    total_field: Any,
    mask: np.ndarray,
    grid: Grid,
    parameters: MSMVParameters,
    progress: Progress | None,
    field_noise: np.ndarray | None,
) -> tuple[Any, Any]:
    """Result of the initial method."""
    told = None if progress is None else lambda part: progress(0.9 * part)
    if parameters.initial == "pdf":
        return pdf(total_field, mask, grid, progress=told, field_noise=field_noise)
    if parameters.initial == "lbv":
        return lbv(total_field, mask, grid, progress=told)
    return vsharp(total_field, mask, grid, progress=told)


def _spread(values: np.ndarray) -> tuple[np.float32, np.float32]:
    """Median, and 1.4826 times the median absolute deviation from it."""
    middle = np.median(values)
    return np.float32(middle), np.float32(1.4826 * np.median(np.abs(values - middle)))
