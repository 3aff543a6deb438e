r"""iHARPERELLA: HARPERELLA with the smallest field.

.. math:: x = \arg\min_x \big\| M\,\nabla^{-2}(L + x) \big\|^2, \qquad f_l = M\,\nabla^{-2}(L + x) ,

with L the Laplacian of the field inside the mask, from wrapped phase without unwrapping
(:mod:`qsmxt.algorithms.background.phase_laplacian`), and x that outside. The field of x is harmonic in the mask, so x
is a background that is fitted and removed as in the projection onto dipole fields, with monopoles in place of dipoles
and no need for the unwrapped total field. The number of conjugate-gradient steps is the regularisation.

Parameters
    ``iterations``: more of them remove more, of the local field near the rim too. ``tolerance``: of the solver.
    ``padding``: room for x around the mask, mm. ``harmonic_degree``: solid harmonics up to this degree are removed
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

from qsmxt.algorithms import fourier
from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.phase_laplacian import PhaseLaplacian, outside
from qsmxt.algorithms.engine import engine_of, to_host, to_host_all
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class IHARPERELLAParameters:
    """Parameters of :func:`iharperella`."""

    iterations: int = parameter(40, at_least=1, help="most iterations; more remove more, near the rim too")
    tolerance: float = parameter(1e-4, above=0, below=1, help="relative residual at which iteration ends")
    padding: float = parameter(20.0, unit="mm", at_least=0, help="room around the mask for the exterior Laplacian")
    harmonic_degree: int = parameter(
        4, at_least=-1, at_most=8, help="degree up to which solid harmonics are fitted and removed; -1 for none"
    )


@method(
    stage="background",
    key="iharperella",
    title="iHARPERELLA",
    consumes=("offset_free_phase", "echo_times", "field_strength", "mask"),
    optional=("magnitude",),
    produces=("local_field", "eroded_mask"),
    parameters=IHARPERELLAParameters,
    references=("li2014harperella",),
    sentence="Phase was unwrapped and its background removed by iHARPERELLA ({iterations} iterations).",
    cost=Cost(bytes_per_voxel=29, seconds_per_megavoxel=0.6),
    on_device=True,
)
def iharperella(
    offset_free_phase: np.ndarray,
    echo_times: np.ndarray,
    field_strength: float,
    mask: np.ndarray,
    grid: Grid,
    parameters: IHARPERELLAParameters = IHARPERELLAParameters(),
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
        See :class:`IHARPERELLAParameters`.
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
    >>> from qsmxt.algorithms.background.iharperella import iharperella
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.constants import rad_per_ppm
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> times = head.echo_times, head.field_strength
    >>> local, kept = iharperella(head.offset_free_phase, *times, head.mask, head.grid)
    >>> round(nrmse(local, head.local_field, kept))  # percent of the true local field
    51
    >>> background = head.total_field - head.local_field
    >>> phase = np.stack([background * rad_per_ppm(head.field_strength, t) for t in head.echo_times])
    >>> left, _ = iharperella(np.angle(np.exp(1j * phase)), *times, head.mask, head.grid)
    >>> round(float(100 * left.std() / background.std()), 3)  # percent of the background
    0.0
    """
    engine = engine_of(offset_free_phase)
    phase, mask, magnitude = to_host_all(offset_free_phase, mask, magnitude)
    data = PhaseLaplacian.of(
        phase, to_host(echo_times), field_strength, mask, grid, magnitude, padding=parameters.padding
    )
    laplacian, known = engine.send(data.laplacian), engine.send(data.known)
    inverse = engine.send(data.inverse_symbol())
    inside = engine.send(data.mask.astype(np.float32))

    image, rows = engine.empty(data.grid.shape), fourier.Support.of(data.mask)

    def operator(x: Any, make: Any = None) -> tuple[Any, float]:
        blank = outside(engine, known, x)
        return engine.weighted(x, inverse, inside, rows, image, make=make, use=blank), blank.total

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
    field = engine.fetch(engine.filtered(completed, inverse))
    return data.finish(remove_harmonics(field, data.mask, data.grid, parameters.harmonic_degree), engine)
