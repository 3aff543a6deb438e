r"""Laplacian unwrapping: the phase whose Laplacian is that of the wrapped phase.

The Laplacian of a phase does not feel wraps,

.. math:: \nabla^2 \varphi = \cos\varphi\, \nabla^2 \sin\varphi - \sin\varphi\, \nabla^2 \cos\varphi ,

and on a grid with spacings :math:`v_i` it is the sum of wrapped differences over the six neighbours,

.. math:: (\nabla^2 \varphi)_r = \sum_{i, \pm} \gamma(\varphi_{r \pm e_i} - \varphi_r) / v_i^2 ,

which is exact wherever neighbours differ by less than :math:`\pi`. Poisson's equation is solved with mirror boundaries
by a discrete cosine transform; the mean is set to zero.

Fast and without wrong steps, but the result is not the measured phase plus multiples of :math:`2\pi`: harmonic parts
are lost, and near noise and the edge of the mask it is wrong. Do not divide it by the echo time and call it a field,
unless ``congruent`` is set: then every voxel takes the value nearest to the solution that differs from the measured one
by a multiple of :math:`2\pi`.

Departure from the paper: wrapped differences in place of the sines that the trigonometric form gives on a grid, and
mirror boundaries in place of periodic ones.

References
----------
Schofield and Zhu 2003 (doi:10.1364/OL.28.001194).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.echoes import usable_voxels
from qsmxt.algorithms.engine import HOST, Engine, engine_of, to_host_all
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

_TWO_PI = np.float32(2 * np.pi)
_INVERSE = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class LaplacianParameters:
    """Parameters of :func:`laplacian`."""

    congruent: bool = parameter(
        False, help="take the value nearest to the solution that differs from the input by a multiple of 2 pi"
    )


@method(
    stage="unwrapping",
    key="laplacian",
    title="Laplacian unwrapping",
    consumes=("offset_free_phase",),
    optional=("mask",),
    produces=("unwrapped_phase",),
    parameters=LaplacianParameters,
    references=("schofield2003",),
    sentence="Phase was unwrapped with the Laplacian method.",
    cost=Cost(bytes_per_voxel=13, bytes_per_echo=4, threads=2, seconds_per_megavoxel=0.1),
    on_device=True,
)
def laplacian(
    offset_free_phase: np.ndarray,
    grid: Grid,
    parameters: LaplacianParameters = LaplacianParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Unwrapped phase of every echo by solving Poisson's equation; see the module.

    Parameters
    ----------
    offset_free_phase
        Wrapped phase, rad, float32 ``(echo, x, y, z)``; an offset may be left in.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`LaplacianParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Only differences between voxels of it count, which keeps noise from leaking in; bool ``(x, y, z)``. Without it
        all with finite phase do.

    Returns
    -------
    numpy.ndarray
        Phase without wraps, rad, float32 ``(echo, x, y, z)``; zero outside the mask and where an echo is not finite.

    Raises
    ------
    InputError
        If the phase has no echo axis, a shape is not that of the grid, or no voxel is usable.

    Examples
    --------
    Six times the phase of the phantom has wraps. Up to a constant of every echo, they are undone:

    >>> import numpy as np
    >>> from qsmxt.algorithms.unwrapping.laplacian import LaplacianParameters, laplacian
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> truth = 6 * head.unwrapped_phase
    >>> settings = LaplacianParameters(congruent=True)
    >>> phase = laplacian(np.angle(np.exp(1j * truth)), head.grid, settings, mask=head.mask)
    >>> bool(np.ptp((phase - truth)[:, head.mask], axis=1).max() < 1e-5)
    True
    """
    engine = engine_of(offset_free_phase)
    offset_free_phase, mask = to_host_all(offset_free_phase, mask)
    if offset_free_phase.ndim != 4:
        raise InputError(f"offset_free_phase: expected (echo, x, y, z), found shape {offset_free_phase.shape}")
    grid.check("offset_free_phase", offset_free_phase, echoes=offset_free_phase.shape[0])
    phase = np.ascontiguousarray(offset_free_phase, dtype=np.float32)
    usable = usable_voxels([phase], grid, mask)
    solve = _solver(grid, usable.view(np.uint8)) if engine is HOST else _solver_elsewhere(engine, grid, usable)
    inside = engine.send(usable.astype(np.float32))
    out = engine.empty(phase.shape)
    for e in range(len(phase)):
        echo = engine.send(phase[e] if engine is HOST else np.where(usable, phase[e], np.float32(0)))
        solution = solve(echo)
        if parameters.congruent:
            measured = engine.send(np.where(usable, phase[e], np.float32(0)))
            solution = measured + float(_TWO_PI) * engine.xp.round((solution - measured) * float(_INVERSE))
        out[e, ...] = solution
        out[e, ...] *= inside
        if progress:
            progress((e + 1) / len(phase))
    return out


