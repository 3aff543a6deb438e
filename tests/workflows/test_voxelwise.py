"""Voxel-wise models find a known effect where it is, and say what they cannot do."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from qsmxt import config
from qsmxt.bids.outputs import save_volume
from qsmxt.errors import InputError
from qsmxt.interfaces.permutation import permutation_test
from qsmxt.workflows.voxelwise import run_voxelwise

SHAPE, AFFINE = (10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0])
CUBE = (slice(3, 6),) * 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Maps of 16 people on a template; in a cube those of patients are higher by 0.06 ppm; one has two sessions."""
    out = tmp_path_factory.mktemp("voxels")
    rng = np.random.default_rng(1)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    covariates = {}
    for number in range(16):
        patient, age = number % 2 == 1, float(rng.uniform(20, 70))
        for session in ("_ses-1", "_ses-2") if number == 0 else ("",):
            name = f"sub-{number:02d}{session}"
            chi = rng.normal(0, 0.02, SHAPE) + 0.001 * age
            chi[CUBE] += 0.06 * patient
            stem = out / f"sub-{number:02d}" / "anat" / f"{name}_space-cohort"
            stem.parent.mkdir(parents=True, exist_ok=True)
            for end, array in (("Chimap", np.where(mask, chi, 0)), ("desc-brain_mask", mask)):
                path = stem.with_name(f"{stem.name}_{end}.nii.gz")
                sidecar = {"SkullStripped": True, "SpatialReference": "bids::tpl-cohort"}
                save_volume(path, array, AFFINE, unit_label="ppm", sidecar=sidecar)
            covariates[name] = {"group": "patient" if patient else "control", "age": age}
    return out, covariates


def test_a_group_difference_is_found_in_its_place_and_nowhere_else(cohort):
    out, covariates = cohort
    values = {"voxelwise": True, "permutations": 40, "models": ("chi ~ group + age", "t2star ~ age"), "smoothing": 2.0}
    group = config.load(flags={"group": values}).group
    rows = {row["term"]: row for row in run_voxelwise(out, list(covariates), covariates, group)}
    assert rows.keys() == {"group[T.patient]", "age"} and all(row["participants"] == 16 for row in rows.values())
    stem = out / "tpl-cohort" / "anat" / "tpl-cohort_desc-model1groupTpatient_stat"
    p = np.asanyarray(nib.load(f"{stem}-p_statmap.nii.gz").dataobj)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[CUBE] = True
    near = np.zeros(SHAPE, dtype=bool)
    near[2:7, 2:7, 2:7] = True
    assert (p[inside] < 0.05).mean() > 0.9 and not (p[~near] < 0.05).any()
    assert p.min() == pytest.approx(1 / 41)
    row = rows["group[T.patient]"]
    assert inside[int(row["x"] / 2), int(row["y"] / 2), int(row["z"] / 2)] and row["t"] > 5
    assert row["volume_mm3"] == pytest.approx(8 * (p < 0.05).sum())
    assert json.loads((out / f"{stem}-t_statmap.json").read_text())["Permutations"] == 40
    assert rows["age"]["p"] < 0.05 and rows["age"]["volume_mm3"] > 0.5 * 8**4


def test_bad_designs_are_named():
    mask, design = np.ones((2, 2, 2), dtype=bool), np.column_stack([np.arange(8.0), 2 * np.arange(8.0)])
    with pytest.raises(InputError, match="terms can be told apart"):
        permutation_test(np.zeros((8, 8)), mask, AFFINE, design, 0)
    with pytest.raises(InputError, match="expected at least 6 participants, found 5"):
        permutation_test(np.zeros((5, 8)), mask, AFFINE, design[:5], 0)
    with pytest.raises(InputError, match="expected 8 x 8 values"):
        permutation_test(np.zeros((8, 7)), mask, AFFINE, design, 0)
