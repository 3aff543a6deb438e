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

import numpy as np

from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.phase_laplacian import PhaseLaplacian
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.algorithms.domain import filtered
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
    cost=Cost(bytes_per_voxel=38, seconds_per_megavoxel=0.4),
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
        Wrapped phase, rad, ``(echo, x, y, z)``.
    echo_times
        s.
    field_strength
        T.
    mask
        Where the phase is known, bool.
    grid
        Sampling; the direction of B0 does not matter.
    magnitude
        Weights of the echoes, ``(echo, x, y, z)``.

    Raises
    ------
    InputError
        If no voxel has six neighbours in the mask, or the input is unusable.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid((24, 24, 24))
    >>> x, y, z = np.indices(grid.shape, dtype=np.float32) - 11.5
    >>> phase = np.angle(np.exp(1j * 0.4 * (x + y)))[None]
    >>> local, kept = harperella(phase, np.array([0.01]), 3.0, x**2 + y**2 + z**2 < 100, grid)
    >>> bool(np.abs(local).max() < 1e-5)
    True
    """
    data = PhaseLaplacian.of(
        offset_free_phase, echo_times, field_strength, mask, grid, magnitude, padding=parameters.padding
    )
    square = Spheres.on(data.grid, max(parameters.radius, *grid.voxel_size)).transfer()
    np.square(square, out=square)
    square[0, 0, 0] = 0

    def operator(x: np.ndarray) -> np.ndarray:
        return data.outside(filtered(x, square))

    right = operator(data.laplacian)
    np.negative(right, out=right)
    completed, _ = conjugate_gradients.solve(
        operator, right, tolerance=parameters.tolerance, iterations=parameters.iterations, progress=progress
    )
    completed += data.laplacian
    field = filtered(completed, data.inverse_symbol())
    return data.finish(remove_harmonics(field, data.mask, data.grid, parameters.harmonic_degree))
