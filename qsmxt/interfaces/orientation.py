"""The node that brings the acquisitions of one head in several orientations onto one grid.

Every acquisition is registered rigidly to the first one with ANTs. The rotation tells how the head lay in the scanner:
B0 is the vertical axis of the scanner in every acquisition, so in the axes of the first it is that axis turned back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, traits

from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.base import Interface, StateOutputSpec
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.state import State, describe_grid, digest, save_arrays

#: Turns about each axis from which a search also starts, degrees.
STARTING_TURN = 25.0

#: How many of the places where a search could start are tried: those that look most alike.
TRIED = 2

#: Directions of B0 that differ less than this do not make orientations, degrees.
LEAST_TURN = 5.0

#: How far the fields are continued beyond their masks before they are interpolated, mm.
CONTINUED = 10.0

#: How far beyond the brain registration looks, mm.
MARGIN = 8.0

#: Part of a voxel that must lie in the mask of every acquisition.
INSIDE = 0.95

#: Similarity (informational correlation) below which a registration is reported as doubtful.
LEAST_SIMILARITY = 0.5


class RegisterOrientationsInputSpec(BaseInterfaceInputSpec):
    """Derivatives of several acquisitions."""

    acquisitions = traits.Str(mandatory=True, desc="name, magnitude, field, mask, noise of every acquisition (JSON)")
    fingerprint = traits.Str(mandatory=True, desc="digest of their contents")
    corrections = traits.Str("{}", usedefault=True, desc="what sidecars say besides (JSON)")
    code = traits.Str(mandatory=True, desc="version and digest of the code")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class RegisterOrientations(Interface):
    """Fields, their noise and masks on the grid of the first acquisition, and the directions of B0 there."""

    input_spec = RegisterOrientationsInputSpec
    output_spec = StateOutputSpec

    def execute(self, folder: str) -> None:
        """Register all to the first, resample, and keep what all have in common."""
        acquisitions = json.loads(self.inputs.acquisitions)
        first = Oriented(acquisitions[0])
        members = [first.at_home()]
        for number, entry in enumerate(acquisitions[1:], 2):
            members.append(Oriented(entry).brought_to(first, Path(folder) / f"orientation{number}"))
        directions = np.stack([member["direction"] for member in members])
        turns = np.degrees(np.arccos(np.clip(np.abs(directions @ directions[0]), 0, 1)))
        check_turns(turns, [entry["name"] for entry in acquisitions])
        arrays: dict[str, Any] = {
            "oriented_fields": np.stack([member["field"] for member in members]),
            "b0_directions": directions,
            "mask": np.all([member["mask"] for member in members], axis=0),
            "combined_magnitude": first.magnitude.array.astype(np.float32),
        }
        if all(member["noise"] is not None for member in members):
            arrays["oriented_noise"] = np.stack([member["noise"] for member in members])
        grid = Grid.from_affine(first.magnitude.affine, first.magnitude.array.shape)
        state = State(
            fingerprint=digest(self.inputs.fingerprint, acquisitions, self.inputs.corrections, self.inputs.code),
            grid=describe_grid(grid),
            affine=np.asarray(first.magnitude.affine, dtype=float).tolist(),
            arrays=save_arrays(Path(folder), arrays),
            notes=describe(acquisitions, members, turns),
            statistics={"orientations": {"turns": turns.tolist(), "b0_directions": directions.tolist()}},
            corrections=json.loads(self.inputs.corrections),
        )
        self._results["state"] = state.to_json()


def check_turns(turns: np.ndarray, names: list[str]) -> None:
    """:class:`InputError` if the head lay the same way in all acquisitions."""
    if float(turns.max()) < LEAST_TURN:
        raise InputError(
            f"{', '.join(names)}: expected a head turned by at least {LEAST_TURN:g} degrees between acquisitions, "
            f"found at most {turns.max():.1f}; they are repetitions, leave --orientation out"
        )


def describe(acquisitions: list[dict[str, Any]], members: list[dict[str, Any]], turns: np.ndarray) -> list[str]:
    """What a reader should know about every acquisition."""
    notes = []
    for entry, member, turn in zip(acquisitions[1:], members[1:], turns[1:], strict=True):
        text = f"{entry['name']}: B0 turned by {turn:.1f} degrees against {acquisitions[0]['name']}"
        if member["similarity"] < LEAST_SIMILARITY:
            text += f"; similarity after registration is only {member['similarity']:.2f}, look at the result"
        notes.append(text)
    return notes


class Oriented:
    """Derivatives of one acquisition."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.name = str(entry["name"])
        self.magnitude = reg.read_volume(entry["magnitude"])
        self.field = reg.read_volume(entry["field"])
        self.noise = reg.read_volume(entry["noise"]) if entry.get("noise") else None
        mask = reg.read_volume(entry["mask"]).array > 0
        self.mask = mask & (self.field.array != 0)
        if not self.mask.any():
            raise InputError(f"{self.name}: expected a local field in the mask, found none; check its maps")

    def at_home(self) -> dict[str, Any]:
        """Arrays on the own grid."""
        noise = None if self.noise is None else self.noise.array
        direction = axes_of(self.magnitude.affine).T @ np.array([0.0, 0.0, 1.0])
        return {
            "field": self.field.array, "noise": noise, "mask": self.mask, "direction": direction, "similarity": 1.0
        }  # fmt: skip

    def brought_to(self, first: Oriented, folder: Path) -> dict[str, Any]:
        """Arrays on the grid of ``first`` after rigid registration."""
        folder.mkdir(exist_ok=True)
        fixed, moving = reg.correct_bias(first.magnitude), reg.correct_bias(self.magnitude)
        near = first.around()
        starts = most_alike(starting_places(fixed, moving, first.mask, self.mask), fixed, moving, near, folder)
        transform = reg.register_rigid(fixed, moving, near, folder, starts=starts)
        matrix = reg.read_affine(transform)
        inside = self.field.with_array(self.mask.astype(np.float32))
        continued = self.field.with_array(self.continued())
        noise = None
        if self.noise is not None:
            noise = reg.resample(self.noise.with_array(self.continued(self.noise.array)), fixed, [transform])
        return {
            "field": reg.resample(continued, fixed, [transform], interpolation="bSpline"),
            "noise": noise,
            "mask": reg.resample(inside, fixed, [transform]) >= INSIDE,
            "direction": axes_of(first.magnitude.affine).T @ matrix[:3, :3].T @ np.array([0.0, 0.0, 1.0]),
            "similarity": reg.similarity(fixed, moving, [transform], near),
        }

    def around(self) -> np.ndarray:
        """The mask and what lies near it."""
        from qsmxt.algorithms.morphology import dilate

        grid = Grid.from_affine(self.magnitude.affine, self.mask.shape)
        return dilate(self.mask, grid, MARGIN)

    def continued(self, values: np.ndarray | None = None) -> np.ndarray:
        """The field (or ``values``) in the mask, continued by the nearest voxel of the mask for a short way."""
        from scipy import ndimage

        values = self.field.array if values is None else values
        away, nearest = ndimage.distance_transform_edt(~self.mask, sampling=self.field.voxel_size, return_indices=True)
        found: np.ndarray = np.where(away <= CONTINUED, values[tuple(nearest)], 0).astype(np.float32)
        return found


