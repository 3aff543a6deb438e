"""Templates and their atlases: from a folder of the user's, or through TemplateFlow.

A folder may be laid out like a TemplateFlow home (``tpl-NAME/tpl-NAME_res-01_T1w.nii.gz``), be one of its ``tpl-NAME``
folders, or simply hold files whose names end in ``_T1w.nii.gz``, ``_atlas-X_dseg.nii.gz`` and ``_dseg.tsv``.
TemplateFlow is asked through its interface; from a populated ``TEMPLATEFLOW_HOME`` that works without network.
Whatever is missing is an error before anything is computed.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.errors import MissingInputError, ParameterError

#: Template that is used unless another is asked for.
DEFAULT_TEMPLATE = "MNI152NLin2009cAsym"

#: Its atlases: deep nuclei (GPe, GPi, SN, RN, STN, thalamus ...), and FreeSurfer's regions, which part the caudate
#: nucleus from the putamen. The latter is done without where it cannot be had.
DEFAULT_ATLAS, DEFAULT_WHOLE_BRAIN = "MASSP20", "aseg"

logger = logging.getLogger("qsmxt")

_PAIR = re.compile(r"(?:^|_)([a-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class Atlas:
    """Labels in the space of a template; ``table`` names them."""

    name: str
    labels: Path
    table: Path | None = None


@dataclass(frozen=True)
class Template:
    """Images of a template, ``None`` where there is none, and atlases in its space."""

    name: str
    t1w: Path | None = None
    magnitude: Path | None = None
    chi: Path | None = None
    brain: Path | None = None
    atlases: tuple[Atlas, ...] = field(default=())

    def files(self) -> list[Path]:
        """All files."""
        images = [path for path in (self.t1w, self.magnitude, self.chi, self.brain) if path is not None]
        return images + [path for atlas in self.atlases for path in (atlas.labels, atlas.table) if path is not None]


def split_atlas(text: str) -> tuple[str | None, str]:
    """Template (if given) and atlas of ``TEMPLATE:ATLAS`` or ``ATLAS``."""
    template, colon, atlas = text.rpartition(":")
    return (template if colon else None), atlas


def find_template(name: str | None, atlases: Sequence[str], folder: str | Path | None = None) -> Template:
    """The template ``name`` with its ``atlases``.

    Parameters
    ----------
    name
        ``None``: the only one in the folder, else the default.
    atlases
        Names of atlases; none means all in the folder, else the default.
    folder
        Of the user's; ``None`` asks TemplateFlow.

    Raises
    ------
    MissingInputError
        If something is missing; the message says how to get it.
    """
    if folder is not None:
        return _in_folder(name, atlases, Path(folder))
    if atlases:
        return _from_templateflow(name or DEFAULT_TEMPLATE, atlases)
    try:
        return _from_templateflow(name or DEFAULT_TEMPLATE, (DEFAULT_ATLAS, DEFAULT_WHOLE_BRAIN))
    except MissingInputError as error:
        template = _from_templateflow(name or DEFAULT_TEMPLATE, (DEFAULT_ATLAS,))
        logger.warning("regions of %s are left out: %s", DEFAULT_WHOLE_BRAIN, error)
        return template


def _in_folder(name: str | None, atlases: Sequence[str], folder: Path) -> Template:
    if not folder.is_dir():
        raise MissingInputError(f"template folder {folder}: expected a folder, found nothing; correct --template-dir")
    homes = sorted(path for path in folder.glob("tpl-*") if path.is_dir())
    if homes:
        names = [path.name.removeprefix("tpl-") for path in homes]
        if name is None and len(homes) > 1:
            raise ParameterError(
                f"template folder {folder}: expected one template, found {', '.join(names)}; name one as TEMPLATE:ATLAS"
            )
        chosen = name or names[0]
        if chosen not in names:
            raise MissingInputError(f"template folder {folder}: expected tpl-{chosen}, found {', '.join(names)}")
        folder, name = homes[names.index(chosen)], chosen
    files = [_File(path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    found = [file for file in files if file.suffix == "dseg" and file.is_image]
    names = list(dict.fromkeys(file.atlas for file in found))
    wanted = list(atlases) or names
    for atlas in wanted:
        if atlas not in names:
            raise MissingInputError(
                f"template folder {folder}: expected a file like *_atlas-{atlas}_dseg.nii.gz, "
                f"found atlases {', '.join(names) or 'none'}"
            )
    template = Template(
        name or _label(folder.resolve().name),
        t1w=_image(files, "T1w"), magnitude=_image(files, "T2starw"), chi=_image(files, "Chimap"),
        brain=_image(files, "mask", "brain"),
        atlases=tuple(_atlas(next(f for f in found if f.atlas == atlas), files) for atlas in wanted),
    )  # fmt: skip
    if template.t1w is None and template.magnitude is None:
        raise MissingInputError(
            f"template folder {folder}: expected an image ending in _T1w.nii.gz or _T2starw.nii.gz, found none; "
            "add the image in whose space the atlas is"
        )
    if not template.atlases:
        raise MissingInputError(f"template folder {folder}: expected labels ending in _dseg.nii.gz, found none")
    return template


class _File:
    """What the name of a file says."""

    def __init__(self, path: Path) -> None:
        stem, _, extension = path.name.partition(".")
        self.path, self.extension = path, f".{extension}"
        self.entities = dict(_PAIR.findall(stem))
        self.suffix = stem.rpartition("_")[2]

    @property
    def is_image(self) -> bool:
        return self.extension in (".nii", ".nii.gz")

    @property
    def atlas(self) -> str:
        return self.entities.get("atlas") or self.entities.get("seg") or self.entities.get("desc") or "atlas"


def _image(files: list[_File], suffix: str, desc: str | None = None) -> Path | None:
    """The image at the finest resolution; one without ``desc`` goes first, a brain without head comes next."""
    found = [file for file in files if file.suffix == suffix and file.is_image]
    if desc is not None:
        found = [file for file in found if desc in (file.entities.get("desc"), file.entities.get("label"))]
    found.sort(key=lambda file: ("desc" in file.entities, file.entities.get("res", ""), file.path.name))
    return found[0].path if found else None


def _atlas(labels: _File, files: list[_File]) -> Atlas:
    tables = [file for file in files if file.suffix == "dseg" and file.extension == ".tsv"]
    own = [file for file in tables if file.atlas == labels.atlas]
    return Atlas(_label(labels.atlas), labels.path, own[0].path if own else None)


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text.removeprefix("tpl-")) or "template"


def _from_templateflow(name: str, atlases: Sequence[str]) -> Template:
    api = _interface()
    known = api.templates()
    if name not in known:
        raise MissingInputError(
            f"template {name}: TemplateFlow has none of this name; expected one of {', '.join(known)}, "
            "or a folder of your own by --template-dir"
        )
    return Template(
        name,
        t1w=_fetched(api, name, "T1w", desc=None),
        chi=_fetched(api, name, "Chimap", optional=True, desc=None),
        magnitude=_fetched(api, name, "T2starw", optional=True, desc=None),
        brain=_fetched(api, name, "mask", optional=True, desc="brain"),
        atlases=tuple(
            Atlas(
                atlas, _fetched(api, name, "dseg", **query) or Path(),
                _fetched(api, name, "dseg", extension=".tsv", optional=True, **query),
            )
            for atlas, query in ((atlas, _query(api, name, atlas)) for atlas in atlases)
        ),
    )  # fmt: skip


def _query(api: Any, name: str, atlas: str) -> dict[str, Any]:
    """How TemplateFlow files the labels: as ``atlas-`` or, the segmentations of programs, as ``seg-``."""
    by_program = not api.ls(name, suffix="dseg", extension=".nii.gz", atlas=atlas) and api.ls(
        name, suffix="dseg", extension=".nii.gz", segmentation=atlas
    )
    return {"segmentation" if by_program else "atlas": atlas}


def template_head(name: str = DEFAULT_TEMPLATE) -> tuple[Path, Path]:
    """T1-weighted head with skull and scalp of a template of TemplateFlow, and its brain mask.

    Raises
    ------
    MissingInputError
        If they are neither here nor to be had; the message says how to get them.
    """
    api = _interface()
    found = _fetched(api, name, "T1w", desc=None), _fetched(api, name, "mask", desc="brain")
    assert found[0] is not None and found[1] is not None
    return found[0], found[1]


def _interface() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import templateflow.api as api
    except (ImportError, OSError) as error:
        raise MissingInputError(
            f"TemplateFlow cannot be used ({error}); point TEMPLATEFLOW_HOME to a folder that can be written or holds "
            "the templates, or give a folder of your own by --template-dir"
        ) from None
    return api


def _fetched(
    api: Any, name: str, suffix: str, *, extension: str = ".nii.gz", optional: bool = False, **query: Any
) -> Path | None:
    """A file of TemplateFlow, downloaded if it is not here; ``None`` if it is optional and not to be had."""
    found = sorted(Path(path) for path in api.ls(name, suffix=suffix, extension=extension, **query))
    if not found:
        if optional:
            return None
        what = f"atlas {query['atlas']}" if query.get("atlas") else suffix
        atlases = sorted({_File(Path(p)).atlas for p in api.ls(name, suffix="dseg", extension=extension)})
        has = f"; its atlases are {', '.join(atlases) or 'none'}" if query.get("atlas") else ""
        raise MissingInputError(f"template {name}: TemplateFlow has no {what} for it{has}")
    path = found[0]
    if path.exists() and path.stat().st_size > 0:
        return path
    if optional:
        return None
    try:
        resolution = _File(path).entities.get("res")
        api.get(name, suffix=suffix, extension=extension, resolution=resolution, raise_empty=False, **query)
    except Exception as error:
        raise MissingInputError(_advice(name, path, suffix, query, error)) from None
    if not path.exists() or path.stat().st_size == 0:
        raise MissingInputError(_advice(name, path, suffix, query, None))
    return path


def _advice(name: str, path: Path, suffix: str, query: dict[str, Any], error: Exception | None) -> str:
    reason = f" and cannot be fetched ({type(error).__name__})" if error is not None else ""
    atlas = f" --atlas {query['atlas']}" if query.get("atlas") else ""
    atlas += f" --segmentation {query['segmentation']}" if query.get("segmentation") else ""
    home = os.environ.get("TEMPLATEFLOW_HOME", str(path.parent.parent))
    return (
        f"template file {path} is not here{reason}; where there is a network run: TEMPLATEFLOW_HOME={home} "
        f"templateflow get {name} --res 1 --suffix {suffix}{atlas}"
    )
