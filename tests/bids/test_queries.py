"""Discovery: what is one unit, in which order, and what is refused with which words."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from qsmxt.bids.queries import ProcessingUnit, find_units
from qsmxt.errors import InputError, MissingInputError, SelectionError
from tests.bids.datasets import SHAPE, Dataset, magnitude_image, phase_image, write_image, write_json


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "raw")


def only_error(root: Path, **options: object) -> str:
    """Message of the one rejected unit; nothing else was found."""
    selection = find_units(root, **options)
    assert selection.units == ()
    (rejected,) = selection.rejected
    return rejected.error


# what is a unit


def test_unit_holds_all_echoes_and_parts(dataset: Dataset) -> None:
    files = dataset.gradient_echo("sub-1_ses-a_acq-x_run-1")
    (unit,) = find_units(dataset.root).units
    assert unit.name == "sub-1_ses-a_acq-x_run-1_MEGRE"
    assert unit.entities == {"subject": "1", "session": "a", "acquisition": "x", "run": "1"}
    assert [echo.echo_time for echo in unit.echoes] == [0.004, 0.008, 0.012]
    assert sorted(unit.files()) == sorted(files)
    assert all("part-phase" in echo.phase.name and "part-mag" in echo.magnitude.name for echo in unit.echoes)
    assert unit.field_strength == 3.0
    assert unit.echoes[1].metadata["Units"] == "arbitrary"


def test_every_other_entity_separates_units(dataset: Dataset) -> None:
    stems = [
        "sub-1_ses-a", "sub-1_ses-b", "sub-1_ses-a_acq-x", "sub-1_ses-a_rec-r", "sub-1_ses-a_run-1",
        "sub-1_ses-a_run-2", "sub-1_ses-a_ce-g", "sub-1_ses-a_dir-AP",
    ]  # fmt: skip
    for stem in stems:
        dataset.gradient_echo(stem, echo_times=(0.004, 0.008))
    for label in ("sub-1_flip-1_mt-on", "sub-1_flip-1_mt-off", "sub-1_flip-2_mt-off", "sub-1_inv-2"):
        dataset.image(f"{label}_part-phase", "MPM", phase_image(), {"EchoTime": 0.005, "MagneticFieldStrength": 7})
    selection = find_units(dataset.root)
    assert len({unit.name for unit in selection.units}) == len(selection.units) == len(stems) + 4
    assert selection.rejected == ()


def test_any_suffix_with_phase_counts(dataset: Dataset) -> None:
    for suffix in ("T2starw", "T1w", "PDw"):
        dataset.gradient_echo(f"sub-{suffix}", suffix, (0.02,), labels=("",))
    selection = find_units(dataset.root)
    assert [unit.suffix for unit in selection.units] == ["PDw", "T1w", "T2starw"]
    assert all(len(unit.echoes) == 1 for unit in selection.units)


def test_spin_echoes_and_other_datatypes_do_not_count(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1")
    dataset.gradient_echo("sub-1", "MESE")
    dataset.gradient_echo("sub-1_task-rest", "bold", (0.03,), labels=("",), datatype="func")
    selection = find_units(dataset.root)
    assert [unit.name for unit in selection.units] == ["sub-1_MEGRE"]
    assert any("sub-1_MESE" in note for note in selection.notes)


def test_echoes_are_ordered_by_time_not_by_label(dataset: Dataset) -> None:
    times = [0.012, 0.002, 0.03, 0.02]
    dataset.gradient_echo(echo_times=times, labels=["1", "2", "10", "9"])
    (unit,) = find_units(dataset.root).units
    assert [echo.echo_time for echo in unit.echoes] == sorted(times)
    assert [echo.phase.name.split("_")[1] for echo in unit.echoes] == ["echo-2", "echo-1", "echo-9", "echo-10"]


def test_zero_padded_labels_match_plain_ones(dataset: Dataset) -> None:
    dataset.gradient_echo(labels=["01", "02", "03"], parts=["phase"])
    dataset.gradient_echo(labels=["1", "2", "3"], parts=["mag"])
    (unit,) = find_units(dataset.root).units
    assert [echo.magnitude is not None for echo in unit.echoes] == [True] * 3


def test_magnitude_without_part(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["", "phase"])
    (unit,) = find_units(dataset.root).units
    assert all("part" not in echo.magnitude.name for echo in unit.echoes)


def test_labelled_magnitude_wins_over_unlabelled(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["mag", "phase", ""])
    (unit,) = find_units(dataset.root).units
    assert all("part-mag" in echo.magnitude.name for echo in unit.echoes)


def test_real_and_imaginary_parts(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["real", "imag"])
    (unit,) = find_units(dataset.root).units
    assert all(echo.phase is None and "part-real" in echo.real.name for echo in unit.echoes)
    assert all("part-imag" in echo.imag.name for echo in unit.echoes)


def test_phase_alone_is_enough_and_magnitude_alone_is_not(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1_acq-phase", parts=["phase"])
    dataset.gradient_echo("sub-1_acq-mag", parts=["mag"])
    selection = find_units(dataset.root)
    assert [unit.name for unit in selection.units] == ["sub-1_acq-phase_MEGRE"]
    assert selection.rejected == ()
    assert any("sub-1_acq-mag_MEGRE" in note for note in selection.notes)


def test_t1w_of_the_same_session_comes_first(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1_ses-b")
    dataset.gradient_echo("sub-2_ses-b")
    for stem in ("sub-1_ses-a", "sub-1_ses-b", "sub-1_ses-c", "sub-2_ses-a"):
        dataset.image(stem, "T1w", magnitude_image(), {})
    first, second = find_units(dataset.root, sessions=["b"]).units
    assert [path.name for path in first.t1w] == [f"sub-1_ses-{x}_T1w.nii.gz" for x in "bac"]
    assert [path.name for path in second.t1w] == ["sub-2_ses-a_T1w.nii.gz"]


def test_unit_survives_serialisation(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1_ses-a")
    dataset.image("sub-1_ses-a", "T1w", magnitude_image(), {})
    (unit,) = find_units(dataset.root).units
    assert ProcessingUnit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit


def test_same_entities_under_two_suffixes_are_marked(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1")
    dataset.gradient_echo("sub-1", "T2starw", (0.02,), labels=("",))
    dataset.gradient_echo("sub-2")
    assert [unit.distinct for unit in find_units(dataset.root).units] == [False, False, True]
    # the names of derivatives must not depend on what is selected
    (unit,) = find_units(dataset.root, filters={"qsm": {"suffix": "MEGRE"}}, participants=["1"]).units
    assert unit.distinct is False


# inheritance


def test_sidecars_are_inherited_and_nearer_ones_win(dataset: Dataset) -> None:
    for part in ("mag", "phase"):
        for echo in "12":
            dataset.image(f"sub-1_ses-a_echo-{echo}_part-{part}", "MEGRE", phase_image(), None)
    write_json(dataset.root / "MEGRE.json", {"MagneticFieldStrength": 1.5, "EchoTime": 0.5, "FlipAngle": 15})
    write_json(dataset.root / "part-phase_MEGRE.json", {"Units": "arbitrary"})
    write_json(dataset.root / "sub-1" / "sub-1_MEGRE.json", {"MagneticFieldStrength": 7.0})
    session = dataset.root / "sub-1" / "ses-a"
    write_json(session / "sub-1_ses-a_echo-1_MEGRE.json", {"EchoTime": 0.003})
    write_json(session / "anat" / "sub-1_ses-a_echo-2_MEGRE.json", {"EchoTime": 0.006})
    write_json(session / "anat" / "sub-1_ses-a_acq-other_MEGRE.json", {"EchoTime": 0.9})
    write_json(dataset.root / "T2starw.json", {"MagneticFieldStrength": 9.0})
    (unit,) = find_units(dataset.root).units
    assert [echo.echo_time for echo in unit.echoes] == [0.003, 0.006]
    assert unit.field_strength == 7.0
    assert unit.echoes[0].metadata["Units"] == "arbitrary"
    assert unit.echoes[0].metadata["FlipAngle"] == 15


def test_echo_time_may_stand_with_the_magnitude_alone(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["mag"])
    for echo in "123":
        dataset.image(f"sub-1_echo-{echo}_part-phase", "MEGRE", phase_image(), {"Units": "arbitrary"})
    (unit,) = find_units(dataset.root).units
    assert [echo.echo_time for echo in unit.echoes] == [0.004, 0.008, 0.012]
    assert unit.field_strength == 3.0


# selection


def test_labels_with_and_without_prefix(dataset: Dataset) -> None:
    for subject in ("01", "02", "011"):
        for session in ("a", "b"):
            dataset.gradient_echo(f"sub-{subject}_ses-{session}", echo_times=(0.01,))
    selection = find_units(dataset.root, participants=["sub-01"], sessions=["ses-b"])
    assert [unit.name for unit in selection.units] == ["sub-01_ses-b_MEGRE"]
    assert len(find_units(dataset.root, participants=["02", "sub-011"]).units) == 4


def test_unknown_labels_name_those_that_exist(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-alice_ses-pre")
    with pytest.raises(SelectionError, match=r"bob.*alice"):
        find_units(dataset.root, participants=["alice", "bob"])
    with pytest.raises(SelectionError, match=r"post.*pre"):
        find_units(dataset.root, sessions=["post"])


@pytest.mark.parametrize("label", ["../raw/sub-1", "1/../1", "", "1.nii", "*"])
def test_odd_labels_select_nothing(dataset: Dataset, label: str) -> None:
    dataset.gradient_echo()
    with pytest.raises(SelectionError):
        find_units(dataset.root, participants=[label])


def test_nothing_to_process_is_an_error(dataset: Dataset) -> None:
    dataset.image("sub-1", "T1w", magnitude_image(), {})
    with pytest.raises(SelectionError, match="part-phase"):
        find_units(dataset.root)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        find_units(tmp_path / "nowhere")
    (tmp_path / "sub-1").mkdir()
    with pytest.raises(MissingInputError, match=r"dataset_description\.json"):
        find_units(tmp_path)


def test_dataset_without_subjects(dataset: Dataset) -> None:
    with pytest.raises(SelectionError, match="sub-"):
        find_units(dataset.root)


def test_subject_without_gradient_echo_is_noted(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1")
    dataset.image("sub-2", "T1w", magnitude_image(), {})
    assert any("sub-2" in note for note in find_units(dataset.root).notes)


def test_filters_choose_among_acquisitions(dataset: Dataset) -> None:
    for stem in ("sub-1", "sub-1_acq-x", "sub-1_acq-x_run-01", "sub-1_acq-y_run-2"):
        dataset.gradient_echo(stem, echo_times=(0.01,))

    def names(wanted: dict[str, object]) -> list[str]:
        return [unit.name for unit in find_units(dataset.root, filters={"qsm": wanted}).units]

    assert names({"acquisition": None}) == ["sub-1_MEGRE"]
    assert names({"acquisition": "x", "run": None}) == ["sub-1_acq-x_MEGRE"]
    assert names({"run": 1}) == ["sub-1_acq-x_run-01_MEGRE"]
    assert names({"run": "*"}) == ["sub-1_acq-x_run-01_MEGRE", "sub-1_acq-y_run-2_MEGRE"]
    assert names({"acquisition": ["y", None]}) == ["sub-1_MEGRE", "sub-1_acq-y_run-2_MEGRE"]
    with pytest.raises(SelectionError):
        names({"acquisition": "z"})


def test_other_subjects_are_not_looked_at(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for subject in ("1", "10", "2"):
        dataset.gradient_echo(f"sub-{subject}", echo_times=(0.01,))
    seen = []
    scandir = os.scandir

    def watched(path: object = ".") -> object:
        seen.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    find_units(dataset.root, participants=["1"])
    assert any("sub-1/" in path or path.endswith("sub-1") for path in seen)
    assert not any("sub-10" in path or "sub-2" in path for path in seen)


def test_shared_database_is_built_once_and_reused(dataset: Dataset, tmp_path: Path) -> None:
    for subject in ("1", "2"):
        dataset.gradient_echo(f"sub-{subject}", echo_times=(0.01,))
    database = tmp_path / "index"
    first = find_units(dataset.root, participants=["1"], database_dir=database)
    stamps = {path.name: path.stat().st_mtime_ns for path in database.iterdir()}
    time.sleep(0.01)
    second = find_units(dataset.root, participants=["2"], database_dir=database)
    assert [unit.name for unit in first.units + second.units] == ["sub-1_MEGRE", "sub-2_MEGRE"]
    assert {path.name: path.stat().st_mtime_ns for path in database.iterdir()} == stamps
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_jobs_that_start_at_once_share_one_database(dataset: Dataset, tmp_path: Path) -> None:
    for subject in "1234":
        dataset.gradient_echo(f"sub-{subject}", echo_times=(0.01,))
    find_units(dataset.root, participants=["1"])  # the library is imported before the fork
    database = tmp_path / "index"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(partial(_names, dataset.root, database), "1234", chunksize=1)
    assert found == [[f"sub-{subject}_MEGRE"] for subject in "1234"]
    assert [path.name for path in tmp_path.iterdir() if "index" in path.name] == ["index"]
    assert _names(dataset.root, database, "3") == ["sub-3_MEGRE"]


def _names(root: Path, database: Path, subject: str) -> list[str]:
    return [unit.name for unit in find_units(root, participants=[subject], database_dir=database).units]


def test_database_of_another_dataset(dataset: Dataset, tmp_path: Path) -> None:
    dataset.gradient_echo(echo_times=(0.01,))
    other = Dataset(tmp_path / "other")
    other.gradient_echo(echo_times=(0.01,))
    find_units(other.root, database_dir=tmp_path / "index")
    with pytest.raises(InputError, match="database"):
        find_units(dataset.root, database_dir=tmp_path / "index")


# faults: file, expectation, finding, remedy; the other units go on


def test_faulty_unit_does_not_stop_the_others(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1")
    dataset.gradient_echo("sub-2", field_strength=None)
    selection = find_units(dataset.root)
    assert [unit.name for unit in selection.units] == ["sub-1_MEGRE"]
    (rejected,) = selection.rejected
    assert (rejected.name, rejected.subject) == ("sub-2_MEGRE", "2")
    assert "MagneticFieldStrength" in rejected.error
    repaired = find_units(dataset.root, field_strength=2.89)
    assert [unit.field_strength for unit in repaired.units] == [2.89, 2.89]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("sub-1_echo-2_part-mag", r"echo-2_part-phase_MEGRE.*magnitude.*none"),
        ("sub-1_echo-2_part-phase", r"echo-2_part-mag_MEGRE.*phase.*none"),
    ],
)
def test_missing_partner(dataset: Dataset, removed: str, message: str) -> None:
    dataset.gradient_echo()
    dataset.path(removed, "MEGRE").unlink()
    import re

    assert re.search(message, only_error(dataset.root))


def test_real_without_imaginary_part(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["real", "imag"])
    dataset.path("sub-1_echo-3_part-imag", "MEGRE").unlink()
    error = only_error(dataset.root)
    assert "echo-3_part-real" in error and "part-imag" in error


def test_differing_shape(dataset: Dataset) -> None:
    dataset.gradient_echo()
    write_image(dataset.path("sub-1_echo-2_part-phase", "MEGRE"), phase_image((6, 5, 3)))
    error = only_error(dataset.root)
    assert "sub-1_echo-2_part-phase_MEGRE.nii.gz" in error and str(SHAPE) in error and "(6, 5, 3)" in error


def test_differing_affine(dataset: Dataset) -> None:
    dataset.gradient_echo()
    moved = np.diag([1.0, 1.0, 2.0, 1.0])
    moved[0, 3] = 0.5
    write_image(dataset.path("sub-1_echo-2_part-mag", "MEGRE"), magnitude_image(), affine=moved)
    error = only_error(dataset.root)
    assert "sub-1_echo-2_part-mag_MEGRE.nii.gz" in error and "affine" in error and "0.5 mm" in error


def test_rounding_of_the_affine_is_no_difference(dataset: Dataset) -> None:
    dataset.gradient_echo()
    nearly = np.diag([1.0, 1.0, 2.0, 1.0])
    nearly[0, 3] = 1e-4
    write_image(dataset.path("sub-1_echo-2_part-mag", "MEGRE"), magnitude_image(), affine=nearly)
    assert len(find_units(dataset.root).units) == 1


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"MagneticFieldStrength": 3}, ["EchoTime", "none"]),
        ({"EchoTime": 0.01}, ["MagneticFieldStrength", "none", "--field-strength"]),
        ({"EchoTime": 4.92, "MagneticFieldStrength": 3}, ["EchoTime", "seconds", "4.92", "1000"]),
        ({"EchoTime": 0, "MagneticFieldStrength": 3}, ["EchoTime", "positive"]),
        ({"EchoTime": "0.004", "MagneticFieldStrength": 3}, ["EchoTime", "'0.004'"]),
        ({"EchoTime": 0.01, "MagneticFieldStrength": 30000}, ["MagneticFieldStrength", "tesla", "30000"]),
    ],
)
def test_faulty_sidecar(dataset: Dataset, metadata: dict[str, object], words: list[str]) -> None:
    path = dataset.image("sub-1_part-phase", "T2starw", phase_image(), metadata)
    error = only_error(dataset.root)
    assert all(word in error for word in [path.name, *words])


def test_duplicate_echo_time(dataset: Dataset) -> None:
    dataset.gradient_echo(echo_times=(0.004, 0.008, 0.008))
    error = only_error(dataset.root)
    assert "echo-3" in error and "echo-2" in error and "0.008" in error


def test_contradicting_echo_times_of_one_echo(dataset: Dataset) -> None:
    dataset.gradient_echo()
    write_json(dataset.path("sub-1_echo-2_part-mag", "MEGRE", extension=".json"), {"EchoTime": 0.012})
    assert "0.008" in only_error(dataset.root)


def test_differing_field_strengths(dataset: Dataset) -> None:
    dataset.gradient_echo()
    sidecar = dataset.path("sub-1_echo-2_part-phase", "MEGRE", extension=".json")
    write_json(sidecar, {"EchoTime": 0.008, "MagneticFieldStrength": 7})
    error = only_error(dataset.root)
    assert "7 T" in error and "3 T" in error


def test_malformed_json(dataset: Dataset) -> None:
    dataset.gradient_echo("sub-1")
    dataset.gradient_echo("sub-2")
    path = dataset.path("sub-1_echo-2_part-phase", "MEGRE", extension=".json")
    path.write_text('{"EchoTime": 0.008,\n')
    selection = find_units(dataset.root)
    assert [unit.subject for unit in selection.units] == ["2"]
    assert path.name in selection.rejected[0].error and "JSON" in selection.rejected[0].error


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fault", ["empty", "truncated", "text", "link", "annex", "folder", "short"])
def test_unreadable_image(dataset: Dataset, fault: str, extension: str) -> None:
    dataset.gradient_echo("sub-2")
    stem = "sub-1_part-phase"
    noise = np.random.default_rng(0).integers(-4096, 4095, (16, 16, 16)).astype(np.int16)
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3}
    path = dataset.image(stem, "T2starw", noise, metadata, extension=extension)
    content = path.read_bytes()
    path.unlink()
    if fault == "empty":
        path.touch()
    elif fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "text":
        path.write_text("this is no image, although it is long enough to be one\n" * 20)
    elif fault == "link":
        path.symlink_to(dataset.root / "missing")
    elif fault == "annex":
        path.write_text("/annex/objects/MD5E-s1--0.nii.gz\n")
    elif fault == "folder":
        path.mkdir()
    elif fault == "short":  # a sound gzip stream that ends early
        whole = gzip.decompress(content) if extension == ".nii.gz" else content
        path.write_bytes(gzip.compress(whole[:-100]) if extension == ".nii.gz" else whole[:-100])
    selection = find_units(dataset.root)
    assert [unit.subject for unit in selection.units] == ["2"]
    if fault == "folder":
        assert selection.rejected == ()  # a folder is no file of the dataset
        return
    (rejected,) = selection.rejected
    assert path.name in rejected.error and "expected" in rejected.error and "found" in rejected.error


def test_several_volumes_in_one_file(dataset: Dataset) -> None:
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3}
    dataset.image("sub-1_part-phase", "T2starw", phase_image((6, 5, 4, 3)), metadata)
    assert "(6, 5, 4, 3)" in only_error(dataset.root)


def test_trailing_axis_of_one_volume_is_accepted(dataset: Dataset) -> None:
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3}
    dataset.image("sub-1_part-phase", "T2starw", phase_image((6, 5, 4, 1)), metadata)
    assert len(find_units(dataset.root).units) == 1


def test_sheared_affine(dataset: Dataset) -> None:
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[0, 1] = 0.3
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3}
    dataset.image("sub-1_part-phase", "T2starw", phase_image(), metadata, affine=sheared, codes=(1, 0), qform=np.eye(4))
    error = only_error(dataset.root)
    assert "sub-1_part-phase_T2starw.nii.gz" in error and "orthogonal" in error


def test_field_map_in_place_of_phase(dataset: Dataset) -> None:
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3, "Units": "Hz"}
    dataset.image("sub-1_part-phase", "T2starw", phase_image(), metadata)
    assert "Hz" in only_error(dataset.root)


def test_same_image_twice(dataset: Dataset) -> None:
    metadata = {"EchoTime": 0.01, "MagneticFieldStrength": 3}
    for extension in (".nii", ".nii.gz"):
        dataset.image("sub-1_part-phase", "T2starw", phase_image(), metadata, extension=extension)
    error = only_error(dataset.root)
    assert "sub-1_part-phase_T2starw.nii.gz" in error and "sub-1_part-phase_T2starw.nii" in error


def test_unknown_part(dataset: Dataset) -> None:
    dataset.gradient_echo(parts=["mag", "phase", "angle"])
    assert "'angle'" in only_error(dataset.root)
