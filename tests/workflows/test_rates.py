"""Where R2 of a scan comes from."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.spinecho import spin_echo_arrays
from qsmxt.workflows.rates import find_spin_echo

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def dataset(tmp_path):
    """A function that adds images to a dataset with a unit of one session."""

    def add(name, root="raw", **metadata):
        path = tmp_path / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(metadata))
        return path

    phase = add("sub-1/ses-a/anat/sub-1_ses-a_part-phase_T2starw.nii.gz")
    unit = ProcessingUnit({"subject": "1", "session": "a"}, "T2starw", echoes=(EchoFiles(0.02, phase),))
    return unit, add, tmp_path


def test_nothing_is_found_where_nothing_is(dataset):
    unit, add, _ = dataset
    add("sub-1/ses-b/anat/sub-1_ses-b_R2map.nii.gz")
    add("sub-2/ses-a/anat/sub-2_ses-a_R2map.nii.gz")
    assert find_spin_echo(unit, {}) is None


def test_maps_come_before_trains_and_derivatives_before_the_dataset(dataset):
    unit, add, root = dataset
    for echo, time in ((1, 0.03), (2, 0.01), (3, 0.02)):
        add(f"sub-1/ses-a/anat/sub-1_ses-a_echo-{echo}_MESE.nii.gz", EchoTime=time)
    train = find_spin_echo(unit, {})
    assert train.kind == "MESE" and train.echo_times == (0.01, 0.02, 0.03), "in the order of their times"
    assert [path.name.split("_")[2] for path in train.files] == ["echo-2", "echo-3", "echo-1"]
    own = add("sub-1/ses-a/anat/sub-1_ses-a_T2map.nii.gz")
    assert find_spin_echo(unit, {}).files == (own,)
    other = add("sub-1/anat/sub-1_R2map.nii.gz", "maps")
    assert find_spin_echo(unit, {"maps": root / "maps"}).files == (other,)
    add("sub-1/ses-a/anat/sub-1_ses-a_space-MNI_R2map.nii.gz", "maps")
    assert find_spin_echo(unit, {"maps": root / "maps"}).files == (other,), "not one in another space"


@pytest.mark.parametrize(
    ("kind", "value", "unit"),
    [("R2map", 12.5, "1/s"), ("T2map", 0.08, "s"), ("T2map", 80.0, "ms"), ("T2map", 80.0, "")],
)
def test_units_of_maps(tmp_path, kind, value, unit):
    path = tmp_path / f"sub-1_{kind}.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, dtype=np.float32), AFFINE), path)
    (tmp_path / f"sub-1_{kind}.json").write_text(json.dumps({"Units": unit} if unit else {}))
    found = spin_echo_arrays({"kind": kind, "files": [str(path)]}, Volume(np.ones((4, 4, 4)), AFFINE), tmp_path)
    np.testing.assert_allclose(found["r2"], 12.5, rtol=1e-6)


def test_a_map_on_another_grid_is_registered(tmp_path):
    """The head of the map lies 6 mm further left, in voxels of another size."""
    from qsmxt.phantom.head import HeadSettings, simulate

    head = simulate(HeadSettings(voxel_size=(5.0,) * 3, oversampling=1, echo_times=(0.01,)))
    rate = np.where(head.brain, 10 + 5 * (head.labels == 8), 0).astype(np.float32)
    moved = head.affine.copy()
    moved[0, 3] -= 6
    path = tmp_path / "sub-1_R2map.nii.gz"
    nib.save(nib.Nifti1Image(rate[:, :, 2:], moved @ _shift(2)), path)
    magnitude = Volume(head.magnitude[0], head.affine)
    found = spin_echo_arrays({"kind": "R2map", "files": [str(path)]}, magnitude, tmp_path)["r2"]
    inside = head.brain.copy()
    inside[:, :, :4] = False
    assert np.corrcoef(found[inside], rate[inside])[0, 1] > 0.8


def _shift(slices: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix


def test_files_of_the_plan(dataset):
    from qsmxt import config
    from qsmxt.workflows.plan import plan_unit

    unit, add, _ = dataset
    add("sub-1/ses-a/anat/sub-1_ses-a_R2map.nii.gz")
    both = ProcessingUnit(
        unit.entities, "MEGRE", echoes=(unit.echoes[0], EchoFiles(0.03, unit.echoes[0].phase, Path("m")))
    )
    settings = config.load(flags={"outputs": {"separation": True}})
    plan = plan_unit(both, settings)
    assert plan.spin_echo is not None and any("R2 from" in note for note in plan.notes)
    assert plan_unit(both, config.load()).spin_echo is None, "only where it is needed"
