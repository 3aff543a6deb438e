"""Combine the images of single receive elements while they are imported.

The method is one of the registered ones of the stage ``combination``. The combined magnitude and phase replace the
receive elements; their label ``rec-`` is that of the method if the scanner's own combination is there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from qsmxt.bids.makers import CORRECTIONS_KEY
from qsmxt.convert.plan import Piece, Unit
from qsmxt.convert.vendor import Image
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Entry of the sidecar that says how receive elements were combined.
COMBINATION_KEY = "CoilCombination"


def find_method(key: str) -> Any:
    """The method of coil combination called ``key``; ``"default"`` is the first of the roster.

    Raises
    ------
    ParameterError
        If there is no such method.
    """
    from qsmxt.registry.methods import lookup, methods

    known = methods("combination")
    if key == "default" and known:
        return next(iter(known.values()))
    return lookup("combination", key)


def combined_name(output: PurePosixPath, key: str) -> PurePosixPath:
    """The name of a receive element without its coil, and with the method as reconstruction."""
    kept = [part for part in output.name.split("_") if not part.startswith("coil-")]
    name = "_".join(f"rec-{key}" if part.startswith("rec-uncombined") else part for part in kept)
    return output.with_name(name)


def combine_coils(
    unit: Unit, images: Sequence[dict[str, Image]], key: str = "default"
) -> tuple[list[Piece], list[dict[str, Image]]]:
    """Combined magnitude and phase of a unit of single receive elements.

    Parameters
    ----------
    unit
        Whose pieces are echoes of coils.
    images
        For every piece, ``mag`` and ``phase``.
    key
        Method, or ``"default"`` for the first of the roster.

    Raises
    ------
    InputError
        If the phase is not in radians, or an echo lacks a coil.
    """
    method = find_method(key)
    coils = sorted({piece.coil for piece in unit.pieces})
    times = sorted({piece.echo_time or 0.0 for piece in unit.pieces})
    table = {
        (piece.echo_time or 0.0, piece.coil): (piece, echo) for piece, echo in zip(unit.pieces, images, strict=True)
    }
    if len(table) != len(coils) * len(times):
        raise InputError(f"coil combination: expected {len(coils)} receive elements in each of {len(times)} echoes")
    first_piece, first = table[times[0], coils[0]]
    if not {"mag", "phase"} <= set(first) or first["phase"].sidecar.get("Units") != "rad":
        raise InputError("coil combination: expected magnitude, and phase of known scale")
    grid = Grid.from_affine(first["phase"].header.get_best_affine(), first["phase"].stored.shape)
    arrays: dict[str, Any] = {
        "coil_phase": _stack(table, coils, times, "phase"),
        "coil_magnitude": _stack(table, coils, times, "mag"),
        "echo_times": np.array(times),
        "field_strength": first_piece.volumes["phase"].source.field_strength,
    }
    made = method.run(arrays, grid)
    pieces, combined = [], []
    for number, time in enumerate(times):
        piece, echo = table[time, coils[0]]
        outputs = {part: combined_name(output, method.key) for part, output in piece.outputs.items()}
        pieces.append(Piece(time, 0, piece.volumes, outputs))
        combined.append(
            {
                "mag": _image(echo["mag"], made["magnitude"][number], method.key, len(coils)),
                "phase": _image(echo["phase"], made["wrapped_phase"][number], method.key, len(coils)),
            }
        )
    return pieces, combined


def _stack(table: Any, coils: Sequence[int], times: Sequence[float], part: str) -> np.ndarray:
    return np.stack([np.stack([table[time, coil][1][part].values() for time in times]) for coil in coils])


def _image(like: Image, values: np.ndarray, key: str, coils: int) -> Image:
    sidecar = {**like.sidecar, COMBINATION_KEY: {"Method": key, "ReceiveElements": coils}}
    if CORRECTIONS_KEY in sidecar:
        sidecar[CORRECTIONS_KEY] = dict(sidecar[CORRECTIONS_KEY])
    sidecar.pop("ReceiveCoilActiveElements", None)
    return Image(np.asarray(values, dtype=np.float32), 1.0, 0.0, like.header.copy(), sidecar)
