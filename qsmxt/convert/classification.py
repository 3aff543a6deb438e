"""From volumes to rows: what each series is, by its tags.

A description never decides alone; it only breaks a tie between readings that the tags allow. The order of the
questions: which component of the complex image, which kind of sequence, which other rows belong to the same
acquisition, and which of those are pairs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable

from qsmxt.convert.headers import Frame
from qsmxt.convert.table import PARTS, Row, label_of
from qsmxt.convert.volumes import SeriesVolumes, is_single_element, sort_volumes

#: Values of Image Type that mark images computed from others.
_COMPUTED = frozenset(
    {
        "SWI", "MIP", "MINIP", "MIN IP", "MNIP", "MPR", "PROJECTION IMAGE", "SECONDARY", "CSA MPR", "MEAN", "ADC", "FA",
        "TRACEW", "SUBTRACTION", "REFORMATTED", "T1 MAP", "T2 MAP", "T2_STAR MAP", "T2*", "R2_STAR MAP", "POSDISP",
        "QSM", "W", "F", "IP", "OP", "FF", "WATER", "FAT", "FAT_FRACTION", "WATER_FRACTION", "IN_PHASE", "OUT_OF_PHASE",
    }
)  # fmt: skip
_LOCALIZER = re.compile(r"locali[sz]er|scout|survey", re.IGNORECASE)
_T1 = re.compile(r"t1|mpr|bravo|spgr|tfe", re.IGNORECASE)
#: Siemens' product field-map sequences.
_FIELDMAP_SEQUENCE = re.compile(r"\*?fm2d", re.IGNORECASE)
#: Sequences that prepare the magnetisation with an inversion.
_PREPARED_SEQUENCE = re.compile(r"\*?tfl3d|mp2?rage|3D?T1TFE|t1tfe|bravo", re.IGNORECASE)
#: Echo times (s) closer than this are the same.
SAME_ECHO_TIME = 1e-5
#: Longest echo time (s) of a T1-weighted gradient echo, and shortest of a T2*-weighted one.
LONGEST_T1W, SHORTEST_T2STARW = 0.008, 0.010
#: More repetitions than this are a time series.
MOST_REPETITIONS = 30


def classify(frames: Iterable[Frame]) -> list[Row]:
    """The table of a source tree; subjects and sessions are left empty."""
    rows = [row for series in sort_volumes(frames) for row in _rows(series)]
    by_exam: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        by_exam[(row.source.patient_id, row.source.study_uid)].append(row)
    table = []
    for members in by_exam.values():
        joined = _join_elements(members)
        _classify_exam(joined)
        table += joined
    return table


def _rows(series: SeriesVolumes) -> list[Row]:
    first = series.volumes[0].first
    coils = {volume.first.coil for volume in series.volumes}
    if len(coils) > 1 and any(map(is_single_element, coils)):
        single = [v for v in series.volumes if is_single_element(v.first.coil)]
        whole = [v for v in series.volumes if not is_single_element(v.first.coil)]
        parts = [(single, False), (whole, True)]
    else:
        parts = [(series.volumes, True)]
    return [
        Row(volumes, component=first.component, combined=combined, warnings=list(series.warnings))
        for volumes, combined in parts
        if volumes
    ]


def _classify_exam(rows: list[Row]) -> None:
    complex_protocols = {(_protocol(row), tuple(row.echo_times)) for row in rows if row.component in PARTS[1:]}
    for row in rows:
        _first_reading(row, (_protocol(row), tuple(row.echo_times)) in complex_protocols)
    _number_inversions(rows)
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if row.type in (*PARTS, "fieldmap"):
            groups[_protocol(row)].append(row)
    number = 0
    for members in groups.values():
        number = _fieldmaps(members, number)
        number = _pair([row for row in members if row.type in PARTS], number)
    for row in rows:
        if not row.group:
            number += 1
            row.group = number
    _whole_groups(rows)
    _suffixes(rows)
    _label(rows)


def _join_elements(rows: list[Row]) -> list[Row]:
    """Receive elements that were saved one series each become one row."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if row.combined and is_single_element(row.coils[0]) and row.component in PARTS:
            groups[(_protocol(row), row.component, row.source.acquisition_time)].append(row)
    joined = {}
    for first, *others in groups.values():
        if others and len({row.coils[0] for row in (first, *others)}) == 1 + len(others):
            for row in others:
                first.volumes += row.volumes
                first.warnings += [text for text in row.warnings if text not in first.warnings]
                joined[id(row)] = first
            first.combined = False
    return [row for row in rows if id(row) not in joined]


