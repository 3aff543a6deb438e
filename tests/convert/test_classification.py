"""Rows of the table: what every series is, and which belong together."""

from __future__ import annotations

from qsmxt.convert.classification import classify
from qsmxt.convert.table import Row
from tests.convert.frames import plane, series


def table(*frames: list) -> list[Row]:  # type: ignore[type-arg]
    return classify([frame for part in frames for frame in part])


def brief(rows: list[Row]) -> list[tuple[int, str, str, str]]:
    return [(row.source.series_number, row.component, row.type, row.suffix) for row in rows]


def test_magnitude_and_phase_of_two_series_are_one_acquisition() -> None:
    rows = table(series(2), series(3, "phase"))
    assert brief(rows) == [(2, "mag", "mag", "MEGRE"), (3, "phase", "phase", "MEGRE")]
    assert rows[0].group == rows[1].group
    assert (rows[0].acquisition, rows[0].run) == ("GRE", 0)


def test_single_echo_is_t2starw() -> None:
    rows = table(series(2, echo_times=(0.02,)), series(3, "phase", echo_times=(0.02,)))
    assert [row.suffix for row in rows] == ["T2starw", "T2starw"]


def test_magnitude_alone() -> None:
    assert brief(table(series(2)))[0][2:] == ("mag", "MEGRE")
    assert brief(table(series(2, echo_times=(0.02,))))[0][2:] == ("mag", "T2starw")
    assert brief(table(series(2, echo_times=(0.003,))))[0][2:] == ("extra", "extra")


def test_repeated_protocol_gives_runs_in_the_order_of_time() -> None:
    later = {"acquisition_time": "103000"}
    rows = table(series(4, **later), series(5, "phase", **later), series(2), series(3, "phase"))
    assert {(row.source.series_number, row.run) for row in rows} == {(2, 1), (3, 1), (4, 2), (5, 2)}
    assert len({row.group for row in rows}) == 2


def test_phase_finds_the_magnitude_of_its_own_measurement() -> None:
    """Series numbers are interleaved, acquisition times are not."""
    early, late = {"acquisition_time": "101000"}, {"acquisition_time": "105000"}
    rows = table(series(2, **early), series(3, **late), series(4, "phase", **late), series(5, "phase", **early))
    by_number = {row.source.series_number: row for row in rows}
    assert by_number[2].group == by_number[5].group
    assert by_number[3].group == by_number[4].group


def test_other_parameters_are_another_acquisition_not_a_run() -> None:
    rows = table(series(2), series(3, echo_times=(0.005, 0.015), acquisition_time="110000"))
    assert [(row.acquisition, row.run) for row in rows] == [("GRE", 0), ("GREv2", 0)]


def test_two_reconstructions_of_one_measurement() -> None:
    normalised = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
    rows = table(series(2), series(3, image_type=normalised), series(4, "phase"))
    by_number = {row.source.series_number: row for row in rows}
    assert by_number[2].group == by_number[4].group != by_number[3].group
    assert (by_number[2].reconstruction, by_number[3].reconstruction) == ("", "norm")
    assert {row.run for row in rows} == {0}


def test_description_alone_decides_nothing() -> None:
    name = {"series_description": "T1w_MPRAGE_phase", "protocol": "T1w_MPRAGE_phase"}
    rows = table(series(2, **name), series(3, "phase", **name))
    assert [row.type for row in rows] == ["mag", "phase"]


def test_t1w_by_inversion_and_by_name_with_fitting_tags() -> None:
    prepared = {"inversion_time": 0.9, "inverts": True, "protocol": "anat"}
    assert brief(table(series(2, echo_times=(0.003,), **prepared)))[0][2:] == ("T1w", "T1w")
    named = {"protocol": "t1_fl3d"}
    assert brief(table(series(2, echo_times=(0.003,), **named)))[0][2:] == ("T1w", "T1w")
    assert brief(table(series(2, echo_times=(0.03,), **named)))[0][2:] == ("mag", "T2starw")


def test_mp2rage() -> None:
    common = {"protocol": "mp2rage", "sequence_name": "*tfl3d1_16", "inverts": True}
    uni = ("DERIVED", "PRIMARY", "M", "UNI")
    rows = table(
        series(2, echo_times=(0.003,), inversion_time=0.7, **common),
        series(3, "phase", echo_times=(0.003,), inversion_time=0.7, **common),
        series(4, echo_times=(0.003,), inversion_time=2.5, **common),
        series(5, "phase", echo_times=(0.003,), inversion_time=2.5, **common),
        series(6, echo_times=(0.003,), image_type=uni, **common),
    )
    assert [(row.type, row.suffix, row.inversion) for row in rows] == [
        ("mag", "MP2RAGE", 1), ("phase", "MP2RAGE", 1), ("mag", "MP2RAGE", 2), ("phase", "MP2RAGE", 2),
        ("T1w", "UNIT1", 0),
    ]  # fmt: skip
    assert rows[0].group == rows[1].group != rows[2].group == rows[3].group


