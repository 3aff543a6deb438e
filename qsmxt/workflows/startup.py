"""The fork server from which workers start, running while the program still looks for its input."""

from __future__ import annotations

import multiprocessing
import os

#: Imported once by the fork server.
PRELOADED = ("qsmxt.workflows.preloaded",)


def start_fork_server(*program: str) -> None:
    """Start it; it imports in the background. Safe to call again.

    Every worker imports the module ``program`` in which the command starts, and so does the fork server for all.
    """
    from multiprocessing import forkserver

    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"
    multiprocessing.set_forkserver_preload([*PRELOADED, *program])
    forkserver.ensure_running()