def _protocol(row: Row) -> Hashable:
    source = row.source
    orientation = tuple(round(value, 2) + 0.0 for value in row.volumes[0].first.orientation or ())
    return (source.protocol or source.sequence_name or source.series_description, source.rows, source.columns,
            orientation, source.sequence_name)  # fmt: skip


def _first_reading(row: Row, has_phase: bool) -> None:
    """Type of a row by itself; ``has_phase`` if its protocol also gave phase, real or imaginary images."""
    values = {value.upper() for value in row.image_type}
    source = row.source
    row.type = row.component if row.component in PARTS else "extra"
    if row.component == "fieldmap":
        row.type, row.suffix = "fieldmap", "fieldmap"
    elif row.component == "velocity":
        row.warnings.append("velocity map, not a phase image")
    elif "UNI" in values or "UNI" in source.sequence_name.upper().split("_"):
        denoised = "DEN" in source.series_description.upper()
        row.type, row.suffix = "T1w", "T1w" if denoised else "UNIT1"
    elif values & _COMPUTED:
        row.type = "extra"
    elif values & {"MOSAIC", "VFRAME"}:
        row.type = "skip"
        row.warnings.append("mosaic of an echo-planar series")
    elif "LOCALIZER" in values or (_LOCALIZER.search(source.series_description) and row.slices < 16):
        row.type = "skip"
    elif not row.component:
        row.warnings.append("the tags do not say whether this is magnitude or phase")
    elif _is_t1w(row, has_phase):
        row.type, row.suffix = "T1w", "T1w"
    elif row.type in PARTS and row.repetitions > MOST_REPETITIONS:
        row.type = "skip"
        row.warnings.append(f"time series of {row.repetitions} volumes")
    if row.type == "extra":
        row.suffix = "extra"


def _is_t1w(row: Row, has_phase: bool) -> bool:
    """Short-echo 3-D gradient echo, inversion-prepared, or called T1-weighted by its protocol."""
    source = row.source
    times = row.echo_times
    if row.component != "mag" or not row.is_gradient_echo or source.acquisition_type not in ("3D", ""):
        return False
    if len(times) > 1 and times[-1] > 2 * LONGEST_T1W:
        return False
    if times and times[0] > LONGEST_T1W:
        return False
    prepared = source.inverts or bool(row.inversion_time) or bool(_PREPARED_SEQUENCE.search(source.sequence_name))
    prepared = prepared or "MP" in source.sequence_variant
    return prepared or (
        len(times) == 1 and not has_phase and bool(_T1.search(f"{source.protocol} {source.series_description}"))
    )


