r"""HARPERELLA: harmonic background phase removal by the Laplacian operator.

.. math::

    x = \arg\min_x \big\| S_\rho * (L + x) - \overline{L + x} \big\|^2, \qquad f_l = M\,\nabla^{-2}(L + x) ,

with L the Laplacian of the field inside the mask, from wrapped phase without unwrapping
(:mod:`qsmxt.algorithms.background.phase_laplacian`), x that outside, and :math:`S_\rho` the mean over spheres of
``radius``. An x that makes the averaged Laplacian uniform takes the slow, large fields out of the result: those of
sources outside the mask, which L does not know of, and which a plain inverse Laplacian would fill with its own. The
conjugate gradients stop early, which keeps x small where it does not matter.

The method knows neither B0 direction nor susceptibility, and is rough near the rim. It takes phase from which the
offset at echo time zero has been removed; a smooth offset does little harm.

Parameters
    ``radius``: of the spheres. ``iterations``, ``tolerance``: of the solver. ``padding``: room for x around the mask,
    mm. ``harmonic_degree``: solid harmonics up to this degree are removed
    (:mod:`qsmxt.algorithms.background.harmonics`).

Departures from the paper: differences of wrapped phase instead of sines of it; all echoes in one Laplacian;
removal of solid harmonics.

Measured defaults are in the table of :mod:`qsmxt.algorithms.background`.

References
----------
Li et al. 2014 (doi:10.1002/nbm.3056).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.phase_laplacian import PhaseLaplacian, outside
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.engine import engine_of, to_host, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class HARPERELLAParameters:
    """Parameters of :func:`harperella`."""

    radius: float = parameter(
        10.0, unit="mm", above=0, help="radius of the sphere over which the Laplacian is averaged"
    )
    iterations: int = parameter(40, at_least=1, help="most iterations")
    tolerance: float = parameter(1e-4, above=0, below=1, help="relative residual at which iteration ends")
    padding: float = parameter(20.0, unit="mm", at_least=0, help="room around the mask for the exterior Laplacian")
    harmonic_degree: int = parameter(
        4, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )


@method(
    stage="background",
    key="harperella",
    title="HARPERELLA",
    consumes=("offset_free_phase", "echo_times", "field_strength", "mask"),
    optional=("magnitude",),
    produces=("local_field", "eroded_mask"),
    parameters=HARPERELLAParameters,
    references=("li2014harperella",),
    sentence="Phase was unwrapped and its background removed by HARPERELLA (spheres of {radius:g} mm radius).",
    cost=Cost(bytes_per_voxel=29, seconds_per_megavoxel=0.4),
    on_device=True,
)
def harperella(
    offset_free_phase: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    mask: np.ndarray,
    grid: Grid,
    parameters: HARPERELLAParameters = HARPERELLAParameters(),
    *,
    progress: Progress | None = None,
    magnitude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Local field (ppm) and the region where it is defined (the mask) from wrapped phase; see the module.

    Parameters
    ----------
    offset_free_phase
        Wrapped phase without its offset at echo time zero, rad, float32 ``(echo, x, y, z)``; outside the mask it does
        not matter.
    echo_times
        Echo times, s, float ``(echo,)``.
    field_strength
        Strength of B0, T, float.
    mask
        Where the phase is known, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm); the direction of B0 does not matter.
    parameters
        See :class:`HARPERELLAParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``, which gives the echoes their weights.
        Without it all weigh the same.

    Returns
    -------
    local_field
        Field of the sources in the mask, ppm, float32 ``(x, y, z)``; zero outside ``eroded_mask``.
    eroded_mask
        Where the local field is defined, bool ``(x, y, z)``: the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, the mask is empty, not of 0 and 1 or has no voxel whose six
        neighbours are in it, phase or magnitude has NaN or Inf in the mask, the echo times are not ascending and above
        0, or the field strength is none.

    Examples
    --------
    >>> import numpy as np
    >>> from qsmxt.algorithms.background.harperella import harperella
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.constants import rad_per_ppm
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> times = head.echo_times, head.field_strength
    >>> local, kept = harperella(head.offset_free_phase, *times, head.mask, head.grid)
    >>> round(nrmse(local, head.local_field, kept))  # percent of the true local field
    58
    >>> background = head.total_field - head.local_field
    >>> phase = np.stack([background * rad_per_ppm(head.field_strength, t) for t in head.echo_times])
    >>> left, _ = harperella(np.angle(np.exp(1j * phase)), *times, head.mask, head.grid)
    >>> round(float(100 * left.std() / background.std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(offset_free_phase)
    phase, mask, magnitude = to_host_all(offset_free_phase, mask, magnitude)
    data = PhaseLaplacian.of(
        phase, to_host(echo_times), field_strength, mask, grid, magnitude, padding=parameters.padding
    )
    laplacian, known = engine.send(data.laplacian), engine.send(data.known)
    square = Spheres.on(data.grid, max(parameters.radius, *grid.voxel_size)).transfer()
    np.square(square, out=square)
    square[0, 0, 0] = 0
    transfer = engine.send(square)

    image = engine.empty(data.grid.shape)

    def operator(x: Any, make: Any = None) -> tuple[Any, float]:
        blank = outside(engine, known, x)
        return engine.filtered(x, transfer, out=image, make=make, use=blank), blank.total

    right = engine.copy(operator(laplacian)[0])
    right *= -1
    completed, _ = conjugate_gradients.solve_fused(
        operator,
        right,
        tolerance=parameters.tolerance,
        iterations=parameters.iterations,
        progress=progress,
        engine=engine,
    )
    completed += laplacian
    field = engine.fetch(engine.filtered(completed, engine.send(data.inverse_symbol())))
    return data.finish(remove_harmonics(field, data.mask, data.grid, parameters.harmonic_degree), engine)
