"""The demo writes, maps and scores."""

from __future__ import annotations

from qsmxt.cli.demo import main, with_atlas


def test_scores_of_a_coarse_head_are_printed_and_good(tmp_path, capsys):
    handed_on = ["--nprocs", "1", "--skip-bids-validation"]
    code = main([str(tmp_path / "demo"), "--subjects", "1", "--voxel-size", "3", *handed_on])
    text = capsys.readouterr().out
    assert code == 0
    row = next(line for line in text.splitlines() if line.startswith("sub-01 "))
    _, core, slope, coverage = (float(number) for number in row.split()[1:])
    assert core < 75, "percent; 3 mm are too coarse for the rim"
    assert 0.75 < slope < 1.25 and coverage > 0.9


def test_wrong_numbers_are_refused(tmp_path, capsys):
    assert main([str(tmp_path / "demo"), "--subjects", "0"]) == 64
    assert "at least 1" in capsys.readouterr().err


def test_regions_come_from_the_template_of_the_head_unless_others_are_asked_for():
    assert with_atlas(["--segmentation", "--swi"])[2:] == ["--atlas", "QSMxTHead:DeepGrey"]
    for words in (["--swi"], ["--segmentation", "--atlas", "MASSP20"], ["--segmentation", "--seg-method=synthseg"]):
        assert with_atlas(words) == words
