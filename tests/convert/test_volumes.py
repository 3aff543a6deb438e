"""Planes find their volume; what is missing, double or mixed is said by name."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.convert.volumes import SeriesVolumes, is_single_element, sort_volumes
from tests.convert.frames import plane, series
from tests.convert.scanner import Exam, write_classic


def only(frames: list) -> SeriesVolumes:  # type: ignore[type-arg]
    (found,) = sort_volumes(frames)
    return found


def test_one_volume_for_every_echo_in_any_order() -> None:
    frames = series(2, echo_times=(0.004, 0.010, 0.016))
    shuffled = [frames[i] for i in np.random.default_rng(0).permutation(len(frames))]
    found = only(shuffled)
    assert [volume.echo_time for volume in found.volumes] == [0.004, 0.010, 0.016]
    assert all([f.location for f in volume.frames] == [0.0, 2.0, 4.0, 6.0] for volume in found.volumes)
    assert found.warnings == []


def test_instance_copied_twice_is_left_out() -> None:
    frames = series(2)
    copy = plane(
        2.0, component="mag", echo_time=0.004, series_number=2, series_uid="1.2.2", sop_uid=frames[1].source.sop_uid
    )
    found = only([*frames, copy])
    assert [len(v.frames) for v in found.volumes] == [4, 4]
    assert found.warnings == ["1 duplicated instances were left out"]


def test_image_exported_again_under_another_identity_is_left_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from qsmxt.convert.headers import read_frames

    exam = Exam(np.diag([2.0, 2.0, 3.0, 1.0]))
    volume = np.random.default_rng(0).integers(0, 999, (1, 5, 4, 3)).astype(np.uint16)
    given = {"series": 1, "manufacturer": "SIEMENS", "image_type": ["A", "B", "M"]}
    paths = write_classic(tmp_path / "a", exam, volume, [0.01], **given)
    frames = [frame for path in paths for frame in read_frames(path)]
    again = read_frames(paths[1])[0]
    again.source.sop_uid = "9.9.9"
    found = only([*frames, again])
    assert len(found.volumes) == 1 and len(found.volumes[0].frames) == 3
    assert found.warnings == ["1 images exported twice were left out"]


def test_gap_inside_and_at_the_end() -> None:
    frames = series(2, echo_times=(0.004, 0.010, 0.016), slices=6)
    inside = [f for f in frames if not (f.echo_time == 0.010 and f.location == 4.0)]
    found = only(inside)
    assert [volume.missing for volume in found.volumes] == [0, 1, 0]
    assert "1 slices missing in the volume of echo time 10 ms (5 found)" in found.warnings
    at_end = [f for f in frames if not (f.echo_time == 0.016 and f.location in (8.0, 10.0))]
    assert [volume.missing for volume in only(at_end).volumes] == [0, 0, 2]


def test_number_of_slices_in_the_header_tells_of_a_lost_end() -> None:
    frames = series(2, echo_times=(0.004,), slices=6, expected_slices=6)
    assert only(frames).volumes[0].missing == 0
    assert only(frames[:-2]).volumes[0].missing == 2


def test_repetitions_are_told_apart_by_acquisition() -> None:
    frames = [f for n in (1, 2, 3) for f in series(2, acquisition_number=n)]
    found = only(frames)
    assert [(v.echo_time, v.repetition, v.repetitions) for v in found.volumes] == [
        (t, r, 3) for t in (0.004, 0.010) for r in (1, 2, 3)
    ]
    for volume in found.volumes:
        assert {f.source.acquisition_number for f in volume.frames} == {volume.repetition}


def test_interleaved_incomplete_repetition_is_reported() -> None:
    frames = [f for n in (1, 2) for f in series(2, echo_times=(0.004,), acquisition_number=n)]
    found = only(frames[:-1])
    assert [(len(v.frames), v.missing) for v in found.volumes] == [(4, 0), (3, 1)]
    assert any("interleaved" in text for text in found.warnings)


def test_images_that_nothing_tells_apart_are_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = series(2, echo_times=(0.004,))
    stray = plane(2.0, echo_time=0.004, series_number=2, series_uid="1.2.2")
    found = only([*frames, stray])
    assert found.volumes[0].missing == 1
    assert any("no number in the header tells apart" in text for text in found.warnings)


def test_mixed_matrix_sizes_become_series_of_their_own() -> None:
    frames = series(2, echo_times=(0.004,))
    stray = plane(0.0, echo_time=0.004, series_number=2, series_uid="1.2.2", rows=16, columns=16)
    found = sort_volumes([*frames, stray])
    assert sorted(len(s.volumes[0].frames) for s in found) == [1, 4]
    assert all("mixed matrix sizes in one series: 8x8, 16x16" in s.warnings for s in found)


def test_localizer_planes_are_separate() -> None:
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    frames = [*series(1, echo_times=(0.004,)), *series(1, echo_times=(0.004,), orientation=sagittal, slices=1)]
    assert len(sort_volumes(frames)) == 2


@pytest.mark.parametrize(
    ("coil", "single"),
    [
        ("H12", True),
        ("A01", True),
        ("HEA;HEP", False),
        ("HE1-4", False),
        ("BC", False),
        ("C:HC1-32", False),
        ("", False),
    ],
)
def test_single_receive_elements(coil: str, single: bool) -> None:
    assert is_single_element(coil) is single
    frames = series(2, echo_times=(0.004,), coil=coil)
    assert len(only(frames).volumes) == 1


def test_receive_elements_are_volumes_of_their_own() -> None:
    frames = [f for coil in ("H1", "H2", "H10") for f in series(2, coil=coil)]
    assert len(only(frames).volumes) == 6
