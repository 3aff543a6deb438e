"""The template lies in the middle, aligns better than affine maps, and has the same bytes whatever the order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsmxt import config
from qsmxt.algorithms.template import sampled, sharpened, sharpness
from qsmxt.bids.description import write_bidsignore
from qsmxt.bids.outputs import save_volume
from qsmxt.bids.units import ProcessingUnit
from qsmxt.bids.validation import find_validator, validate
from qsmxt.cli.run import main
from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.external.templates import find_template
from qsmxt.interfaces.registration import Volume, overlap, read_volume, resample, write_affine
from qsmxt.interfaces.template import PrepareScan, sharply
from qsmxt.phantom.anatomical import motion, simulate_anatomical
from qsmxt.phantom.atlas import nuclei, regions_table
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.phantom.template import template
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


#: How the first head lies in its second session.
MOVED = motion((0.0, 0.0, 8.0), (4.0, -3.0, 2.0))


def _write_heads(out, count, voxel, *, twice=False):
    """Maps of deformed heads, named as the participant level names them; the first may have two sessions."""
    scans = [(number, "") for number in range(1, count + 1)]
    for number, session in [(1, "ses-1"), (1, "ses-2"), *scans[1:]] if twice else scans:
        settings = _head_settings(number, voxel)
        head = simulate(settings)
        affine = MOVED @ head.affine if session == "ses-2" else head.affine
        noise = np.random.default_rng(number).normal(0, 0.01, head.chi.shape)
        magnitude = 1000 * np.sqrt((head.magnitude**2).sum(axis=0))
        name = f"sub-{number:02d}" + (f"_{session}" if session else "")
        stem = out.joinpath(*name.split("_")) / "anat" / name
        brain = {"SkullStripped": True}
        for end, array, unit, sidecar in (
            ("Chimap", np.where(head.brain, head.chi + noise, 0), "ppm", brain),
            ("desc-combined_T2starw", magnitude, "arbitrary", {"SkullStripped": False}),
            ("R2starmap", np.where(head.brain, head.r2star, 0), "1/s", brain),
            ("desc-brain_mask", head.brain, "", {"Type": "Brain"}),
            ("seg-nuclei_dseg", nuclei(head.labels, settings.voxel_size, settings.subject), "", {}),
        ):
            path = stem.with_name(f"{stem.name}_{end}.nii.gz")
            save_volume(path, np.asarray(array), affine, unit_label=unit, sidecar=sidecar)
    (out / "seg-nuclei_dseg.tsv").write_text(regions_table())
    content = {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "QSMxT"}]}
    (out / "dataset_description.json").write_text(json.dumps(content))
    (out / "README").write_text("Maps of digital heads with known susceptibility. " * 8)
    write_bidsignore(out)
    return out


def _settings(home=None, **values):
    group = {"affine_iterations": 1, "schedule": (40, 20, 10, 0), **values}
    return config.load(flags={"group": group, "segmentation": {"template_dir": str(home) if home else None}})


def _run(out, work, nprocs=1, home=None, expected=(), **values):
    settings, resources = _settings(home, **values), Resources(nprocs, 8.0)
    assert run_group(out, settings=settings, expected=expected, work_dir=work, resources=resources) == 0


def _units_with_t1w(folder, voxel):
    """The scans of three heads, the first in two sessions, as the source dataset knows them."""
    units = []
    for number, session in ((1, "1"), (1, "2"), (2, ""), (3, "")):
        t1w = simulate_anatomical(_head_settings(number, voxel), (voxel,) * 3)
        name = f"sub-{number:02d}" + (f"_ses-{session}" if session else "")
        path = folder / f"{name}_T1w.nii.gz"
        nib.save(nib.Nifti1Image(t1w.volume, t1w.affine), path)
        entities = {"subject": f"{number:02d}"} | ({"session": session} if session else {})
        units.append(ProcessingUnit(entities, t1w=(path,)))
    return units


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


def _displacement(path, shape):
    """Displacement in a file of ITK, mm to the right, front and top, ``(x, y, z, 3)``."""
    with h5py.File(path) as file:
        values = np.array(file["TransformGroup/1/TransformParameters"])
    return values.reshape(*shape[::-1], 3).transpose(2, 1, 0, 3) * [-1, -1, 1]


def _places(out, cohort):
    """Points of the template's brain, where every scan has them, and their head coordinates there."""
    mask = read_volume(out / f"tpl-{cohort}" / "anat" / f"tpl-{cohort}_label-brain_mask.nii.gz")
    inside = mask.array > 0
    points = np.argwhere(inside) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    subjects, heads = [], []
    for path in sorted(out.glob(f"sub-*/anat/*_from-orig_to-{cohort}_mode-image_xfm.h5")):
        subject = _head_settings(int(path.name[4:6]), 3.0).subject
        field = _displacement(path, inside.shape)
        subjects.append(subject)
        heads.append(subject.at(points + field[inside]))
    return points, subjects, np.array(heads)


