"""The grammar of masks: ``input[:option...],generator[:parameters],refinement[:parameters],...``.

Commas separate the steps of one section, colons the parameters of one step, given in the order of their declaration or
as ``name=value``::

    magnitude:first,bet:0.5,trim,erode:2
    phase-quality,otsu:factor=1.5,fill
    mask:derivatives

A section starts with what is looked at, goes on with how a mask is made of it, and ends with any number of refinements.
The input ``mask:NAME`` is a mask that was made elsewhere and needs no generator.

Among the refinements may stand the word ``support``: the field is inverted on the mask as it is there, and what follows
only cuts the map to a smaller one::

    magnitude:first,bet,fill,support,peel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsmxt.errors import ParameterError
from qsmxt.registry.methods import Method, lookup, methods

STAGE = "masking"

#: The word after which refinements only cut the map.
SUPPORT = "support"

#: Inputs and the options that each takes (besides, for ``magnitude`` and ``phase``, the number of an echo from 1).
INPUTS: dict[str, tuple[str, ...]] = {
    "magnitude": ("first", "last", "rss", "each", "corrected", "n4"),
    "phase": ("first", "last", "each"),
    "phase-quality": (),
    "fit-quality": (),
    "field-noise": (),
    "t1w": ("corrected", "n4"),
    "mask": (),
}
_ECHO_INPUTS = ("magnitude", "phase")
#: Options that free an image from inhomogeneity.
_CORRECTIONS = ("corrected", "n4")

#: Generators that live outside the algorithms: their masks are made beforehand and handed over by name.
EXTERNAL_GENERATORS = ("registration", "hd-bet", "synthstrip")


@dataclass(frozen=True)
class Step:
    """One registered method with its parameters, or an external generator, whose ``method`` is ``None``."""

    key: str
    method: Method | None = None
    parameters: Any = None


@dataclass(frozen=True)
class Section:
    """One parsed section.

    Attributes
    ----------
    text
        The section as it was written, without blanks.
    source
        Name of the input, a key of :data:`INPUTS`.
    echoes
        Which echoes of the input: ``"first"``, ``"last"``, ``"rss"``, ``"each"`` or a number from 1.
    corrected, n4
        Whether the input is freed from inhomogeneity first, by the method ``homogeneity`` or by N4.
    external
        Name of the mask for the input ``mask``.
    generator
        ``None`` for the input ``mask``.
    refinements
        In the order of execution.
    support
        After how many refinements the mask is that on which the field is inverted; ``None``: after all.
    """

    text: str
    source: str
    echoes: str | int = "first"
    corrected: bool = False
    n4: bool = False
    external: str | None = None
    generator: Step | None = None
    refinements: tuple[Step, ...] = field(default=())
    support: int | None = None

    @property
    def external_mask(self) -> str | None:
        """Name of the ready mask that the section needs, if any."""
        if self.source == "mask":
            return self.external
        if self.generator and self.generator.method is None:
            return self.generator.key
        return None

    def methods(self) -> tuple[Method, ...]:
        """Registered methods that the section runs, for citations and cost."""
        found = [lookup(STAGE, "homogeneity")] if self.corrected else []
        steps = ((self.generator,) if self.generator else ()) + self.refinements
        return (*found, *(s.method for s in steps if s.method is not None))


def generators() -> dict[str, Method]:
    """Methods that make a mask from an image."""
    return _generators(methods(STAGE))


def refinements() -> dict[str, Method]:
    """Methods that change a mask."""
    return _refinements(methods(STAGE))


def _generators(known: Mapping[str, Method]) -> dict[str, Method]:
    return {k: m for k, m in known.items() if "mask" in m.produces and "mask" not in m.consumes}


def _refinements(known: Mapping[str, Method]) -> dict[str, Method]:
    return {k: m for k, m in known.items() if "mask" in m.produces and "mask" in m.consumes}


def parse_section(text: str) -> Section:
    """Parse one section.

    Raises
    ------
    ParameterError
        Naming the token that is wrong and what may stand there.

    Examples
    --------
    >>> section = parse_section("magnitude:rss, bet:0.4, erode:2")
    >>> section.echoes, section.generator.parameters.fraction, section.refinements[0].parameters.radius
    ('rss', 0.4, 2.0)
    """
    return _Parser(text, methods(STAGE), lambda method, values: method.configure(values)).section()


def check_sections(texts: Sequence[str], known: Mapping[str, Method]) -> None:
    """Raise the errors of :func:`parse_section`, with nothing but what the catalogue ``known`` tells of methods."""
    for text in texts:
        _Parser(text, known, lambda method, values: method.complete(values)).section()


def parse_sections(texts: list[str] | tuple[str, ...]) -> tuple[Section, ...]:
    """Parse several sections; there must be at least one."""
    if not texts:
        raise ParameterError("mask: expected at least one section such as 'magnitude,bet', found none")
    return tuple(parse_section(text) for text in texts)


def external_masks(sections: tuple[Section, ...]) -> tuple[str, ...]:
    """Names of the ready masks that must be handed to :func:`~qsmxt.algorithms.masking.build.build_mask`."""
    return tuple(dict.fromkeys(s.external_mask for s in sections if s.external_mask))


def _error(section: str, token: str, expected: str) -> ParameterError:
    return ParameterError(f"mask section {section!r}: {expected}; found {token!r}")


def _mask_name(section: str, options: list[str]) -> str:
    if len(options) != 1 or not options[0]:
        raise _error(section, ":".join(["mask", *options]), "expected the name of a mask, as in mask:derivatives")
    return options[0]


def _options(section: str, source: str, options: list[str]) -> tuple[str | int, set[str]]:
    echoes: str | int = "first"
    corrections: set[str] = set()
    for option in (o.lower() for o in options):
        if option in _CORRECTIONS and option in INPUTS[source]:
            corrections.add(option)
        elif option in INPUTS[source]:
            echoes = option
        elif source in _ECHO_INPUTS and option.isdigit() and int(option) > 0:
            echoes = int(option)
        else:
            numbered = ("number of an echo",) if source in _ECHO_INPUTS else ()
            names = ", ".join((*INPUTS[source], *numbered)) or "none"
            raise _error(section, option, f"expected an option of {source}: {names}")
    return echoes, corrections


def _fits(source: str, method: Method) -> bool:
    """Whether a generator takes the input: an image, or the array of that name."""
    if source == "phase":
        return "wrapped_phase" in method.consumes
    return "mask_input" in method.consumes or source.replace("-", "_") in method.consumes


class _Parser:
    """One section of a mask: ``known`` are the methods of the stage, ``configure`` makes their parameters of texts."""

    def __init__(self, text: str, known: Mapping[str, Method], configure: Callable[[Any, dict[str, str]], Any]) -> None:
        self.tokens = [token.strip() for token in text.split(",")]
        self.text = ",".join(self.tokens)
        self.generators, self.refinements = _generators(known), _refinements(known)
        self.configure = configure

    def section(self) -> Section:
        if "" in self.tokens:
            raise _error(self.text, "", "expected input,generator,refinement,... without empty places")
        source, *options = self.tokens[0].split(":")
        source = source.lower().replace("_", "-")
        if source not in INPUTS:
            raise _error(self.text, source, f"expected an input: {', '.join(INPUTS)}")
        if source == "mask":
            steps, support = self._refine(self.tokens[1:])
            name = _mask_name(self.text, options)
            return Section(self.text, source, external=name, refinements=steps, support=support)
        echoes, corrections = _options(self.text, source, options)
        if len(self.tokens) < 2:
            raise _error(self.text, self.tokens[0], f"expected a generator after the input: {self._generator_names()}")
        generator, (steps, support) = self._generate(source, self.tokens[1]), self._refine(self.tokens[2:])
        corrected, n4 = "corrected" in corrections, "n4" in corrections
        return Section(self.text, source, echoes, corrected, n4, None, generator, steps, support)

    def _generator_names(self) -> str:
        return ", ".join((*self.generators, *EXTERNAL_GENERATORS))

    def _generate(self, source: str, token: str) -> Step:
        key = token.split(":")[0].lower().replace("_", "-")
        if key in EXTERNAL_GENERATORS:
            if ":" in token:
                raise _error(self.text, token, f"{key} takes no parameters here")
            return Step(key)
        known = self.generators
        if key not in known:
            raise _error(self.text, key, f"expected a generator: {self._generator_names()}")
        if not _fits(source, known[key]):
            fitting = ", ".join(k for k, method in known.items() if _fits(source, method))
            raise _error(self.text, key, f"expected a generator for the input {source}: {fitting}")
        return self._step(token, known[key])

    def _refine(self, tokens: list[str]) -> tuple[tuple[Step, ...], int | None]:
        """The refinements, and after how many of them the word ``support`` stands."""
        steps: list[Step] = []
        support = None
        for token in tokens:
            key = token.split(":")[0].lower()
            if key == SUPPORT:
                if support is not None or token.lower() != SUPPORT:
                    raise _error(self.text, token, f"expected {SUPPORT} once and without parameters")
                support = len(steps)
                continue
            if key not in self.refinements:
                raise _error(self.text, key, f"expected a refinement: {', '.join(self.refinements)}, or {SUPPORT}")
            steps.append(self._step(token, self.refinements[key]))
        return tuple(steps), support

    def _step(self, token: str, method: Method) -> Step:
        names = [p.name for p in method.declared_parameters()]
        values: dict[str, str] = {}
        for place, text in enumerate(token.split(":")[1:]):
            name, equals, value = text.partition("=")
            if not equals:
                if place >= len(names):
                    expected = f"{method.key} takes {len(names)} parameters: {', '.join(names) or 'none'}"
                    raise _error(self.text, text, expected)
                name, value = names[place], text
            if name not in names:
                raise _error(self.text, name, f"expected a parameter of {method.key}: {', '.join(names) or 'none'}")
            values[name] = value
        try:
            return Step(method.key, method, self.configure(method, values))
        except ParameterError as error:
            raise ParameterError(f"mask section {self.text!r}: {error}") from None
