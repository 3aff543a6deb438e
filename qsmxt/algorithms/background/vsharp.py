r"""V-SHARP: SHARP with spheres of variable radius.

.. math::

    g(r) = f(r) - \frac{1}{|B_{\rho(r)}|} \sum_{|s - r| \le \rho(r)} f(s), \qquad
    f_l = F^{-1} \frac{F g}{1 - \hat S_{\rho_{max}}} ,

with :math:`\rho(r)` the largest of the radii :math:`\rho_{max}, \rho_{max} - v, \dots, \rho_{min}` whose sphere about
:math:`r` lies in the mask. The kept region is the mask eroded by :math:`\rho_{min}`, where SHARP keeps only the mask
eroded by :math:`\rho_{max}`. Division by the largest sphere's transfer function for all voxels is the approximation of
the method; it concerns the rim only.

One distance transform gives all radii, and running sums give each voxel the mean over its own sphere, with no Fourier
transform but for the division (:mod:`qsmxt.algorithms.background.spheres`).

Parameters
    ``radius_max`` sets the accuracy inside, ``radius_min`` how much of the rim is kept and how noisy it is.
    ``cutoff`` and ``threshold`` limit the division (:mod:`qsmxt.algorithms.background.deconvolution`).
    ``harmonic_degree`` takes away the low-degree harmonic functions that truncation leaves
    (:mod:`qsmxt.algorithms.background.harmonics`); it permits the low cutoff. ``harmonic_depth``: the fit looks at what
    lies deeper.

Departures from the papers: cutoff as a spatial frequency, removal of solid harmonics. With ``cutoff=0``,
``threshold=0.05`` and ``harmonic_degree=-1`` the method is the published one.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Wu et al. 2012 (doi:10.1002/mrm.23000); Li et al. 2011 (doi:10.1016/j.neuroimage.2010.11.088); choice of radius and
cutoff: Özbay et al. 2017 (doi:10.1002/nbm.3550).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.background.deconvolution import deconvolved
from qsmxt.algorithms.background.harmonics import remove_deep_harmonics
from qsmxt.algorithms.background.region import Region
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.engine import engine_of, to_host_all
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class VSHARPParameters:
    """Parameters of :func:`vsharp`."""

    radius_max: float = parameter(8.0, unit="mm", above=0, help="radius of the largest sphere")
    radius_min: float = parameter(
        2.0, unit="mm", above=0, help="radius of the smallest sphere, by which the mask is eroded (at least one voxel)"
    )
    cutoff: float = parameter(0.005, unit="1/mm", at_least=0, help="spatial frequencies up to this are not restored")
    threshold: float = parameter(0.0, at_least=0, below=1, help="divisors below this are not restored")
    harmonic_degree: int = parameter(
        4, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )
    harmonic_depth: float = parameter(
        6.0, unit="mm", at_least=0, help="solid harmonics are fitted to what lies deeper in the mask than this"
    )


@method(
    stage="background",
    key="vsharp",
    title="V-SHARP",
    consumes=("total_field", "mask"),
    produces=("local_field", "eroded_mask"),
    parameters=VSHARPParameters,
    references=("wu2012", "li2011", "ozbay2017"),
    sentence=(
        "The background field was removed by V-SHARP with spheres of {radius_max:g} to {radius_min:g} mm radius "
        "(cutoff {cutoff:g}/mm)."
    ),
    cost=Cost(bytes_per_voxel=17, seconds_per_megavoxel=0.06),
    linear=True,
    on_device=True,
)
def vsharp(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: VSHARPParameters = VSHARPParameters(),
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
        See :class:`VSHARPParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    local_field
        Field of the sources in the mask, ppm, float32 ``(x, y, z)``; zero outside ``eroded_mask``.
    eroded_mask
        Where the local field is defined, bool ``(x, y, z)``: the mask eroded by ``radius_min``, at least one voxel.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the total field is complex or has
        NaN or Inf in the mask; if the smallest sphere fits nowhere in the mask.
    ParameterError
        If ``radius_min`` exceeds ``radius_max``.

    Examples
    --------
    The phantom is so small that its local field has a large harmonic part of its own, so none is fitted here.

    >>> from qsmxt.algorithms.background.vsharp import VSHARPParameters, vsharp
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> local, kept = vsharp(head.total_field, head.mask, head.grid, VSHARPParameters(radius_max=4, harmonic_degree=-1))
    >>> round(nrmse(local, head.local_field, kept))  # percent of the true local field
    13
    >>> background = head.total_field - head.local_field
    >>> left, _ = vsharp(background, head.mask, head.grid, VSHARPParameters(radius_max=4, harmonic_degree=-1))
    >>> round(float(100 * left[kept].std() / background[kept].std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(total_field)
    total_field, mask = to_host_all(total_field, mask)
    region = Region.around(total_field, mask, grid, padding=2 * parameters.radius_max)
    radii = radii_between(parameters.radius_max, parameters.radius_min, grid)
    which = _largest_sphere(region, radii)
    spheres = Spheres.on(region.grid, *radii)
    kept = which > 0
    g = spheres.departures(engine, which)(engine.send(region.field))
    if progress:
        progress(0.6)
    local = engine.fetch(deconvolved(g, kept, spheres, parameters.cutoff, parameters.threshold, engine))
    degree, depth = parameters.harmonic_degree, parameters.harmonic_depth
    local = remove_deep_harmonics(local, kept, region.mask, region.grid, degree, depth)
    if progress:
        progress(1.0)
    return region.finish(local, kept, engine)


def radii_between(largest: float, smallest: float, grid: Grid) -> list[float]:
    """Radii (mm) from ``largest`` down to ``smallest`` in steps of the smallest voxel side; none below one voxel."""
    if smallest > largest:
        raise ParameterError(
            f"background.vsharp: parameter radius_min: expected at most radius_max ({largest:g} mm), found {smallest:g}"
        )
    smallest = max(smallest, max(grid.voxel_size))
    largest = max(largest, smallest)
    count = max(1, round((largest - smallest) / min(grid.voxel_size))) if largest > smallest else 0
    return [float(r) for r in np.linspace(largest, smallest, count + 1)]


def _largest_sphere(region: Region, radii: list[float]) -> np.ndarray:
    """For every voxel one more than the index of the largest sphere that fits, 0 where none does (uint8)."""
    depth = morphology.distance(
        region.mask, region.grid, radii[0] * (1 + morphology.TOUCH) + max(region.grid.voxel_size)
    )
    which = np.zeros(depth.shape, dtype=np.uint8)
    for index in range(len(radii) - 1, -1, -1):
        which[depth > np.float32(radii[index] * (1 + morphology.TOUCH))] = index + 1
    region.require(which > 0, radii[-1])
    return which
