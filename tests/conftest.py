"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

#: Folder with real data that lies beside the checkout; absent in an ordinary clone.
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real datasets, or a skip that says why."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real datasets are not beside this checkout")
    return REAL_DATA


@pytest.fixture(autouse=True)
def untouched_logger() -> None:
    """Start every test with the logger as imported: a command run before has set its level and its streams."""
    logger = logging.getLogger("qsmxt")
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.handlers[:] = True, []


#: Folders whose files take longest. They come first, each file on one worker, so that all workers end together.
LONG = ("tests/workflows/", "tests/cli/", "tests/real/", "tests/interfaces/", "tests/ship/", "tests/contracts/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
