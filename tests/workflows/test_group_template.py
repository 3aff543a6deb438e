"""The template lies in the middle, aligns better than affine maps, and has the same bytes whatever the order."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from qsmxt import config
from qsmxt.bids.description import write_bidsignore
from qsmxt.bids.outputs import save_volume
from qsmxt.bids.validation import find_validator, validate
from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.interfaces.registration import read_volume, resample
from qsmxt.phantom.atlas import nuclei, regions_table
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.workflows import template as module
from qsmxt.workflows.cohort import Cohort, Scan, find_cohort
from qsmxt.workflows.group import run_group
from qsmxt.workflows.resources import Resources

AMPLITUDE = 2.5


def _head_settings(number, voxel):
    return HeadSettings(
        voxel_size=(voxel,) * 3, oversampling=1, echo_times=(0.01, 0.02), seed=number, deformation=number,
        deformation_amplitude=AMPLITUDE,
    )  # fmt: skip


def _write_heads(out, count, voxel):
    """Maps of deformed heads, named as the participant level names them."""
    for number in range(1, count + 1):
        settings = _head_settings(number, voxel)
        head = simulate(settings)
        noise = np.random.default_rng(number).normal(0, 0.01, head.chi.shape)
        magnitude = 1000 * np.sqrt((head.magnitude**2).sum(axis=0))
        stem = out / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}"
        brain = {"SkullStripped": True}
        for end, array, unit, sidecar in (
            ("Chimap", np.where(head.brain, head.chi + noise, 0), "ppm", brain),
            ("desc-combined_T2starw", magnitude, "arbitrary", {"SkullStripped": False}),
            ("R2starmap", np.where(head.brain, head.r2star, 0), "1/s", brain),
            ("desc-brain_mask", head.brain, "", {"Type": "Brain"}),
            ("seg-nuclei_dseg", nuclei(head.labels, settings.voxel_size, settings.subject), "", {}),
        ):
            path = stem.with_name(f"{stem.name}_{end}.nii.gz")
            save_volume(path, np.asarray(array), head.affine, unit_label=unit, sidecar=sidecar)
    (out / "seg-nuclei_dseg.tsv").write_text(regions_table())
    content = {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "QSMxT"}]}
    (out / "dataset_description.json").write_text(json.dumps(content))
    (out / "README").write_text("Maps of digital heads with known susceptibility. " * 8)
    write_bidsignore(out)
    return out


def _settings(**values):
    return config.load(flags={"group": {"affine_iterations": 1, "schedule": (40, 20, 10, 0), **values}})


def _run(out, work, nprocs=1, **values):
    assert run_group(out, settings=_settings(**values), work_dir=work, resources=Resources(nprocs, 8.0)) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four heads at 3 mm after affine maps only, and after two deformable rounds."""
    folder = tmp_path_factory.mktemp("template")
    out = _write_heads(folder / "out", 4, 3.0)
    _run(out, folder / "work", deformable_iterations=0, cohort="affine")
    _run(out, folder / "work", deformable_iterations=2, cohort="study")
    return out


def _overlap(out, cohort):
    """Mean Dice of the nuclei over all pairs of scans on the template."""
    labels = [read_volume(p).array for p in sorted(out.glob(f"sub-*/anat/*_space-{cohort}_seg-nuclei_dseg.nii.gz"))]
    found = []
    for i, first in enumerate(labels):
        for second in labels[:i]:
            for index in np.unique(first)[1:]:
                a, b = first == index, second == index
                found.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return np.mean(found)


def _places(out, cohort):
    """Points of the template's brain, where every scan has them, and their head coordinates there."""
    import h5py

    mask = read_volume(out / f"tpl-{cohort}" / "anat" / f"tpl-{cohort}_label-brain_mask.nii.gz")
    inside = mask.array > 0
    points = np.argwhere(inside) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    subjects, heads = [], []
    for path in sorted(out.glob(f"sub-*/anat/*_from-orig_to-{cohort}_mode-image_xfm.h5")):
        subject = _head_settings(int(path.name[4:6]), 3.0).subject
        with h5py.File(path) as file:
            values = np.array(file["TransformGroup/1/TransformParameters"])
        field = values.reshape(*inside.shape[::-1], 3).transpose(2, 1, 0, 3) * [-1, -1, 1]
        subjects.append(subject)
        heads.append(subject.at(points + field[inside]))
    return points, subjects, np.array(heads)


def test_nuclei_overlap_more_than_after_affine_maps(made):
    affine, study = _overlap(made, "affine"), _overlap(made, "study")
    assert study > affine + 0.1, (affine, study)


@pytest.mark.xfail(reason="not yet shown at 3 mm with short schedules", strict=False)
def test_same_anatomy_lies_at_one_point(made):
    spread = {}
    for cohort in ("affine", "study"):
        _, _, heads = _places(made, cohort)
        spread[cohort] = np.sqrt(((heads - heads.mean(axis=0)) ** 2).sum(axis=-1).mean())
    assert spread["study"] < 0.8 * spread["affine"], spread


def test_template_lies_where_the_anatomy_lies_on_average(made):
    points, subjects, heads = _places(made, "study")
    true = np.mean([subject.inverse(heads.mean(axis=0)) for subject in subjects], axis=0)
    assert np.linalg.norm((true - points).mean(axis=0)) < 0.5
    assert np.sqrt(((true - points) ** 2).sum(axis=1).mean()) < 1.0


