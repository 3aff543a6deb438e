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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from qsmxt.algorithms import fourier, parallel, vectors
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import PADDING, checked_mask, masked
from qsmxt.algorithms.orientation.cosmos import check_directions
from qsmxt.algorithms.packing import Packing
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
    cost=Cost(bytes_per_voxel=102, bytes_per_echo=7.8, seconds_per_megavoxel=4.0),
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
    full = np.stack([crop.restore(system.packing.unpack(component)) for component in tensor])
    return full, mean_susceptibility(full), anisotropy(full, mask)


class _System:
    """The normal equations on the box. A tensor is kept as the values of its components in the mask, ``(6, voxel)``."""

    def __init__(self, axes: np.ndarray, inside: np.ndarray, grid: Grid, damping: np.float32) -> None:
        self.axes, self.inside, self.grid, self.damping = axes, inside, grid, damping
        self.packing, self.support = Packing(inside), fourier.Support.of(inside)
        kx, ky, kz = (k.ravel() for k in fourier.frequencies(grid))
        self._frequencies = kx, ky, kz.repeat(2)
        half = fourier.empty_spectrum(grid.shape).shape
        self._tensor, self._fields = (np.empty((count, *half), dtype=np.complex64) for count in (6, len(axes)))

    def adjoint(self, fields: list[np.ndarray] | np.ndarray) -> np.ndarray:
        """Fields, 0 outside the mask, to a tensor."""
        for field, spectrum in zip(fields, self._fields, strict=True):
            fourier.planes_forward(spectrum, self.grid.shape[2], fourier.planes_of(field), self.support)
        return self._respond(np.empty((6, self.packing.size), dtype=np.float32))

    def apply(self, tensor: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Normal matrix times a tensor, in ``out``."""
        nz = self.grid.shape[2]
        for component, spectrum in zip(tensor, self._tensor, strict=True):
            fourier.planes_forward(spectrum, nz, self._unpacked(component), self.support)
        self._exchange(_predict, self._tensor, self._fields)
        for spectrum in self._fields:
            fourier.planes_exchanged(spectrum, nz, partial(_cut_planes, self.inside), self.support)
        vectors.add(self._respond(out), 1.0, tensor, float(self.damping))
        return out

    def _respond(self, out: np.ndarray) -> np.ndarray:
        """The tensor that is the adjoint of the planes of the fields."""
        self._exchange(_respond, self._fields, self._tensor)
        for component, spectrum in zip(out, self._tensor, strict=True):
            fourier.planes_inverse(spectrum, self.grid.shape[2], self._packed(component), self.support)
        return out

    def _exchange(self, change: Callable[..., None], given: np.ndarray, made: np.ndarray) -> None:
        """Planes of the ``given`` spectra to those of what ``change`` makes of their rows."""
        arrays = self.axes, *self._frequencies
        parallel.run(_exchange_rows, self.grid.shape[1], change, given, arrays, made)

    def _unpacked(self, values: np.ndarray) -> fourier.Planes:
        return lambda start, stop, planes: self.packing.unpack_planes(start, stop, values, planes)

    def _packed(self, values: np.ndarray) -> fourier.Planes:
        return lambda start, stop, planes: self.packing.pack_planes(start, stop, planes, values)

    def solve(self, data: list[np.ndarray], parameters: STIParameters, progress: Progress | None) -> np.ndarray:
        """Conjugate gradients from 0."""
        residual = self.adjoint(data)
        x, direction, image = np.zeros_like(residual), residual.copy(), np.empty_like(residual)
        square = start = vectors.product(residual, residual)
        for iteration in range(parameters.iterations):
            if square <= parameters.tolerance**2 * start:
                break
            self.apply(direction, image)
            step = square / vectors.product(direction, image)
            vectors.add(x, 1.0, direction, step)
            new = vectors.blend(residual, 1.0, image, -step) ** 2
            vectors.add(direction, new / square, residual, 1.0)
            square = new
            if progress:
                progress((iteration + 1) / parameters.iterations)
        return x


def _cut_planes(inside: np.ndarray, start: int, stop: int, planes: np.ndarray) -> None:
    """Planes in the mask alone."""
    planes *= inside[start:stop]


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


def _exchange_rows(start, stop, change, given, arrays, made):
    """Rows of spectra, transformed across the planes meanwhile."""
    for spectrum in given:
        fourier.transform(spectrum[:, start:stop], fourier.ACROSS, True)
    change(start, stop, given.view(np.float32), *arrays, made.view(np.float32))
    for spectrum in made:
        fourier.transform(spectrum[:, start:stop], fourier.ACROSS, False)


# Responses are real: parts of spectra, real and imaginary in turn, are numbers like any other.


@kernel
def _invert_squares(kx, ky, kz, inverse):
    """One over the square of the frequency, 0 at the origin."""
    for k in range(kz.size):
        square = kx * kx + ky * ky + kz[k] * kz[k]
        inverse[k] = np.float32(1) / square if square > 0 else np.float32(0)


@kernel
def _predict(start, stop, tensor, axes, kx, ky, kz, fields):
    third, inverse = np.float32(1 / 3), np.empty(kz.size, dtype=np.float32)
    for i in range(kx.size):
        for j in range(start, stop):
            _invert_squares(kx[i], ky[j], kz, inverse)
            x, y = kx[i], ky[j]
            for o in range(axes.shape[0]):
                a, b, c = axes[o, 0], axes[o, 1], axes[o, 2]
                for k in range(kz.size):
                    z = kz[k]
                    p = a * tensor[0, i, j, k] + b * tensor[1, i, j, k] + c * tensor[2, i, j, k]
                    q = a * tensor[1, i, j, k] + b * tensor[3, i, j, k] + c * tensor[4, i, j, k]
                    r = a * tensor[2, i, j, k] + b * tensor[4, i, j, k] + c * tensor[5, i, j, k]
                    along = (x * a + y * b + z * c) * inverse[k]
                    fields[o, i, j, k] = third * (a * p + b * q + c * r) - along * (x * p + y * q + z * r)
    if start == 0:
        fields[:, 0, 0, :2] = 0


@kernel
def _respond(start, stop, fields, axes, kx, ky, kz, tensor):
    third, two, inverse = np.float32(1 / 3), np.float32(2), np.empty(kz.size, dtype=np.float32)
    for i in range(kx.size):
        for j in range(start, stop):
            _invert_squares(kx[i], ky[j], kz, inverse)
            x, y = kx[i], ky[j]
            for n in range(6):
                for k in range(kz.size):
                    tensor[n, i, j, k] = 0
            for o in range(axes.shape[0]):
                a, b, c = axes[o, 0], axes[o, 1], axes[o, 2]
                for k in range(kz.size):
                    z, value = kz[k], fields[o, i, j, k]
                    along = (x * a + y * b + z * c) * inverse[k] * value
                    value *= third
                    tensor[0, i, j, k] += a * a * value - x * a * along
                    tensor[1, i, j, k] += two * a * b * value - (x * b + y * a) * along
                    tensor[2, i, j, k] += two * a * c * value - (x * c + z * a) * along
                    tensor[3, i, j, k] += b * b * value - y * b * along
                    tensor[4, i, j, k] += two * b * c * value - (y * c + z * b) * along
                    tensor[5, i, j, k] += c * c * value - z * c * along
    if start == 0:
        tensor[:, 0, 0, :2] = 0
