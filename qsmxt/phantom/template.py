"""The undeformed digital head as a template with an atlas, in the layout of TemplateFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.atomic import write_json, write_text
from qsmxt.bids.outputs import save_volume
from qsmxt.phantom.atlas import nuclei, regions_table
from qsmxt.phantom.head import HeadSettings, simulate

#: Name of the template, also the label of ``space-``.
TEMPLATE = "QSMxTHead"
#: Name of its atlas of deep nuclei.
ATLAS = "DeepGrey"
#: Label of the only resolution.
RESOLUTION = "01"


def template(folder: str | Path, *, voxel_size: tuple[float, float, float] = (1.5, 1.5, 1.5)) -> Path:
    """Write the template below ``folder`` (a ``TEMPLATEFLOW_HOME``) and return its own folder.

    ::

        tpl-QSMxTHead/
          template_description.json
          tpl-QSMxTHead_res-01_T1w.nii.gz                  whole head, white matter about 1000
          tpl-QSMxTHead_res-01_T2starw.nii.gz              root sum of squares of the gradient echoes
          tpl-QSMxTHead_res-01_Chimap.nii.gz               susceptibility of the brain, ppm
          tpl-QSMxTHead_res-01_desc-brain_T1w.nii.gz       without skull
          tpl-QSMxTHead_res-01_desc-brain_mask.nii.gz
          tpl-QSMxTHead_res-01_atlas-DeepGrey_dseg.nii.gz  and .tsv: nuclei, left and right apart

    Origin and axes are those of the head: x right, y front, z up, 0 in the middle of the head.
    """
    settings = HeadSettings(voxel_size=voxel_size, snr=float("inf"))
    head = simulate(settings)
    home = Path(folder) / f"tpl-{TEMPLATE}"
    stem = f"tpl-{TEMPLATE}_res-{RESOLUTION}"
    magnitude = np.sqrt((head.magnitude.astype(np.float64) ** 2).sum(axis=0)).astype(np.float32)
    volumes: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {
        "T1w": (head.t1w, "arbitrary", {"SkullStripped": False}),
        "T2starw": (1000 * magnitude, "arbitrary", {"SkullStripped": False}),
        "Chimap": (np.where(head.brain, head.chi, 0), "ppm", {"SkullStripped": True}),
        "desc-brain_T1w": (np.where(head.brain, head.t1w, 0), "arbitrary", {"SkullStripped": True}),
        "desc-brain_mask": (head.brain, "", {"Type": "Brain"}),
        f"atlas-{ATLAS}_dseg": (nuclei(head.labels, voxel_size), "", {}),
    }
    resolution = {"Resolution": f"{' x '.join(f'{v:g}' for v in voxel_size)} mm"}
    for name, (volume, unit, sidecar) in volumes.items():
        save_volume(
            home / f"{stem}_{name}.nii.gz", volume, head.affine, unit_label=unit, sidecar={**sidecar, **resolution}
        )
    write_text(home / f"{stem}_atlas-{ATLAS}_dseg.tsv", regions_table())
    write_json(home / "template_description.json", _description(head.affine, head.chi.shape, voxel_size))
    return home


def _description(affine: np.ndarray, shape: tuple[int, ...], voxel_size: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "Name": "Digital head of QSMxT, undeformed",
        "Identifier": TEMPLATE,
        "Authors": ["QSMxT developers"],
        "BIDSVersion": "1.10.0",
        "License": "CC0",
        "Species": "Synthetic",
        "TemplateFlowVersion": "1.0.0",
        "res": {
            RESOLUTION: {
                "origin": [float(v) for v in affine[:3, 3]],
                "shape": [int(n) for n in shape],
                "zooms": [float(v) for v in voxel_size],
            }
        },
    }
