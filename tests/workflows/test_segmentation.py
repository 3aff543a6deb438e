"""Segmentation of digital heads by the whole command, and what is said before anything is computed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.algorithms.statistics.regions import region_statistics
from qsmxt.bids.units import ProcessingUnit
from qsmxt.bids.validation import validate
from qsmxt.cli.run import main
from qsmxt.config import SegmentationSettings
from qsmxt.errors import MissingInputError, MissingProgramError, ParameterError
from qsmxt.external.templates import find_template
from qsmxt.geometry import Grid
from qsmxt.interfaces import registration
from qsmxt.interfaces.registration import overlap
from qsmxt.interfaces.segmentation import OUTPUTS, Registration, SegmentRegions
from qsmxt.phantom.anatomical import simulate_anatomical
from qsmxt.phantom.dataset import TRUTH, write_bids
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.phantom.template import template
from qsmxt.workflows.estimate import Size
from qsmxt.workflows.plan import OUTPUTS as unit_outputs
from qsmxt.workflows.segmentation import (
    SCHEDULES,
    SegmentationPlan,
    choose_t1w,
    estimate_segmentation,
    existing,
    plan_segmentation,
)

#: A quick reconstruction: what is tested here comes after it.
QUICK = ["--skip-bids-validation", "--nprocs", "1", "--segmentation", "--seg-fast", "--inversion", "tkd"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "bids"
    return write_bids(root, 1, voxel_size=(3.0,) * 3, echo_times=(0.006, 0.014), deformation_amplitude=4.0)


@pytest.fixture(scope="module")
def segmented(dataset, tmp_path_factory):
    """Output of the command with a lesion that somebody drew."""
    folder = tmp_path_factory.mktemp("run")
    home = template(folder / "home", voxel_size=(2.0,) * 3).parent
    drawn = folder / "drawn" / "sub-01" / "anat"
    drawn.mkdir(parents=True)
    truth = nib.load(dataset / TRUTH / "sub-01/anat/sub-01_seg-nuclei_dseg.nii.gz")
    putamen = (np.asanyarray(truth.dataobj) == 12).astype(np.uint8)
    nib.save(nib.Nifti1Image(putamen, truth.affine), drawn / "sub-01_label-lesion_roi.nii.gz")
    nib.save(nib.Nifti1Image(putamen * np.float32(7), truth.affine), drawn / "sub-01_desc-my_MTRmap.nii.gz")
    (drawn / "sub-01_desc-my_MTRmap.json").write_text('{"Units": "%"}')
    command = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), *QUICK]
    command += ["--template-dir", str(home), "--output-spaces", "T1w", "QSMxTHead", "-d", str(folder / "drawn")]
    assert main(command) == 0
    return folder / "out"


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


def test_nuclei_are_found_in_both_spaces(dataset, segmented):
    """At 3 mm the small nuclei are a handful of voxels; the large ones must agree."""
    anat, truth = segmented / "sub-01/anat", dataset / TRUTH / "sub-01/anat"
    for space in ("", "space-T1w_"):
        found, affine = load(anat / f"sub-01_{space}atlas-DeepGrey_dseg.nii.gz")
        true, expected = load(truth / f"sub-01_{space}seg-nuclei_dseg.nii.gz")
        assert np.allclose(affine, expected, atol=1e-4)
        dice = {index: overlap(found == index, true == index) for index in (10, 49, 11, 50, 12, 51, 13, 52)}
        assert np.mean(list(dice.values())) > 0.8 and min(dice.values()) > 0.75, (space, dice)
        small = np.isin(found, (27, 59, 30001, 30002, 30003, 30004))
        assert overlap(small, np.isin(true, (27, 59, 30001, 30002, 30003, 30004))) > 0.65


def test_the_table_is_made_of_the_saved_map(segmented):
    anat = segmented / "sub-01/anat"
    chi, affine = load(anat / "sub-01_Chimap.nii.gz")
    labels, _ = load(anat / "sub-01_atlas-DeepGrey_dseg.nii.gz")
    rows = read(anat / "sub-01_stats.tsv")
    assert rows == read(anat / "sub-01_stats.csv")
    grid = Grid.from_affine(affine, chi.shape)
    inside = {int(row["index"]): row for row in rows if row["map"] == "chi" and row["atlas"] == "DeepGrey"}
    assert len(inside) == 14
    for row in region_statistics({"chi": chi.astype(np.float32)}, labels, grid, mask=chi != 0):
        written = inside[row["index"]]
        for name in ("mean", "median", "sd", "p95"):
            assert float(written[name]) == pytest.approx(row[name], abs=2e-6), (row["region"], name)
        assert float(written["volume_mm3"]) == pytest.approx(27 * row["n_region"], rel=1e-4)
    first = inside[10]
    assert (first["participant_id"], first["session_id"], first["unit"], first["hemisphere"]) == (
        "sub-01",
        "n/a",
        "ppm",
        "L",
    )
    assert first["reference"].startswith("mean")
    described = json.loads((anat / "sub-01_stats.json").read_text())
    assert set(rows[0]) <= set(described)


def test_a_drawn_region_is_measured_like_any_other(dataset, segmented):
    chi, _ = load(segmented / "sub-01/anat/sub-01_Chimap.nii.gz")
    true, _ = load(dataset / TRUTH / "sub-01/anat/sub-01_seg-nuclei_dseg.nii.gz")
    (row,) = [
        r for r in read(segmented / "sub-01/anat/sub-01_stats.tsv") if r["atlas"] == "lesion" and r["map"] == "chi"
    ]
    assert row["region"] == "lesion" and int(row["n_voxels"]) == (true == 12).sum()
    assert float(row["mean"]) == pytest.approx(chi[true == 12].mean(), abs=1e-6)
    (row,) = [
        r for r in read(segmented / "sub-01/anat/sub-01_stats.tsv")
        if r["atlas"] == "lesion" and r["map"] == "MTRmap_my"
    ]  # fmt: skip
    assert (float(row["mean"]), float(row["sd"]), row["unit"]) == (7.0, 0.0, "%"), "a map of the user's own"


def test_transforms_quality_and_names(segmented):
    anat = segmented / "sub-01/anat"
    assert sorted(path.name for path in anat.glob("*_xfm.*")) == [
        "sub-01_from-QSMxTHead_to-T1w_mode-image_xfm.h5", "sub-01_from-T1w_to-GRE_mode-image_xfm.mat",
        "sub-01_from-T1w_to-QSMxTHead_mode-image_xfm.h5",
    ]  # fmt: skip
    record = json.loads((segmented / "logs/sub-01/sub-01_MEGRE_segmentation.json").read_text())
    quality = record["statistics"]["registration"]
    assert quality["similarity_gre_t1w"] > 0.6 and quality["overlap_of_brain_masks"] > 0.85 and not record["notes"]
    carried, affine = load(anat / "sub-01_space-QSMxTHead_Chimap.nii.gz")
    expected = nib.load(next((segmented.parent / "home").rglob("*res-01_T1w.nii.gz")))
    assert carried.shape == expected.shape and np.allclose(affine, expected.affine)
    assert validate(segmented) == []


class Run:
    """What registration asks of a run: its arrays."""

    def __init__(self, head):
        magnitude = np.sqrt((head.magnitude**2).sum(axis=0))
        self.affine = head.affine
        self.arrays = {"combined_magnitude": magnitude, "mask": head.brain, "chi": head.chi}

    def load(self, name):
        return self.arrays[name]


def test_runs_of_a_session_share_what_depends_on_the_t1w_alone(tmp_path, monkeypatch):
    """The template is registered to a T1w once, and around the nuclei once too unless susceptibility guides."""
    settings = HeadSettings(voxel_size=(6.0,) * 3, oversampling=1, echo_times=(0.01, 0.02), deformation=1)
    head, home = simulate(settings), find_template(None, [], template(tmp_path / "home", voxel_size=(6.0,) * 3).parent)
    made = []
    call = registration.call
    monkeypatch.setattr(registration, "call", lambda *given: (made.append(given[-1]), call(*given)))
    atlases = [{"name": a.name, "labels": str(a.labels), "table": str(a.table)} for a in home.atlases]
    images = {key: str(getattr(home, key)) for key in ("t1w", "magnitude", "chi", "brain")}
    plan = {
        "resolution": 2.0, "whole": (5, 5, 2, 0), "fine": (2, 2, 0), "notes": [],
        "template": images, "stripped": False, "atlases": atlases,
    }  # fmt: skip

    def steps(name, t1w, channels):
        """Registrations of a run, by the names of their files."""
        made.clear()
        (tmp_path / name).mkdir()
        work = Registration(tmp_path / name, {**plan, "channels": channels, "t1w": str(tmp_path / t1w)}, Run(head))
        work.align_t1w()
        work.align_template(tmp_path / "shared", "code")
        return [step for step in ("rigid", "affine", "whole", "fine") if [p.name for p in made].count(step) == 1]

    t1w = simulate_anatomical(settings, settings.voxel_size)
    for name, factor in (("first.nii", 1), ("second.nii", 2)):
        nib.save(nib.Nifti1Image(t1w.volume * np.float32(factor), t1w.affine), tmp_path / name)
    everything = ["rigid", "affine", "whole", "fine"]
    assert steps("run-1", "first.nii", "auto") == everything
    assert steps("run-2", "first.nii", "auto") == ["rigid", "fine"]
    assert steps("run-3", "first.nii", "anatomy") == ["rigid", "fine"]
    assert steps("run-4", "first.nii", "anatomy") == ["rigid"]
    assert steps("run-5", "second.nii", "anatomy") == everything


def test_without_t1w_and_with_labels_that_exist(dataset, tmp_path):
    """Given the true labels, no registration is needed and the table holds their means."""
    bids = tmp_path / "bids"
    shutil.copytree(dataset, bids, ignore=shutil.ignore_patterns("derivatives", "*T1w*"))
    command = [str(bids), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), *QUICK]
    assert main([*command, "--seg-method", "precomputed", "-d", f"truth={dataset / TRUTH}"]) == 0
    anat = tmp_path / "out/sub-01/anat"
    assert not list(anat.glob("*space-*")) and not list(anat.glob("*xfm*"))
    record = json.loads((tmp_path / "out/logs/sub-01/sub-01_MEGRE_segmentation.json").read_text())
    assert "no T1-weighted image" in record["notes"][0]
    chi, _ = load(anat / "sub-01_Chimap.nii.gz")
    true, _ = load(dataset / TRUTH / "sub-01/anat/sub-01_seg-nuclei_dseg.nii.gz")
    rows = [row for row in read(anat / "sub-01_stats.tsv") if row["atlas"] == "nuclei" and row["map"] == "chi"]
    assert [row["region"] for row in rows[:2]] == ["Left-Thalamus", "Left-Caudate"]
    for row in rows:
        assert float(row["mean"]) == pytest.approx(chi[true == int(row["index"])].mean(), abs=1e-6)


def test_every_output_of_a_unit_can_be_measured():
    assert tuple(unit_outputs) == OUTPUTS
    traits = SegmentRegions().inputs.traits()
    assert {f"{kind}_{name}" for kind in ("record", "fingerprint") for name in OUTPUTS} <= traits.keys()


def unit(*t1w: str, session: str | None = None) -> ProcessingUnit:
    entities = {"subject": "1"} | ({"session": session} if session else {})
    return ProcessingUnit(entities, t1w=tuple(Path(name) for name in t1w))


def plan(tmp_path, unit=None, derivatives=None, **settings):
    unit = unit or ProcessingUnit({"subject": "1"})
    return plan_segmentation(unit, SegmentationSettings(**settings), tmp_path, derivatives or {}, tmp_path / "work")


def test_time_of_registration_is_planned():
    """The quick schedule takes less, a box at half the resolution an eighth, and nothing to register no time."""
    size = Size(8_000_000, 4)

    def seconds(t1w="x", template=True, resolution=2.0, fine=(0, 0, 10)):
        values = {"t1w": t1w, "template": {} if template else None, "resolution": resolution, "fine": fine}
        return estimate_segmentation(SegmentationPlan(values, ()), size)["register_anatomy"].cpu_seconds

    (default, _, steps), (fast, _, quick) = SCHEDULES["default"], SCHEDULES["fast"]
    assert seconds(resolution=fast, fine=quick) < seconds(resolution=default, fine=steps)
    box = [seconds(resolution=resolution) - seconds(fine=(0, 0, 0)) for resolution in (2.0, 4.0)]
    assert box[0] == pytest.approx(8 * box[1]) and seconds(None, False) < 1 < seconds(template=False)


def test_choice_among_t1w_images():
    assert choose_t1w(unit()) == (None, [])
    chosen, notes = choose_t1w(unit("sub-1_run-1_T1w.nii", "sub-1_run-2_T1w.nii"))
    assert chosen == Path("sub-1_run-1_T1w.nii") and "2 T1-weighted images" in notes[0]
    chosen, notes = choose_t1w(unit("sub-1_ses-a_T1w.nii", session="b"))
    assert chosen is not None and "another one" in notes[0]


def test_missing_things_are_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingInputError, match=r"template folder .*nowhere"):
        plan(tmp_path, template_dir=str(tmp_path / "nowhere"))
    with pytest.raises(MissingProgramError, match="mri_synthseg"):
        plan(tmp_path, seg_method="synthseg")
    with pytest.raises(MissingInputError, match="expected a dseg image of sub-1 in --derivatives"):
        plan(tmp_path, seg_method="precomputed")
    with pytest.raises(ParameterError, match="expected one template, found A, B"):
        plan(tmp_path, atlas=("A:X", "B:Y"))


def test_which_existing_labels_belong_to_a_unit(tmp_path):
    names = (
        "sub-1_seg-x_dseg", "sub-1_run-1_seg-y_dseg", "sub-1_run-2_seg-z_dseg", "sub-1_space-T1w_desc-aseg_dseg",
        "sub-1_space-MNI152NLin6Asym_seg-w_dseg", "sub-1_label-lesion_roi",
    )  # fmt: skip
    for name in names:
        (tmp_path / "sub-1" / "anat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub-1" / "anat" / f"{name}.nii.gz").write_text("")
    (tmp_path / "seg-x_dseg.tsv").write_text("index\tname\n")
    own = ProcessingUnit({"subject": "1", "run": "1"})
    found = {item["name"]: item for item in existing(own, {"a": tmp_path}, "dseg")}
    assert {name: item["space"] for name, item in found.items()} == {"x": "gre", "y": "gre", "aseg": "T1w"}
    assert found["x"]["table"] == str(tmp_path / "seg-x_dseg.tsv") and found["aseg"]["table"].endswith("freesurfer.tsv")
    assert [item["name"] for item in existing(own, {"a": tmp_path}, "roi")] == ["lesion"]
