"""Find the acquisitions of a BIDS dataset that can be processed.

A processing unit is every combination of BIDS entities except ``echo`` and ``part`` for which there is a phase
image (``part-phase``, or ``part-real`` and ``part-imag``) with an echo time, whatever its suffix. Images with no
``part`` are magnitudes. Echoes are ordered by their echo times, never by their labels.

A faulty unit does not stop the others: it is returned as :class:`Rejected` with the reason.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qsmxt.bids.acquisition import check_unit
from qsmxt.bids.entities import in_order, is_label, parse_name, stem, strip_prefix
from qsmxt.bids.filters import matches, qsm_filter, t1w_filter
from qsmxt.bids.index import DATATYPES, choose_subjects, dataset_root, list_images, quoted
from qsmxt.bids.metadata import Sidecars, echo_time, magnetic_field_strength
from qsmxt.bids.units import EchoFiles, ProcessingUnit, Rejected, Selection
from qsmxt.errors import InputError, MissingInputError, QSMxTError, SelectionError

__all__ = ["EchoFiles", "ProcessingUnit", "Rejected", "Selection", "find_units"]

#: Suffixes whose signal is a spin echo, in which the phase of the field is refocused.
SPIN_ECHO_SUFFIXES = ("MESE", "T2w", "FLAIR", "PDT2", "inplaneT2")

#: Suffixes of gradient echoes, worth a remark if their phase is missing.
GRADIENT_ECHO_SUFFIXES = ("MEGRE", "T2starw", "GRE", "swi")

logger = logging.getLogger("qsmxt")

_PHASE_PARTS = ("phase", "real", "imag")
_PARTS = {None: "magnitude", "mag": "magnitude", "phase": "phase", "real": "real", "imag": "imag"}
_SHARED_KEYS = ("EchoTime", "MagneticFieldStrength", "Manufacturer")

#: Largest relative difference between the echo times in the sidecars of one echo.
_ECHO_TIME_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Image:
    path: Path
    datatype: str
    entities: dict[str, str]
    suffix: str
    extension: str

    def described(self) -> dict[str, str]:
        more = {"suffix": self.suffix, "datatype": self.datatype, "extension": self.extension}
        return {**self.entities, **more}

    def own(self) -> tuple[tuple[str, str], ...]:
        """Entities that tell one unit from another."""
        kept = {name: label for name, label in self.entities.items() if name not in ("echo", "part")}
        return tuple(in_order(kept).items())


@dataclass(frozen=True)
class _Group:
    """The images of one candidate unit."""

    entities: dict[str, str]
    suffix: str
    datatype: str
    images: tuple[_Image, ...]

    @property
    def name(self) -> str:
        try:
            return stem(self.entities, self.suffix)
        except QSMxTError:
            return self.images[0].path.name

    @property
    def subject(self) -> str:
        return self.entities["subject"]

    def has_phase(self) -> bool:
        return any(image.entities.get("part") in _PHASE_PARTS for image in self.images)


def find_units(
    bids_dir: str | Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: str | Path | None = None,
    field_strength: float | None = None,
) -> Selection:
    """All acquisitions of a BIDS dataset that can be reconstructed, and those that cannot, with the reason.

    Parameters
    ----------
    bids_dir
        Root of the dataset.
    participants, sessions
        Labels to process, with or without ``sub-`` and ``ses-``; all if empty.
    filters
        Parsed filter file (:func:`qsmxt.bids.filters.load_filter_file`).
    database_dir
        Folder of a pybids database to share between jobs.
    field_strength
        Used instead of ``MagneticFieldStrength``, T.

    Raises
    ------
    MissingInputError
        If there is no such folder, or it is no BIDS dataset.
    SelectionError
        If a label does not exist, or nothing is selected.
    InputError
        If the dataset cannot be indexed.
    """
    root = dataset_root(bids_dir)
    subjects = choose_subjects(root, participants)
    paths = list_images(root, subjects, database_dir, all_subjects=not participants)
    images = [image for path in paths if (image := _describe(root, path)) is not None]
    images = _of_sessions(images, sessions)
    notes: list[str] = []
    groups = _candidates(images, qsm_filter(filters), notes)
    by_subject: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        by_subject[image.entities["subject"]].append(image)
    sidecars = Sidecars(root)
    units: list[ProcessingUnit] = []
    rejected: list[Rejected] = []
    for group in groups:
        try:
            unit = _build(group, sidecars, field_strength)
            own = by_subject[group.subject]
            unit = replace(unit, t1w=_t1w(unit, own, t1w_filter(filters)), distinct=_is_distinct(group, own))
            check_unit(unit)
            units.append(unit)
        except QSMxTError as error:
            rejected.append(Rejected(group.name, group.subject, str(error)))
        except Exception as error:  # nothing in a file may stop the other units
            logger.debug("%s", group.name, exc_info=True)
            rejected.append(Rejected(group.name, group.subject, f"{type(error).__name__}: {error}"[:300]))
    if not units and not rejected:
        raise SelectionError(
            f"{root}: expected gradient echoes with part-phase (or part-real and part-imag) in "
            f"{quoted([f'sub-{label}' for label in subjects])}, found none that the labels and filters select"
        )
    notes += _subjects_without(subjects, groups)
    return Selection(tuple(units), tuple(rejected), tuple(notes))


def _describe(root: Path, path: Path) -> _Image | None:
    """What the name of an image says; ``None`` if it does not lie where its name says."""
    entities, suffix, extension = parse_name(path.name)
    *folders, datatype = path.relative_to(root).parts[:-1] or [""]
    named = [f"sub-{entities.get('subject')}"] + ([f"ses-{entities['session']}"] if "session" in entities else [])
    if folders != named:
        return None
    return _Image(path, datatype, entities, suffix, extension)


def _of_sessions(images: list[_Image], sessions: Sequence[str] | None) -> list[_Image]:
    """Images of ``sessions``; T1-weighted images stay, because another session's will do for anatomy."""
    if not sessions:
        return images
    wanted = [strip_prefix(label, "ses") for label in sessions]
    existing = sorted({image.entities["session"] for image in images if "session" in image.entities})
    missing = [label for label in wanted if label not in existing]
    if missing:
        has = f"the participants have {quoted(existing)}" if existing else "the participants have no sessions"
        raise SelectionError(f"session label: found no {quoted(missing)}; {has}")
    return [image for image in images if image.entities.get("session") in wanted or _is_t1w(image)]


