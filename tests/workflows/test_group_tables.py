"""Tables of a cohort: joined right, complete or named, and known effects found where they are."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from qsmxt import config
from qsmxt.algorithms.statistics.regions import Region, region_statistics
from qsmxt.bids.outputs import save_volume
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.bids.validation import find_validator, validate
from qsmxt.errors import InputError, MissingInputError, ParameterError
from qsmxt.geometry import Grid
from qsmxt.phantom import acquisition
from qsmxt.phantom.anatomy import Coordinates, paint
from qsmxt.phantom.atlas import REGIONS, nuclei
from qsmxt.phantom.dataset import participants
from qsmxt.phantom.head import HeadSettings
from qsmxt.workflows.cohort import check_required, find_cohort, read_table, table_text
from qsmxt.workflows.group import run_group


def _settings(**values):
    return config.load(flags={"group": {"template": False, **values}})


def _write_scan(out, subject, rows, session=None):
    labels = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    folder = out.joinpath(*labels.split("_"), "anat")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{labels}_seg-dgm_stats.tsv").write_text(table_text(rows))
    sidecar = {"SkullStripped": True}
    save_volume(folder / f"{labels}_Chimap.nii.gz", np.zeros((2, 2, 2)), np.eye(4), unit_label="ppm", sidecar=sidecar)


def _row(region, mean, quantity="chi", **more):
    return {"map": quantity, "index": 1, "region": region, "mean": mean, "median": mean, "volume_mm3": 8.0, **more}


def _describe(out):
    content = {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "QSMxT"}]}
    (out / "dataset_description.json").write_text(json.dumps(content))


def _susceptibility(settings):
    """Susceptibility and tissue of a digital head with one sample a voxel, without its field."""
    veins, texture, _ = settings.streams
    tissue, _ = paint(Coordinates(settings.fine_shape, settings.spacing, settings.subject), veins)
    pattern = acquisition.texture(settings.fine_shape, settings.spacing, texture)
    return acquisition.properties(tissue, pattern, settings)["chi"], tissue


def test_known_difference_is_found_in_its_nucleus_and_nowhere_else(tmp_path):
    out, people = tmp_path / "out", participants(20, seed=3, group_difference=0.02)
    for person in people:
        settings = HeadSettings(
            voxel_size=(3.0, 3.0, 3.0), oversampling=1, echo_times=(0.02,), seed=person.number,
            deformation=person.number, chi_change=person.chi_change,
        )  # fmt: skip
        chi, tissue = _susceptibility(settings)
        labels = nuclei(tissue, settings.voxel_size, settings.subject)
        regions = [Region(r.index, r.name) for r in REGIONS]
        noisy = chi + np.random.default_rng(person.number).normal(0, 0.01, chi.shape)
        grid = Grid.from_affine(settings.affine, settings.shape)
        rows = region_statistics({"chi": noisy.astype(np.float32)}, labels, grid, regions=regions)
        _write_scan(out, person.label, rows)
    _describe(out)
    lines = ["participant_id\tage\tsex\tgroup", *(f"sub-{p.label}\t{p.age}\t{p.sex}\t{p.group}" for p in people)]
    (out / "participants.tsv").write_text("\n".join(lines) + "\n")
    assert run_group(out, settings=_settings(models=("chi ~ age + group",))) == 0
    effects = read_table(out / "group_effects_stats.tsv")
    groups = [row for row in effects if row["covariate"] == "group"]
    assert len(groups) == 14 and {row["contrast"] for row in groups} == {"patient - control"}
    found = {row["region"] for row in groups if float(row["q"]) < 0.05}
    assert found == {"Left-Substantia-Nigra", "Right-Substantia-Nigra"}
    for row in groups:
        if row["region"] in found:
            assert float(row["low"]) < 0.02 < float(row["high"])
    both = [float(row["difference"]) for row in groups if row["region"] in found]
    assert np.mean(both) == pytest.approx(0.02, abs=0.006)
    models = {(row["region"], row["term"]): row for row in read_table(out / "group_models_stats.tsv")}
    assert len(models) == 14 * 3
    putamen = models["Left-Putamen", "age"]
    assert float(putamen["estimate"]) == pytest.approx(0.0006, abs=0.0002) and float(putamen["q"]) < 0.05
    assert {region for (region, term), row in models.items() if "group" in term and float(row["q"]) < 0.05} == found


def test_sessions_join_their_own_covariates_and_people_theirs(tmp_path):
    out = tmp_path / "out"
    for subject, shift in (("b", 0.1), ("a", 0.2)):
        for session in ("1", "2"):
            _write_scan(out, subject, [_row("x", shift + 0.01 * int(session)), _row("y", 0.5)], session)
        sessions = "session_id\tdose\nses-2\t20\nses-1\tn/a\n"
        (out / f"sub-{subject}" / f"sub-{subject}_sessions.tsv").write_text(sessions)
    (out / "participants.tsv").write_text("participant_id\tage\nsub-b\t40\nsub-a\tn/a\n")
    run_group(out, settings=_settings())
    wide = read_table(out / "group_wide_stats.tsv")
    assert [(r["participant_id"], r["session_id"], r["age"], r["dose"], r["chi.x.mean"]) for r in wide] == [
        ("sub-a", "ses-1", "n/a", "n/a", "0.21"), ("sub-a", "ses-2", "n/a", "20", "0.22"),
        ("sub-b", "ses-1", "40", "n/a", "0.11"), ("sub-b", "ses-2", "40", "20", "0.12"),
    ]  # fmt: skip
    agreement = {row["region"]: row for row in read_table(out / "group_agreement_stats.tsv")}
    assert float(agreement["x"]["bias"]) == pytest.approx(0.01) and float(agreement["y"]["bias"]) == 0
    dictionary = json.loads((out / "group_wide_stats.json").read_text())
    assert dictionary["chi.x.mean"]["Description"] == "chi in x: mean"


def test_hemispheres_are_two_regions(tmp_path):
    rows = [
        _row("GP", 0.1, hemisphere="L"),
        _row("GP", 0.2, hemisphere="R"),
        _row("GP", 20.0, "r2star", hemisphere="R"),
    ]
    _write_scan(tmp_path, "1", rows)
    run_group(tmp_path, settings=_settings())
    (wide,) = read_table(tmp_path / "group_wide_stats.tsv")
    assert (wide["chi.L_GP.mean"], wide["chi.R_GP.mean"], wide["r2star.R_GP.mean"]) == ("0.1", "0.2", "20")


def test_formats_count_once_and_atlases_are_not_mixed(tmp_path):
    """What the participant level writes: the same rows as TSV and CSV, two atlases that share a name."""
    rows = [_row("GP", 0.1, atlas="A", acquisition=None), _row("GP", 0.3, atlas="B"), _row("RN", 0.2, atlas="B")]
    for subject in "ab":
        _write_scan(tmp_path, subject, rows)
        table = tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_seg-dgm_stats.tsv"
        table.with_suffix(".csv").write_text(table.read_text().replace("\t", ","))
    _write_scan(tmp_path, "c", [_row("RN", 0.6)], session="1")
    run_group(tmp_path, settings=_settings())
    assert len(read_table(tmp_path / "group_long_stats.tsv")) == 7
    summary = {row["region"]: (row["scans"], row["mean"]) for row in read_table(tmp_path / "group_summary_stats.tsv")}
    assert summary == {"A_GP": ("2", "0.1"), "B_GP": ("2", "0.3"), "B_RN": ("2", "0.2"), "RN": ("1", "0.6")}


def test_incomplete_cohorts_are_named_and_refused_by_rule(tmp_path, caplog):
    with pytest.raises(MissingInputError, match="found none; run participant first") as error:
        run_group(tmp_path, settings=_settings())
    assert error.value.exit_code == 66
    for subject in "ab":
        _write_scan(tmp_path, subject, [_row("x", 0.1)])
    echoes = (EchoFiles(0.01, tmp_path / "p.nii", tmp_path / "m.nii"),)
    expected = [ProcessingUnit({"subject": label}, echoes=echoes) for label in "abc"]
    cohort = find_cohort(tmp_path, expected=expected)
    assert cohort.missing == ("sub-c_MEGRE",) and [s.name for s in cohort.scans] == ["sub-a", "sub-b"]
    assert find_cohort(tmp_path, participants=["sub-a", "z"]).missing == ("sub-z",)
    check_required(cohort, "2")
    for rule in ("3", "all"):
        with pytest.raises(MissingInputError, match="sub-c_MEGRE"):
            check_required(cohort, rule)
    with pytest.raises(InputError, match="a number or all, found 'most'"):
        check_required(cohort, "most")
    check_required(find_cohort(tmp_path, expected=expected[:2]), "all")


def test_maps_of_other_software_count_by_their_names(tmp_path):
    """As SEPIA or a laboratory's own script would name them in BIDS: no desc of ours, a mask with a label."""
    anat = tmp_path / "sub-1" / "ses-a" / "anat"
    anat.mkdir(parents=True)
    for end in ("Chimap", "T2starw", "R2starmap", "label-brain_mask", "space-MNI152NLin6Asym_Chimap"):
        (anat / f"sub-1_ses-a_acq-x_{end}.nii.gz").write_text("")
    (scan,) = find_cohort(tmp_path).scans
    assert scan.columns() == {"participant_id": "sub-1", "session_id": "ses-a", "acq": "x"}
    assert {key: path.name.removeprefix("sub-1_ses-a_acq-x_") for key, path in scan.maps.items()} == {
        "chi": "Chimap.nii.gz", "combined_magnitude": "T2starw.nii.gz", "r2star": "R2starmap.nii.gz",
        "mask": "label-brain_mask.nii.gz",
    }  # fmt: skip


