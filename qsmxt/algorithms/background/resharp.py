r"""RESHARP: SHARP with Tikhonov regularisation.

.. math::

    f_l = \arg\min_x \;\|M_\rho H (x - f)\|^2 + \lambda\,\|x\|^2, \qquad H = I - S_\rho ,

with :math:`S_\rho` the mean over spheres of ``radius`` and :math:`M_\rho` the mask eroded by it. Where SHARP sets
:math:`g = M_\rho H f` to zero in the rim and divides, RESHARP looks for the smallest field that explains g, and x may
extend into the rim. The minimum is :math:`x = H M_\rho y` with

.. math:: (M_\rho H^2 M_\rho + \lambda)\, y = M_\rho H f ,

a system with one Fourier pair a step instead of the two of the normal equations, and whose inverse is close to division
by :math:`\hat H^2 + \lambda`: conjugate gradients with this preconditioner need some 30 steps for a solution that the
normal equations do not reach in hundreds. So the result does not depend on where iteration stops.

The norm is taken over the whole mask; over the kept region a smaller field exists that agrees with the data, found by
removal of solid harmonics (:mod:`qsmxt.algorithms.background.harmonics`).

Parameters
    ``radius``: larger spheres give a more accurate field in a smaller region. ``regularization``: larger values lose
    low frequencies of the local field, smaller ones amplify noise there. ``tolerance``, ``iterations``: of the solver.
    ``harmonic_degree``: 2 suffices; -1 leaves the minimum as it is. ``extension``: the local field goes on into the rim
    (:mod:`qsmxt.algorithms.background.extension`).

Departures from the paper: the solver, the removal of solid harmonics, and the rim.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Sun and Wilman 2014 (doi:10.1002/mrm.24765); rim: Topfer et al. 2015 (doi:10.1002/mrm.25148).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.extension import extended
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.region import Region
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.engine import engine_of, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class RESHARPParameters:
    """Parameters of :func:`resharp`."""

    radius: float = parameter(
        6.5, unit="mm", above=0, help="radius of the sphere (at least a voxel), by which the mask shrinks"
    )
    regularization: float = parameter(1e-4, above=0, help="weight of the norm of the local field; larger is smoother")
    tolerance: float = parameter(3e-3, above=0, below=1, help="relative residual at which iteration ends")
    iterations: int = parameter(100, at_least=1, help="most iterations")
    harmonic_degree: int = parameter(
        2, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )
    extension: bool = parameter(
        True, help="continue the local field into the rim that the sphere takes off, if most of the mask is left"
    )


@method(
    stage="background",
    key="resharp",
    title="RESHARP",
    consumes=("total_field", "mask"),
    produces=("local_field", "eroded_mask"),
    parameters=RESHARPParameters,
    references=("sun2014", "topfer2015"),
    sentence=(
        "The background field was removed by RESHARP with spheres of {radius:g} mm radius "
        "(regularisation {regularization:g})."
    ),
    cost=Cost(bytes_per_voxel=26, seconds_per_megavoxel=0.5),
    linear=True,
    on_device=True,
)
def resharp(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: RESHARPParameters = RESHARPParameters(),
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
        See :class:`RESHARPParameters`.
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

    >>> from qsmxt.algorithms.background.resharp import RESHARPParameters, resharp
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> local, kept = resharp(head.total_field, head.mask, head.grid, RESHARPParameters(radius=4, harmonic_degree=-1))
    >>> nrmse(local, head.local_field, kept) < 30  # percent of the true local field
    True
    >>> background = head.total_field - head.local_field
    >>> left, _ = resharp(background, head.mask, head.grid, RESHARPParameters(radius=4, harmonic_degree=-1))
    >>> round(float(100 * left[kept].std() / background[kept].std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(total_field)
    total_field, mask = to_host_all(total_field, mask)
    region = Region.around(total_field, mask, grid, padding=parameters.radius)
    radius = region.at_least_a_voxel(parameters.radius)
    kept = region.interior(radius)
    spheres = Spheres.on(region.grid, radius)
    mean_free = 1 - spheres.transfer()
    weight = np.float32(parameters.regularization)
    square = engine.send(mean_free * mean_free)
    inverse = 1 / (square + float(weight))
    inside, right = engine.send(kept), spheres.departures(engine, kept)(engine.send(region.field))
    length, rows = kept.shape[0], fourier.Support.of(kept)
    image, conditioned = engine.zeros(kept.shape), engine.zeros(kept.shape)

    def operator(y: Any) -> Any:
        out = engine.filtered(y, square, rows, rows, image)
        engine.run(_combine, _combine_form, length, y, inside, weight, out)
        return out

    def precondition(residual: Any) -> Any:
        out = engine.filtered(residual, inverse, rows, rows, conditioned)
        engine.run(_combine, _combine_form, length, residual, inside, np.float32(0), out)
        return out

    y, _ = conjugate_gradients.solve(
        operator,
        right,
        tolerance=parameters.tolerance,
        iterations=parameters.iterations,
        precondition=precondition,
        progress=progress,
        engine=engine,
    )
    local = engine.fetch(engine.filtered(y, engine.send(mean_free), rows, rows))
    local = remove_harmonics(local, kept, region.grid, parameters.harmonic_degree)
    if parameters.extension:
        local, kept = extended(local, kept, region)
    return region.finish(local, kept, engine)


def _combine_form(xp: Any, volume: Any, kept: Any, weight: float, image: Any) -> None:
    image[...] = xp.where(kept, image + weight * volume, xp.zeros_like(image))


@kernel
def _combine(start, stop, volume, kept, weight, image):
    """image += weight * volume where kept, else 0."""
    for x in range(start, stop):
        for y in range(volume.shape[1]):
            row, out, inside = volume[x, y], image[x, y], kept[x, y]
            for z in range(row.size):
                out[z] = out[z] + weight * row[z] if inside[z] else np.float32(0.0)
