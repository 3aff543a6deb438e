r"""Running a network that a user supplies as an ONNX file.

QSMxT brings no weights. A network that maps a field to a susceptibility map, :math:`\chi = N(f)` or :math:`N(f, M)`,
is called on the box around the mask. It must have

- one input of five dimensions, the field, or two, the field and the mask (the one with ``mask`` in its name, else the
  second), float32, ``(1, 1, x, y, z)`` or ``(1, x, y, z, 1)``;
- one output of the same shape, the susceptibility. Further outputs are ignored.

Networks are trained with B0 along the last axis, so the axes are turned until the one nearest to B0 is last. Sides of
the box become multiples of ``multiple``, as networks that halve their grid several times need it, or what the file
fixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import checked_mask, masked
from qsmxt.errors import InputError, MissingInputError, MissingProgramError, ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import parameter

#: Largest angle between B0 and an axis, degrees. Networks see no direction, and 25 degrees cost any method everything.
MOST_TILT = 15.0


@dataclass(frozen=True)
class NetworkParameters:
    """Parameters of all methods with a network."""

    weights: str = parameter("", help="path of the ONNX file with the network and its weights")
    multiple: int = parameter(16, at_least=1, help="sides of the box become multiples of this")
    input_scale: float = parameter(1.0, above=0, help="factor from ppm to the unit of the field that the network wants")
    output_scale: float = parameter(1.0, above=0, help="factor from the unit of the map that the network makes to ppm")
    threads: int = parameter(1, at_least=1, help="threads of the network; the last digits may depend on it")


def apply_network(
    name: str, field: np.ndarray, mask: np.ndarray, grid: Grid, parameters: NetworkParameters
) -> np.ndarray:
    """Susceptibility (ppm, zero outside the mask) that a network makes of ``field`` (ppm), called ``name`` in messages.

    Raises
    ------
    ParameterError, MissingInputError, MissingProgramError
        Without weights, their file, or onnxruntime.
    InputError
        If the file is no such network, B0 is too oblique, or the arrays are unusable.
    """
    mask = checked_mask(mask, grid)
    order = _axes(grid)
    session = _session(parameters.weights, parameters.threads)
    inputs = session.get_inputs()
    if len(inputs) not in (1, 2) or any(len(i.shape) != 5 for i in inputs):
        found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise InputError(f"{parameters.weights}: expected one or two inputs of five dimensions, found {found}")
    crop = _box(mask, grid, order, inputs[0].shape, parameters)
    volumes = {"field": masked(name, field, mask, crop) * np.float32(parameters.input_scale)}
    volumes["mask"] = crop.extract(mask).astype(np.float32)
    feed = {}
    for number, entry in enumerate(inputs):
        is_mask = "mask" in entry.name.lower() if any("mask" in i.name.lower() for i in inputs) else number == 1
        volume = np.ascontiguousarray(volumes["mask" if is_mask else "field"].transpose(order))
        feed[entry.name] = volume.reshape(_with_channel(volume.shape, entry.shape))
    made = np.asarray(session.run([session.get_outputs()[0].name], feed)[0], dtype=np.float32)
    shape = tuple(crop.grid.shape[a] for a in order)
    if made.size != math.prod(shape):
        raise InputError(f"{parameters.weights}: expected an output of {shape} voxels, found {made.shape}")
    chi = made.reshape(shape).transpose(np.argsort(order)) * np.float32(parameters.output_scale)
    if not np.isfinite(chi[crop.extract(mask)]).all():
        raise InputError(f"{parameters.weights}: expected finite values from the network, found NaN or Inf")
    return crop.restore(np.where(crop.extract(mask), chi, np.float32(0)).astype(np.float32))


def _session(weights: str, threads: int) -> Any:
    """The network, ready to run."""
    if not weights:
        raise ParameterError(
            "parameter weights: expected the path of an ONNX file, found none; QSMxT brings no weights: take those of "
            "a published network (NeXtQSM for the total field, QSMnet, xQSM or LPCNN for the local field), exported to "
            "ONNX, or choose another method"
        )
    if not Path(weights).is_file():
        raise MissingInputError(f"parameter weights: {weights}: expected an ONNX file, found none; check the path")
    try:
        import onnxruntime
    except ImportError:
        raise MissingProgramError(
            "onnxruntime: needed by methods with a network, not installed; run: pip install 'qsmxt[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise InputError(f"{weights}: expected an ONNX network, but it cannot be read: {error}") from None


def _axes(grid: Grid) -> tuple[int, int, int]:
    """Order of the axes in which the one along B0 is last."""
    along = [abs(b) for b in grid.b0_direction]
    last = int(np.argmax(along))
    tilt = math.degrees(math.acos(min(1.0, along[last] / math.sqrt(sum(b * b for b in along)))))
    if tilt > MOST_TILT:
        raise InputError(
            f"B0 direction: expected at most {MOST_TILT:g} degrees from an axis, which networks are trained for, found "
            f"{tilt:.0f}; choose a method that knows the direction, or resample the field"
        )
    first, second = (a for a in range(3) if a != last)
    return first, second, last


def _box(
    mask: np.ndarray, grid: Grid, order: tuple[int, int, int], wanted: list[Any], parameters: NetworkParameters
) -> Crop:
    """Box around the mask with sides that the network takes."""
    tight = Crop.around(mask, grid)
    size = [b - a for a, b in zip(tight.start, tight.stop, strict=True)]
    shape = [math.ceil(n / parameters.multiple) * parameters.multiple for n in size]
    spatial = wanted[1:4] if wanted[-1] == 1 and wanted[1] != 1 else wanted[2:5]
    for axis, fixed in zip(order, spatial, strict=True):
        if isinstance(fixed, int) and fixed > 0:
            if fixed < size[axis]:
                raise InputError(
                    f"{parameters.weights}: the network takes {fixed} voxels along an axis, the mask has {size[axis]}; "
                    "take a network without fixed sizes"
                )
            shape[axis] = fixed
    before = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
    return Crop(grid, tight.start, tight.stop, before, grid.with_shape(tuple(shape)))  # type: ignore[arg-type]


def _with_channel(shape: tuple[int, ...], wanted: list[Any]) -> tuple[int, ...]:
    """Shape with batch and channel where the network has them."""
    return (1, *shape, 1) if wanted[-1] == 1 and wanted[1] != 1 else (1, 1, *shape)
