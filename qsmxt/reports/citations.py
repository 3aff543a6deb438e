"""Methods text and reference list, from what ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qsmxt.registry.catalogue import catalogue
from qsmxt.reports.bibliography import bibliography

#: References for the whole, whatever ran.
ALWAYS: tuple[str, ...] = ()


def methods_text(records: Iterable[Mapping[str, Any]]) -> str:
    """A paragraph about what was done, one sentence a step, each sentence once."""
    sentences: dict[str, None] = {}
    version = ""
    for record in records:
        version = str(record.get("version", version))
        for step in record.get("steps", ()):
            sentence = step_sentence(step)
            if sentence:
                sentences.setdefault(sentence)
    opening = f"Data were processed with QSMxT {version}." if version else "Data were processed with QSMxT."
    return " ".join([opening, *sentences])


def step_sentence(step: Mapping[str, Any]) -> str:
    """The sentence of one step with its parameters filled in and its citations behind it."""
    method = _method(step)
    if method is None or not method.sentence:
        return ""
    try:
        sentence = method.sentence.format(**step.get("parameters", {}))
    except (KeyError, IndexError, ValueError):
        sentence = method.sentence
    known = [_label(key) for key in method.references if key in bibliography()]
    if known and sentence.endswith("."):
        sentence = f"{sentence[:-1]} ({'; '.join(known)})."
    return sentence


def _label(key: str) -> str:
    entry = bibliography()[key]
    families = [_family(author) for author in entry.authors] or [key]
    others = " et al." if len(families) > 2 else "".join(f" and {family}" for family in families[1:])
    return f"{families[0]}{others}, {entry.fields.get('year', 'n.d.')}"


def _family(author: str) -> str:
    """``Family`` of ``Family GN``; the name of an organisation stays."""
    family, _, initials = author.rpartition(" ")
    return family if family and initials.isupper() and len(initials) < 5 else author


def reference_keys(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys of all references that what ran asks to cite, in the order of their first use."""
    keys: dict[str, None] = dict.fromkeys(ALWAYS)
    for record in records:
        for step in record.get("steps", ()):
            method = _method(step)
            for key in method.references if method else ():
                keys.setdefault(key)
    return list(keys)


def references_text(records: Iterable[Mapping[str, Any]]) -> str:
    """The reference list, one line each, in alphabetical order."""
    known = bibliography()
    lines = sorted(known[key].text() if key in known else key for key in reference_keys(records))
    return "".join(f"{line}\n" for line in lines)


def _method(step: Mapping[str, Any]) -> Any:
    stage, _, key = str(step.get("method", "")).partition(".")
    return catalogue().get(stage, {}).get(key)
