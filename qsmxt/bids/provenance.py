"""Provenance of a derivative dataset as BIDS has it (BEP028, BIDS-Prov): activities, entities, software, environments.

Every method that ran for a unit is one activity. Its identifier follows from what it did to what, so that the sidecar
of a map names its activity (``GeneratedBy``) before the files below ``prov/`` are written, and two outputs that share
a step share its activity. What a step used is a file of this dataset, a file of the source dataset, or an
intermediate array, which is described as an entity of its own::

    prov/provenance.tsv                                 what the prov labels mean
    prov/prov-qsmxt/prov-qsmxt_desc-<unit>_act.json     activities of a unit, with their parameters
    prov/prov-qsmxt/prov-qsmxt_desc-<unit>_ent.json     source images, intermediate arrays
    prov/prov-qsmxt/prov-qsmxt_desc-run<unit>_act.json  the run: command line, start, end
    prov/prov-qsmxt/prov-qsmxt_desc-<unit>_soft.json    versions of QSMxT and of its libraries
    prov/prov-qsmxt/prov-qsmxt_desc-<unit>_env.json     Python and operating system

Source images have their SHA-256 (``Digest``) there, maps of this dataset in their sidecars. The group level has the
same files with ``group`` in place of a unit; its activities are tables, the template, every scan brought to it,
voxel-wise models. Files of a unit are written by the job of that unit alone; the others are always the same. But for
the activity of the run, the same input and settings give the same bytes.

References
----------
Provenance in BIDS (extension proposal 28, https://bids.neuroimaging.io/bep028), W3C PROV-O
(https://www.w3.org/TR/2013/REC-prov-o-20130430/).
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from qsmxt.bids.atomic import plain, write_json, write_text
from qsmxt.bids.metadata import read_json
from qsmxt.errors import QSMxTError
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.catalogue import catalogue

#: Value of the entity ``prov`` of all files.
LABEL = "qsmxt"

#: Folder of all files, and start of all identifiers.
FOLDER, PREFIX = "prov", "bids::prov#"

#: Libraries that compute.
LIBRARIES = ("numpy", "scipy", "ducc0", "numba", "nibabel", "antspyx", "nipype")

Step = Mapping[str, Any]


def uid(*values: Any) -> str:
    """Eight digits that follow from plain values."""
    text = json.dumps(plain(list(values)), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def activity_ids(unit: str, steps: Sequence[Step], version: str) -> list[str]:
    """Identifier of every step: of the unit, the version, the method, its parameters, and the steps it builds on."""
    makers: dict[str, str] = {}
    found = []
    for step in steps:
        used = [makers.get(name, name) for name in _consumed(step)]
        number = uid(unit, version, step["method"], step["parameters"], used)
        found.append(f"{PREFIX}{_word(step['method'])}-{number}")
        makers.update(dict.fromkeys(step.get("produces", ()), found[-1]))
    return found


def makers(unit: str, steps: Sequence[Step], version: str) -> dict[str, str]:
    """Identifier of the activity that made every array last."""
    ids = activity_ids(unit, steps, version)
    return {name: made for step, made in zip(steps, ids, strict=True) for name in step.get("produces", ())}


@dataclass(frozen=True)
class Run:
    """The run that made the outputs: command line, and when it began and ended (ISO 8601)."""

    command: str = ""
    started: str = ""
    ended: str = ""

    @classmethod
    def ending_now(cls, facts: Mapping[str, Any]) -> Run:
        """The run that ``facts`` tell of, which ends now."""
        return cls(str(facts.get("command", "")), str(facts.get("started", "")), time.strftime("%Y-%m-%dT%H:%M:%S%z"))


def write_provenance(
    out_dir: Path,
    unit: str,
    records: Sequence[Mapping[str, Any]],
    run: Run = Run(),
    roots: Mapping[str, Path] | None = None,
) -> None:
    """Write the files of a unit or of the group, and those that all share.

    Parameters
    ----------
    out_dir
        Root of the derivative dataset.
    unit, records
        Its name, and the records of its outputs. A record of the group level names its sources as ``used``; one of a
        unit holds the ``digests`` of its sources as they were read.
    run
        What made them.
    roots
        Other datasets by their names in BIDS URIs; digests are made of files that are found there.
    """
    folder = out_dir / FOLDER / f"prov-{LABEL}"
    software, surroundings = _software(records), _environment()
    graph = _Graph({**(roots or {}), "": out_dir}, [entry["Id"] for entry in software], surroundings["Id"])
    for record in records:
        graph.add(record)
    name = unit_label(unit)
    write_json(_file(folder, name, "act"), {"Activities": list(graph.activities.values())})
    write_json(_file(folder, name, "ent"), {"ProvEntities": list(graph.entities.values())})
    write_json(_file(folder, f"run{name}", "act"), {"Activities": [graph.run(unit, run)]})
    write_json(_file(folder, name, "soft"), {"Software": software})
    write_json(_file(folder, name, "env"), {"Environments": [surroundings]})
    write_text(
        out_dir / FOLDER / "provenance.tsv",
        f"provenance_label\tdescription\nprov-{LABEL}\tSteps of QSMxT from images of the scanner to derivatives\n",
    )
    write_json(out_dir / FOLDER / "provenance.json", {"description": {"Description": "What the files describe"}})


def unit_label(unit: str) -> str:
    """Name of a unit as a label: letters and digits, and a number that tells it from names that differ in others.

    >>> unit_label("sub-01_ses-a_MEGRE")
    'sub01SesaMEGREb8ae'
    """
    words = [word.replace("-", "") for word in unit.split("_")]
    joined = "".join([words[0], *(word[:1].upper() + word[1:] for word in words[1:])])
    return re.sub("[^A-Za-z0-9]", "", joined) + uid(unit)[:4]


class _Graph:
    """Activities and entities of one unit, by their identifiers."""

    def __init__(self, roots: Mapping[str, Path], agents: list[str], environment: str) -> None:
        self.roots, self.agents, self.environment = roots, agents, environment
        self.activities: dict[str, dict[str, Any]] = {}
        self.entities: dict[str, dict[str, Any]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """What one record tells."""
        sources = [str(source) for source in record.get("sources", ())]
        for source in sources:
            self._source(source, record.get("digests", {}).get(source))
        if record.get("steps"):
            self._add_steps(record, sources)
        elif record.get("files"):
            self._add_whole(record)

    def run(self, unit: str, run: Run) -> dict[str, Any]:
        """The activity of the run, which used the images of the unit."""
        sources = [key for key in self.entities if not key.startswith("bids::")]
        made = self._activity(
            f"{PREFIX}run-{uid(unit, run.command, run.started)}", f"QSMxT on {unit}", sources,
            Command=run.command, StartedAtTime=run.started, EndedAtTime=run.ended,
        )  # fmt: skip
        return made

    def _add_steps(self, record: Mapping[str, Any], sources: list[str]) -> None:
        unit, steps, version = str(record["unit"]), record["steps"], str(record.get("version", ""))
        last = makers(unit, steps, version)
        held: dict[str, str] = {}
        for step, made in zip(steps, activity_ids(unit, steps, version), strict=True):
            used = [held[name] for name in _consumed(step) if name in held]
            if any(name not in held for name in _consumed(step)):
                used += sources
            stage, _, key = str(step["method"]).partition(".")
            method = catalogue().get(stage, {}).get(key)
            title = method.title if method else str(step["method"])
            label = f"{stage}: {title}"
            self.activities[made] = self._activity(
                made, label, used, Parameters=step["parameters"], AutomaticParameters=step.get("found", {})
            )
            for name in step.get("produces", ()):
                file = record["files"].get(name) if last[name] == made else None
                held[name] = f"bids::{file}" if file else self._intermediate(name, made)

    def _add_whole(self, record: Mapping[str, Any]) -> None:
        """An output whose record holds no steps is one activity that used what the sidecars of its files name."""
        label = str(record.get("output", "derivatives"))
        used = dict.fromkeys(str(source) for source in record.get("used", ()))
        for file in record["files"].values():
            used |= dict.fromkeys(str(source) for source in self._sidecar(str(file)).get("Sources", ()))
        for source in used:
            self._source(source)
        made = f"{PREFIX}{_word(label)}-{uid(record['unit'], record.get('version'), label, sorted(used))}"
        parameters = record.get("parameters", {})
        self.activities[made] = self._activity(made, label, used, Parameters=parameters)
        for file in record["files"].values():
            entity = {
                "Id": f"bids::{file}", "Label": Path(str(file)).name, "AtLocation": str(file), "GeneratedBy": made,
            }  # fmt: skip
            told = "Digest" in self._sidecar(str(file))
            self.entities[f"bids::{file}"] = entity if told else {**entity, **self._digest("", str(file))}

    def _activity(self, made: str, label: str, used: Iterable[str], **more: Any) -> dict[str, Any]:
        activity = {
            "Id": made, "Label": label, "AssociatedWith": self.agents,
            "Used": list(dict.fromkeys([*used, self.environment])), **more,
        }  # fmt: skip
        return {key: value for key, value in activity.items() if value not in ("", {}, [])}

    def _intermediate(self, name: str, made: str) -> str:
        identifier = f"{PREFIX}provEntity-{_word(name)}-{made.rpartition('-')[2]}"
        artifact = ARTIFACTS.get(name)
        label = artifact.description if artifact else name
        self.entities[identifier] = {"Id": identifier, "Label": f"{name}: {label}", "GeneratedBy": made}
        return identifier

    def _source(self, source: str, sha256: str | None = None) -> None:
        """A file of another dataset; those of this one are described by their sidecars."""
        dataset, _, place = source.removeprefix("bids:").partition(":")
        if source.startswith("bids:") and dataset:
            entity = {"Id": source, "Label": Path(place).name, "AtLocation": place}
            known = {"Digest": {"sha256": sha256}} if sha256 else self._digest(dataset, unquote(place))
            self.entities[source] = {**entity, **known}

    def _digest(self, dataset: str, place: str) -> dict[str, dict[str, str]]:
        """``Digest`` of a file that can be read, or nothing."""
        try:
            with (self.roots[dataset] / place).open("rb") as stream:
                return {"Digest": {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}}
        except (OSError, KeyError):
            return {}

    def _sidecar(self, file: str) -> dict[str, Any]:
        """Sidecar of a file of this dataset; empty if it has none or is a table, whose JSON file describes columns."""
        path = self.roots[""] / file
        try:
            values = read_json(path.with_name(path.name.partition(".")[0] + ".json"))
        except QSMxTError:
            return {}
        return values if isinstance(values.get("Sources", []), list) and path.suffix != ".tsv" else {}


def _software(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """QSMxT in all versions of the records, and its libraries."""
    versions = list(dict.fromkeys(str(record.get("version", "")) for record in records))
    found = [("QSMxT", version) for version in versions]
    for library in LIBRARIES:
        number = library_version(library)
        if number is not None:
            found.append((library, number))
    return [
        {"Id": f"{PREFIX}{name.lower()}-{uid(name, number)}", "Label": name, "Version": number}
        for name, number in found
    ]


@functools.cache
def library_version(library: str) -> str | None:
    """Version of a library, or nothing if it is not installed."""
    try:
        found = metadata.distribution(library)
    except metadata.PackageNotFoundError:
        return None
    # the whole file is a message of mail, which takes milliseconds to read
    line = re.search(r"^Version:\s*(\S+)\s*$", found.read_text("METADATA") or "", re.MULTILINE)
    return line.group(1) if line else found.version


def _environment() -> dict[str, str]:
    system, python = platform.platform(), f"Python {platform.python_version()}"
    return {"Id": f"{PREFIX}python-{uid(python, system)}", "Label": python, "OperatingSystem": system}


def _consumed(step: Step) -> list[str]:
    return [*step.get("consumes", ()), *step.get("optional", ())]


def _word(text: str) -> str:
    """``inversion.tfi_tv`` as part of an identifier: ``inversion-tfi-tv``."""
    return re.sub("[^A-Za-z0-9]+", "-", text).strip("-").lower()


def _file(folder: Path, label: str, suffix: str) -> Path:
    return folder / f"prov-{LABEL}_desc-{label}_{suffix}.json"
