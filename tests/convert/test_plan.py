"""The plan: which files will be made of which volumes."""

from __future__ import annotations

import pytest

from qsmxt.convert.classification import classify
from qsmxt.convert.naming import Labelling, assign_labels
from qsmxt.convert.plan import Unit, make_plan
from qsmxt.convert.table import Row
from qsmxt.errors import InputError
from tests.convert.frames import series


def rows_of(*frames: list) -> list[Row]:  # type: ignore[type-arg]
    rows = classify([frame for part in frames for frame in part])
    assign_labels(rows, Labelling.parse(None, "none"))
    return rows


def names(units: list[Unit]) -> list[str]:
    return sorted(path.name for unit in units for path in unit.outputs)


def test_names_of_a_multi_echo_acquisition() -> None:
    (unit,) = make_plan(rows_of(series(2), series(3, "phase")))
    assert names([unit]) == [
        f"sub-p1_acq-GRE_echo-{e}_part-{part}_MEGRE" for e in ("01", "02") for part in ("mag", "phase")
    ]
    assert {str(path.parent) for path in unit.outputs} == {"sub-p1/anat"}


def test_part_only_if_there_are_several() -> None:
    assert names(make_plan(rows_of(series(2)))) == ["sub-p1_acq-GRE_echo-01_MEGRE", "sub-p1_acq-GRE_echo-02_MEGRE"]
    assert names(make_plan(rows_of(series(2, echo_times=(0.02,))))) == ["sub-p1_acq-GRE_T2starw"]


def test_repetitions_become_runs() -> None:
    frames = [f for n in (1, 2) for f in series(2, acquisition_number=n)]
    units = make_plan(rows_of(frames))
    assert [unit.name for unit in units] == ["sub-p1_acq-GRE_run-01_MEGRE", "sub-p1_acq-GRE_run-02_MEGRE"]


def test_ge_real_and_imaginary_become_magnitude_and_phase() -> None:
    parts = [series(2, part, manufacturer="GE MEDICAL SYSTEMS") for part in ("real", "imag")]
    (unit,) = make_plan(rows_of(*parts))
    assert unit.corrected
    assert names([unit])[:2] == ["sub-p1_acq-GRE_echo-01_part-mag_MEGRE", "sub-p1_acq-GRE_echo-01_part-phase_MEGRE"]
    (unit,) = make_plan(rows_of(*(series(2, part) for part in ("real", "imag"))))
    assert names([unit])[:2] == ["sub-p1_acq-GRE_echo-01_part-imag_MEGRE", "sub-p1_acq-GRE_echo-01_part-real_MEGRE"]


def test_echo_with_a_lost_slice_is_left_out_of_both_parts() -> None:
    frames = [*series(2, echo_times=(0.004, 0.010, 0.016)), *series(3, "phase", echo_times=(0.004, 0.010, 0.016))]
    lost = next(f for f in frames if f.component == "phase" and f.echo_time == 0.010)
    (unit,) = make_plan(rows_of([f for f in frames if f is not lost]))
    assert [piece.echo_time for piece in unit.pieces] == [0.004, 0.016]
    assert names([unit])[-1] == "sub-p1_acq-GRE_echo-03_part-phase_MEGRE"  # keeps its number
    assert "the echo at 10 ms is left out: 1 slices of its phase missing" in unit.warnings


def test_parts_that_differ_by_a_slice_are_left_out() -> None:
    """One slice less in every phase volume: nothing inside the series tells, but the magnitude does."""
    (unit,) = make_plan(rows_of(series(2, slices=20), series(3, "phase", slices=19)))
    assert unit.pieces == []
    assert all("slices of one part (the parts have 19 and 20) missing" in text for text in unit.warnings)


def test_receive_elements() -> None:
    frames = [f for coil in ("H1", "H2") for part in ("mag", "phase") for f in series(4, part, coil=coil)]
    (unit,) = make_plan(rows_of(frames))
    assert names([unit])[0] == "sub-p1_acq-GRE_rec-uncombined_echo-01_coil-01_part-mag_MEGRE"
    assert len(unit.outputs) == 2 * 2 * 2


def test_field_map() -> None:
    name = {"sequence_name": "*fm2d2r"}
    (unit,) = make_plan(rows_of(series(2, **name), series(3, "phase", echo_times=(0.010,), **name)))
    assert names([unit]) == [f"sub-p1_acq-GRE_{suffix}" for suffix in ("magnitude1", "magnitude2", "phasediff")]
    assert {path.parent.name for path in unit.outputs} == {"fmap"}


def test_one_file_is_never_two_rows() -> None:
    rows = rows_of(series(2), series(3, acquisition_time="120000", flip_angle=30.0))
    rows[1] = rows[1].edited(acquisition="GRE")
    with pytest.raises(InputError, match="another acquisition"):
        make_plan(rows)
    rows[1] = rows[1].edited(acquisition="gre")  # the same name on some file systems
    with pytest.raises(InputError, match="written to"):
        make_plan(rows)
    assert len(make_plan([rows[0], rows[1].edited(run=2)])) == 2


def test_cells_are_checked() -> None:
    row = rows_of(series(2))[0]
    for changes in ({"type": "bold"}, {"suffix": "T1w"}, {"subject": "../x"}, {"run": -1}, {"subject": ""}):
        with pytest.raises(InputError):
            row.edited(**changes)
    assert row.edited(type="T1w").suffix == "T1w"
