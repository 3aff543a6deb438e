"""The ``qsmxt`` command, also as ``python -m qsmxt``."""

import atexit
import os
import sys
from typing import NoReturn

from qsmxt.cli.run import main


def program() -> NoReturn:
    """Run the command and end the process without taking down, object by object, what goes with it anyway."""
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to run
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    program()