def axes_of(affine: np.ndarray) -> np.ndarray:
    """Unit vectors of the voxel axes in scanner coordinates, as columns."""
    columns: np.ndarray = np.asarray(affine, dtype=float)[:3, :3]
    return columns / np.linalg.norm(columns, axis=0)


def starting_places(fixed: Volume, moving: Volume, fixed_mask: np.ndarray, moving_mask: np.ndarray) -> list[np.ndarray]:
    """Matrices from the fixed to the moving world (mm) from which a search starts.

    The centres of the brains lie on each other; the head is not turned, turned as the images are, or turned about one
    of its axes.
    """
    here, there = (
        volume.affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + volume.affine[:3, 3]
        for volume, mask in ((fixed, fixed_mask), (moving, moving_mask))
    )
    angle = np.radians(STARTING_TURN)
    turns = [np.eye(3), axes_of(moving.affine) @ axes_of(fixed.affine).T]
    turns += [_turn(axis, sign * angle) for axis in range(3) for sign in (1, -1)]
    found = []
    for turn in turns:
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = turn, there - turn @ here
        found.append(matrix)
    return found


def most_alike(
    starts: list[np.ndarray], fixed: Volume, moving: Volume, mask: np.ndarray, folder: Path
) -> list[np.ndarray]:
    """The starts at which the images are most alike, the best first."""
    files = [reg.write_affine(start, folder / f"place{number}.mat") for number, start in enumerate(starts)]
    scores = [reg.similarity(fixed, moving, [file], mask) for file in files]
    best = sorted(range(len(starts)), key=lambda number: (-scores[number], number))
    return [starts[number] for number in best[:TRIED]]


def _turn(axis: int, angle: float) -> np.ndarray:
    turn = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn
