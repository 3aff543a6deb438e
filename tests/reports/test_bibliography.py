"""BibTeX is read as BibTeX means it, and refused where it is not BibTeX."""

from __future__ import annotations

import pytest

from qsmxt.errors import InputError
from qsmxt.registry.methods import all_methods
from qsmxt.reports.bibliography import FOLDER, bibliography, plain_text, read_bibtex

EXAMPLE = r"""
Anything outside entries is a comment.
@string{mrm = "Magnetic Resonance in Medicine"}
@comment{ @article{not, title={an entry}} }
@preamble{"\newcommand{\x}{y}"}
@Article{smith2020,
  author  = {Smith, Anna B. and Jos{\'e} Mar{\'{\i}}a M\"uller and {The {QSM} Group and Friends}},
  title   = {A {T}itle with {\textit{braces}} \& an ampersand,
             on two lines},
  journal = mrm,
  year    = 2020,
  volume  = "12" # "3",
  number  = {4},
  pages   = {1--2},
  doi     = {10.1000/x_y}
}
@misc(other, title = "In parentheses", url = {https://example.org/~x})
@book{empty,}
"""


def test_values_in_all_their_forms():
    entries = read_bibtex(EXAMPLE)
    assert set(entries) == {"smith2020", "other", "empty"}
    fields = entries["smith2020"].fields
    assert fields["journal"] == "Magnetic Resonance in Medicine"
    assert (fields["year"], fields["volume"]) == ("2020", "123")
    assert fields["title"].endswith("& an ampersand, on two lines")
    assert entries["empty"].fields == {} and entries["other"].fields["title"] == "In parentheses"
    assert entries["smith2020"].kind == "article"


def test_authors_are_shortened_and_organisations_are_not():
    assert read_bibtex(EXAMPLE)["smith2020"].authors == ("Smith AB", "Müller JM", "The QSM Group and Friends")


def test_reference_in_one_line():
    text = read_bibtex(EXAMPLE)["smith2020"].text()
    assert text.startswith("Smith AB, Müller JM, The QSM Group and Friends (2020). A Title with")
    assert text.endswith("Magnetic Resonance in Medicine 123(4):1–2. https://doi.org/10.1000/x_y")  # noqa: RUF001


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"Jos{\'e}", "José"), (r"Jos\'e", "José"), (r"Jos{\'{e}}", "José"), (r"M\"uller", "Müller"),
        (r"M{\"u}ller", "Müller"), (r"\'{\i}", "í"), (r"\v{S}imko", "Šimko"), (r"{\v S}imko", "Šimko"),
        (r"\c{c}", "ç"), (r"Stra{\ss}e", "Straße"), (r"S{\o}ren", "Søren"), (r"{\L}ukasz", "Łukasz"),
        (r"{\AA}rhus", "Århus"), (r"50\%", "50%"), (r"a~b", "a b"), (r"\{x\}", "{x}"),
        (r"$\chi$-separation of $R_2^{*}$", "\u03c7-separation of R2*"), (r"5\$", "5$"),
    ],
)  # fmt: skip
def test_accents(tex, text):
    assert plain_text(tex) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@article{a, title = {open", "line 1: expected a closing brace"),
        ("\n@article{a, title {x}}", "line 2: expected =, found '{'"),
        ("@article{a, month = foo}", "unknown abbreviation 'foo'"),
        ("@article{a, x={1}}\n@article{a, x={2}}", "line 2: expected every key once"),
        ("@article a", "expected { or ("),
        ("@article{a, x={1} y={2}}", "expected }"),
    ],
)
def test_what_is_not_bibtex_is_refused_with_its_line(text, message):
    with pytest.raises(InputError) as error:
        read_bibtex(text, "a.bib")
    assert message in str(error.value) and str(error.value).startswith("a.bib, line")


def test_files_of_the_package_are_complete():
    for path in FOLDER.glob("*.bib"):
        for entry in read_bibtex(path.read_text(encoding="utf-8"), path.name).values():
            assert entry.authors and entry.fields.get("title") and entry.fields.get("year"), f"{path.name}: {entry.key}"
            assert not set("{}\\") & set(entry.text()), f"{path.name}: {entry.key}: {entry.text()}"


def test_entries_read_one_by_one_are_those_of_the_whole_files():
    whole: dict = {}
    for path in sorted(FOLDER.glob("*.bib")):
        whole = {**read_bibtex(path.read_text(encoding="utf-8"), path.name), **whole}
    assert dict(bibliography()) == whole and len(bibliography()) == len(whole) > 50
    assert "no such key" not in bibliography()


def test_every_reference_of_a_method_is_known():
    missing = {
        f"{method.name}: {key}" for method in all_methods().values() for key in method.references
        if key not in bibliography()
    }  # fmt: skip
    assert not missing