def test_siemens_field_map_is_no_phase_of_an_echo() -> None:
    name = {"sequence_name": "*fm2d2r", "protocol": "gre_field_mapping"}
    rows = table(series(2, **name), series(3, "phase", echo_times=(0.010,), **name))
    assert brief(rows) == [(2, "mag", "fieldmap", "magnitude1"), (3, "phase", "fieldmap", "phasediff")]
    lone = table(series(3, "phase", echo_times=(0.010,), **name))[0]
    assert lone.type == "extra" and "echo times" in lone.warnings[0]


def test_phase_difference_without_the_name_of_the_sequence() -> None:
    rows = table(series(2), series(3, "phase", echo_times=(0.010,)))
    assert [row.suffix for row in rows] == ["magnitude1", "phasediff"]


def test_ge_field_map_and_velocity() -> None:
    rows = table(series(6, echo_times=(0.004,)), series(6, "fieldmap", echo_times=(0.004,)))
    assert {row.suffix for row in rows} == {"magnitude", "fieldmap"}
    assert len({row.group for row in rows}) == 1
    assert table(series(2, "velocity"))[0].type == "extra"


def test_spin_echoes() -> None:
    assert brief(table(series(2, scanning_sequence=("SE",))))[0][2:] == ("mag", "MESE")
    assert brief(table(series(2, echo_times=(0.08,), scanning_sequence=("SE",))))[0][2:] == ("extra", "extra")


def test_computed_images_localizers_and_time_series() -> None:
    swi = ("DERIVED", "PRIMARY", "M", "SWI", "NORM")
    assert table(series(2, image_type=swi))[0].type == "extra"
    for computed in ("WATER", "FAT_FRACTION"):
        assert table(series(2, image_type=("ORIGINAL", "PRIMARY", "DIXON", computed)))[0].type == "extra"
    assert table(series(2, image_type=("ORIGINAL", "PRIMARY", "M", "VFRAME")))[0].type == "skip"
    assert table(series(1, series_description="localizer"))[0].type == "skip"
    bold = [
        f for n in range(40) for f in series(2, "mag", (0.03,), 2, acquisition_number=n, scanning_sequence=("EP", "GR"))
    ]
    assert table(bold)[0].type == "skip"


def test_real_and_imaginary() -> None:
    rows = table(series(2, "real"), series(2, "imag"))
    assert {row.type for row in rows} == {"real", "imag"} and len({row.group for row in rows}) == 1
    assert table(series(2, "real"))[0].type == "extra"


def test_real_and_imaginary_are_skipped_beside_magnitude_and_phase() -> None:
    rows = table(*(series(2, part) for part in ("mag", "phase", "real", "imag")))
    assert {row.component: row.type for row in rows} == {"mag": "mag", "phase": "phase", "real": "skip", "imag": "skip"}


def test_receive_elements_beside_the_combination() -> None:
    single = [f for coil in ("H1", "H2") for p in ("mag", "phase") for f in series(4, p, coil=coil)]
    rows = table(series(2, coil="HEA;HEP"), series(3, "phase", coil="HEA;HEP"), single)
    assert [(row.combined, row.reconstruction, len(row.coils)) for row in rows] == [
        (True, "", 1), (True, "", 1), (False, "uncombined", 2), (False, "uncombined", 2),
    ]  # fmt: skip


def test_receive_elements_saved_one_series_each() -> None:
    parts = [series(2 * n + i, part, coil=f"H{n}") for n in (2, 3, 4) for i, part in enumerate(("mag", "phase"))]
    rows = table(*parts)
    assert [(row.type, row.combined, len(row.coils), len(row.volumes), row.run) for row in rows] == [
        ("mag", False, 3, 6, 0), ("phase", False, 3, 6, 0),
    ]  # fmt: skip


def test_studies_do_not_mix() -> None:
    rows = table(series(2), series(3, "phase", study_uid="9.9"))
    assert rows[0].type == "mag"
    assert rows[1].warnings == ["phase without magnitude"]


def test_unknown_component_is_not_guessed() -> None:
    row = table(series(2, ""))[0]
    assert row.type == "extra" and "do not say" in row.warnings[0]


def test_position_matters() -> None:
    """A second slab with the same parameters is not the partner of the first one's phase."""
    far = [plane(200.0 + 2 * k, component="phase", echo_time=t, series_number=3, series_uid="1.2.9")
           for t in (0.004, 0.010) for k in range(4)]  # fmt: skip
    rows = table(series(2), far)
    assert rows[0].group != rows[1].group
