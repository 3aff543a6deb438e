"""The dataset is valid BIDS, holds what was simulated, and its truth is true."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qsmxt.bids.acquisition import load_acquisition
from qsmxt.bids.queries import find_units
from qsmxt.bids.validation import find_validator, validate
from qsmxt.errors import InputError, ParameterError
from qsmxt.phantom.anatomical import motion, simulate_anatomical
from qsmxt.phantom.anatomy import INDEX
from qsmxt.phantom.atlas import REGIONS, nuclei
from qsmxt.phantom.dataset import AGE_SLOPES, TRUTH, participants, write_bids
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.phantom.score import score, table
from qsmxt.phantom.template import template

COARSE = {"voxel_size": (6.0, 6.0, 6.0), "echo_times": (0.005, 0.015)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_bids(tmp_path_factory.mktemp("bids") / "demo", 2, **COARSE)


@pytest.fixture(scope="module")
def atlas_home(tmp_path_factory) -> Path:
    return template(tmp_path_factory.mktemp("templateflow"), voxel_size=(4.0, 4.0, 4.0))


def volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error(dataset, tmp_path):
    assert validate(dataset) == []
    assert validate(dataset / TRUTH) == []
    other = write_bids(
        tmp_path / "other",
        2,
        voxel_size=(8.0, 8.0, 8.0),
        echo_times=(0.02,),
        oblique=True,
        sessions=2,
        group_difference=0.02,
    )
    assert validate(other) == []
    assert validate(other / TRUTH) == []
    assert (other / "sub-02" / "ses-2" / "anat" / "sub-02_ses-2_part-phase_T2starw.nii.gz").is_file()
    assert (other / "participants.tsv").read_text().splitlines()[2].endswith("patient")


def test_phase_read_back_is_the_simulated_phase(dataset):
    """Integers with a slope and radians both come back as radians, with the sign of the simulation."""
    for number in (1, 2):
        person = participants(2)[number - 1]
        settings = HeadSettings(**COARSE, seed=number, deformation=number, chi_change=person.chi_change)
        head = simulate(settings)
        (unit,) = find_units(dataset, participants=[f"{number:02d}"]).units
        acquisition = load_acquisition(unit)
        assert tuple(acquisition.echo_times) == COARSE["echo_times"]
        assert acquisition.field_strength == 3.0
        np.testing.assert_allclose(acquisition.grid.b0_direction, (0, 0, 1), atol=1e-6)
        error = np.angle(np.exp(1j * (acquisition.wrapped_phase - head.wrapped_phase)))
        tolerance = 1.1 * np.pi / 4096 if number == 1 else 1e-5
        assert np.abs(error[acquisition.magnitude > 0]).max() < tolerance  # no magnitude, no phase
        assert (acquisition.magnitude > 0).mean() > 0.99
        scale = acquisition.magnitude[0].max() / head.magnitude[0].max()
        np.testing.assert_allclose(acquisition.magnitude, scale * head.magnitude, atol=1.0)
        truth = dataset / TRUTH / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}"
        np.testing.assert_array_equal(volume(truth.with_name(f"{truth.name}_seg-tissue_dseg.nii.gz")), head.labels)
        np.testing.assert_allclose(
            volume(truth.with_name(f"{truth.name}_Chimap.nii.gz")), np.where(head.brain, head.chi, 0), atol=1e-6
        )


def test_siemens_like_integers_and_their_sidecar(dataset):
    path = dataset / "sub-01" / "anat" / "sub-01_echo-1_part-phase_MEGRE.nii.gz"
    image = nib.load(path)
    assert (image.dataobj.slope, image.dataobj.inter) == (2.0, -4096.0)
    raw = np.asarray(image.dataobj.get_unscaled())
    assert raw.min() == 0
    assert raw.max() == 4095
    assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Units"] == "arbitrary"


def test_same_arguments_same_bytes(dataset, tmp_path):
    again = write_bids(tmp_path / "again", 2, **COARSE)
    assert digest(again) == digest(dataset)
    one = write_bids(tmp_path / "one", 1, **COARSE)
    first = {name: value for name, value in digest(dataset).items() if "sub-01" in name}
    assert {name: value for name, value in digest(one).items() if "sub-01" in name} == first


def test_oblique_affine_points_b0_aslant(tmp_path):
    root = write_bids(tmp_path / "tilted", 1, voxel_size=(8.0, 8.0, 8.0), echo_times=(0.01, 0.02), oblique=True)
    (unit,) = find_units(root).units
    b0 = load_acquisition(unit).grid.b0_direction
    np.testing.assert_allclose(np.abs(b0), (0, np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))), atol=1e-5)
    anatomical = nib.load(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    np.testing.assert_allclose(anatomical.affine[:3, :3], 8 * np.eye(3), atol=1e-5)


def test_participants_age_and_effects():
    people = participants(40, seed=3, group_difference=0.02)
    assert participants(7, seed=3)[2].age == people[2].age
    assert all(25 <= person.age <= 75 for person in people)
    for person in people:
        change = dict(person.chi_change)
        for name, slope in AGE_SLOPES:
            assert change[name] == pytest.approx(slope * (person.age - 50))
        assert change.get("substantia-nigra", 0.0) == (0.02 if person.group == "patient" else 0.0)
    assert sum(person.group == "patient" for person in people) == 20
    assert {person.sex for person in people} == {"F", "M"}


def test_age_changes_the_truth(tmp_path):
    root = write_bids(tmp_path, 1, **COARSE, sessions=2)
    folder = root / TRUTH / "sub-01" / "ses-1" / "anat"
    chi = volume(folder / "sub-01_ses-1_Chimap.nii.gz")
    labels = volume(folder / "sub-01_ses-1_seg-tissue_dseg.nii.gz")
    settings = HeadSettings(**COARSE, seed=1, deformation=1)
    plain, more = (simulate(dataclasses.replace(settings, chi_change=c)).chi for c in ((), (("putamen", 0.1),)))
    share = (more - plain) / 0.1  # of each voxel that is putamen
    inside = (labels == INDEX["putamen"]) & (share > 0.5)
    assert inside.sum() > 10
    change = 0.0006 * (participants(1)[0].age - 50)
    assert change != 0
    assert (chi - plain)[inside].sum() == pytest.approx(change * share[inside].sum(), rel=0.05)
    # sessions repeat the anatomy, not the noise
    other = root / TRUTH / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_Chimap.nii.gz"
    np.testing.assert_array_equal(volume(other), chi)
    phases = [
        volume(root / "sub-01" / f"ses-{n}" / "anat" / f"sub-01_ses-{n}_echo-1_part-phase_MEGRE.nii.gz") for n in (1, 2)
    ]
    assert (phases[0] != phases[1]).mean() > 0.5


def test_motion_between_the_scans_is_recorded(dataset):
    sidecar = json.loads((dataset / TRUTH / "sub-01" / "anat" / "sub-01_space-T1w_seg-nuclei_dseg.json").read_text())
    matrix = np.array(sidecar["MotionToGradientEcho"])
    assert np.abs(matrix - np.eye(4)).max() > 1
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert sidecar["SpatialReference"] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_tissue_moves_between_the_scans_as_the_matrix_says(tilt):
    """Centres of nuclei in the T1-weighted scan, moved by the matrix, are those in the gradient echo."""
    settings = HeadSettings(voxel_size=(3.0, 3.0, 3.0), echo_times=(0.01,), deformation=3, tilt=tilt, oversampling=1)
    moved = simulate_anatomical(settings, (3.0, 3.0, 3.0), motion((8, -5, 6), (4, -6, 5)))
    head = simulate(settings)
    sided = nuclei(head.labels, (3.0, 3.0, 3.0), settings.subject)
    for region in REGIONS[:6]:
        centres = [
            affine @ [*np.argwhere(volume_ == region.index).mean(axis=0), 1]
            for volume_, affine in ((moved.nuclei, moved.affine), (sided, head.affine))
        ]
        np.testing.assert_allclose((moved.to_gre @ centres[0])[:3], centres[1][:3], atol=0.8)


def test_motion_matrix_turns_the_right_way():
    np.testing.assert_allclose(motion((90, 0, 0), (1, 2, 3)) @ [0, 1, 0, 1], [1, 2, 4, 1], atol=1e-12)
    np.testing.assert_allclose(motion((0, 90, 0), (0, 0, 0)) @ [0, 0, 1, 1], [1, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(motion((0, 0, 90), (0, 0, 0)) @ [1, 0, 0, 1], [0, 1, 0, 1], atol=1e-12)


@pytest.mark.parametrize("deformation", [None, 2])
def test_anatomical_scan_without_motion_has_the_anatomy_of_the_gradient_echo(deformation):
    settings = HeadSettings(**COARSE, deformation=deformation, seed=4, tilt=0.0)
    scan, head = simulate_anatomical(settings, (6.0, 6.0, 6.0)), simulate(settings)
    np.testing.assert_array_equal(scan.labels, head.labels)
    np.testing.assert_array_equal(scan.brain, head.brain)
    np.testing.assert_allclose(scan.affine, head.affine)


def test_nuclei_are_on_their_side_and_equally_large():
    head = simulate(HeadSettings(voxel_size=(3.0, 3.0, 3.0), echo_times=(0.01,)))
    sided = nuclei(head.labels, (3.0, 3.0, 3.0))
    assert ((sided > 0) == np.isin(head.labels, [r.tissue for r in REGIONS])).all()
    for left, right in zip(REGIONS[::2], REGIONS[1::2], strict=True):
        assert left.name.removeprefix("Left-") == right.name.removeprefix("Right-")
        centres = [ndimage.center_of_mass(sided == r.index) for r in (left, right)]
        world = [(head.affine @ [*c, 1])[:3] for c in centres]
        assert world[0][0] < 0 < world[1][0]  # RAS: left is negative
        np.testing.assert_allclose(world[0] * [-1, 1, 1], world[1], atol=0.5)
        assert (sided == left.index).sum() == pytest.approx((sided == right.index).sum(), rel=0.05, abs=1)


def test_template_agrees_with_its_atlas(atlas_home):
    stem = "tpl-QSMxTHead_res-01"
    chi = volume(atlas_home / f"{stem}_Chimap.nii.gz")
    brain = volume(atlas_home / f"{stem}_desc-brain_mask.nii.gz")
    labels = volume(atlas_home / f"{stem}_atlas-DeepGrey_dseg.nii.gz")
    rows = (atlas_home / f"{stem}_atlas-DeepGrey_dseg.tsv").read_text().splitlines()
    table_ = {int(index): name for index, name, *_ in (row.split("\t") for row in rows[1:])}
    assert set(np.unique(labels)) - {0} <= set(table_)
    assert table_[13] == "Left-Pallidum"
    assert chi[np.isin(labels, (13, 52))].mean() > 0.08
    assert not chi[brain == 0].any()
    t1w = volume(atlas_home / f"{stem}_T1w.nii.gz")
    assert t1w[brain == 0].max() > 500  # the template keeps its head
    assert not volume(atlas_home / f"{stem}_desc-brain_T1w.nii.gz")[brain == 0].any()
    description = json.loads((atlas_home / "template_description.json").read_text())
    assert description["Identifier"] == "QSMxTHead"
    assert description["res"]["01"]["shape"] == list(chi.shape)
    np.testing.assert_allclose(
        nib.load(atlas_home / f"{stem}_T1w.nii.gz").affine[:3, 3], description["res"]["01"]["origin"]
    )


def write_map(out: Path, dataset: Path, change) -> Path:
    """A derivative whose map is a changed truth."""
    for label in ("01", "02"):
        image = nib.load(dataset / TRUTH / f"sub-{label}" / "anat" / f"sub-{label}_Chimap.nii.gz")
        path = out / f"sub-{label}" / "anat" / f"sub-{label}_Chimap.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(change(image.get_fdata()).astype(np.float32), image.affine), path)
    return out


def test_score_of_the_truth_is_perfect_and_of_a_scaled_map_its_scale(dataset, tmp_path):
    for result in score(dataset, write_map(tmp_path / "true", dataset, lambda chi: chi)):
        assert result.nrmse == pytest.approx(0, abs=1e-3)
        assert result.deep_grey_slope == pytest.approx(1, abs=1e-4)
        assert result.coverage == pytest.approx(1, abs=1e-3)
    scaled = score(dataset, write_map(tmp_path / "scaled", dataset, lambda chi: 0.6 * chi))
    assert [s.name for s in scaled] == ["sub-01", "sub-02"]
    for result in scaled:
        assert result.nrmse == pytest.approx(40, abs=0.1)
        assert result.core_nrmse == pytest.approx(40, abs=0.1)
        assert result.deep_grey_slope == pytest.approx(0.6, abs=1e-3)
    lines = table(scaled).splitlines()
    assert lines[0].split() == ["name", "nrmse", "core_nrmse", "deep_grey_slope", "coverage"]
    assert lines[1].split()[:3] == ["sub-01", "40.0", "40.0"]


def test_score_counts_what_the_map_leaves_out(dataset, tmp_path):
    def halve(chi):
        chi = chi.copy()
        chi[chi.shape[0] // 2 :] = 0
        return chi

    for result in score(dataset, write_map(tmp_path, dataset, halve)):
        brain = volume(dataset / TRUTH / result.name / "anat" / f"{result.name}_desc-brain_mask.nii.gz")
        assert result.coverage == pytest.approx(brain[: len(brain) // 2].sum() / brain.sum(), abs=1e-3)
        assert result.nrmse == pytest.approx(0, abs=1e-3)


def test_score_refuses_what_it_cannot_compare(dataset, tmp_path):
    with pytest.raises(InputError, match="found none"):
        score(dataset, tmp_path)
    with pytest.raises(InputError, match="derivatives/truth"):
        score(tmp_path, tmp_path)
    moved = write_map(tmp_path / "moved", dataset, lambda chi: chi[1:])
    with pytest.raises(InputError, match="shape"):
        score(dataset, moved)
    with pytest.raises(ParameterError, match="subjects"):
        write_bids(tmp_path / "none", 0)
