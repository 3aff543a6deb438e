"""Methods text and reference list, from what ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qsmxt.registry.catalogue import catalogue
from qsmxt.reports.bibliography import bibliography

#: References for the whole, whatever ran.
ALWAYS: tuple[str, ...] = ()


#: Where regions come from, by the method of segmentation: sentence and references.
SEGMENTATION: dict[str, tuple[str, tuple[str, ...]]] = {
    "atlas": (
        "Regions are those of the atlas {atlases} of the template {template}, carried over by rigid, affine and "
        "diffeomorphic registration with ANTs.",
        ("avants2008",),
    ),
    "precomputed": ("Regions were given: {precomputed}.", ()),
    "synthseg": ("The T1-weighted image was segmented with SynthSeg.", ("billot2023",)),
    "fastsurfer": ("The T1-weighted image was segmented with FastSurfer.", ("henschel2020",)),
    "freesurfer": ("The T1-weighted image was segmented with FreeSurfer.", ("fischl2012",)),
}

#: References of templates and atlases, by a part of their name.
TEMPLATES = {"MNI152": "ciric2022", "CIT168": "pauli2018"}


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
        if regions := segmentation_sentence(record):
            sentences.setdefault(regions)
    opening = f"Data were processed with QSMxT {version}." if version else "Data were processed with QSMxT."
    return " ".join([opening, *sentences])


def step_sentence(step: Mapping[str, Any]) -> str:
    """The sentence of one step with its parameters filled in and its citations behind it."""
    method = _method(step)
    if method is None or not method.sentence:
        return ""
    try:
        sentence = method.sentence.format(**{**step.get("parameters", {}), **step.get("found", {})})
    except (KeyError, IndexError, ValueError):
        sentence = method.sentence
    return _with_citations(sentence, method.references)


def segmentation_sentence(record: Mapping[str, Any]) -> str:
    """Where the regions of a record of a segmentation come from; empty for any other record."""
    parameters = record.get("parameters") or {}
    known = SEGMENTATION.get(str(parameters.get("method"))) if record.get("output") == "segmentation" else None
    if known is None:
        return ""
    lists = {key: ", ".join(map(str, parameters.get(key) or ())) for key in ("atlases", "precomputed")}
    sentence = known[0].format(template=parameters.get("template"), **lists)
    return _with_citations(sentence, segmentation_references(record))


def segmentation_references(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of the references of a record of a segmentation."""
    parameters = record.get("parameters") or {}
    known = SEGMENTATION.get(str(parameters.get("method"))) if record.get("output") == "segmentation" else None
    if known is None:
        return ()
    named = " ".join(map(str, [parameters.get("template"), *(parameters.get("atlases") or ())]))
    return (*known[1], *(key for name, key in TEMPLATES.items() if name in named))


def _with_citations(sentence: str, keys: Iterable[str]) -> str:
    known = [_label(key) for key in keys if key in bibliography()]
    if known and sentence.endswith("."):
        return f"{sentence[:-1]} ({'; '.join(known)})."
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
        for key in segmentation_references(record):
            keys.setdefault(key)
    return list(keys)


def references_text(records: Iterable[Mapping[str, Any]]) -> str:
    """The reference list, one line each, in alphabetical order."""
    known = bibliography()
    lines = sorted(known[key].text() if key in known else key for key in reference_keys(records))
    return "".join(f"{line}\n" for line in lines)


def references_bibtex(records: Iterable[Mapping[str, Any]]) -> str:
    """The reference list as BibTeX, in alphabetical order of the keys."""
    known = bibliography()
    return "\n".join(known[key].bibtex() for key in sorted(reference_keys(records)) if key in known)


def citation_text(records: Iterable[Mapping[str, Any]]) -> str:
    """Methods paragraph and reference list in Markdown, ready for an article."""
    records = list(records)
    items = "".join(f"- {line}\n" for line in references_text(records).splitlines())
    return f"# Methods\n\n{methods_text(records)}\n\n# References\n\n{items}"


def _method(step: Mapping[str, Any]) -> Any:
    stage, _, key = str(step.get("method", "")).partition(".")
    return catalogue().get(stage, {}).get(key)
