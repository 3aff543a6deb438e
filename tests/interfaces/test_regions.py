"""Tables of regions."""

from __future__ import annotations

import csv

import pytest

from qsmxt.algorithms.statistics.regions import Region
from qsmxt.errors import InputError
from qsmxt.interfaces.regions import (
    FREESURFER,
    dictionary,
    hemisphere_of,
    named,
    read_regions,
    regions_text,
    table_text,
)  # fmt: skip


@pytest.mark.parametrize(
    "name, side",
    [
        ("left-caudate", "L"), ("Right Putamen", "R"), ("GPi_L", "L"), ("ctx-rh-insula", "R"), ("fornix", ""),
        ("lh.cuneus", "L"), ("Brain-Stem", ""), ("lingual", ""), ("rostral anterior", ""),
    ],
)  # fmt: skip
def test_sides_from_names(name, side):
    assert hemisphere_of(name) == side


def test_tables_as_they_come(tmp_path):
    table = tmp_path / "x_dseg.tsv"
    table.write_text("\ufeffindex\tname\tcolor\themisphere\n0\tBackground\t#0\t\n3.0\tGPe_L\t#1\t\n4\tSTN\t#2\tright\n")
    assert read_regions(table) == [Region(3, "GPe_L", "L"), Region(4, "STN", "R")]
    table.write_text("id\tlabel\n1\tx\n")
    with pytest.raises(InputError, match="columns index and name"):
        read_regions(table)
    table.write_text("index\tname\none\tx\n")
    with pytest.raises(InputError, match="whole number, found 'one'"):
        read_regions(table)


def test_what_is_written_is_read_back(tmp_path):
    regions = named([9, 2], [Region(2, "Left-Dentate", "L"), Region(1, "fornix")])
    assert regions == [Region(1, "fornix"), Region(2, "Left-Dentate", "L"), Region(9, "9")]
    table = tmp_path / "y_dseg.tsv"
    table.write_text(regions_text(regions))
    assert read_regions(table) == regions


def test_missing_values_and_commas_survive(tmp_path):
    row = {"participant_id": "sub-1", "region": "a, b", "mean": 0.1, "median": None, "n_region": 0, "mad": 1 / 3}
    (read,) = csv.DictReader(table_text([row], tabs=False).splitlines())
    assert (read["region"], read["mean"], read["median"], read["n_region"]) == ("a, b", "0.1", "n/a", "0")
    assert float(read["mad"]) == pytest.approx(1 / 3, rel=1e-6)
    described = dictionary({})
    assert set(read) == set(described), "every column is described"


def test_sides_of_freesurfer_are_pairs():
    regions = read_regions(FREESURFER)
    known = {region.index: region for region in regions}
    left = [region for region in regions if region.hemisphere == "L"]
    assert len(left) == sum(region.hemisphere == "R" for region in regions)
    names = {region.name: region.index for region in regions}
    for region in left:
        other = region.name.replace("Left-", "Right-").replace("ctx-lh-", "ctx-rh-")
        assert known[names[other]].hemisphere == "R"
    assert known[2035].name == "ctx-rh-insula" and known[51].name == "Right-Putamen"