def test_unknown_words_of_a_model_are_named(tmp_path):
    _write_scan(tmp_path, "1", [_row("x", 0.1)])
    with pytest.raises(ParameterError, match="unknown qsm; expected one of chi"):
        run_group(tmp_path, settings=_settings(models=("qsm ~ 1 + chi",)))


def test_a_table_that_has_no_rows_any_more_goes_away(tmp_path):
    for subject in "abcde":
        _write_scan(tmp_path, subject, [_row("x", float(ord(subject)))])
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\n" + "".join(f"sub-{s}\t{ord(s)}\n" for s in "abcde")
    )
    run_group(tmp_path, settings=_settings(models=("chi ~ age",)))
    assert (tmp_path / "group_models_stats.tsv").exists()
    run_group(tmp_path, settings=_settings())
    assert not list(tmp_path.glob("group_models*")) and (tmp_path / "group_effects_stats.json").exists()


@pytest.mark.skipif(find_validator() is None, reason="the BIDS validator is not installed")
def test_tables_are_valid_bids(tmp_path):
    from qsmxt.bids.description import write_bidsignore

    _describe(tmp_path)
    write_bidsignore(tmp_path)
    (tmp_path / "README").write_text("Tables. " * 40)
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-1\n")
    _write_scan(tmp_path, "1", [_row("x", 0.1)])
    run_group(tmp_path, settings=_settings())
    assert validate(tmp_path) == []


def test_many_subjects_with_all_regions_and_maps(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        rows = [_row(f"r{r}", rng.normal(), quantity) for quantity in ("chi", "r2star", "t2star") for r in range(12)]
        folder = tmp_path / f"sub-{number:03d}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{number:03d}_seg-x_stats.tsv").write_text(table_text(rows))
    people = [f"sub-{n:03d}\t{n % 60 + 20}\t{'FM'[n % 2]}\n" for n in range(30)]
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\n" + "".join(people))
    run_group(tmp_path, settings=_settings(models=("chi ~ age + sex",)))
    with (tmp_path / "group_long_stats.tsv").open() as stream:
        assert sum(1 for _ in csv.reader(stream)) == 1 + 30 * 36
    models = read_table(tmp_path / "group_models_stats.tsv")
    assert len(models) == 12 * 3 and {row["n"] for row in models} == {"30"}
