"""Every interface is static: it pickles, and what it hashes is what determines its result."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest

import qsmxt.interfaces
import qsmxt.reports
from qsmxt.interfaces.base import Interface


def _interfaces() -> list[type]:
    from nipype.interfaces.base import BaseInterface

    found = []
    for package in (qsmxt.interfaces, qsmxt.reports):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            content = vars(importlib.import_module(module.name))
            found += [
                kind
                for kind in content.values()
                if isinstance(kind, type)
                and issubclass(kind, BaseInterface)
                and kind.__module__ == module.name
                and kind is not Interface
            ]
    return found


@pytest.mark.parametrize("kind", _interfaces(), ids=lambda kind: kind.__name__)
def test_interface_pickles_with_its_inputs(kind):
    interface = kind()
    for name in interface.inputs.copyable_trait_names():
        if isinstance(interface.inputs.trait(name).default, str):
            setattr(interface.inputs, name, "text")
    again = pickle.loads(pickle.dumps(interface))
    assert again.inputs.get_hashval() == interface.inputs.get_hashval()
    assert type(again) is kind


def test_there_is_one_for_every_kind_of_node():
    assert {kind.__name__ for kind in _interfaces()} >= {
        "Fingerprint", "LoadAcquisition", "RunMethods", "BuildMask", "WriteDerivatives", "Publish", "DrawFigures",
    }  # fmt: skip


def test_threads_do_not_enter_the_hash_and_everything_else_does():
    from qsmxt.interfaces.methods import RunMethods

    def digest(**changes):
        inputs = {"state": "s", "plan": "p", "code": "c", "num_threads": 1, **changes}
        return RunMethods(**inputs).inputs.get_hashval()[1]

    assert digest(num_threads=2) == digest()
    assert len({digest(), digest(state="t"), digest(plan="q"), digest(code="d"), digest(second="s")}) == 5
