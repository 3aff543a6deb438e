"""Orientations of a digital head: found by registration, and one map of all of them that is better than any alone."""

from __future__ import annotations

import json
import math

import nibabel as nib
import numpy as np
import pytest

from qsmxt.algorithms.inversion.tkd import tkd
from qsmxt.algorithms.metrics import nrmse
from qsmxt.errors import InputError
from qsmxt.interfaces.methods import RunMethods
from qsmxt.interfaces.orientation import RegisterOrientations, check_turns, starting_places
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.state import State
from qsmxt.phantom.head import HeadSettings, simulate

TILTS = (0.0, math.radians(25), math.radians(-25))
NOISE = 0.0005


@pytest.fixture(scope="module")
def heads():
    common = {"voxel_size": (5.0,) * 3, "oversampling": 1, "echo_times": (0.01,), "phase_offset": False, "shim": False}
    return [simulate(HeadSettings(tilt=tilt, repetition=n, **common)) for n, tilt in enumerate(TILTS, 1)]


@pytest.fixture(scope="module")
def state(heads, tmp_path_factory):
    """What registration makes of the derivatives of three acquisitions."""
    folder = tmp_path_factory.mktemp("orientations")
    rng = np.random.default_rng(0)
    entries = []
    for number, head in enumerate(heads):
        field = (head.local_field + NOISE * rng.standard_normal(head.chi.shape)) * head.brain
        volumes = {"magnitude": head.magnitude[0], "field": field, "mask": head.brain.astype(np.uint8)}
        entry = {"name": f"acq-{number}", "noise": None}
        for key, values in volumes.items():
            path = folder / f"{key}{number}.nii.gz"
            nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.float32), head.affine), path)
            entry[key] = str(path)
        entries.append(entry)
    node = RegisterOrientations(acquisitions=json.dumps(entries), fingerprint="files", code="code")
    node.execute(str(folder))
    return State.from_json(node._results["state"])


def test_directions_of_b0_are_found(state):
    expected = [(0, -math.sin(tilt), math.cos(tilt)) for tilt in TILTS]
    found = state.load("b0_directions")
    angles = np.degrees(np.arccos(np.clip(np.abs((found * expected).sum(axis=1)), 0, 1)))
    assert angles.max() < 0.5
    np.testing.assert_allclose(state.statistics["orientations"]["turns"], [0, 25, 25], atol=0.5)
    assert "25." in " ".join(state.notes) or "24." in " ".join(state.notes)


def test_one_map_of_all_is_better_than_one_orientation(state, heads, tmp_path):
    plan = {"steps": [{
        "method": "orientation.cosmos", "parameters": {"weight": 6e-5}, "consumes": [], "optional": [],
        "produces": ["orientation_chi"],
    }]}  # fmt: skip
    node = RunMethods(state=state.to_json(), plan=json.dumps(plan), code="code")
    node.execute(str(tmp_path))
    chi = State.from_json(node._results["state"]).load("orientation_chi")
    mask = state.load("mask") & heads[0].brain
    assert mask.sum() > 0.95 * heads[0].brain.sum()
    alone = tkd(heads[0].local_field, heads[0].brain, heads[0].grid)
    errors = [nrmse(volume, heads[0].chi, mask) for volume in (chi, alone)]
    print("nrmse of three orientations", errors[0], "of one", errors[1])
    assert errors[0] < 15, "5 mm voxels, registered"
    assert errors[0] < 0.5 * errors[1]


def test_repetitions_are_no_orientations():
    with pytest.raises(InputError, match=r"a, b: expected a head turned .* at most 1\.0"):
        check_turns(np.array([0.0, 1.0]), ["a", "b"])


def test_a_search_starts_with_the_brains_on_each_other(heads):
    first, second = (Volume(head.magnitude[0], head.affine) for head in heads[:2])
    for start in starting_places(first, second, heads[0].brain, heads[1].brain):
        centres = [v.affine[:3, :3] @ np.argwhere(h.brain).mean(axis=0) + v.affine[:3, 3]
                   for v, h in ((first, heads[0]), (second, heads[1]))]  # fmt: skip
        np.testing.assert_allclose(start[:3, :3] @ centres[0] + start[:3, 3], centres[1], atol=1e-6)
        np.testing.assert_allclose(start[:3, :3] @ start[:3, :3].T, np.eye(3), atol=1e-9)