def _number_inversions(rows: list[Row]) -> None:
    """Several inversion times of one protocol are the inversions of an MP2RAGE."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if row.inversion_time and row.type in (*PARTS, "T1w") and row.component in PARTS and row.suffix != "UNIT1":
            groups[row.source.protocol].append(row)
    for members in groups.values():
        times = sorted({row.inversion_time or 0.0 for row in members})
        if len(times) < 2:
            continue
        for row in members:
            row.inversion = times.index(row.inversion_time or 0.0) + 1
            row.type, row.suffix = row.component, "MP2RAGE"


def _fieldmaps(rows: list[Row], number: int) -> int:
    """Field maps among the rows of one protocol: a phase difference, or a field-map sequence."""
    mags = [row for row in rows if row.type == "mag"]
    for phase in [row for row in rows if row.type == "phase"]:
        product = bool(_FIELDMAP_SEQUENCE.match(phase.source.sequence_name))
        two = [m for m in mags if m.type == "mag" and len(m.echo_times) == 2 and m.slices == phase.slices]
        lone = len(phase.echo_times) == 1
        difference = lone and any(_same(m.echo_times[1], phase.echo_times[0]) for m in two)
        if not product and not (difference and phase.source.vendor == "siemens"):
            continue
        if not two:
            phase.type, phase.suffix = "extra", "extra"
            phase.warnings.append("phase of a field map without its magnitudes: the echo times are not known")
            continue
        partner = min(two, key=lambda m: abs(m.source.series_number - phase.source.series_number))
        number = _join("fieldmap", number, phase, partner)
        phase.suffix, partner.suffix = ("phasediff" if lone else "phase1"), "magnitude1"
    for field in [row for row in rows if row.suffix == "fieldmap"]:
        same = [m for m in mags if m.type == "mag" and m.slices == field.slices]
        number = _join("fieldmap", number, field, *same[:1])
        for mag in same[:1]:
            mag.suffix = "magnitude"
        if not same:
            field.type, field.suffix = "extra", "extra"
            field.warnings.append("field map without magnitude")
    for mag in mags:
        if mag.type == "mag" and _FIELDMAP_SEQUENCE.match(mag.source.sequence_name):
            mag.type, mag.suffix = "extra", "extra"
            mag.warnings.append("magnitude of a field map without its phase")
    return number


def _join(kind: str, number: int, *rows: Row) -> int:
    for row in rows:
        row.type, row.group = kind, number + 1
    return number + 1


def _same(a: float, b: float) -> bool:
    return abs(a - b) < SAME_ECHO_TIME


def _pair(rows: list[Row], number: int) -> int:
    """Give rows of one acquisition the same group number; every phase finds at most one magnitude."""
    free = {part: [row for row in rows if row.type == part] for part in PARTS}
    for phase in list(free["phase"]):
        number += 1
        phase.group = number
        free["phase"].remove(phase)
        mag = _take(phase, free["mag"])
        if mag is not None:
            mag.group = number
        else:
            phase.warnings.append("phase without magnitude")
    for real in list(free["real"]):
        number += 1
        real.group = number
        free["real"].remove(real)
        imag = _take(real, free["imag"])
        if imag is None:
            real.type = real.suffix = "extra"
            real.warnings.append("real part without imaginary part")
            continue
        imag.group = number
        mag = _take(real, free["mag"])
        if mag is not None:
            mag.group = number
        elif any(_distance(real, row) is not None for row in rows if row.type == "phase"):
            for row in (real, imag):
                row.type = row.suffix = "skip"
                row.warnings.append("magnitude and phase of the same images are there")
    for imag in free["imag"]:
        imag.type = imag.suffix = "extra"
        imag.warnings.append("imaginary part without real part")
    return number


def _take(row: Row, candidates: list[Row]) -> Row | None:
    """The nearest of ``candidates`` that can be another part of the same images, taken out of the list."""
    distances = [(d, i) for i, c in enumerate(candidates) if (d := _distance(row, c)) is not None]
    return candidates.pop(min(distances)[1]) if distances else None


def _distance(a: Row, b: Row) -> tuple[float, ...] | None:
    """How far two rows are from being parts of the same images; ``None`` if they cannot be."""
    if len(a.echo_times) != len(b.echo_times) or not all(map(_same, a.echo_times, b.echo_times)):
        return None
    if a.combined != b.combined or a.inversion != b.inversion or abs(a.slices - b.slices) > max(2, 0.1 * a.slices):
        return None
    if {round(v.first.location or 0, 1) for v in a.volumes}.isdisjoint(
        round(f.location or 0, 1) for v in b.volumes for f in v.frames
    ):
        return None
    one, other = a.source, b.source
    time = abs(_clock(one.acquisition_time) - _clock(other.acquisition_time))
    return (
        float(one.series_uid != other.series_uid),
        float(a.combined and a.coils != b.coils),
        float(time > 1.0),
        float(len(_marks(a) ^ _marks(b))),
        time,
        float(abs(one.series_number - other.series_number)),
    )


def _marks(row: Row) -> set[str]:
    """Values of Image Type beyond the component."""
    known = {"M", "P", "R", "I", "MAG", "PHASE", "REAL", "IMAGINARY", "MAGNITUDE", "PHASE MAP", "PRIMARY", "ORIGINAL"}
    return {value.upper() for value in row.image_type[2:]} - known


def _clock(text: str) -> float:
    """Seconds since midnight of a DICOM time; 0 if there is none."""
    digits = text.replace(":", "")
    try:
        return int(digits[:2]) * 3600 + int(digits[2:4] or 0) * 60 + float(digits[4:] or 0)
    except ValueError:
        return 0.0


def _whole_groups(rows: list[Row]) -> None:
    """Decide about magnitudes that no phase belongs to, and about the phase of inversion-prepared images."""
    for row in rows:
        if row.type == "phase" and row.source.inverts and row.suffix != "MP2RAGE":
            row.type = "skip"
        if row.type != "mag" or any(r.group == row.group and r is not row and r.type in PARTS for r in rows):
            continue
        spin_echo = "SE" in row.source.scanning_sequence and "GR" not in row.source.scanning_sequence
        if row.suffix == "MP2RAGE":
            continue
        if spin_echo and len(row.echo_times) > 1:
            row.suffix = "MESE"
        elif not row.is_gradient_echo or row.source.inverts or _too_short(row):
            row.type, row.suffix = "extra", "extra"


def _too_short(row: Row) -> bool:
    """A single echo that is too early for T2* contrast."""
    return len(row.echo_times) < 2 and (not row.echo_times or row.echo_times[0] < SHORTEST_T2STARW)


def _suffixes(rows: list[Row]) -> None:
    for row in rows:
        if row.type in PARTS and row.suffix not in ("MP2RAGE", "MESE"):
            row.suffix = "MEGRE" if len(row.echo_times) > 1 else "T2starw"
            if not row.echo_times:
                row.warnings.append("no echo time")
        if row.type == "skip":
            row.suffix = "skip"


def _label(rows: list[Row]) -> None:
    """Acquisition labels, then reconstructions, parameter sets and runs that share them."""
    for row in rows:
        source = row.source
        row.acquisition = label_of(source.protocol or source.series_description or source.sequence_name)
        if not row.combined:
            row.reconstruction = "uncombined"
    clashes: dict[Hashable, list[list[Row]]] = defaultdict(list)
    for members in _groups(rows):
        first = members[0]
        if first.type not in ("skip", "extra"):
            clashes[_name_key(first)].append(members)
    for groups in clashes.values():
        if len(groups) > 1:
            _tell_apart(groups)


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Rows that get one name, in the order of their time."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        kind = row.type if row.type not in PARTS else "part"
        groups[(row.group, kind, row.suffix if kind == "T1w" else "", row.inversion)].append(row)
    return sorted(groups.values(), key=lambda g: (_clock(g[0].source.acquisition_time), g[0].source.series_number))


def _name_key(row: Row) -> Hashable:
    suffix = "fieldmap" if row.type == "fieldmap" else row.suffix
    return (row.acquisition.casefold(), suffix, row.inversion, row.reconstruction)


def _tell_apart(groups: list[list[Row]]) -> None:
    """Name groups that would get the same name: other parameters, another reconstruction, or another run."""
    parameters: dict[Hashable, list[list[Row]]] = defaultdict(list)
    for group in groups:
        parameters[_parameters(group[0])].append(group)
    for position, alike in enumerate(parameters.values(), start=1):
        if position > 1:
            for row in (row for group in alike for row in group):
                row.acquisition += f"v{position}"
        by_moment: dict[Hashable, list[list[Row]]] = defaultdict(list)
        for group in alike:
            source = group[0].source
            moment = source.acquisition_time or source.series_uid
            by_moment[moment].append(group)
        for run, same in enumerate(by_moment.values(), start=1):
            _reconstructions(same)
            if len(by_moment) > 1:
                for row in (row for group in same for row in group):
                    row.run = run


def _parameters(row: Row) -> Hashable:
    source = row.source
    times = tuple(round(t, 5) for t in row.echo_times)
    return (times, source.rows, source.columns, row.slices, source.flip_angle, row.volumes[0].first.spacing)


def _reconstructions(groups: list[list[Row]]) -> None:
    """Images made from the same data: told apart by the values of Image Type that the others do not have."""
    if len(groups) < 2:
        return
    marks = [set().union(*(_marks(row) for row in group)) for group in groups]
    common = set.intersection(*marks)
    used: set[str] = set()
    for position, (group, own) in enumerate(zip(groups, marks, strict=True), start=1):
        label = label_of("".join(sorted(own - common - {"ND"}))).lower()
        if label in used:
            label = f"{label}{position}"
        used.add(label)
        for row in group:
            row.reconstruction = f"{row.reconstruction}{label}"
