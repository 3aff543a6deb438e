"""The grammar of masks: what is understood, and what an error names."""

from __future__ import annotations

import pytest

from qsmxt.errors import ParameterError
from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.mask_sections import (
    check_sections,
    external_masks,
    generators,
    parse_section,
    parse_sections,
    refinements,
)


def test_a_complete_section():
    section = parse_section(" magnitude:last:corrected , bet:0.4:clearance=2, erode:2.5, fill ")
    assert (section.source, section.echoes, section.corrected) == ("magnitude", "last", True)
    assert section.generator.key == "bet"
    assert section.generator.parameters.fraction == 0.4 and section.generator.parameters.clearance == 2.0
    assert [s.key for s in section.refinements] == ["erode", "fill"]
    assert section.refinements[0].parameters.radius == 2.5
    assert [m.key for m in section.methods()] == ["homogeneity", "bet", "erode", "fill"]
    assert section.text == "magnitude:last:corrected,bet:0.4:clearance=2,erode:2.5,fill"


def test_underscores_capitals_and_numbers_of_echoes():
    assert parse_section("Phase_Quality,OTSU").source == "phase-quality"
    assert parse_section("magnitude:3,otsu").echoes == 3


def test_corrections_of_the_input():
    section = parse_section("magnitude:first:N4,bet")
    assert section.n4 and not section.corrected and section.echoes == "first"
    assert parse_section("t1w:corrected,bet").corrected


def test_ready_masks():
    section = parse_section("mask:FreeSurfer,dilate:1")
    assert section.external_mask == "FreeSurfer" and section.generator is None
    assert parse_section("magnitude,hd-bet").external_mask == "hd-bet"
    sections = parse_sections(["mask:a", "magnitude,otsu", "t1w,synthstrip", "mask:a"])
    assert external_masks(sections) == ("a", "synthstrip")


def test_the_support_is_what_stands_before_the_word():
    section = parse_section("mask:a,dilate:1,support,erode:2,fill")
    assert [step.key for step in section.refinements] == ["dilate", "erode", "fill"] and section.support == 1
    assert parse_section("magnitude,bet,support").support == 0
    assert parse_section("magnitude,bet,fill").support is None


def test_every_generator_and_refinement_can_be_written():
    for key, method in generators().items():
        source = next(a for a in ("magnitude", "phase", "phase-quality") if _accepts(a, method))
        assert parse_section(f"{source},{key}").generator.parameters == method.configure()
    for key, method in refinements().items():
        assert parse_section(f"magnitude,otsu,{key}").refinements[0].parameters == method.configure()


def _accepts(source: str, method) -> bool:
    wanted = {"magnitude": "mask_input", "phase": "wrapped_phase", "phase-quality": "phase_quality"}[source]
    return wanted in method.consumes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("magnetude,bet", ["'magnetude'", "magnitude", "phase-quality"]),
        ("magnitude", ["'magnitude'", "generator", "bet", "otsu", "synthstrip"]),
        ("magnitude,beet", ["'beet'", "bet", "hd-bet"]),
        ("magnitude,bet,shrink", ["'shrink'", "erode", "largest"]),
        ("magnitude:middle,bet", ["'middle'", "first", "corrected", "number of an echo"]),
        ("magnitude:0,bet", ["'0'"]),
        ("magnitude,bet,,fill", ["empty"]),
        ("magnitude,bet:1.5", ["fraction", "< 1", "1.5"]),
        ("magnitude,bet:thin", ["fraction", "'thin'"]),
        ("magnitude,erode", ["'erode'", "generator"]),
        ("magnitude,otsu:width=3", ["'width'", "factor", "bins"]),
        ("magnitude,otsu:1:2:3", ["'3'", "2 parameters", "factor, bins"]),
        ("magnitude,otsu,largest:2", ["'2'", "0 parameters", "none"]),
        ("magnitude,otsu,support,fill,support", ["'support'", "once"]),
        ("magnitude,otsu,support:2", ["'support:2'", "without parameters"]),
        ("magnitude,hagberg", ["'hagberg'", "input magnitude", "bet"]),
        ("phase,otsu", ["'otsu'", "input phase", "hagberg"]),
        ("mask", ["'mask'", "mask:derivatives"]),
        ("t1w,hd-bet:2", ["no parameters"]),
        ("phase-quality:first,otsu", ["'first'", "phase-quality", "none"]),
    ],
)
def test_errors_name_the_token_and_what_is_valid(text, names):
    with pytest.raises(ParameterError) as caught:
        parse_section(text)
    assert repr(text) in str(caught.value)
    for name in names:
        assert name in str(caught.value)
    with pytest.raises(ParameterError) as early:
        check_sections([text], catalogue()["masking"])
    assert str(early.value) == str(caught.value), "the catalogue tells the same"


def test_at_least_one_section():
    with pytest.raises(ParameterError, match="at least one section"):
        parse_sections([])
