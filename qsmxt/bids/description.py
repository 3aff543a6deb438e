"""Files that describe a derivative dataset as a whole.

Every participant's job may write them at any time: they are replaced in one step, and their content does not
depend on the participant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qsmxt.bids.atomic import write_json, write_text
from qsmxt.bids.metadata import read_json
from qsmxt.bids.outputs import RAW
from qsmxt.errors import QSMxTError
from qsmxt.registry.artifacts import ARTIFACTS

BIDS_VERSION = "1.10.0"

#: What BIDS has no name for. A trailing slash would hide the files of a folder but not the folder itself.
IGNORED = (
    "*.html",
    "figures",
    "dicom",
    "sub-*/log",
    "*_xfm.*",
    "*_stats.*",
    "*_statmap.*",
    "references.txt",
    "template_description.json",
    "*.toml",
    "prov",
)


def write_dataset_description(
    out_dir: str | Path, bids_dir: str | Path, version: str, container: Mapping[str, str] | None = None
) -> Path:
    """``dataset_description.json``: what made the dataset, and from what.

    Parameters
    ----------
    out_dir, bids_dir
        Roots of the derivatives and of their source; the link between them is relative.
    version
        Of QSMxT.
    container
        ``Type``, ``Tag`` and ``URI`` of the container, if there is one.
    """
    generated: dict[str, Any] = {"Name": "QSMxT", "Version": version}
    if container:
        generated["Container"] = dict(container)
    link = quote(Path(os.path.relpath(bids_dir, out_dir)).as_posix())
    return write_json(
        Path(out_dir) / "dataset_description.json",
        {
            "Name": "QSMxT: quantitative susceptibility maps",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [generated],
            "SourceDatasets": [_source(Path(bids_dir), link)],
            "DatasetLinks": {RAW: link},
        },
    )


def _source(bids_dir: Path, link: str) -> dict[str, str]:
    """The DOI of the source where it has one, else where it lies."""
    try:
        doi = read_json(bids_dir / "dataset_description.json").get("DatasetDOI")
    except QSMxTError:
        doi = None
    return {"DOI": doi} if isinstance(doi, str) and doi else {"URL": link}


def write_bidsignore(out_dir: str | Path) -> Path:
    """``.bidsignore``: outputs that BIDS has no name for."""
    return write_text(Path(out_dir) / ".bidsignore", "".join(f"{pattern}\n" for pattern in IGNORED))


def write_descriptions(out_dir: str | Path) -> Path:
    """``descriptions.tsv``: what every ``desc`` label means."""
    rows = {record.desc: record.description for record in ARTIFACTS.values() if record.desc}
    lines = ["desc_id\tdescription", *(f"desc-{desc}\t{rows[desc]}" for desc in sorted(rows))]
    return write_text(Path(out_dir) / "descriptions.tsv", "".join(f"{line}\n" for line in lines))
