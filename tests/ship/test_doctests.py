"""Examples in the documentation of functions are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import qsmxt

ROOT = Path(qsmxt.__file__).parent


def _modules() -> list[str]:
    paths = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [
        ".".join(("qsmxt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for path in paths
    ]


@pytest.mark.parametrize("name", _modules())
def test_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0
