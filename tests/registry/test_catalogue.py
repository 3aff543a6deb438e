"""The catalogue says the same as the declarations, and says it without importing them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from qsmxt.errors import ParameterError
from qsmxt.registry import catalogue as module
from qsmxt.registry.catalogue import CATALOGUE_FILE, catalogue, describe, find, generate, read_type, type_text
from qsmxt.registry.methods import Cost, Method, all_methods, parameter, resolve


def test_stored_catalogue_is_up_to_date():
    assert CATALOGUE_FILE.read_text(encoding="utf-8") == generate(), "run: python -m qsmxt.registry.catalogue --write"


def test_every_registered_method_reads_back_as_declared():
    for method in all_methods().values():
        read = find(method.stage, method.key)
        assert (read.title, read.consumes, read.optional, read.produces) == (
            method.title, method.consumes, method.optional, method.produces,
        )  # fmt: skip
        assert read.cost == method.cost and read.references == method.references
        assert read.declared_parameters() == method.declared_parameters()
        assert read.complete() == {p.name: getattr(method.configure(), p.name) for p in method.declared_parameters()}


@pytest.mark.parametrize(
    "declared", [float, int, bool, str, float | None, tuple[float, float, float], tuple[int, ...], int | str]
)
def test_types_survive_the_file(declared):
    assert read_type(type_text(declared)) == declared


@dataclass(frozen=True)
class _Parameters:
    zero: float = parameter(0.5, above=0, at_most=1, help="bounded by nought")
    pair: tuple[float, float] = parameter((1.0, 2.0), help="two numbers")
    word: str = parameter("a", choices=("a", "b"), help="a word")
    found: float = parameter("auto", auto=True, help="found from the data")


def _example() -> Method:
    return Method("x", "X", "inversion", ("mask",), ("chi",), lambda: None, _Parameters, cost=Cost(1, 2, 3, 4))


def test_bounds_of_nought_and_tuples_survive_the_file():
    entry = json.loads(json.dumps(describe(_example())))
    read = module._read_method("inversion", entry)
    assert read.declared_parameters() == _example().declared_parameters()
    with pytest.raises(ParameterError, match="> 0"):
        read.complete({"zero": 0.0})
    assert read.complete({"found": "auto", "pair": [3, 4]})["pair"] == (3.0, 4.0)


def test_unknown_names_are_errors_that_list_what_there_is():
    with pytest.raises(ParameterError, match="tkd"):
        find("inversion", "nonsense")
    with pytest.raises(ParameterError, match="inversion"):
        find("nonsense", "tkd")
    with pytest.raises(ParameterError, match="unknown parameter 'nonsense'; it has threshold"):
        find("inversion", "tkd").complete({"nonsense": 1})


def test_catalogued_methods_resolve_and_run_like_registered_ones():
    method = find("inversion", "tkd")
    assert resolve("chi", [method], {"local_field", "mask"}) == [method]
    assert method.configure({"threshold": 0.1}).threshold == 0.1
    assert method.function.__module__ == all_methods()["inversion.tkd"].function.__module__


def test_stages_keep_their_order():
    from qsmxt.registry.stages import stage_keys

    assert tuple(catalogue()) == stage_keys()


def test_check_without_write_fails_on_a_stale_file(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "catalogue.json"
    stale.write_text("{}")
    monkeypatch.setattr(module, "CATALOGUE_FILE", stale)
    assert module.main([]) == 1 and "out of date" in capsys.readouterr().err
    assert module.main(["--write"]) == 0 and module.main([]) == 0
