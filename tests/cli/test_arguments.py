"""The command line of the BIDS App."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsmxt.cli.arguments import build_parser, parse


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "bids").mkdir()
    return [str(tmp_path / "bids"), str(tmp_path / "out")]


def _fails(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_labels_lose_their_prefix_and_repetitions(folders):
    options = parse([*folders, "participant", "--participant-label", "sub-01", "02", "01", "--session_label", "ses-a"])
    assert options.participants == ("01", "02") and options.sessions == ("a",)


def test_both_levels_may_be_asked_for_in_any_order(folders):
    assert parse([*folders, "group", "participant"]).levels == ("participant", "group")


def test_labels_may_come_before_the_folders(folders):
    options = parse(["--participant-label", "01", "--", *folders, "participant"])
    assert options.participants == ("01",) and options.levels == ("participant",)


def test_every_option_has_both_spellings():
    for action in build_parser()._actions:
        for name in action.option_strings:
            if name.startswith("--"):
                twin = "--" + name[2:].replace("-", "_")
                assert twin in action.option_strings, name


@pytest.mark.parametrize("name", ["--nprocs", "--n-cpus", "--n_cpus", "--nthreads"])
def test_names_of_processors(folders, name):
    assert parse([*folders, "participant", name, "3"]).flags == {"execution": {"nprocs": 3}}


@pytest.mark.parametrize(
    ("text", "gigabytes"), [("8G", 8), ("8GB", 8), ("800M", 0.8), ("8000", 8), ("0.5T", 500), ("1000000K", 1)]
)
def test_sizes_of_memory(folders, text, gigabytes):
    assert parse([*folders, "participant", "--mem", text]).flags["execution"]["mem_gb"] == pytest.approx(gigabytes)


def test_parameters_of_methods_are_options_checked_against_their_bounds(folders, capsys):
    options = parse([*folders, "participant", "--inversion", "tkd", "--inversion-tkd-threshold", "0.2"])
    assert options.flags == {"inversion": {"method": "tkd", "tkd": {"threshold": 0.2}}}
    _fails(capsys, [*folders, "participant", "--inversion-tkd-threshold", "5"], "expected a value > 0, < 0.666667")
    _fails(capsys, [*folders, "participant", "--inversion", "tdk"], "found 'tdk'")


def test_switches_can_be_cleared(folders):
    flags = parse([*folders, "participant", "--no-qsm", "--r2star", "--no-inversion-tkd-correct"]).flags
    assert flags["outputs"] == {"qsm": False, "r2star": True}
    assert flags["inversion"] == {"tkd": {"correct": False}}


def test_pairs_of_numbers(folders, capsys):
    flags = parse([*folders, "participant", "--phase-range", "0", "4095"]).flags
    assert flags == {"acquisition": {"phase_range": (0.0, 4095.0)}}
    _fails(capsys, [*folders, "participant", "--phase-range", "0"], "expected 2 arguments")


def test_mask_sections_add_up(folders):
    flags = parse([*folders, "participant", "--mask", "magnitude,bet", "--mask", "phase-quality,otsu"]).flags
    assert flags == {"masking": {"sections": ("magnitude,bet", "phase-quality,otsu")}}


def test_calls_do_not_share_their_flags(folders):
    parse([*folders, "participant", "--nprocs", "2"])
    assert parse([*folders, "participant"]).flags == {}


def test_wrong_folders_are_usage_errors(folders, tmp_path, capsys):
    _fails(capsys, [folders[0], folders[0], "participant"], "expected another folder than the dataset")
    _fails(capsys, [*folders, "participant", "-w", folders[0] + "/work"], "outside the dataset")
    _fails(capsys, [*folders, "participant", "-w", folders[0]], "outside the dataset")
    _fails(capsys, [*folders, "participant", "-w", folders[1]], "expected another folder than output_dir")


def test_unknown_and_shortened_options_are_usage_errors(folders, capsys):
    _fails(capsys, [*folders, "participant", "--nonsense"], "--nonsense")
    _fails(capsys, [*folders, "participant", "--participant", "01"], "--participant")
    _fails(capsys, [*folders, "session"], "invalid choice")


def test_named_derivatives(folders, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    path = str(tmp_path / "masks")
    options = parse([*folders, "participant", "-d", path, f"other={path}"])
    assert options.derivatives == {"masks": Path(path), "other": Path(path)}
    _fails(capsys, [*folders, "participant", "-d", path, path], "given twice")
    _fails(capsys, [*folders, "participant", "-d", "absent=/nowhere"], "expected a folder")


def test_methods_are_listed_with_parameters_units_and_bounds(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--help-methods", "inversion"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--inversion-tkd-threshold" in text and "> 0, < 0.666667" in text and "ppm mm" in text