def _is_t1w(image: _Image) -> bool:
    return image.suffix == "T1w" and image.datatype == "anat" and image.entities.get("part") in (None, "mag")


def _candidates(images: Iterable[_Image], wanted: Mapping[str, Any], notes: list[str]) -> list[_Group]:
    """Groups that have phase and satisfy the filter, in the order of their names."""
    collected: dict[Any, list[_Image]] = defaultdict(list)
    for image in images:
        if image.datatype in DATATYPES and matches(image.described(), wanted):
            collected[image.own(), image.suffix, image.datatype].append(image)
    groups = [
        _Group(dict(own), suffix, datatype, tuple(members)) for (own, suffix, datatype), members in collected.items()
    ]
    chosen = []
    for group in sorted(groups, key=lambda group: group.name):
        if not group.has_phase():
            if group.suffix in GRADIENT_ECHO_SUFFIXES:
                notes.append(f"{group.name}: magnitude without phase, not processed")
        elif group.suffix in SPIN_ECHO_SUFFIXES and "suffix" not in wanted:
            notes.append(f"{group.name}: a spin echo holds no phase of the field, not processed")
        else:
            chosen.append(group)
    return chosen


def _build(group: _Group, sidecars: Sidecars, field_strength: float | None) -> ProcessingUnit:
    for name, label in group.entities.items():
        if not is_label(label):
            raise InputError(
                f"{group.images[0].path}: {name}: expected a label of letters and digits, found {label!r}; "
                "rename the files"
            )
    files = _by_echo(group)
    _check_partners(files)
    echoes, strengths = [], {}
    for parts in files.values():
        echo, metadata = _read_echo(parts, sidecars)
        echoes.append(echo)
        leading = _leading(parts)
        strengths[leading] = field_strength or magnetic_field_strength(leading, metadata)
    _check_field_strengths(strengths)
    echoes.sort(key=lambda echo: echo.echo_time)
    _check_echo_times(echoes)
    strength = next(iter(strengths.values()))
    return ProcessingUnit(dict(group.entities), group.suffix, group.datatype, tuple(echoes), strength)


def _by_echo(group: _Group) -> dict[Any, dict[str, Path]]:
    """Files of every echo by part; labels such as ``1`` and ``01`` mean the same echo."""
    echoes: dict[Any, dict[str, Path]] = defaultdict(dict)
    explicit: dict[tuple[Any, str], bool] = {}
    for image in group.images:
        label = image.entities.get("echo")
        echo = int(label) if label is not None and label.isdigit() else label
        part = image.entities.get("part")
        if part not in _PARTS:
            raise InputError(f"{image.path}: part: expected mag, phase, real or imag, found {part!r}; rename the file")
        role = _PARTS[part]
        before = echoes[echo].get(role)
        if before is not None and explicit[echo, role] == (part is not None):
            raise InputError(
                f"{image.path}: expected one {role} image of each echo, found also {before.name}; remove one"
            )
        if before is None or part is not None:
            echoes[echo][role] = image.path
            explicit[echo, role] = part is not None
    return dict(echoes)