def test_nuclei_overlap_more_than_after_affine_maps(made):
    affine, study = _overlap(made, "affine"), _overlap(made, "study")
    assert study > affine + 0.1, (affine, study)


def test_same_anatomy_lies_at_one_point(made):
    """Where the images show structure, in and around the nuclei; white matter is even, and slides unseen."""
    nuclei = read_volume(made / "tpl-study" / "anat" / "tpl-study_seg-nuclei_dseg.nii.gz").array > 0
    spread = {}
    for cohort in ("affine", "study"):
        mask = read_volume(made / f"tpl-{cohort}" / "anat" / f"tpl-{cohort}_label-brain_mask.nii.gz").array > 0
        _, _, heads = _places(made, cohort)
        heads = heads[:, nuclei[mask]]
        spread[cohort] = np.sqrt(((heads - heads.mean(axis=0)) ** 2).sum(axis=-1).mean())
    assert spread["study"] < 0.5 * spread["affine"], spread


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
    image = read_volume(f"{stem}_Chimap.nii.gz")
    inside = chi != 0
    assert json.loads(Path(f"{stem}_Chimap.json").read_text())["Sharpening"] == 0.5
    np.testing.assert_allclose(image.array, sharpened(chi, 0.5, mask=inside), atol=1e-6)
    energies = [sharpness(volume, inside, image.voxel_size) for volume in (chi, image.array)]
    assert energies[1] > 1.05 * energies[0], energies
    pallidum = read_volume(f"{stem}_seg-nuclei_label-LeftPallidum_probseg.nii.gz").array
    truth = simulate(_head_settings(1, 3.0))
    assert chi[pallidum == 1].mean() == pytest.approx(truth.chi[truth.labels == 2].mean(), abs=0.04)
    assert set(np.unique(pallidum)) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_the_template_of_a_cohort_is_one_to_register_to(made):
    found = find_template(None, [], made / "tpl-study")
    assert [path.name for path in (found.magnitude, found.chi, found.brain)] == [
        "tpl-study_T2starw.nii.gz", "tpl-study_Chimap.nii.gz", "tpl-study_label-brain_mask.nii.gz"
    ]  # fmt: skip
    assert [atlas.labels.name for atlas in found.atlases] == ["tpl-study_seg-nuclei_dseg.nii.gz"]


def test_transforms_bring_maps_where_they_were_brought_and_undo_each_other(made):
    scan = made / "sub-02" / "anat" / "sub-02"
    here, there = read_volume(f"{scan}_Chimap.nii.gz"), read_volume(f"{scan}_space-study_Chimap.nii.gz")
    to = [f"{scan}_from-orig_to-study_mode-image_xfm.h5"]
    brought = resample(here, there, to, interpolation="bSpline")
    inside = read_volume(f"{scan}_space-study_desc-brain_mask.nii.gz").array > 0
    assert np.abs(brought[inside] - there.array[inside]).max() < 1e-3
    brain = read_volume(f"{scan}_desc-brain_mask.nii.gz").array > 0
    start = np.argwhere(brain) @ here.affine[:3, :3].T + here.affine[:3, 3]
    back = _displacement(f"{scan}_from-study_to-orig_mode-image_xfm.h5", brain.shape)
    forth = _displacement(f"{scan}_from-orig_to-study_mode-image_xfm.h5", inside.shape)
    points = start + back[brain]
    moved = np.linalg.norm(points - start, axis=1)
    to_voxels = np.linalg.inv(there.affine)
    end = points + sampled(forth, points @ to_voxels[:3, :3].T + to_voxels[:3, 3])
    error = np.linalg.norm(end - start, axis=1)
    assert np.sqrt((error**2).mean()) < 0.3 < 2.0 < moved.mean(), (error.mean(), moved.mean())


def test_rounds_and_members_are_recorded_and_shown(made):
    record = json.loads((made / "logs" / "group" / "tpl-study.json").read_text())
    assert len(record["rounds"]) == 4 and [scan["scan"] for scan in record["scans"]] == [
        f"sub-0{n}" for n in range(1, 5)
    ]
    similar = [r["similarity_guide"] for r in record["rounds"]]
    assert similar[3] > similar[1] + 0.02
    moved = [r["moved_mm"] for r in record["rounds"]]
    assert moved[:2] == [0, 0] and 0 < moved[2] < 3
    page = (made / "group.html").read_text()
    assert page.count("data:image/png;base64,") >= 8 and 'src="http' not in page


