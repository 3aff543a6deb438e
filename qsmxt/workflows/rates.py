"""R2 of a unit: a map of R2 or T2 in the dataset or in other derivatives, or a train of spin echoes to fit it to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsmxt.bids.entities import parse_name
from qsmxt.bids.metadata import Sidecars, echo_time
from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import QSMxTError

#: Suffixes of maps, and of a train of spin echoes.
MAPS, TRAIN = ("R2map", "T2map"), "MESE"

#: Fewest echoes of a train.
LEAST_ECHOES = 3


@dataclass(frozen=True)
class SpinEcho:
    """Where R2 comes from: one map (``R2map``, ``T2map``), or the echoes of a train (``MESE``) with their times (s)."""

    kind: str
    files: tuple[Path, ...]
    echo_times: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Text for a node."""
        values = {"kind": self.kind, "files": [str(file) for file in self.files], "echo_times": list(self.echo_times)}
        return json.dumps(values, sort_keys=True)


def find_spin_echo(unit: ProcessingUnit, derivatives: Mapping[str, Path]) -> SpinEcho | None:
    """What tells R2 of ``unit``: its session's first, maps before trains, derivatives before the dataset itself."""
    roots = [*derivatives.values(), _root(unit)]
    for folder in _folders(unit, roots):
        for suffix in MAPS:
            maps = [path for path in sorted(folder.glob(f"*_{suffix}.nii*")) if _fits(path, unit)]
            if maps:
                return SpinEcho(suffix, (maps[0],))
    for folder in _folders(unit, roots):
        echoes = [path for path in sorted(folder.glob(f"*_{TRAIN}.nii*")) if _fits(path, unit)]
        train = _train(echoes, roots)
        if train is not None:
            return train
    return None


def _root(unit: ProcessingUnit) -> Path:
    """The dataset in which the images of the unit lie."""
    first = unit.files()[0]
    for parent in first.parents:
        if parent.name == f"sub-{unit.subject}":
            return parent.parent
    return first.parent


def _folders(unit: ProcessingUnit, roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        subject = root / f"sub-{unit.subject}"
        if unit.session is not None:
            yield subject / f"ses-{unit.session}" / "anat"
        yield subject / "anat"


def _fits(path: Path, unit: ProcessingUnit) -> bool:
    entities, _, extension = parse_name(path.name)
    if extension not in (".nii", ".nii.gz") or entities.get("part", "mag") != "mag":
        return False
    return entities.get("space", "orig") == "orig" and entities.get("session") in (None, unit.session)


def _train(files: Sequence[Path], roots: Sequence[Path]) -> SpinEcho | None:
    """The first train among ``files`` with enough echoes, in the order of their times."""
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path in files:
        entities, _, _ = parse_name(path.name)
        own = tuple(sorted((key, label) for key, label in entities.items() if key not in ("echo", "part")))
        groups.setdefault(own, []).append(path)
    for members in groups.values():
        if len(members) < LEAST_ECHOES:
            continue
        root = next(root for root in roots if members[0].is_relative_to(root))
        sidecars = Sidecars(root)
        try:
            timed = sorted((echo_time(path, sidecars.merged(path)), path) for path in members)
        except QSMxTError:
            continue
        return SpinEcho(TRAIN, tuple(path for _, path in timed), tuple(time for time, _ in timed))
    return None
