r"""iSMV: iterative spherical mean value.

The background field on the eroded mask :math:`M_\rho` is what repeated averaging makes of the total field when the rim
between the two masks is held,

.. math:: f_b \leftarrow M_\rho\,(S_\rho * f_b) + (M - M_\rho)\,f, \qquad f_l = M_\rho\,(f - f_b),

with :math:`S_\rho` the mean over spheres of ``radius``. Its fixed point is the solution of

.. math:: (I - M_\rho S_\rho M_\rho)\, f_l = M_\rho\,(f - S_\rho * f),

a symmetric positive definite system. Conjugate gradients reach it in some dozens of steps where the plain iteration
takes hundreds, and then the number of iterations is no hidden parameter. The fixed point takes the field of the rim as
background, so the rim's local field is continued harmonically inside; the solid harmonics of low degree, which are most
of that error, are fitted and removed (:mod:`qsmxt.algorithms.background.harmonics`).

Parameters
    ``radius``: larger spheres average the rim over more voxels and lose more of it. ``tolerance``: residual of the
    system relative to its right-hand side. ``iterations``: most steps. ``harmonic_degree``: 2 suffices; -1 leaves
    the fixed point as it is. ``harmonic_depth``: the fit looks at what lies deeper. ``extension``: the local field goes
    on into the rim (:mod:`qsmxt.algorithms.background.extension`).

Departures from the paper: the solver, the removal of solid harmonics, and the rim.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Wen et al. 2014 (doi:10.1002/mrm.24998); rim: Topfer et al. 2015 (doi:10.1002/mrm.25148).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.extension import extended
from qsmxt.algorithms.background.harmonics import remove_deep_harmonics
from qsmxt.algorithms.background.region import Region
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.engine import engine_of, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class ISMVParameters:
    """Parameters of :func:`ismv`."""

    radius: float = parameter(
        4.0, unit="mm", above=0, help="radius of the sphere (at least a voxel), by which the mask shrinks"
    )
    tolerance: float = parameter(1e-3, above=0, below=1, help="relative residual at which iteration ends")
    iterations: int = parameter(200, at_least=1, help="most iterations")
    harmonic_degree: int = parameter(
        2, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )
    harmonic_depth: float = parameter(
        6.0, unit="mm", at_least=0, help="solid harmonics are fitted to what lies deeper in the mask than this"
    )
    extension: bool = parameter(
        True, help="continue the local field into the rim that the sphere takes off, if most of the mask is left"
    )


@method(
    stage="background",
    key="ismv",
    title="Iterative spherical mean value",
    consumes=("total_field", "mask"),
    produces=("local_field", "eroded_mask"),
    parameters=ISMVParameters,
    references=("wen2014", "topfer2015"),
    sentence=(
        "The background field was removed by the iterative spherical mean value method "
        "(spheres of {radius:g} mm radius)."
    ),
    cost=Cost(bytes_per_voxel=21, seconds_per_megavoxel=0.12),
    linear=True,
    on_device=True,
)
def ismv(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: ISMVParameters = ISMVParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Local field (ppm) and the region where it is defined, from the total field (ppm); see the module.

    Parameters
    ----------
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Where the field is known, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm); the direction of B0 does not matter.
    parameters
        See :class:`ISMVParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    local_field
        Field of the sources in the mask, ppm, float32 ``(x, y, z)``; zero outside ``eroded_mask``.
    eroded_mask
        Where the local field is defined, bool ``(x, y, z)``: the mask; eroded by ``radius`` without ``extension``, or
        where erosion leaves little of it.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the total field is complex or has
        NaN or Inf in the mask; if no sphere of ``radius`` lies in the mask.

    Examples
    --------
    The phantom is so small that its local field has a large harmonic part of its own, so none is fitted here.

    >>> from qsmxt.algorithms.background.ismv import ISMVParameters, ismv
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> local, kept = ismv(head.total_field, head.mask, head.grid, ISMVParameters(radius=4, harmonic_degree=-1))
    >>> round(nrmse(local, head.local_field, kept))  # percent of the true local field
    17
    >>> background = head.total_field - head.local_field
    >>> left, _ = ismv(background, head.mask, head.grid, ISMVParameters(radius=4, harmonic_degree=-1))
    >>> round(float(100 * left[kept].std() / background[kept].std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(total_field)
    total_field, mask = to_host_all(total_field, mask)
    region = Region.around(total_field, mask, grid, padding=0)
    radius = region.at_least_a_voxel(parameters.radius)
    kept = region.interior(radius)
    spheres = Spheres.on(region.grid, radius)
    operator = spheres.departures(engine, kept)
    local, _ = conjugate_gradients.solve(
        operator,
        operator(engine.send(region.field)),
        tolerance=parameters.tolerance,
        iterations=parameters.iterations,
        progress=progress,
        engine=engine,
    )
    local = engine.fetch(local)
    degree, depth = parameters.harmonic_degree, parameters.harmonic_depth
    local = remove_deep_harmonics(local, kept, region.mask, region.grid, degree, depth)
    if parameters.extension:
        local, kept = extended(local, kept, region)
    return region.finish(local, kept, engine)