def test_provenance_leads_from_the_template_to_the_maps_of_the_scans(made):
    folder = made / "prov/prov-qsmxt"
    read = {end: json.loads(next(folder.glob(f"*_desc-group*_{end}.json")).read_text()) for end in ("act", "ent")}
    activities = {entry["Id"]: entry for entry in read["act"]["Activities"]}
    makers = {entry["AtLocation"]: activities[entry["GeneratedBy"]] for entry in read["ent"]["ProvEntities"]}
    mean = makers["tpl-study/anat/tpl-study_desc-mean_T2starw.nii.gz"]
    scans = [f"bids::sub-0{n}/anat/sub-0{n}_Chimap.nii.gz" for n in range(1, 5)]
    assert set(scans) <= set(mean["Used"]) and mean["Parameters"]["deformable_iterations"] == 2
    assert set(makers["sub-02/anat/sub-02_space-study_Chimap.nii.gz"]["Used"]) & set(scans) == {scans[1]}
    digests = {entry["AtLocation"]: entry.get("Digest") for entry in read["ent"]["ProvEntities"]}
    transform = "sub-02/anat/sub-02_from-orig_to-study_mode-image_xfm.h5"
    assert digests[transform] == {"sha256": hashlib.sha256((made / transform).read_bytes()).hexdigest()}


