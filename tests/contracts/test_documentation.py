"""The docstring of every method is a miniature paper; what it must hold follows from the declaration.

The examples themselves are run by :mod:`tests.ship.test_doctests`.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from qsmxt import errors
from qsmxt.registry.artifacts import ARTIFACTS, Artifact
from qsmxt.registry.methods import Method, all_methods
from qsmxt.reports.bibliography import bibliography

METHODS = list(all_methods().values())

#: How a unit is written.
UNITS = {
    "ppm": r"\bppm\b", "rad": r"\brad\b", "s": r"\bs\b", "T": r"\bT\b", "1/s": r"\b1/s\b",
    "arbitrary": r"\b(arbitrary|any) unit\b", "1": r"\b0 to 1\b",
}  # fmt: skip
#: The same for kinds without a unit.
KINDS = {"mask": r"\b[Bb]ool\b", "labels": r"\bint(eger|32)?\b"}
#: How a shape is written.
SHAPES = {
    "volume": "(x, y, z)", "mask": "(x, y, z)", "labels": "(x, y, z)", "echoes": "(echo, x, y, z)",
    "spin_echoes": "(echo, x, y, z)", "orientations": "(orientation, x, y, z)",
    "components": "(component, x, y, z)",
}  # fmt: skip
#: Shapes and units of arrays that differ from those of their kind.
OWN_SHAPES = {
    "coil_phase": "(coil, echo, x, y, z)", "coil_magnitude": "(coil, echo, x, y, z)", "echo_times": "(echo,)",
    "spin_echo_times": "(echo,)", "field_strength": "float", "b0_directions": "(orientation, 3)",
    "reference_offset": "()",
}  # fmt: skip
OWN_UNITS = {"b0_directions": r"\bunit vectors?\b"}


def sections(method: Method) -> dict[str, list[str]]:
    """Lines of the sections of a docstring by title; what stands before the first is under ``""``."""
    lines = inspect.cleandoc(method.function.__doc__ or "").splitlines()
    found: dict[str, list[str]] = {"": []}
    current = found[""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following and set(following) == {"-"}:
            current = found.setdefault(line, [])
        elif not (line and set(line) == {"-"}):
            current.append(line)
    return found


def entries(lines: list[str]) -> dict[str, str]:
    """Text of every entry of a section by its name; names that share a line share the text."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(":")[0].split(",")]
            found.update(dict.fromkeys(names, ""))
        else:
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def complaints(artifact: Artifact, text: str) -> Iterator[str]:
    """What ``text`` does not say about an array."""
    unit = OWN_UNITS.get(artifact.name) or KINDS.get(artifact.kind) or UNITS[artifact.unit]
    shape = OWN_SHAPES.get(artifact.name) or SHAPES[artifact.kind]
    if not re.search(unit, text):
        yield f"{artifact.name}: no unit ({unit})"
    if shape not in text:
        yield f"{artifact.name}: no shape ({shape})"


def arguments(method: Method) -> dict[str, str]:
    """Name of the argument by the array that it takes."""
    positional = list(inspect.signature(method.function).parameters)
    return dict(zip(method.consumes, positional, strict=False)) | {name: name for name in method.optional}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_argument_is_described(method: Method):
    described = entries(sections(method).get("Parameters", []))
    names = arguments(method)
    wrong = [c for name, own in names.items() for c in complaints(ARTIFACTS[name], described.get(own, ""))]
    wrong += [f"{name} is missing" for name in ("grid", "parameters", "progress") if not described.get(name)]
    unknown = set(described) - set(inspect.signature(method.function).parameters)
    assert not wrong and not unknown, (wrong, unknown)
    assert method.parameters.__name__ in described["parameters"]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_product_is_described(method: Method):
    described = entries(sections(method).get("Returns", []))
    if len(method.produces) > 1:
        assert list(described) == list(method.produces)
    assert len(described) == len(method.produces)
    texts = zip(method.produces, described.values(), strict=True)
    assert not [c for name, text in texts for c in complaints(ARTIFACTS[name], text)]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_errors_are_described(method: Method):
    described = entries(sections(method).get("Raises", []))
    assert "InputError" in described, "every method checks its arrays"
    for name, text in described.items():
        assert issubclass(getattr(errors, name), errors.QSMxTError), name
        assert text.startswith("If ") and text.endswith("."), text


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_an_example_on_a_phantom_calls_the_method(method: Method):
    examples = doctest.DocTestParser().get_examples(method.function.__doc__ or "")
    source = "".join(example.source for example in examples)
    name = method.function.__name__
    assert re.search(rf"^from {re.escape(method.function.__module__)} import .*\b{name}\b", source, re.MULTILINE)
    assert re.search(r"^from qsmxt\.phantom\.", source, re.MULTILINE)
    calls = re.sub(r"^from .*$", "", source, flags=re.MULTILINE)
    assert re.search(rf"\b{name}\b", calls)
    assert any(example.want for example in examples), "shows nothing"


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_module_has_equation_and_sources(method: Method):
    text = importlib.import_module(method.function.__module__).__doc__ or ""
    assert ".. math::" in text or "No equation: " in text
    told = {doi.lower() for doi in re.findall(r"doi:(10\.\d+/[^\s;,]*[^\s;,.])", _balanced(text))}
    wanted = {key: bibliography()[key].fields.get("doi", "").lower() for key in method.references}
    missing = {key: doi for key, doi in wanted.items() if doi and doi not in told}
    assert not missing, f"without DOI: {missing}; found {sorted(told)}"
    assert told or "No source: " in text


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_module_says_what_each_parameter_does(method: Method):
    text = importlib.import_module(method.function.__module__).__doc__ or ""
    missing = [declared.name for declared in method.declared_parameters() if f"``{declared.name}" not in text]
    assert not missing


def _balanced(text: str) -> str:
    """``text`` without the parentheses around a DOI, which may hold some of its own."""
    return re.sub(r"\((doi:(?:[^()\s]|\([^()\s]*\))*)\)", r" \1 ", text)
