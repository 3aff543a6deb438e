"""The folder in which compiled kernels are kept.

numba refuses to import a cached function when neither the package folder nor the home can be written (the
usual case in a container run by another user). The folder is therefore chosen before numba is imported:
``NUMBA_CACHE_DIR`` if it can be written, else the package folder, else the user's cache folder, else no cache.
A ``NUMBA_CACHE_DIR`` that is filled but cannot be written, as in a container image, is copied to the user's cache
folder or else to a temporary one, because numba reads only from where it can write.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from qsmxt import __version__

#: Where numba keeps kernels of this folder if it is not told otherwise.
_OWN = Path(__file__).parent / "__pycache__"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _home_folder() -> Path:
    # unlike Path.home, expanduser raises nothing where there is no home
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    return Path(home) / "qsmxt" / "numba"


def _copies() -> Path:
    return _home_folder().with_name(f"numba-{__version__}")


def _copy_filled(filled: Path) -> bool:
    """Point numba to a copy of the folder ``filled`` that can be written; returns whether there is one."""
    if not any(filled.glob("*/*.nbi")):
        return False
    folder = _copies()
    try:
        if not _writable(folder):
            folder = Path(tempfile.mkdtemp(prefix="qsmxt-numba-"))
            atexit.register(_remove, folder, os.getpid())
        for source in sorted(filled.glob("*/*.nb?")):  # code (nbc) before the index (nbi) that names it
            _copy_once(source, folder / source.relative_to(filled))
    except OSError:
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return True


def _copy_once(source: Path, target: Path) -> None:
    """Copy a file that is not there yet; whoever looks meanwhile sees all of it or nothing."""
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _remove(folder: Path, process: int) -> None:
    """Tidy up, but not from a forked child."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def choose() -> bool:
    """Point numba to a folder that can be written; returns whether there is one."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted:
        if _writable(Path(wanted)) or _copy_filled(Path(wanted)):
            return True
        del os.environ["NUMBA_CACHE_DIR"]
    if _writable(_OWN):
        return True
    folder = _home_folder()
    if _writable(folder):
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        return True
    return False


def folders() -> list[Path]:
    """Where kernels may be that were compiled before; nothing is made or chosen."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    return [*([Path(wanted)] if wanted else []), _OWN, _home_folder(), _copies()]


def chosen() -> Path:
    """The folder in use after :func:`choose`."""
    return Path(os.environ.get("NUMBA_CACHE_DIR", _OWN))
