r"""Nodes for participants with several sessions: a template of their own first, which then stands for them.

All sessions are treated alike, so that none is closer to the template than another (Reuter 2012,
doi:10.1016/j.neuroimage.2012.02.084): rigid maps :math:`R_s` from the participant's mean space to the sessions, whose
mean is the identity, and one interpolation of each session. With the affine map A and the displacement of the
participant, a point y of the cohort's template lies at :math:`R_s(A(\varphi(\psi(y))))` in session s: sessions differ
by nothing but the rigid map.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.interfaces.template import (
    AVERAGED,
    CHANNELS,
    TemplateInterface,
    corners_of,
    save_state_arrays,
    streaming_mean,
)


class AverageSessions(TemplateInterface):
    """The mean of a participant's sessions, in the form of a prepared scan."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Channels, maps, mask (more than half of the sessions) and labels (of most sessions)."""
        from qsmxt.algorithms.template import sharpness

        brought, frame = self.many("brought"), self.one("frame")
        affine = np.array(frame["affine"])
        size = [float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)]
        mask = streaming_mean(brought, "mask") > 0.5
        keys = [key for key in (*CHANNELS, *AVERAGED) if all(key in scan["files"] for scan in brought)]
        arrays = {key: streaming_mean(brought, key, inside=AVERAGED.get(key, False)) for key in keys}
        arrays["guide"] = np.where(mask, arrays["guide"], 0).astype(np.float32)
        given, extra = json.loads(self.inputs.parameters), {}
        if all("labels" in scan["files"] for scan in brought):
            arrays["labels"] = most_frequent([np.load(scan["files"]["labels"]) for scan in brought])
            deep = np.isin(arrays["labels"], given.get("deep", ()))
            extra = {"deep_corners": corners_of(deep, affine)} if deep.any() else {}
        return {
            "name": given["name"], "weight": 1.0, "affine": frame["affine"],
            "files": save_state_arrays(folder, {**arrays, "mask": mask}),
            "sharpness": sharpness(arrays["reference"], mask, (size[0], size[1], size[2])),
            "corners": corners_of(mask, affine), "voxel_size": size, "shape": list(mask.shape), **extra,
        }  # fmt: skip


def most_frequent(labels: list[np.ndarray]) -> np.ndarray:
    """The label that most volumes have at a voxel; of equally frequent ones the lower.

    >>> most_frequent([np.array([1, 2, 0]), np.array([1, 3, 0]), np.array([4, 3, 5])]).tolist()
    [1, 3, 0]
    """
    best = np.zeros(labels[0].shape, dtype=np.int32)
    most = np.zeros(labels[0].shape, dtype=np.int32)
    for index in sorted({int(i) for volume in labels for i in np.unique(volume)}):
        count = np.sum([volume == index for volume in labels], axis=0)
        larger = count > most
        best[larger], most[larger] = index, count[larger]
    return best


class PlaceSession(TemplateInterface):
    """The frame of the cohort for one session: the participant's affine map, then the session's rigid one."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """A frame with one matrix; ``template`` is the participant's frame."""
        given, frame, own = json.loads(self.inputs.parameters), self.one("frame"), self.one("template")
        matrix = np.array(own["matrices"][given["session"]]) @ np.array(frame["matrices"][given["name"]])
        return {**frame, "matrices": {given["session"]: matrix.tolist()}}