@pytest.mark.skipif(find_validator() is None, reason="the BIDS validator is not installed")
def test_names_are_valid_bids(made):
    assert validate(made) == []


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Three heads at 6 mm, one in two sessions, from two runs: in either order, by one worker and by two.

    T1-weighted images guide, to the image of a template at first.
    """
    folder = tmp_path_factory.mktemp("twice")
    units = _units_with_t1w(folder, 6.0)
    standard = template(folder / "home", voxel_size=(6.0,) * 3)
    monkeypatch = pytest.MonkeyPatch()
    forwards = module.init_template_wf
    for name, order, nprocs in (("a", 1, 1), ("b", -1, 2)):
        out = _write_heads(folder / name / "out", 3, 6.0, twice=True)
        monkeypatch.setattr(module, "init_template_wf", lambda scans, *more, o=order: forwards(scans[::o], *more))
        names = {"standard": "QSMxTHead", "target": "QSMxTHead"}
        _run(out, folder / name / "work", nprocs, standard.parent, units, deformable_iterations=1, **names)
    monkeypatch.undo()
    return folder / "a" / "out", folder / "b" / "out"


def test_same_bytes_for_any_order_and_number_of_workers(twice):
    files = {
        name: {
            p.relative_to(out): p.read_bytes()
            for p in sorted(out.rglob("*"))
            if p.is_file() and "_desc-run" not in p.name  # which says when
        }
        for name, out in zip("ab", twice, strict=True)
    }
    assert any(path.name.endswith("_xfm.h5") for path in files["a"])
    assert any(path.name == "tpl-cohort_desc-mean_T1w.nii.gz" for path in files["a"])
    assert files["a"].keys() == files["b"].keys()
    assert [str(path) for path, content in files["a"].items() if content != files["b"][path]] == []


def test_template_is_linked_to_a_standard_space(twice):
    stem = twice[0] / "tpl-cohort" / "anat" / "tpl-cohort"
    brain = read_volume(f"{stem}_label-brain_mask.nii.gz")
    (there,) = (twice[0].parents[1] / "home").rglob("*desc-brain_mask.nii.gz")
    standard = read_volume(there)
    moved = resample(standard, brain, [f"{stem}_from-QSMxTHead_to-cohort_mode-image_xfm.h5"]) > 0.5
    unmoved = resample(standard, brain, []) > 0.5
    assert overlap(moved, brain.array > 0) > max(0.9, overlap(unmoved, brain.array > 0))
    back = resample(brain, standard, [f"{stem}_from-cohort_to-QSMxTHead_mode-image_xfm.h5"]) > 0.5
    assert overlap(back, standard.array > 0) > 0.9


def test_sessions_of_a_participant_differ_by_a_rigid_map_only(twice):
    """The second session is the first, turned by 8 degrees and shifted; on the template both are the same."""
    anat = [twice[0] / "sub-01" / f"ses-{n}" / "anat" / f"sub-01_ses-{n}" for n in (1, 2)]
    first, second = (read_volume(f"{stem}_space-cohort_T2starw.nii.gz").array for stem in anat)
    inside = read_volume(f"{anat[0]}_space-cohort_desc-brain_mask.nii.gz").array > 0
    assert np.corrcoef(first[inside], second[inside])[0, 1] > 0.99
    fields = [_displacement(f"{stem}_from-orig_to-cohort_mode-image_xfm.h5", first.shape) for stem in anat]
    affine = read_volume(f"{anat[0]}_space-cohort_T2starw.nii.gz").affine
    points = np.argwhere(inside) @ affine[:3, :3].T + affine[:3, 3]
    places = [points + field[inside] for field in fields]
    expected = places[0] @ MOVED[:3, :3].T + MOVED[:3, 3]
    rest = places[1] - expected
    assert np.sqrt((rest**2).sum(axis=1).mean()) < 1.0, "a sixth of a voxel"
    design = np.column_stack([points, np.ones(len(points))])
    assert np.abs(rest - design @ np.linalg.lstsq(design, rest, rcond=None)[0]).max() < 0.05, "rigid maps have no bend"


def test_t1w_guides_where_it_is_brought_to_the_scan(tmp_path):
    """By the transform that segmentation left, or by one that is found; voxels are coarse, so images are smoothed."""
    settings = _head_settings(1, 6.0)
    head, t1w = simulate(settings), simulate_anatomical(settings, (6.0,) * 3, MOVED)
    images = {"chi": head.chi * head.brain, "combined_magnitude": head.magnitude[0], "mask": head.brain}
    paths = {key: str(tmp_path / f"{key}.nii") for key in images}
    for key, array in images.items():
        nib.save(nib.Nifti1Image(array.astype(np.float32), head.affine), paths[key])
    nib.save(nib.Nifti1Image(t1w.volume, t1w.affine), tmp_path / "t1w.nii")
    given = {"name": "x", "weight": 1.0, "maps": paths, "anatomy": "t1w", "t1w": str(tmp_path / "t1w.nii")}
    found = []
    for rigid in (write_affine(np.linalg.inv(MOVED), tmp_path / "rigid.mat"), ""):
        (tmp_path / rigid[-1:]).mkdir(exist_ok=True)
        state = PrepareScan(code="x", parameters=json.dumps({**given, "rigid": rigid})).compute(tmp_path / rigid[-1:])
        brought, reference = (np.load(state["files"][key]) for key in ("t1w", "reference"))
        assert np.array_equal(brought[head.brain], reference[head.brain])
        found.append(brought)
    unmoved = sharply(Volume(t1w.volume, t1w.affine), Volume(head.t1w, head.affine), [])
    smooth = [gaussian_filter(image, 0.7)[head.brain] for image in (*found, unmoved, head.t1w)]
    alike = [np.corrcoef(image, smooth[-1])[0, 1] for image in smooth]
    assert min(alike[:2]) > alike[2] + 0.1, alike


def _scan(name, tmp_path, *maps, **entities):
    return Scan({"subject": name, **entities}, {key: tmp_path / key for key in maps})


def test_what_a_template_takes_is_said_before(tmp_path, capsys):
    """As many scans, so much time; of what grows with the voxels eight times as much at half their edge."""
    (tmp_path / "bids").mkdir()
    for name in ("sub-1", "sub-2", "sub-3"):
        (tmp_path / name / "anat").mkdir(parents=True)
        for end in ("Chimap", "desc-combined_T2starw")[: 1 if name == "sub-3" else 2]:
            image = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
            nib.save(image, tmp_path / name / "anat" / f"{name}_{end}.nii.gz")
    assert main([str(tmp_path / "bids"), str(tmp_path), "group", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "group: 3 scans" in text and "sub-3: has no combined_magnitude" in text and "of 2 scans" in text
    scans, _ = module.choose_scans(find_cohort(tmp_path))

    def seconds(count, **group):
        group = _settings(**group).group
        return module.estimate_template(scans[:1] * count, group).cpu_seconds - count * module.LINEAR

    assert seconds(2, voxel_size=1.0) == pytest.approx(8 * seconds(2))
    assert seconds(6) == pytest.approx(3 * seconds(2)) and seconds(1) < 0
    assert not (tmp_path / "group.html").exists()


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
    assert module.make_template(tmp_path, cohort, _settings(), *more)["members"] == []
    with pytest.raises(ParameterError, match="letters and digits, found 'my-study'"):
        module.make_template(tmp_path, cohort, _settings(cohort="my-study"), *more)
    with pytest.raises(MissingInputError, match=r"found nothing at nowhere\.nii"):
        module.make_template(tmp_path, cohort, _settings(target="nowhere.nii"), *more)


def test_maps_in_the_space_of_the_template_are_no_scans_of_their_own(made):
    assert [scan.name for scan in find_cohort(made).scans] == [f"sub-0{n}" for n in range(1, 5)]
