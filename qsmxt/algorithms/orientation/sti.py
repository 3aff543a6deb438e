r"""Susceptibility tensor imaging from local fields of one head in six or more orientations.

.. math::

    F_o(k) = \tfrac13\, b_o^T X b_o - \frac{(k \cdot b_o)\,(k^T X b_o)}{|k|^2}, \qquad
    X = \begin{pmatrix} X_{xx} & X_{xy} & X_{xz} \\ X_{xy} & X_{yy} & X_{yz} \\ X_{xz} & X_{yz} & X_{zz} \end{pmatrix}

in the axes of the common grid: :math:`F_o` is the spectrum of the local field (ppm) of orientation o, :math:`b_o` its
B0 direction, X the spectrum of the symmetric tensor (ppm). With M the mask, the tensor x (0 outside the mask) is

.. math:: \arg\min_x \sum_o \big\|M\,[A_o x - f_o]\big\|_2^2 + \alpha\, \|x\|_2^2 ,

by conjugate gradients. A frequency at a time the problem is well conditioned for orientations that cover the
hemisphere (factors of 1/3, -1/6 and -2/3); few degrees of rotation leave components undetermined, which the damping
:math:`\alpha` then keeps small.

The mean susceptibility is a third of the trace; the anisotropy is the largest eigenvalue less the mean of the others.

Departures from the paper
    The damping; fields count inside the mask only.

Parameters
    ``damping``: :math:`\alpha` over the sum of squares of the fields' responses. ``tolerance``, ``iterations``: where
    the conjugate gradients end.

References
----------
Liu 2010 (doi:10.1002/mrm.22482).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import PADDING, checked_mask, masked
from qsmxt.algorithms.orientation.cosmos import check_directions
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Index pairs of the six components, in the order of the output.
COMPONENTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@dataclass(frozen=True)
class STIParameters:
    """Parameters of :func:`sti`."""

    damping: float = parameter(
        1e-4, at_least=0, help="damping relative to the sum of squares of the fields' responses; larger is smoother"
    )
    tolerance: float = parameter(2e-3, above=0, below=1, help="relative residual at which iteration stops")
    iterations: int = parameter(100, at_least=1, help="most iterations")


@method(
    stage="orientation",
    key="sti",
    title="Susceptibility tensor imaging",
    consumes=("oriented_fields", "b0_directions", "mask"),
    produces=("susceptibility_tensor", "tensor_mean", "tensor_anisotropy"),
    parameters=STIParameters,
    references=("liu2010sti",),
    sentence="The susceptibility tensor was computed from all orientations of the head (damping {damping:g}).",
    cost=Cost(bytes_per_voxel=210, bytes_per_echo=15.5, seconds_per_megavoxel=60.0),
)
def sti(
    oriented_fields: np.ndarray,
    b0_directions: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: STIParameters = STIParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Susceptibility tensor, its mean and anisotropy (ppm) from local fields of several orientations; see the module.

    Parameters
    ----------
    oriented_fields
        Local fields of all orientations, registered to one grid, ppm, float32 ``(orientation, x, y, z)``, at least six;
        outside the mask they do not matter.
    b0_directions
        Direction of B0 of every field in the axes of the common grid, unit vectors, ``(orientation, 3)`` or as many
        numbers in a row. An image turned by the matrix R (from its axes to those of the common grid) has R b.
    mask
        Where all fields are known, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm) of the common grid; its own direction of B0 does not matter.
    parameters
        See :class:`STIParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    susceptibility_tensor
        Tensor, ppm, float32 ``(component, x, y, z)``: xx, xy, xz, yy, yz, zz in the axes of the grid; zero outside the
        mask.
    tensor_mean
        A third of the trace, ppm, float32 ``(x, y, z)``; zero outside the mask.
    tensor_anisotropy
        Largest eigenvalue less the mean of the others, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If there are fewer than six fields, a shape is not that of the grid or there are more or fewer directions than
        fields, all directions are parallel, the mask is empty or not of 0 and 1, or a field has NaN or Inf in the mask.

    Examples
    --------
    The susceptibility of the phantom is the same in all directions:

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.orientation.sti import sti
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> tensor, mean, anisotropy = sti(head.oriented_fields, head.b0_directions, head.mask, head.grid)
    >>> nrmse(mean, head.chi, head.mask) < 25  # percent of the true susceptibility
    True
    >>> bool(anisotropy[head.mask].mean() < 0.1 * mean[head.labels == 1].mean())
    True
    """
    fields = np.asarray(oriented_fields)
    axes = check_directions(fields, b0_directions, at_least=6).astype(np.float32)
    mask = checked_mask(mask, grid)
    crop = Crop.around(mask, grid, padding=PADDING)
    inside = crop.extract(mask)
    data = [masked("oriented_fields", field, mask, crop) for field in fields]
    system = _System(axes, inside, crop.grid, np.float32(parameters.damping * len(axes)))
    tensor = system.solve(data, parameters, progress)
    full = np.stack([crop.restore(component) for component in tensor])
    return full, mean_susceptibility(full), anisotropy(full, mask)


