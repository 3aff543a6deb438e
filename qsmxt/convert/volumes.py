"""Sort image planes into volumes: one volume for every echo, component, coil, inversion and repetition.

Planes of one series belong to the same volume if nothing but their position along the normal differs. A plane that
exists twice is dropped if it is the same instance, or the same image exported again; otherwise the volume was
measured repeatedly, and the repetitions are told apart by acquisition number, temporal position and time.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from qsmxt.convert.headers import Frame, Source

#: Slices closer than this (mm) lie at the same place.
SAME_PLACE = 0.02
#: A step larger than this many times the usual one is a gap.
GAP = 1.5


@dataclass
class Volume:
    """The planes of one image volume, ascending along their normal.

    Attributes
    ----------
    frames
        One plane a position.
    repetition, repetitions
        Number of this measurement (from 1), and how often the volume was measured.
    missing
        Number of slices that are not there.
    """

    frames: list[Frame]
    repetition: int = 1
    repetitions: int = 1
    missing: int = 0

    @property
    def first(self) -> Frame:
        """The plane that stands for the volume."""
        return self.frames[0]

    @property
    def source(self) -> Source:
        """Header of the file of that plane."""
        return self.first.source

    @property
    def echo_time(self) -> float | None:
        """Echo time, s."""
        return self.first.echo_time

    @property
    def paths(self) -> list[str]:
        """Files that hold the planes, each once, in the order of the planes."""
        return list(dict.fromkeys(frame.source.path for frame in self.frames))

    @property
    def matrix(self) -> tuple[int, int, int]:
        """Rows, columns, slices."""
        return (self.source.rows, self.source.columns, len(self.frames))


@dataclass
class SeriesVolumes:
    """Volumes of one series that share everything but echo time, coil and repetition, and what was wrong."""

    volumes: list[Volume] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def sort_volumes(frames: Iterable[Frame]) -> list[SeriesVolumes]:
    """Volumes of all series, by series number."""
    by_series: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        source = frame.source
        by_series[(source.patient_id, source.study_uid, source.series_uid)].append(frame)
    found: list[SeriesVolumes] = []
    for planes in by_series.values():
        found += _series(planes)
    return sorted(found, key=lambda s: _series_order(s.volumes[0].first))


def _series_order(frame: Frame) -> tuple[Any, ...]:
    source = frame.source
    return (source.patient_id, source.study_date, source.series_number, source.series_uid, frame.component)


def _series(planes: list[Frame]) -> list[SeriesVolumes]:
    planes, repeated = _without_copies(planes)
    warnings = [f"{repeated} duplicated instances were left out"] if repeated else []
    placed = [plane for plane in planes if plane.location is not None]
    if len(placed) < len(planes):
        warnings.append(f"{len(planes) - len(placed)} images without position or orientation were left out")
    shapes = sorted({(p.source.rows, p.source.columns) for p in placed})
    if len(shapes) > 1:
        sizes = ", ".join(f"{rows}x{columns}" for rows, columns in shapes)
        warnings.append(f"mixed matrix sizes in one series: {sizes}")
    coils = _coils_matter(placed)
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for plane in placed:
        groups[_group_key(plane)].append(plane)
    found = []
    for members in groups.values():
        series = SeriesVolumes(warnings=list(warnings))
        for same in _split(members, lambda p: (_round(p.echo_time, 5), p.coil if coils else "")):
            series.volumes += _repetitions(same, series.warnings)
        if series.volumes:
            _find_gaps(series)
            found.append(series)
    return found


def _group_key(frame: Frame) -> Hashable:
    source = frame.source
    orientation = tuple(round(value, 2) + 0.0 for value in frame.orientation or ())
    kind = tuple(sorted(set(frame.image_type[:2])))
    return (
        frame.component, source.rows, source.columns, orientation, _round(frame.inversion_time, 4), source.flip_angle,
        kind,
    )  # fmt: skip


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _split(frames: list[Frame], key: Callable[[Frame], Any]) -> list[list[Frame]]:
    groups: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return [groups[k] for k in sorted(groups, key=lambda k: tuple((part is None, part or 0) for part in k[:1]) + k[1:])]


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], int]:
    seen: set[tuple[str, int]] = set()
    kept = []
    for frame in frames:
        key = (frame.source.sop_uid or frame.source.path, frame.index)
        if key not in seen:
            seen.add(key)
            kept.append(frame)
    return kept, len(frames) - len(kept)


def _coils_matter(frames: list[Frame]) -> bool:
    """Whether the series holds single receive elements: several names, each of one element."""
    names = {frame.coil for frame in frames}
    return len(names) > 1 and any(is_single_element(name) for name in names)


def is_single_element(coil: str) -> bool:
    """Whether a coil name means one receive element: ``H12`` does; ``HEA;HEP``, ``HE1-4`` and ``BC`` do not."""
    return bool(coil) and ";" not in coil and "-" not in coil and any(c.isdigit() for c in coil)


def _repetitions(frames: list[Frame], warnings: list[str]) -> list[Volume]:
    places = _places(frames)
    places, copies = _without_same_images(places)
    if copies:
        warnings.append(f"{copies} images exported twice were left out")
    most = max(len(place) for place in places)
    if most == 1:
        return [Volume([place[0] for place in places])]
    if all(len(place) == most for place in places):
        ranked = [sorted(place, key=_moment) for place in places]
        return [Volume([place[r] for place in ranked], r + 1, most) for r in range(most)]
    return _uneven(places, most, warnings)


def _uneven(places: list[list[Frame]], most: int, warnings: list[str]) -> list[Volume]:
    """Repetitions that do not all have every slice: only a number in the header can tell them apart."""
    frames = [frame for place in places for frame in place]
    keys: tuple[Callable[[Frame], Any], ...] = (lambda f: (f.source.acquisition_number,), lambda f: (f.temporal,))
    for key in keys:
        groups = _split(frames, key)
        parts = [_places(group) for group in groups]
        if len(groups) == most and all(len(place) == 1 for part in parts for place in part):
            warnings.append(f"{most} interleaved measurements in one series, not all of them complete")
            volumes = [Volume([place[0] for place in part], r + 1, most) for r, part in enumerate(parts)]
            for volume in volumes:
                volume.missing = len(places) - len(volume.frames)
            return volumes
    extra = sum(len(place) - 1 for place in places)
    warnings.append(f"interleaved images that no number in the header tells apart ({extra} more than positions)")
    return [Volume([place[0] for place in places], missing=extra)]


def _places(frames: list[Frame]) -> list[list[Frame]]:
    """Frames by position along the normal, ascending."""
    ordered = sorted(frames, key=lambda f: (f.location or 0.0, _moment(f)))
    places: list[list[Frame]] = []
    for frame in ordered:
        if places and abs((frame.location or 0.0) - (places[-1][0].location or 0.0)) < SAME_PLACE:
            places[-1].append(frame)
        else:
            places.append([frame])
    return places


def _moment(frame: Frame) -> tuple[Any, ...]:
    source = frame.source
    return (
        source.acquisition_number, frame.temporal, source.acquisition_time, source.instance_number, source.content_time,
        frame.index, source.sop_uid,
    )  # fmt: skip


def _without_same_images(places: list[list[Frame]]) -> tuple[list[list[Frame]], int]:
    """Drop planes that an export wrote again under a new identity: same numbers in the header, same pixels."""
    copies = 0
    kept = []
    for place in places:
        unique: dict[Hashable, Frame] = {}
        claims = [_moment(frame)[:5] for frame in place]
        for frame, claim in zip(place, claims, strict=True):
            key: Hashable = claim if claims.count(claim) == 1 else (claim, pixel_digest(frame))
            if key in unique:
                copies += 1
            else:
                unique[key] = frame
        kept.append(list(unique.values()))
    return kept, copies


def pixel_digest(frame: Frame) -> str:
    """Digest of the stored pixels of a plane; of its place in its file if the pixels cannot be read."""
    import pydicom
    from pydicom.encaps import get_frame

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(frame.source.path, force=True)
            data = dataset.PixelData
            syntax = dataset.file_meta.get("TransferSyntaxUID")
            if syntax is not None and syntax.is_compressed:
                data = get_frame(data, frame.index, number_of_frames=frame.source.frames)
            elif frame.source.multiframe:
                size = len(data) // frame.source.frames
                data = data[frame.index * size : (frame.index + 1) * size]
        return hashlib.sha256(data).hexdigest()
    except Exception:  # damaged pixels can raise anything; the conversion will name the file
        return f"{frame.source.path} {frame.index}"


def _find_gaps(series: SeriesVolumes) -> None:
    most = max(len(volume.frames) for volume in series.volumes)
    for volume in series.volumes:
        inside = _gap_slices(volume)
        expected = max(most, volume.source.expected_slices if not inside else 0)
        if volume.source.expected_slices and volume.source.expected_slices < most:
            expected = most  # a number of slices that the images contradict is not believed
        volume.missing = max(volume.missing, inside, expected - len(volume.frames))
        if volume.missing:
            echo = "" if volume.echo_time is None else f" of echo time {volume.echo_time * 1e3:g} ms"
            series.warnings.append(f"{volume.missing} slices missing in the volume{echo} ({len(volume.frames)} found)")


def _gap_slices(volume: Volume) -> int:
    places = [frame.location or 0.0 for frame in volume.frames]
    steps = [b - a for a, b in pairwise(places)]
    if len(steps) < 2:
        return 0
    usual = median(steps)
    return sum(round(step / usual) - 1 for step in steps if step > GAP * usual)
