r"""SHARP: sophisticated harmonic artefact reduction for phase data.

.. math::

    g = M_\rho \cdot \big(f - S_\rho * f\big), \qquad f_l = M_\rho \cdot F^{-1} \frac{F g}{1 - \hat S_\rho} ,

with :math:`S_\rho` the mean over spheres of ``radius`` and :math:`M_\rho` the mask eroded by it. The mean over a sphere
of a harmonic function is its value at the centre, so the background drops out of g; the division restores the local
field but for the lowest spatial frequencies (:mod:`qsmxt.algorithms.background.deconvolution`).

Parameters
    ``radius``: larger spheres restore low frequencies better and cost a wider rim.
    ``cutoff``, ``threshold``: limits of the division. ``harmonic_degree``: solid harmonics up to this degree, which the
    truncation leaves, are removed (:mod:`qsmxt.algorithms.background.harmonics`). ``extension``: the local field goes
    on into the rim (:mod:`qsmxt.algorithms.background.extension`).

Departures from the paper: means by running sums instead of Fourier transforms (the same numbers), a cutoff as a spatial
frequency, removal of solid harmonics, the rim. With ``cutoff=0``, ``threshold=0.05``, ``harmonic_degree=-1`` and
``extension=False`` it is the published method.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Schweser et al. 2011 (doi:10.1016/j.neuroimage.2010.10.070); cutoff: Özbay et al. 2017 (doi:10.1002/nbm.3550);
rim: Topfer et al. 2015 (doi:10.1002/mrm.25148).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.background.deconvolution import deconvolved
from qsmxt.algorithms.background.extension import extended
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.region import Region
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.engine import engine_of, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class SHARPParameters:
    """Parameters of :func:`sharp`."""

    radius: float = parameter(
        6.0, unit="mm", above=0, help="radius of the sphere (at least a voxel), by which the mask shrinks"
    )
    cutoff: float = parameter(0.005, unit="1/mm", at_least=0, help="spatial frequencies up to this are not restored")
    threshold: float = parameter(0.0, at_least=0, below=1, help="divisors below this are not restored")
    harmonic_degree: int = parameter(
        4, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )
    extension: bool = parameter(
        True, help="continue the local field into the rim that the sphere takes off, if most of the mask is left"
    )


@method(
    stage="background",
    key="sharp",
    title="SHARP",
    consumes=("total_field", "mask"),
    produces=("local_field", "eroded_mask"),
    parameters=SHARPParameters,
    references=("schweser2011", "ozbay2017", "topfer2015"),
    sentence=("The background field was removed by SHARP with spheres of {radius:g} mm radius (cutoff {cutoff:g}/mm)."),
    cost=Cost(bytes_per_voxel=24, seconds_per_megavoxel=0.05),
    linear=True,
    on_device=True,
)
def sharp(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: SHARPParameters = SHARPParameters(),
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
        See :class:`SHARPParameters`.
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

    >>> from qsmxt.algorithms.background.sharp import SHARPParameters, sharp
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> local, kept = sharp(head.total_field, head.mask, head.grid, SHARPParameters(radius=4, harmonic_degree=-1))
    >>> nrmse(local, head.local_field, kept) < 10  # percent of the true local field
    True
    >>> background = head.total_field - head.local_field
    >>> left, _ = sharp(background, head.mask, head.grid, SHARPParameters(radius=4, harmonic_degree=-1))
    >>> round(float(100 * left[kept].std() / background[kept].std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(total_field)
    total_field, mask = to_host_all(total_field, mask)
    region = Region.around(total_field, mask, grid, padding=2 * parameters.radius)
    radius = region.at_least_a_voxel(parameters.radius)
    kept = region.interior(radius)
    spheres = Spheres.on(region.grid, radius)
    g = spheres.departures(engine, kept)(engine.send(region.field))
    if progress:
        progress(0.5)
    local = engine.fetch(deconvolved(g, kept, spheres, parameters.cutoff, parameters.threshold, engine))
    local = remove_harmonics(local, kept, region.grid, parameters.harmonic_degree)
    if progress:
        progress(1.0)
    if parameters.extension:
        local, kept = extended(local, kept, region)
    return region.finish(local, kept, engine)
