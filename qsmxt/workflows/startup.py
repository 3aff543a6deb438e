"""The fork server from which workers start, running while the program still looks for its input."""

from __future__ import annotations

import multiprocessing
import os

#: Imported once by the fork server.
PRELOADED = ("qsmxt.workflows.preloaded",)


def start_fork_server() -> None:
    """Start it; it imports in the background. Safe to call again."""
    from multiprocessing import forkserver

    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()
