"""List the images of a BIDS dataset with pybids, indexing only the participants that are asked for."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import UMASK
from qsmxt.bids.entities import is_label, strip_prefix
from qsmxt.errors import InputError, MissingInputError, SelectionError

#: Folders that hold no raw data, and everything hidden.
_IGNORED = ("code", "stimuli", "sourcedata", "models", "derivatives")
_HIDDEN = re.compile(r"/\.")

#: Folders in which gradient echoes of the anatomy lie (``swi`` was proposed for BIDS and is in use).
DATATYPES = ("anat", "swi")

IMAGE_EXTENSIONS = (".nii", ".nii.gz")

#: The entities that a layout is asked about; more would cost time for every file.
_FEW_ENTITIES = Path(__file__).parents[1] / "data" / "pybids.json"

#: So many labels are spelled out in a message.
_LABELS_SHOWN = 20


def dataset_root(bids_dir: str | Path) -> Path:
    """The absolute path of the dataset.

    Raises
    ------
    MissingInputError
        If it is no folder, or holds no ``dataset_description.json``.
    """
    root = Path(os.path.abspath(bids_dir))  # noqa: PTH100 (links must survive, ".." must not)
    if not root.is_dir():
        raise MissingInputError(f"{bids_dir}: expected the folder of a BIDS dataset, found no such folder")
    if not (root / "dataset_description.json").exists():
        raise MissingInputError(
            f"{bids_dir}: expected a BIDS dataset, found no dataset_description.json in it; "
            "give the folder that holds the sub-* folders, and add that file"
        )
    return root


def list_subjects(root: Path) -> list[str]:
    """Labels of all ``sub-*`` folders, sorted, from the file system alone."""
    names = [entry.name[4:] for entry in os.scandir(root) if entry.name.startswith("sub-") and entry.is_dir()]
    return sorted(label for label in names if is_label(label))


def choose_subjects(root: Path, participants: Sequence[str] | None) -> list[str]:
    """Labels to process: those asked for, or all.

    Raises
    ------
    SelectionError
        If there are no subjects, or one that is asked for does not exist.
    """
    existing = list_subjects(root)
    if not existing:
        raise SelectionError(f"{root}: expected sub-* folders, found none; give the root of the BIDS dataset")
    if not participants:
        return existing
    wanted = list(dict.fromkeys(strip_prefix(label, "sub") for label in participants))
    missing = [label for label in wanted if label not in set(existing)]
    if missing:
        raise SelectionError(
            f"participant label: found no folder for {quoted(missing)} in {root}; it has {quoted(existing)}"
        )
    return wanted


def quoted(labels: Sequence[str]) -> str:
    """Labels for a message, shortened if there are many."""
    shown = ", ".join(labels[:_LABELS_SHOWN])
    return shown if len(labels) <= _LABELS_SHOWN else f"{shown} and {len(labels) - _LABELS_SHOWN} more"


def list_images(
    root: Path, subjects: Sequence[str], database_dir: str | Path | None = None, *, all_subjects: bool = False
) -> list[Path]:
    """All NIfTI images of ``subjects``, sorted.

    Without ``database_dir`` the folders of other subjects are not even looked into. With it, a pybids database of
    the whole dataset is reused, or built there once and put in place in one step.

    Raises
    ------
    InputError
        If pybids cannot read the dataset or the database.
    """
    try:
        layout = (
            _shared_layout(root, Path(database_dir).absolute())
            if database_dir
            else _layout(root, subjects, all_subjects)
        )
        found = layout.get(subject=list(subjects), extension=list(IMAGE_EXTENSIONS), return_type="filename")
    except Exception as error:
        where = f" with the database {database_dir} (delete it if it is damaged or of another dataset)"
        raise InputError(
            f"{root}: pybids cannot index the dataset{where if database_dir else ''}: {type(error).__name__}: {error}"
        ) from error
    paths = sorted(Path(name) for name in found)
    if paths and not paths[0].is_relative_to(root):
        raise InputError(
            f"{database_dir}: expected the pybids database of {root}, found one that lists {paths[0]}; "
            "delete it or name another folder"
        )
    return paths


def _layout(root: Path, subjects: Sequence[str], all_subjects: bool) -> Any:
    """Layout of the images where BIDS wants them; links that lead back into the dataset are not followed round it."""
    wanted = r"[A-Za-z0-9+]+" if all_subjects else f"(?:{'|'.join(re.escape(label) for label in subjects)})"
    image = r"[^/.][^/]*\.nii(?:\.gz)?"
    place = rf"sub-{wanted}(?:/ses-[^/]+)?(?:/(?:{'|'.join(DATATYPES)})(?:/{image})?)?"
    return _bids_layout(root, [re.compile(rf"^/(?!{place}$)")], config=[str(_FEW_ENTITIES)])


def _shared_layout(root: Path, database: Path) -> Any:
    """Layout of the whole dataset from the SQLite index in ``database``, which is made if it does not exist."""
    if not _holds_index(database):
        database.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{database.name}.", dir=database.parent))
        try:
            _bids_layout(root, [*_ignored_folders(), _HIDDEN]).save(str(building), replace_connection=False)
            building.chmod(0o777 & ~UMASK)
            _put_in_place(building, database)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _bids_layout(root, [], database)


def _put_in_place(building: Path, database: Path) -> None:
    try:
        building.rename(database)
    except OSError:
        if not _holds_index(database):  # otherwise another job was faster, and its index is as good
            shutil.copytree(building, database, dirs_exist_ok=True)


def _holds_index(database: Path) -> bool:
    return any(database.glob("*.sqlite"))


def _bids_layout(root: Path, ignore: list[Any], database: Path | None = None, config: list[str] | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bids.layout import BIDSLayout, BIDSLayoutIndexer

        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
        return BIDSLayout(str(root), validate=False, indexer=indexer, database_path=database, config=config)


def _ignored_folders() -> list[re.Pattern[str]]:
    return [re.compile(rf"^/{name}(?:/|$)") for name in _IGNORED]
