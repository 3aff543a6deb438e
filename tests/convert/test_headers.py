"""Headers: what a plane is, from tags; files that are not what they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsmxt.convert.headers import read_frames
from qsmxt.errors import InputError
from tests.convert.scanner import Exam, write_classic, write_ge, write_philips_enhanced

EXAM = Exam(np.diag([2.0, 2.0, 3.0, 1.0]))
VOLUME = np.arange(5 * 4 * 3, dtype=np.uint16).reshape(1, 5, 4, 3)


def one(folder: Path, image_type: list[str], manufacturer: str = "SIEMENS", **extra: object):  # type: ignore[no-untyped-def]
    path = write_classic(
        folder, EXAM, VOLUME, [0.012], series=1, manufacturer=manufacturer, image_type=image_type, **extra
    )  # type: ignore[arg-type]
    return read_frames(path[0])[0]


@pytest.mark.parametrize(
    ("image_type", "component"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], "mag"),
        (["ORIGINAL", "PRIMARY", "P", "ND"], "phase"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "mag"),
        (["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"], "real"),
        (["ORIGINAL", "PRIMARY", "IMAGINARY"], "imag"),
        (["ORIGINAL", "PRIMARY", "VELOCITY MAP", "P", "PCA"], "velocity"),
        (["ORIGINAL", "PRIMARY", "B0 MAP", "P"], "fieldmap"),
        (["ORIGINAL", "PRIMARY", "OTHER"], ""),  # PRIMARY holds a P and an M, and means neither
    ],
)
def test_component_is_a_whole_value_of_image_type(tmp_path: Path, image_type: list[str], component: str) -> None:
    assert one(tmp_path, image_type).component == component


@pytest.mark.parametrize(("code", "component"), [(0, "mag"), (1, "phase"), (2, "real"), (3, "imag")])
def test_ge_component_is_private(tmp_path: Path, code: int, component: str) -> None:
    private = {(0x0043, 0x2F): ("GEMS_PARM_01", "SS", code)}
    frame = one(tmp_path, ["ORIGINAL", "PRIMARY", "OTHER"], "GE MEDICAL SYSTEMS", private=private)
    assert frame.component == component
    assert frame.source.vendor == "ge"


def test_units_and_geometry(tmp_path: Path) -> None:
    frame = one(tmp_path, ["ORIGINAL", "PRIMARY", "M"])
    assert frame.echo_time == pytest.approx(0.012)
    assert frame.source.repetition_time == pytest.approx(0.04)
    assert (frame.source.rows, frame.source.columns) == (4, 5)
    # row 0 is the highest y: 3 * 2 mm, which is -6 mm in LPS
    assert frame.position == pytest.approx((0.0, -6.0, 0.0))
    assert frame.location == pytest.approx(0.0)


def test_multiframe_becomes_planes(tmp_path: Path) -> None:
    magnitude = np.random.default_rng(0).random((2, 5, 4, 3))
    write_philips_enhanced(tmp_path / "x.dcm", EXAM, magnitude, magnitude - 0.5, [0.005, 0.01])
    frames = read_frames(tmp_path / "x.dcm")
    assert len(frames) == 2 * 2 * 3
    assert {(f.component, f.echo_time) for f in frames} == {(c, t) for c in ("mag", "phase") for t in (0.005, 0.01)}
    assert sorted({round(f.location or 0, 6) for f in frames}) == [-6.0, -3.0, 0.0]
    assert frames[0].source.repetition_time == pytest.approx(0.04)
    assert frames[0].source.scanning_sequence == ("GR",)


def test_other_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not DICOM at all, but longer than a preamble" * 9)
    (tmp_path / "empty").touch()
    assert read_frames(tmp_path / "notes") == []
    assert read_frames(tmp_path / "empty") == []


def test_file_without_preamble_is_read(tmp_path: Path) -> None:
    path = write_classic(tmp_path, EXAM, VOLUME, [0.012], series=1, manufacturer="SIEMENS", image_type=["A", "B", "M"])[
        0
    ]
    content = path.read_bytes()[132:]
    bare = tmp_path / "bare"
    start = content.index(b"\x08\x00\x08\x00")  # after the file meta information
    bare.write_bytes(content[start:])
    assert read_frames(bare)[0].component == "mag"


@pytest.mark.parametrize("keep", [250, 400, 900])
def test_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write_classic(tmp_path, EXAM, VOLUME, [0.012], series=1, manufacturer="SIEMENS", image_type=["A", "B", "M"])[
        0
    ]
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cut"):
        read_frames(cut)


def test_garbage_after_the_preamble_is_named(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b"\0" * 128 + b"DICM" + bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)))
    try:
        assert read_frames(path) == []
    except InputError as error:
        assert "garbage" in str(error)


def test_deflated_file_is_refused(tmp_path: Path) -> None:
    path = write_classic(tmp_path, EXAM, VOLUME, [0.012], series=1, manufacturer="SIEMENS", image_type=["A", "B", "M"])[
        0
    ]
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"[:20])
    deflated = tmp_path / "deflated"
    deflated.write_bytes(content[:200] + b"1.2.840.10008.1.2.1.99" + content[200:])
    with pytest.raises(InputError, match="deflated"):
        read_frames(deflated)


def test_control_characters_do_not_pass(tmp_path: Path) -> None:
    exam = Exam(EXAM.affine, patient_id="a\x1b[2Jb")
    path = write_classic(
        tmp_path, exam, VOLUME, [0.012], series=1, manufacturer="GE MEDICAL SYSTEMS", image_type=["A", "B"]
    )
    assert read_frames(path[0])[0].source.patient_id == "a[2Jb"


def test_ge_series_holds_both_parts(tmp_path: Path) -> None:
    signal = np.ones((1, 5, 4, 3)) * np.exp(0.3j)
    write_ge(tmp_path, EXAM, signal, [0.012])
    found = [read_frames(path)[0].component for path in sorted(tmp_path.iterdir())]
    assert found == ["real"] * 3 + ["imag"] * 3