def _check_partners(echoes: Mapping[Any, Mapping[str, Path]]) -> None:
    """Every echo must hold phase, or real and imaginary part; either all or none a magnitude."""
    anything = [parts[role] for parts in echoes.values() for role in parts]
    for parts in echoes.values():
        for role, partner in (("real", "imag"), ("imag", "real")):
            if role in parts and partner not in parts and "phase" not in parts:
                raise MissingInputError(
                    f"{parts[role]}: expected a partner with part-{partner}, found none; add it or remove this file"
                )
        if "phase" not in parts and "real" not in parts:
            raise MissingInputError(
                f"{parts['magnitude']}: expected a phase image of the same echo, found none; add it or remove this file"
            )
    with_magnitude = [parts for parts in echoes.values() if "magnitude" in parts or _is_complex(parts)]
    if with_magnitude and len(with_magnitude) < len(echoes):
        alone = next(parts for parts in echoes.values() if parts not in with_magnitude)
        raise MissingInputError(
            f"{_leading(alone)}: expected a magnitude image of the same echo, as the other {len(with_magnitude)} of "
            f"{len(echoes)} echoes have, found none; add it, or remove the magnitude of all echoes"
        )
    kinds = {"phase" in parts for parts in echoes.values()}
    if len(kinds) > 1 and not all(_is_complex(parts) for parts in echoes.values()):
        raise InputError(
            f"{anything[0]}: expected every echo in the same form, found phase images of some and "
            "real and imaginary parts of others; provide one form for all"
        )


def _is_complex(parts: Mapping[str, Path]) -> bool:
    return "real" in parts and "imag" in parts


def _leading(parts: Mapping[str, Path]) -> Path:
    """The image whose sidecar speaks for the echo."""
    return parts.get("phase") or parts.get("real") or parts["magnitude"]


def _read_echo(parts: Mapping[str, Path], sidecars: Sidecars) -> tuple[EchoFiles, dict[str, Any]]:
    leading = _leading(parts)
    metadata = dict(sidecars.merged(leading))
    time = None
    if "magnitude" in parts and parts["magnitude"] != leading:
        partner = sidecars.merged(parts["magnitude"])
        if "EchoTime" in partner and "EchoTime" in metadata:
            time = echo_time(parts["magnitude"], partner)
        metadata.update({key: partner[key] for key in _SHARED_KEYS if key in partner and key not in metadata})
    own = echo_time(leading, metadata)
    if time is not None and abs(time - own) > _ECHO_TIME_TOLERANCE * own:
        raise InputError(
            f"{parts['magnitude']}: EchoTime: expected {own:g} s as in {leading.name}, found {time:g} s; "
            "correct the JSON sidecars or the echo labels"
        )
    real, imag = (parts["real"], parts["imag"]) if _is_complex(parts) else (None, None)
    echo = EchoFiles(own, parts.get("phase"), parts.get("magnitude"), real, imag, metadata)
    return echo, metadata


def _check_echo_times(echoes: Sequence[EchoFiles]) -> None:
    for earlier, later in itertools.pairwise(echoes):
        if later.echo_time - earlier.echo_time <= 1e-6:
            raise InputError(
                f"{later.files()[0]}: EchoTime: expected every echo at its own time, found {later.echo_time:g} s also "
                f"in {earlier.files()[0].name}; correct the JSON sidecars"
            )


def _check_field_strengths(strengths: Mapping[Path, float]) -> None:
    (first, expected), *others = strengths.items()
    for path, found in others:
        if abs(found - expected) > 1e-3 * expected:
            raise InputError(
                f"{path}: MagneticFieldStrength: expected {expected:g} T as in {first.name}, found {found:g} T; "
                "correct the JSON sidecars"
            )


def _t1w(unit: ProcessingUnit, images: Sequence[_Image], wanted: Mapping[str, Any]) -> tuple[Path, ...]:
    """T1-weighted images among those of the subject, the unit's session first."""
    own = [image for image in images if _is_t1w(image) and matches(image.described(), wanted)]
    own.sort(key=lambda image: (image.entities.get("session") != unit.session, image.path))
    return tuple(image.path for image in own)


def _is_distinct(group: _Group, images: Sequence[_Image]) -> bool:
    """Whether none of the subject's images with phase has the same entities under another suffix or datatype."""
    own = tuple(group.entities.items())
    return not any(
        image.entities.get("part") in _PHASE_PARTS
        and (image.suffix, image.datatype) != (group.suffix, group.datatype)
        and image.datatype in DATATYPES
        and image.own() == own
        for image in images
    )


def _subjects_without(subjects: Sequence[str], groups: Sequence[_Group]) -> list[str]:
    having = {group.subject for group in groups}
    return [f"sub-{label}: no gradient echo with phase, not processed" for label in subjects if label not in having]
