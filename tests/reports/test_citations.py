"""What did not run is not cited; what ran is, once."""

from __future__ import annotations

import pytest

from qsmxt.registry.catalogue import catalogue, find
from qsmxt.reports.bibliography import bibliography, read_bibtex
from qsmxt.reports.citations import (
    citation_text,
    methods_text,
    reference_keys,
    references_bibtex,
    references_text,
    step_sentence,
)  # fmt: skip


def _record(*steps):
    return {"version": "1.2.3", "steps": [{"method": name, "parameters": values} for name, values in steps]}


TKD = ("inversion.tkd", {"threshold": 0.17, "correct": False})


def test_text_names_version_and_the_values_used():
    text = methods_text([_record(TKD)])
    assert text.startswith("Data were processed with QSMxT 1.2.3.")
    assert "0.17" in text and "Shmueli et al., 2009" in text


def test_every_sentence_and_reference_appears_once():
    records = [_record(TKD), _record(TKD)]
    assert methods_text(records).count("Shmueli") == 1
    assert references_text(records).count("Shmueli") == 1


def test_references_are_those_of_the_steps_in_the_order_of_use():
    tv = ("inversion.tv", {})
    expected = [*find("inversion", "tkd").references, *find("inversion", "tv").references]
    assert reference_keys([_record(TKD, tv)]) == expected


def test_unknown_methods_of_older_records_are_passed_over():
    assert reference_keys([_record(("inversion.forgotten", {}))]) == []
    assert step_sentence({"method": "inversion.forgotten", "parameters": {}}) == ""


def test_every_sentence_can_be_filled_in_with_defaults():
    for methods in catalogue().values():
        for method in methods.values():
            if method.sentence:
                filled = method.sentence.format(**method.complete())
                assert filled.endswith(".") and "{" not in filled, method.name


def test_bibtex_holds_the_references_of_the_steps_and_reads_back_the_same():
    entries = read_bibtex(references_bibtex([_record(TKD)]))
    assert set(entries) == set(find("inversion", "tkd").references)
    assert entries == {key: bibliography()[key] for key in entries}


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        ({"method": "atlas", "template": "MNI152NLin2009cAsym", "atlases": ["MASSP20"]}, ["avants2008", "ciric2022"]),
        ({"method": "atlas", "template": "own", "atlases": ["CIT168"]}, ["avants2008", "pauli2018"]),
        ({"method": "synthseg"}, ["billot2023"]),
        ({"method": "precomputed", "precomputed": ["aseg"]}, []),
    ],
)
def test_regions_are_cited_as_they_were_made(parameters, keys):
    record = {**_record(), "output": "segmentation", "parameters": parameters}
    assert reference_keys([record]) == keys
    text = methods_text([record])
    assert "None" not in text and all(name in text for name in parameters.get("atlases", []))
    assert reference_keys([{**record, "output": "qsm"}]) == []


def test_citation_file_holds_text_and_list():
    text = citation_text([_record(TKD)])
    assert text.startswith("# Methods\n\nData were processed") and text.count("Shmueli") == 2
