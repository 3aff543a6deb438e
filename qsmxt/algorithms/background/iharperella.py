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

import numpy as np

from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.algorithms.background.phase_laplacian import PhaseLaplacian
from qsmxt.algorithms.domain import filtered
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
    cost=Cost(bytes_per_voxel=38, seconds_per_megavoxel=0.6),
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
    >>> local, kept = iharperella(phase, np.array([0.01]), 3.0, x**2 + y**2 + z**2 < 100, grid)
    >>> bool(np.abs(local).max() < 1e-5)
    True
    """
    data = PhaseLaplacian.of(
        offset_free_phase, echo_times, field_strength, mask, grid, magnitude, padding=parameters.padding
    )
    inverse = data.inverse_symbol()

    def operator(x: np.ndarray) -> np.ndarray:
        field = filtered(x, inverse)
        field *= data.mask
        return data.outside(filtered(field, inverse))

    right = operator(data.laplacian)
    np.negative(right, out=right)
    completed, _ = conjugate_gradients.solve(
        operator, right, tolerance=parameters.tolerance, iterations=parameters.iterations, progress=progress
    )
    completed += data.laplacian
    field = filtered(completed, inverse)
    return data.finish(remove_harmonics(field, data.mask, data.grid, parameters.harmonic_degree))
