r"""Reading of BibTeX: enough of the format for reference lists, and errors where it ends.

Understood are entries with braced, quoted, numeric and concatenated (``#``) values, ``@string`` abbreviations,
``@comment`` and ``@preamble`` (skipped), nested braces, and the accents of TeX (``{\'e}``, ``\"{o}``, ``\c{c}``).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qsmxt.errors import InputError

#: Folder of the bibliography files of this package.
FOLDER = Path(__file__).parents[1] / "data" / "references"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

#: TeX accents as combining characters.
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328", "r": "\u030a", "d": "\u0323",
}  # fmt: skip

_LETTERS = {
    "ss": "ß", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å",
    "AA": "Å", "i": "\u0131", "j": "\u0237",
}  # fmt: skip

_GREEK = {"alpha": "\u03b1", "beta": "\u03b2", "chi": "\u03c7", "delta": "\u03b4", "lambda": "\u03bb", "mu": "\u03bc"}

_START = re.compile(r"^@\w+\s*\{\s*([^\s,{}=]+)\s*,", re.MULTILINE)
_FORMULA = re.compile(r"(?<!\\)\$([^$]*)\$")
_ACCENTED = re.compile(r"\\(?:([\'`^\"~=.])\s*|([uvHckrd])(?=[\s{\\]))\s*(?:\{\s*(\\?[A-Za-z])\s*\}|(\\?[A-Za-z]))")
_LETTER = re.compile(r"\\(ss|ae|AE|oe|OE|aa|AA|o|O|l|L|i|j)(?![A-Za-z])\s*")


@dataclass(frozen=True)
class Entry:
    """One entry: its kind (``article``), key, fields by lower-case name in plain Unicode, authors as ``Family GN``.

    ``raw`` holds the fields as they were written.
    """

    kind: str
    key: str
    fields: dict[str, str]
    authors: tuple[str, ...] = ()
    raw: dict[str, str] = field(default_factory=dict)

    def bibtex(self) -> str:
        """The entry as BibTeX."""
        lines = [f"  {name} = {{{' '.join(value.split())}}}" for name, value in self.raw.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}\n"

    def text(self) -> str:
        """The reference in one line."""
        shown = ", ".join(self.authors[:6]) + (", et al." if len(self.authors) > 6 else "")
        parts = [shown, f"({self.fields['year']})" if "year" in self.fields else "", self.fields.get("title", "")]
        text = ". ".join(part.rstrip(".") for part in (" ".join(p for p in parts[:2] if p), parts[2]) if part) + "."
        venue = self.fields.get("journal") or self.fields.get("booktitle") or self.fields.get("publisher", "")
        if venue:
            volume = self.fields.get("volume", "")
            issue = f"({self.fields['number']})" if "number" in self.fields else ""
            pages = ":" + self.fields["pages"].replace("--", "\u2013") if "pages" in self.fields else ""
            text += f" {venue}" + (f" {volume}{issue}{pages}" if volume or pages else "") + "."
        if "doi" in self.fields:
            text += f" https://doi.org/{self.fields['doi']}"
        elif "url" in self.fields:
            text += f" {self.fields['url']}"
        return text


def read_bibtex(text: str, origin: str = "BibTeX") -> dict[str, Entry]:
    """All entries of ``text`` by key.

    Raises
    ------
    InputError
        At the first thing that is not BibTeX, with its line; if two entries share a key.
    """
    return _Reader(text, origin).entries()


class Bibliography(Mapping[str, Entry]):
    """The entries of BibTeX files, by key; each is read when it is asked for.

    An entry begins at the start of a line and uses no abbreviations of its own; of two with the same key the first
    counts.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._texts: dict[str, tuple[str, str]] = {}
        self._read: dict[str, Entry] = {}
        for path in paths:
            text = path.read_text(encoding="utf-8")
            starts = list(_START.finditer(text))
            ends = [*(start.start() for start in starts[1:]), len(text)]
            for start, end in zip(starts, ends, strict=True):
                self._texts.setdefault(start.group(1), (text[start.start() : end], path.name))

    def __getitem__(self, key: str) -> Entry:
        """The entry ``key``."""
        if key not in self._read:
            self._read[key] = read_bibtex(*self._texts[key])[key]
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        """Keys in the order of the files."""
        return iter(self._texts)

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._texts)


@functools.cache
def bibliography() -> Bibliography:
    """All entries of the package."""
    return Bibliography(sorted(FOLDER.glob("*.bib")))


