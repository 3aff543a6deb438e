"""The whole command on small digital heads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.cli.run import exit_code, format_table, main
from qsmxt.phantom.anatomy import INDEX
from qsmxt.workflows.watch import Outcome
from tests.heads import contents, head, write_description, write_spin_echo, write_subject

PINNED = Path(__file__).parents[1] / "outputs"

#: A mask that is quick and right for coarse heads.
MASK = ["--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain"]

#: R2 of the spin echoes of the first subject, 1/s.
SPIN_ECHO_RATE = 10.0

#: Files that say when and how a run was started.
RUN_FILES = ("qsmxt.toml", "desc-run", "resources.tsv")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two subjects that work: several echoes, and one echo in a session."""
    root = tmp_path_factory.mktemp("data") / "bids"
    write_description(root)
    write_subject(root, "1", head())
    write_spin_echo(root, "1", head(), SPIN_ECHO_RATE, (0.01, 0.02, 0.03, 0.04))
    write_subject(root, "2", head(seed=1, echo_times=(0.012,)), session="a")
    return root


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """Output and work folder of a finished run, made in this process."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1", *MASK]
    assert main(arguments) == 0
    return folder


def _run(*arguments):
    command = [sys.executable, "-m", "qsmxt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_exactly_the_pinned_files_are_made(finished):
    made = sorted(contents(finished / "out"))
    assert made == (PINNED / "two_subjects.txt").read_text().split()


@pytest.fixture(scope="module")
def everything(dataset, tmp_path_factory):
    """A finished run that makes all outputs."""
    folder = tmp_path_factory.mktemp("all")
    arguments = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    outputs = ["--r2star", "--t2star", "--swi", "--separation", "--separation-method", "chiseparation"]
    assert main([*arguments, "--skip-bids-validation", *outputs, *MASK]) == 0
    return folder


def test_other_outputs_add_the_pinned_files_and_change_no_map(finished, everything):
    assert sorted(contents(everything / "out")) == (PINNED / "all_outputs.txt").read_text().split()
    maps, more = (contents(folder / "out" / "sub-1" / "anat") for folder in (finished, everything))
    assert {name: more[name] for name in maps} == maps


def test_relaxation_is_the_true_one(everything):
    truth = head()
    found = np.asanyarray(nib.load(everything / "out/sub-1/anat/sub-1_R2starmap.nii.gz").dataobj)
    inside = truth.brain & (truth.r2star < 30)
    error = (found - truth.r2star)[inside]
    assert abs(np.median(error)) < 2, "1/s"


def test_separation_uses_r2_and_has_the_closed_form_beside_it(everything):
    folder = everything / "out/sub-1/anat"

    def get(name):
        return np.asanyarray(nib.load(folder / f"sub-1_{name}.nii.gz").dataobj)

    positive, negative = get("desc-paramagneticClosedForm_Chimap"), get("desc-diamagneticClosedForm_Chimap")
    inside = (positive != 0) | (negative != 0)
    np.testing.assert_allclose(get("R2map")[inside & head().head], SPIN_ECHO_RATE, rtol=0.01)
    size = np.maximum(get("R2starmap") - get("R2map"), 0) / 137
    expected = np.maximum((get("Chimap") + size) / 2, 0)
    np.testing.assert_allclose(positive[inside], expected[inside], atol=1e-5)
    sidecar = json.loads((folder / "sub-1_desc-paramagneticClosedForm_Chimap.json").read_text())
    assert sidecar["EstimationParameters"]["separation.closedform"]["relaxivity"] == 137.0
    assert "spinecho.epg" in sidecar["EstimationParameters"]
    assert not np.array_equal(positive, get("desc-paramagnetic_Chimap"))


def test_nothing_is_made_twice(everything):
    """All contrasts come from the same intermediate arrays."""
    records = [json.loads(path.read_text()) for path in sorted((everything / "out/logs/sub-1").glob("*_MEGRE_*.json"))]
    ran = [step["method"] for record in records if record.get("steps") for step in record["steps"]]
    for name in ("field.joint_fit", "relaxometry.nonlinear", "masking.bet", "unwrapping.romeo"):
        own = [r for r in records if name in [s["method"] for s in r.get("steps", ())]]
        values = {json.dumps([s for s in r["steps"] if s["method"] == name]) for r in own}
        assert len(values) <= 1, name
    assert "relaxometry.nonlinear" in ran
    nodes = [path.name for path in (everything / "work/qsmxt/sub-1_MEGRE").iterdir() if path.is_dir()]
    assert len([name for name in nodes if name in ("field", "mask", "r2star", "chi")]) == 4


@pytest.mark.parametrize("run", ["finished", "everything"])
def test_official_validator_finds_no_error(run, request):
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.exists():
        pytest.skip("bids-validator-deno is not installed")
    out = request.getfixturevalue(run) / "out"
    result = subprocess.run(
        [program, out, "--ignoreWarnings", "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []
    assert result.returncode == 0


def test_maps_lie_on_the_grid_of_their_source_and_end_at_the_mask(finished, dataset):
    source = nib.load(dataset / "sub-1/anat/sub-1_echo-1_part-phase_MEGRE.nii.gz")
    chi = nib.load(finished / "out/sub-1/anat/sub-1_Chimap.nii.gz")
    mask = nib.load(finished / "out/sub-1/anat/sub-1_desc-brain_mask.nii.gz")
    assert chi.shape == source.shape and np.allclose(chi.affine, source.affine)
    assert chi.get_data_dtype() == np.float32 and mask.get_data_dtype() == np.uint8
    outside = np.asanyarray(mask.dataobj) == 0
    assert not np.any(np.asanyarray(chi.dataobj)[outside])


def test_field_is_the_true_one_up_to_a_constant(finished):
    truth = head()
    field = np.asanyarray(nib.load(finished / "out/sub-1/anat/sub-1_desc-totalfield_T2starw.nii.gz").dataobj)
    inside = truth.brain
    error = (field - truth.total_field)[inside]
    error -= np.median(error)
    print(np.median(np.abs(error)), np.std(truth.total_field[inside]))
    assert np.median(np.abs(error)) < 0.02 * np.std(truth.total_field[inside]), "but for voxels that dephase"


def test_sidecars_tell_the_whole_story(finished):
    text = (finished / "out/sub-1/anat/sub-1_Chimap.json").read_text()
    sidecar = json.loads(text)
    assert sidecar["Units"] == "ppm" and len(sidecar["Sources"]) == 6
    stages = {name.split(".")[0] for name in sidecar["EstimationParameters"]}
    assert {"field", "masking", "inversion"} <= stages
    magnitude = json.loads((finished / "out/sub-1/anat/sub-1_desc-combined_T2starw.json").read_text())
    assert "EstimationParameters" not in magnitude, "nothing but the scanner and a sum made it"


def test_provenance_describes_all_that_it_names(everything):
    out = everything / "out"
    parts = [json.loads(path.read_text()) for path in sorted((out / "prov/prov-qsmxt").glob("*.json"))]
    objects = {entry["Id"]: entry for part in parts for entries in part.values() for entry in entries}
    made = {}
    for path in out.glob("sub-*/**/anat/*.json"):
        if maker := json.loads(path.read_text()).get("GeneratedBy"):
            made[f"bids::{path.relative_to(out).as_posix().replace('.json', '.nii.gz')}"] = maker
    assert len(made) >= 15 and set(made.values()) <= objects.keys()
    for entry in objects.values():
        named = {*entry.get("Used", ()), *entry.get("AssociatedWith", ()), *filter(None, [entry.get("GeneratedBy")])}
        unknown = {name for name in named if name not in objects and name not in made}
        assert all((out / name.removeprefix("bids::")).is_file() for name in unknown), unknown


def test_digests_are_those_of_the_files(everything, dataset):
    out, told = everything / "out", {}
    for path in out.glob("sub-*/**/anat/*.nii.gz"):
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        told[path] = json.loads(sidecar.read_text())["Digest"]["sha256"]
    for path in (out / "prov/prov-qsmxt").glob("*_ent.json"):
        for entry in json.loads(path.read_text())["ProvEntities"]:
            if entry["Id"].startswith("bids:raw:"):
                told[dataset / entry["AtLocation"]] = entry["Digest"]["sha256"]
    assert sum(path.is_relative_to(dataset) for path in told) >= 8
    assert told == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in told}


def test_citations_are_those_of_what_ran(finished):
    from qsmxt.registry.catalogue import find
    from qsmxt.reports.bibliography import bibliography

    record = json.loads((finished / "out/logs/sub-1/sub-1_MEGRE_qsm.json").read_text())
    text = (finished / "out/references.txt").read_text()
    keys = {key for step in record["steps"] for key in find(*step["method"].split(".")).references}
    assert keys and all(bibliography()[key].fields["doi"] in text for key in keys)
    assert len(text.splitlines()) == len(keys), "and of nothing else"


def test_page_holds_all_it_shows(finished):
    page = (finished / "out/sub-1.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert 'src="http' not in page and "<script src" not in page and "<link" not in page


def test_two_processes_and_two_threads_give_the_same_bytes(finished, dataset, tmp_path):
    result = _run(
        dataset, tmp_path / "out", "participant", "-w", tmp_path / "work", "--nprocs", 2, "--omp-nthreads", 2,
        "--skip-bids-validation", *MASK,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 done, 0 skipped, 0 failed" in result.stdout
    expected = contents(finished / "out", ignore=(*RUN_FILES, "dataset_description"))
    assert contents(tmp_path / "out", ignore=(*RUN_FILES, "dataset_description")) == expected


def test_saved_settings_repeat_the_run(finished, dataset, tmp_path):
    arguments = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
    saved = str(finished / "out" / "logs" / "qsmxt.toml")
    assert main([*arguments, "--config-file", saved, "--participant-label", "1", "--skip-bids-validation"]) == 0
    assert contents(tmp_path / "out" / "sub-1") == contents(finished / "out" / "sub-1")


def _times(work: Path, node: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in work.glob(f"qsmxt/*/{node}/result_*.pklz")}


@pytest.fixture
def copied(finished, dataset, tmp_path):
    """A finished run that a test may disturb, at the paths where it was made."""
    shutil.copytree(finished / "out", tmp_path / "out")
    shutil.copytree(finished / "work", tmp_path / "work")
    yield finished
    for name in ("out", "work"):
        shutil.rmtree(finished / name)
        shutil.copytree(tmp_path / name, finished / name)


def _again(folder, dataset, *more):
    arguments = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    return main([*arguments, "--skip-bids-validation", *MASK, *more])


def test_second_run_computes_nothing_and_brings_lost_files_back(copied, dataset):
    before = {
        node: _times(copied / "work", node) for node in ("load", "field", "mask", "chi", "write_qsm", "figures_qsm")
    }
    expected = contents(copied / "out", ignore=RUN_FILES)
    lost = copied / "out/sub-1/anat/sub-1_Chimap.nii.gz"
    lost.unlink()
    (copied / "out/sub-2/ses-a/anat/sub-2_ses-a_Chimap.nii.gz").write_bytes(b"half")
    assert _again(copied, dataset) == 0
    assert contents(copied / "out", ignore=RUN_FILES) == expected
    assert {node: _times(copied / "work", node) for node in before} == before


def test_changed_parameter_recomputes_what_depends_on_it_and_nothing_else(copied, dataset):
    before = {node: _times(copied / "work", node) for node in ("load", "field", "mask", "chi")}
    assert _again(copied, dataset, "--inversion", "tkd", "--inversion-tkd-threshold", "0.2") == 0
    after = {node: _times(copied / "work", node) for node in before}
    assert {node for node in before if after[node] != before[node]} == {"chi"}
    sidecar = json.loads((copied / "out/sub-1/anat/sub-1_Chimap.json").read_text())
    assert sidecar["EstimationParameters"]["inversion.tkd"]["threshold"] == 0.2


def test_maps_refer_to_what_was_chosen_and_the_sidecar_says_so(finished, copied, dataset, tmp_path):
    """The mean by default; the fluid that the echoes show; labels of other derivatives."""
    stated, maps = {}, {}

    def read(name: str, out: Path) -> None:
        image = out / "sub-1/anat/sub-1_Chimap.nii.gz"
        stated[name] = json.loads(image.with_name("sub-1_Chimap.json").read_text())["SusceptibilityReference"]
        maps[name] = np.asanyarray(nib.load(image).dataobj)

    read("mean", finished / "out")
    folder = tmp_path / "labels/sub-1/anat"
    folder.mkdir(parents=True)
    white = INDEX["white-matter"]
    nib.save(nib.Nifti1Image(head().labels.astype(np.int16), head().affine), folder / "sub-1_dseg.nii.gz")
    labels = ["--referencing-region-labels", str(white), "-d", f"labels={tmp_path / 'labels'}"]
    for name, words in {"csf": [], "region": labels}.items():
        assert _again(copied, dataset, "--participant-label", "1", "--referencing", name, *words) == 0
        read(name, copied / "out")
        fluid = copied / "out/sub-1/anat/sub-1_desc-csf_mask.nii.gz"
        assert fluid.exists() == (name == "csf"), "what is not made any more goes away"
    assert {name: entry["Method"] for name, entry in stated.items()} == {name: name for name in stated}
    inside = maps["mean"] != 0
    for name in ("csf", "region"):
        moved = stated["mean"]["Offset"] - stated[name]["Offset"]
        np.testing.assert_allclose((maps[name] - maps["mean"])[inside], moved, atol=1e-6)
    assert stated["region"]["Parameters"]["labels"] == [white]
    assert abs(np.median(maps["region"][inside & (head().labels == white)])) < 0.02


def test_changed_input_recomputes_its_unit_only(copied, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "saved")
    before = _times(copied / "work", "chi")
    image = dataset / "sub-1/anat/sub-1_echo-1_part-mag_MEGRE.nii.gz"
    stat = image.stat()
    try:
        loaded = nib.load(image)
        values = np.asanyarray(loaded.dataobj).copy()
        values[values > 0] *= 1.1
        nib.save(nib.Nifti1Image(values, loaded.affine), image)
        import os

        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert _again(copied, dataset) == 0
        after = _times(copied / "work", "chi")
        assert {Path(path).parts[-3] for path in after if after[path] != before[path]} == {"sub-1_MEGRE"}
    finally:
        shutil.copy2(tmp_path / "saved/sub-1/anat" / image.name, image)


def test_one_bad_unit_stops_no_other(tmp_path, capsys):
    root = tmp_path / "bids"
    write_description(root)
    write_subject(root, "1", head())
    write_subject(root, "2", head(), without=("MagneticFieldStrength",))
    images = write_subject(root, "3", head())
    images[0].write_bytes(images[0].read_bytes()[:500])
    write_subject(root, "4", head(), magnitude_factor=0.0)
    arguments = [str(root), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--nprocs", "1"]
    code = main([*arguments, "--skip-bids-validation", *MASK])
    table = capsys.readouterr().out
    assert code == 1
    assert "1 done, 2 skipped, 1 failed" in table
    rows = {line.split()[0]: line for line in table.splitlines() if line.startswith("sub-")}
    assert "MagneticFieldStrength" in rows["sub-2_MEGRE"] and "skipped" in rows["sub-2_MEGRE"]
    assert images[0].name in rows["sub-3_MEGRE"]
    crashes = list((tmp_path / "out/logs/sub-4").glob("crash-*.txt"))
    assert len(crashes) == 1 and str(crashes[0]) in table
    assert (tmp_path / "out/sub-1/anat/sub-1_Chimap.nii.gz").exists()
    assert not (tmp_path / "out/sub-4/anat").exists()
    assert "failed" not in (tmp_path / "out/sub-1.html").read_text()
    assert rows["sub-3_MEGRE"].split("skipped")[1].strip()[:40] in (tmp_path / "out/sub-3.html").read_text()


def test_dry_run_says_what_would_run_and_writes_nothing(dataset, tmp_path, capsys):
    code = main([str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--dry-run",
                 "--skip-bids-validation", *MASK])  # fmt: skip
    text = capsys.readouterr().out
    assert code == 0 and "sub-1_MEGRE: 3 echoes of 0.07 million voxels" in text
    assert "masking.sections" in text and "GB" in text and "2 to do, 0 skipped" in text
    assert not (tmp_path / "out").exists() and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--participant-label", "nobody"], 18),
        (["--config-file", "absent.toml"], 66),
        (["--use-plugin", "absent.yml"], 66),
        (["--bids-filter-file", "absent.json"], 66),
    ],
)
def test_exit_codes(dataset, tmp_path, arguments, code):
    assert main([str(dataset), str(tmp_path / "out"), "participant", "--skip-bids-validation", *arguments]) == code
    assert not (tmp_path / "out").exists()


def test_missing_dataset_and_unwritable_output(dataset, tmp_path):
    assert main([str(tmp_path / "absent"), str(tmp_path / "out"), "participant"]) == 66
    (tmp_path / "file").write_text("in the way")
    arguments = [str(dataset), str(tmp_path / "file" / "out"), "participant", "--skip-bids-validation"]
    assert main([*arguments, "-w", str(tmp_path / "work")]) == 73


def test_invalid_dataset_is_refused_unless_told_not_to_look(tmp_path):
    root = tmp_path / "bids"
    write_description(root)
    write_subject(root, "1", head(), without=("Units",))
    assert main([str(root), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]) == 16


def test_group_needs_participants(finished, dataset, tmp_path):
    more = ["group", "-w", str(tmp_path / "work"), "--no-group-template"]
    assert main([str(dataset), str(tmp_path / "out"), *more]) == 66
    assert main([str(dataset), str(finished / "out"), *more]) == 0


def test_code_of_the_run_from_its_outcomes():
    done = Outcome("a", "1", "done")
    skipped = Outcome("b", "1", "skipped", "why", exit_code=65)
    missing = Outcome("c", "1", "skipped", "why", exit_code=66)
    failed = Outcome("d", "1", "failed", "why", exit_code=1)
    assert exit_code([done]) == 0
    assert exit_code([done, skipped]) == 65 and exit_code([done, missing]) == 66
    assert exit_code([skipped, missing]) == 65 and exit_code([skipped, failed]) == 1
    assert format_table([failed, done, skipped]).splitlines()[-1] == "1 done, 1 skipped, 1 failed"


def test_edited_masks_are_used_as_they_are_and_never_written_over(finished, dataset, tmp_path):
    """In derivatives of their own, and where they were edited in the output folder itself."""
    shutil.copytree(finished / "out", tmp_path / "edited")
    name, chi = "sub-1/anat/sub-1_desc-brain_mask.nii.gz", "sub-1/anat/sub-1_Chimap.nii.gz"
    made = nib.load(finished / "out" / name)
    for folder, first in ((tmp_path / "edited", 0), (tmp_path / "out", 1)):
        edited = np.asanyarray(made.dataobj).copy()
        edited[: edited.shape[0] // 2 + first] = 0
        edited[1, 1, 1] = 1
        nib.save(nib.Nifti1Image(edited, made.affine), folder / name)
        before = (folder / name).read_bytes()
        arguments = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--nprocs", "1",
                     "--skip-bids-validation", "--participant-label", "1", "--mask", "mask:own"]  # fmt: skip
        assert main([*arguments, "-d", f"own={folder}"]) == 0
        assert (folder / name).read_bytes() == before
        assert np.array_equal(nib.load(tmp_path / "out" / name).get_fdata() > 0, edited > 0)
        assert not (nib.load(tmp_path / "out" / chi).get_fdata()[edited == 0] != 0).any()
    assert main([*arguments, "-d", f"own={tmp_path / 'work'}"]) == 66


def test_plugin_file_clean_work_and_measured_resources(finished, dataset, tmp_path):
    arguments = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), *MASK,
                 "--skip-bids-validation", "--participant-label", "1"]  # fmt: skip
    (tmp_path / "plugin.yml").write_text("plugin: Linear\nplugin_args: {}\n")
    assert main([*arguments, "--use-plugin", str(tmp_path / "plugin.yml"), "--clean-work"]) == 0
    assert not (tmp_path / "work/qsmxt/sub-1_MEGRE").exists()
    assert contents(tmp_path / "out/sub-1") == contents(finished / "out/sub-1")
    result = _run(*arguments, "--nprocs", 2, "--resource-monitor")
    assert result.returncode == 0, result.stderr
    head_row, *rows = [line.split("\t") for line in (tmp_path / "out/logs/resources.tsv").read_text().splitlines()]
    taken = {row[0]: dict(zip(head_row, row, strict=True)) for row in rows}
    assert {"sub-1_MEGRE.load", "sub-1_MEGRE.field", "sub-1_MEGRE.chi"} <= set(taken)
    assert all(0.03 < float(row["peak_gb"]) < 3 for row in taken.values())


def test_a_step_that_needs_more_memory_than_there_is_runs_with_a_warning(dataset, tmp_path):
    result = _run(dataset, tmp_path / "out", "participant", "-w", tmp_path / "work", *MASK, "--nprocs", 2,
                  "--skip-bids-validation", "--participant-label", "1", "--mem", "50M")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "more than the 0.1 GB allowed" in result.stderr or "more than the 0.0 GB allowed" in result.stderr