def test_means_are_means_and_the_spread_is_theirs(made):
    stem = made / "tpl-study" / "anat" / "tpl-study"
    maps = np.stack([read_volume(p).array for p in sorted(made.glob("sub-*/anat/*_space-study_T2starw.nii.gz"))])
    for desc, expected in (("mean", maps.mean(0)), ("median", np.median(maps, 0)), ("std", maps.std(0, ddof=1))):
        found = read_volume(f"{stem}_desc-{desc}_T2starw.nii.gz").array
        np.testing.assert_allclose(found[expected != 0], expected[expected != 0], atol=2e-5)
    chi = read_volume(f"{stem}_desc-mean_Chimap.nii.gz").array
    pallidum = read_volume(f"{stem}_seg-nuclei_label-LeftPallidum_probseg.nii.gz").array
    truth = simulate(_head_settings(1, 3.0))
    assert chi[pallidum == 1].mean() == pytest.approx(truth.chi[truth.labels == 2].mean(), abs=0.04)
    assert set(np.unique(pallidum)) <= {0.0, 0.25, 0.5, 0.75, 1.0}


@pytest.mark.xfail(reason="not yet shown at 3 mm with short schedules", strict=False)
def test_transforms_of_both_directions_bring_maps_where_they_were_brought(made):
    scan = made / "sub-02" / "anat" / "sub-02"
    here, there = read_volume(f"{scan}_Chimap.nii.gz"), read_volume(f"{scan}_space-study_Chimap.nii.gz")
    brought = resample(here, there, [f"{scan}_from-orig_to-study_mode-image_xfm.h5"])
    inside = read_volume(f"{scan}_space-study_desc-brain_mask.nii.gz").array > 0
    assert np.corrcoef(brought[inside], there.array[inside])[0, 1] > 0.98
    back = resample(there, here, [f"{scan}_from-study_to-orig_mode-image_xfm.h5"])
    brain = read_volume(f"{scan}_desc-brain_mask.nii.gz").array > 0
    unmoved = resample(there, here, [])
    found, without = (np.corrcoef(image[brain], here.array[brain])[0, 1] for image in (back, unmoved))
    assert found > 0.75 and found > without + 0.2, (found, without)


def test_rounds_and_members_are_recorded_and_shown(made):
    record = json.loads((made / "logs" / "group" / "template.json").read_text())
    assert len(record["rounds"]) == 4 and [scan["scan"] for scan in record["scans"]] == [
        f"sub-0{n}" for n in range(1, 5)
    ]
    similar = [r["similarity_guide"] for r in record["rounds"]]
    assert similar[3] > similar[1] + 0.02
    moved = [r["moved_mm"] for r in record["rounds"]]
    assert moved[:2] == [0, 0] and 0 < moved[2] < 3
    page = (made / "group.html").read_text()
    assert page.count("data:image/png;base64,") >= 8 and 'src="http' not in page


@pytest.mark.skipif(find_validator() is None, reason="the BIDS validator is not installed")
def test_names_are_valid_bids(made):
    assert validate(made) == []


def test_same_bytes_for_any_order_and_number_of_workers(tmp_path, monkeypatch):
    files = {}
    forwards = module.init_template_wf
    for name, order, nprocs in (("a", 1, 1), ("b", -1, 2)):
        out = _write_heads(tmp_path / name / "out", 3, 6.0)
        monkeypatch.setattr(module, "init_template_wf", lambda scans, *more, o=order: forwards(scans[::o], *more))
        _run(out, tmp_path / name / "work", nprocs, deformable_iterations=1)
        files[name] = {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    assert any(path.name.endswith("_xfm.h5") for path in files["a"])
    assert files["a"].keys() == files["b"].keys()
    assert [str(path) for path, content in files["a"].items() if content != files["b"][path]] == []


def _scan(name, tmp_path, *maps, **entities):
    return Scan({"subject": name, **entities}, {key: tmp_path / key for key in maps})


def test_one_scan_stands_for_a_session_and_the_rest_are_named(tmp_path, caplog):
    full = ("chi", "combined_magnitude")
    scans = (
        _scan("1", tmp_path, *full, acquisition="x"), _scan("1", tmp_path, *full, acquisition="a"),
        _scan("2", tmp_path, *full, acquisition="x"), _scan("3", tmp_path, "chi", acquisition="x"),
    )  # fmt: skip
    chosen, left_out = module.choose_scans(Cohort(scans))
    assert [scan.name for scan in chosen] == ["sub-1_acq-x", "sub-2_acq-x"]
    assert left_out == {
        "sub-3_acq-x": "has no combined_magnitude", "sub-1_acq-a": "sub-1_acq-x stands for the session",
    }  # fmt: skip


def test_too_few_scans_and_bad_settings(tmp_path, caplog):
    cohort, more = Cohort((_scan("1", tmp_path, "chi", "combined_magnitude"),)), (tmp_path, Resources(1, 1.0))
    monkey = logging.getLogger("qsmxt")
    monkey.propagate = True
    assert module.make_template(tmp_path, cohort, _settings(), *more)["members"] == []
    with pytest.raises(ParameterError, match="letters and digits, found 'my-study'"):
        module.make_template(tmp_path, cohort, _settings(cohort="my-study"), *more)
    with pytest.raises(MissingInputError, match=r"found nothing at nowhere\.nii"):
        module.make_template(tmp_path, cohort, _settings(target="nowhere.nii"), *more)


def test_maps_in_the_space_of_the_template_are_no_scans_of_their_own(made):
    assert [scan.name for scan in find_cohort(made).scans] == [f"sub-0{n}" for n in range(1, 5)]