class _System:
    """The normal equations on the box."""

    def __init__(self, axes: np.ndarray, inside: np.ndarray, grid: Grid, damping: np.float32) -> None:
        self.axes, self.inside, self.grid, self.damping = axes, inside, grid, damping
        self.frequencies = tuple(k.ravel() for k in fourier.frequencies(grid))
        self.half = (grid.shape[0], grid.shape[1], grid.shape[2] // 2 + 1)

    def adjoint(self, fields: list[np.ndarray] | np.ndarray) -> np.ndarray:
        """Fields in the mask to a tensor in the mask."""
        spectra = np.stack([fourier.forward(field) for field in fields])
        tensor = np.empty((6, *self.half), dtype=np.complex64)
        parallel.run(_respond, self.half[0], spectra, self.axes, *self.frequencies, tensor)
        return self._volumes(tensor)

    def apply(self, tensor: np.ndarray) -> np.ndarray:
        """Normal matrix times a tensor."""
        spectra = np.stack([fourier.forward(component) for component in tensor])
        fields = np.empty((len(self.axes), *self.half), dtype=np.complex64)
        parallel.run(_predict, self.half[0], spectra, self.axes, *self.frequencies, fields)
        return self.adjoint(self._volumes(fields)) + self.damping * tensor

    def solve(self, data: list[np.ndarray], parameters: STIParameters, progress: Progress | None) -> np.ndarray:
        """Conjugate gradients from 0."""
        residual = self.adjoint(data)
        x, direction = np.zeros_like(residual), residual.copy()
        square = start = _square(residual)
        for iteration in range(parameters.iterations):
            if square <= parameters.tolerance**2 * start:
                break
            image = self.apply(direction)
            step = np.float32(square / float(np.vdot(direction.astype(np.float64), image)))
            x += step * direction
            residual -= step * image
            new = _square(residual)
            direction = residual + np.float32(new / square) * direction
            square = new
            if progress:
                progress((iteration + 1) / parameters.iterations)
        return x

    def _volumes(self, spectra: np.ndarray) -> np.ndarray:
        volumes = [fourier.inverse(spectrum, self.grid.shape) for spectrum in spectra]
        return np.stack([np.where(self.inside, volume, np.float32(0)) for volume in volumes])


def _square(volumes: np.ndarray) -> float:
    return float(np.square(volumes, dtype=np.float64).sum())


def mean_susceptibility(tensor: np.ndarray) -> np.ndarray:
    """A third of the trace of ``tensor`` ``(6, x, y, z)``."""
    return (tensor[0] + tensor[3] + tensor[5]) / np.float32(3)


def anisotropy(tensor: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Largest eigenvalue less the mean of the other two of ``tensor`` ``(6, x, y, z)`` in ``mask``, float32.

    >>> tensor = np.array([0.1, 0, 0, 0.1, 0, 0.4], dtype=np.float32).reshape(6, 1, 1, 1)
    >>> round(float(anisotropy(tensor, np.ones((1, 1, 1), dtype=bool))[0, 0, 0]), 3)
    0.3
    """
    matrices = np.empty((int(mask.sum()), 3, 3), dtype=np.float32)
    for (i, j), component in zip(COMPONENTS, tensor, strict=True):
        matrices[:, i, j] = matrices[:, j, i] = component[mask]
    values = np.linalg.eigvalsh(matrices)
    out: np.ndarray = np.zeros(mask.shape, dtype=np.float32)
    out[mask] = values[:, 2] - 0.5 * (values[:, 0] + values[:, 1])
    return out


@kernel
def _row(b, kx, ky, kz, out):
    """The row of A of one orientation at a frequency other than 0."""
    square = kx * kx + ky * ky + kz * kz
    s = (kx * b[0] + ky * b[1] + kz * b[2]) / square
    third = np.float32(1 / 3)
    out[0] = third * b[0] * b[0] - s * kx * b[0]
    out[1] = 2 * third * b[0] * b[1] - s * (kx * b[1] + ky * b[0])
    out[2] = 2 * third * b[0] * b[2] - s * (kx * b[2] + kz * b[0])
    out[3] = third * b[1] * b[1] - s * ky * b[1]
    out[4] = 2 * third * b[1] * b[2] - s * (ky * b[2] + kz * b[1])
    out[5] = third * b[2] * b[2] - s * kz * b[2]


@kernel
def _predict(start, stop, tensor, axes, kx, ky, kz, spectra):
    row = np.empty(6, dtype=np.float32)
    for x in range(start, stop):
        for y in range(ky.size):
            for z in range(kz.size):
                origin = x == 0 and y == 0 and z == 0
                for o in range(axes.shape[0]):
                    total = np.complex64(0)
                    if not origin:
                        _row(axes[o], kx[x], ky[y], kz[z], row)
                        for c in range(6):
                            total += row[c] * tensor[c, x, y, z]
                    spectra[o, x, y, z] = total


@kernel
def _respond(start, stop, spectra, axes, kx, ky, kz, tensor):
    """Adjoint of the prediction."""
    row = np.empty(6, dtype=np.float32)
    for x in range(start, stop):
        for y in range(ky.size):
            for z in range(kz.size):
                tensor[:, x, y, z] = 0
                if x == 0 and y == 0 and z == 0:
                    continue
                for o in range(axes.shape[0]):
                    _row(axes[o], kx[x], ky[y], kz[z], row)
                    for c in range(6):
                        tensor[c, x, y, z] += row[c] * spectra[o, x, y, z]