def _solver(grid: Grid, usable: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function of a wrapped phase that solves Poisson's equation for its Laplacian by fast cosine transforms."""
    eigenvalues = _eigenvalues(grid)
    squared = np.array([1 / v**2 for v in grid.voxel_size], dtype=np.float32)

    def solve(phase: np.ndarray) -> np.ndarray:
        source = np.empty(grid.shape, dtype=np.float32)
        parallel.run(_sum_differences, grid.shape[0], phase, usable, squared, source)
        spectrum = scipy.fft.dctn(source, type=2, overwrite_x=True, workers=parallel.thread_count())
        spectrum /= eigenvalues
        spectrum[0, 0, 0] = 0
        solution: np.ndarray = scipy.fft.idctn(spectrum, type=2, overwrite_x=True, workers=parallel.thread_count())
        return solution

    return solve


def _solver_elsewhere(engine: Engine, grid: Grid, usable: np.ndarray) -> Callable[[Any], Any]:
    """:func:`_solver` on arrays of another library, none of which has cosine transforms: products with matrices."""
    xp = engine.xp
    inverse = _eigenvalues(grid)
    inverse = np.reciprocal(inverse, out=inverse)
    inverse[0, 0, 0] = 0
    gain = engine.send(inverse)
    matrices = [scipy.fft.dct(np.eye(n), axis=0, norm="ortho").astype(np.float32) for n in grid.shape]
    forward, backward = [engine.send(m) for m in matrices], [engine.send(m.T) for m in matrices]
    pairs = []
    for axis in range(3):
        pair = usable & np.roll(usable, -1, axis)
        pair[(slice(None),) * axis + (-1,)] = False
        pairs.append(engine.send((pair / grid.voxel_size[axis] ** 2).astype(np.float32)))

    def transformed(volume: Any, each: list[Any]) -> Any:
        for matrix in each:  # the first axis becomes the last: after three of them all are where they were
            volume = xp.tensordot(volume, matrix, axes=((0,), (1,)))
        return volume

    def solve(phase: Any) -> Any:
        source = xp.zeros_like(phase)
        for axis, pair in enumerate(pairs):
            step = xp.roll(phase, -1, axis=axis) - phase
            step = pair * (step - float(_TWO_PI) * xp.floor(step * float(_INVERSE) + 0.5))
            source += step - xp.roll(step, 1, axis=axis)
        return transformed(gain * transformed(source, forward), backward)

    return solve


def _eigenvalues(grid: Grid) -> np.ndarray:
    """Eigenvalues of the Laplacian with mirror boundaries, 1/mm^2, with 1 in place of the zero of the mean."""
    x, y, z = (
        (2 * np.cos(np.pi * np.arange(n) / n) - 2) / v**2 for n, v in zip(grid.shape, grid.voxel_size, strict=True)
    )
    out = (x[:, None, None] + y[None, :, None] + z[None, None, :]).astype(np.float32)
    out[0, 0, 0] = 1
    return out


@kernel
def _sum_differences(start, stop, phase, usable, squared, out):
    nx, ny, nz = phase.shape
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                total = np.float32(0)
                if usable[x, y, z]:
                    for d in range(6):
                        axis, sign = d // 2, 2 * (d % 2) - 1
                        jx, jy, jz = x + sign * (axis == 0), y + sign * (axis == 1), z + sign * (axis == 2)
                        if 0 <= jx < nx and 0 <= jy < ny and 0 <= jz < nz and usable[jx, jy, jz]:
                            step = phase[jx, jy, jz] - phase[x, y, z]
                            step -= _TWO_PI * np.floor(step * _INVERSE + np.float32(0.5))
                            total += step * squared[axis]
                out[x, y, z] = total