class _Reader:
    """A cursor over BibTeX text."""

    def __init__(self, text: str, origin: str) -> None:
        self.text, self.origin, self.at = text, origin, 0
        self.abbreviations = {month: str(number) for number, month in enumerate(_MONTHS, 1)}

    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        while (start := self.text.find("@", self.at)) >= 0:
            self.at = start + 1
            kind = self._word("kind of an entry").lower()
            if kind == "comment":
                self._skip_comment()
                continue
            self._expect("{(")
            closing = ")" if self.text[self.at - 1] == "(" else "}"
            if kind == "preamble":
                self._value()
                self._expect(closing)
            elif kind == "string":
                self.abbreviations.update(self._fields(closing))
            else:
                key = self._key()
                if key in found:
                    raise self._error(f"expected every key once, found {key!r} again")
                raw = self._fields(closing)
                fields = {name: plain_text(value) for name, value in raw.items()}
                found[key] = Entry(kind, key, fields, _authors(raw.get("author", "")), raw)
        return found

    def _fields(self, closing: str) -> dict[str, str]:
        fields: dict[str, str] = {}
        while True:
            self._space()
            if self._take(closing):
                return fields
            name = self._word("name of a field").lower()
            self._expect("=")
            fields[name] = self._value()
            self._space()
            if not self._take(","):
                self._expect(closing)
                return fields

    def _value(self) -> str:
        parts = [self._piece()]
        self._space()
        while self._take("#"):
            parts.append(self._piece())
            self._space()
        return "".join(parts)

    def _piece(self) -> str:
        self._space()
        if self._take("{"):
            return self._delimited("}")
        if self._take('"'):
            return self._delimited('"')
        word = self._word("value")
        if word.isdigit():
            return word
        if word.lower() not in self.abbreviations:
            raise self._error(f"expected a value in braces or quotes, found the unknown abbreviation {word!r}")
        return self.abbreviations[word.lower()]

    def _delimited(self, closing: str) -> str:
        depth, start = 0, self.at
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "\\":
                self.at += 2
                continue
            if character == closing and depth == 0:
                self.at += 1
                return self.text[start : self.at - 1]
            depth += {"{": 1, "}": -1}.get(character, 0)
            self.at += 1
        self.at = start
        raise self._error("expected a closing brace or quote, found the end")

    def _key(self) -> str:
        self._space()
        match = re.compile(r"[^\s,{}()=]+").match(self.text, self.at)
        if match is None:
            raise self._error("expected the key of an entry")
        self.at = match.end()
        self._space()
        self._take(",")
        return match.group()

    def _word(self, what: str) -> str:
        self._space()
        match = re.compile(r"[A-Za-z0-9_.:+/'-]+").match(self.text, self.at)
        if match is None:
            raise self._error(f"expected the {what}")
        self.at = match.end()
        return match.group()

    def _skip_comment(self) -> None:
        self._space()
        if self._take("{"):
            self._delimited("}")

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _take(self, characters: str) -> bool:
        if self.at < len(self.text) and self.text[self.at] in characters:
            self.at += 1
            return True
        return False

    def _expect(self, characters: str) -> None:
        self._space()
        if not self._take(characters):
            found = self.text[self.at : self.at + 1] or "the end"
            raise self._error(f"expected {' or '.join(characters)}, found {found!r}")

    def _error(self, problem: str) -> InputError:
        return InputError(f"{self.origin}, line {self.text.count(chr(10), 0, self.at) + 1}: {problem}")


def plain_text(value: str) -> str:
    """A BibTeX value as plain Unicode: accents composed, braces and line breaks gone.

    >>> plain_text(r"Jos{\\'e} Mar{\\'{\\i}}a  {QSM}")
    'José María QSM'
    """
    value = _FORMULA.sub(lambda match: _formula(match.group(1)), value)
    value = _ACCENTED.sub(_accented, value)
    value = _LETTER.sub(lambda match: _LETTERS[match.group(1)], value)
    value = re.sub(r"\\([&%$#_{}])", lambda m: {"{": "\0", "}": "\1"}.get(m.group(1), m.group(1)), value)
    value = value.replace("~", " ").replace("{", "").replace("}", "").replace("\0", "{").replace("\1", "}")
    return " ".join(value.split())


def _formula(tex: str) -> str:
    """A short formula in a title as plain text: Greek letters, indices on the line."""
    tex = re.sub(r"\\([a-z]+)\s*", lambda match: _GREEK.get(match.group(1), match.group(1)), tex)
    return re.sub(r"[\^_{}]", "", tex)


def _accented(match: re.Match[str]) -> str:
    accent = match.group(1) or match.group(2)
    letter = (match.group(3) or match.group(4)).lstrip("\\")
    return unicodedata.normalize("NFC", letter + _ACCENTS[accent])


def _authors(raw: str) -> tuple[str, ...]:
    """Names of an ``author`` field, which are separated by ``and`` outside braces."""
    names, depth, start = [], 0, 0
    for match in re.finditer(r"[{}]|\s+and\s+", raw):
        if match.group() in "{}":
            depth += 1 if match.group() == "{" else -1
        elif depth == 0:
            names.append(raw[start : match.start()])
            start = match.end()
    return tuple(_short_name(name.strip()) for name in (*names, raw[start:]) if name.strip())


def _short_name(raw: str) -> str:
    """``Family GN`` of ``Family, Given Names`` or ``Given Names Family``; a name in braces stays as it is."""
    name = plain_text(raw)
    if raw.startswith("{") and raw.endswith("}") and " " in name and "," not in name:
        return name
    if "," in name:
        family, given = (part.strip() for part in name.split(",", 1))
    else:
        *first, family = name.split()
        given = " ".join(first)
    initials = "".join(part[0] for part in re.split(r"[\s.-]+", given) if part)
    return f"{family} {initials}".strip()
