"""The models of the group level at every voxel of the template.

Every participant counts once: the maps of several sessions are averaged, as are numeric covariates. Maps are smoothed
inside the voxels that all participants have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.statistics import group as statistics
from qsmxt.bids.outputs import save_volume
from qsmxt.config import GroupSettings
from qsmxt.errors import InputError, QSMxTError
from qsmxt.interfaces.permutation import TermMaps, permutation_test
from qsmxt.interfaces.registration import read_volume
from qsmxt.workflows.versions import version

logger = logging.getLogger("qsmxt")

#: Suffix of the maps that can be the response of a voxel-wise model.
RESPONSES = {"chi": "Chimap", "r2star": "R2starmap"}

#: Level of the corrected p value that the table counts voxels by.
LEVEL = 0.05

_FWHM = 2.3548200450309493


def run_voxelwise(
    out_dir: Path, members: Sequence[str], covariates: Mapping[str, Mapping[str, Any]], group: GroupSettings
) -> list[dict[str, Any]]:
    """Test every term of every model; writes maps beside the template, returns a row a term.

    Parameters
    ----------
    out_dir
        Output dataset with the template and the maps on it.
    members
        Names of the scans of the template.
    covariates
        Of every scan by its name.
    group
        Models, permutations, smoothing.
    """
    rows: list[dict[str, Any]] = []
    for number, formula in enumerate(group.models):
        response = formula.partition("~")[0].strip()
        if response not in RESPONSES:
            logger.warning(
                "voxels: %r is left out: expected one of %s on its left", formula, ", ".join(sorted(RESPONSES))
            )
            continue
        try:
            rows += _test_model(out_dir, members, covariates, group, formula, number + 1)
        except QSMxTError as error:
            logger.warning("voxels: %r is left out: %s", formula, error)
    return rows


def _test_model(
    out_dir: Path,
    members: Sequence[str],
    covariates: Mapping[str, Mapping[str, Any]],
    group: GroupSettings,
    formula: str,
    number: int,
) -> list[dict[str, Any]]:
    response = formula.partition("~")[0].strip()
    people = by_person(members)
    names = list(dict.fromkeys(name for row in covariates.values() for name in row if name.isidentifier()))
    columns: dict[str, list[Any]] = {
        name: [_mean_or_first([covariates.get(scan, {}).get(name) for scan in scans]) for scans in people.values()]
        for name in names
    }
    columns[response] = [0.0] * len(people)
    made = statistics.design(formula, columns)
    chosen = [scans for scans, complete in zip(people.values(), made.complete, strict=True) if complete]
    data, mask, affine = person_maps(out_dir, group, RESPONSES[response], chosen)
    rows = []
    for term, name in enumerate(made.names):
        maps = permutation_test(data, mask, affine, made.matrix, term, permutations=group.permutations)
        facts = {"model": formula, "term": name, "participants": len(chosen), "permutations": group.permutations}
        _write(out_dir, group, f"model{number}{_label(name)}", maps, affine, facts)
        rows.append({**facts, **peak(maps, mask, affine)})
    return rows


def by_person(members: Sequence[str]) -> dict[str, list[str]]:
    """Scans of every participant.

    >>> by_person(["sub-1_ses-a", "sub-1_ses-b", "sub-2"])
    {'sub-1': ['sub-1_ses-a', 'sub-1_ses-b'], 'sub-2': ['sub-2']}
    """
    people: dict[str, list[str]] = {}
    for name in sorted(members):
        people.setdefault(name.partition("_")[0], []).append(name)
    return people


def _mean_or_first(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, float) for value in known):
        return float(np.mean(known))
    return known[0] if known else None


def person_maps(
    out_dir: Path, group: GroupSettings, suffix: str, people: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed map of every participant ``(participant, voxel)``, the mask of voxels that all have, the affine."""
    from scipy.ndimage import gaussian_filter

    volumes: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    affine = np.eye(4)
    for scans in people:
        maps = [read_volume(_in_template(out_dir, scan, group.cohort, suffix)) for scan in scans]
        affine = maps[0].affine
        volumes.append(np.asarray(np.mean([chi.array for chi in maps], axis=0), dtype=np.float32))
        masks += [read_volume(_in_template(out_dir, scan, group.cohort, "desc-brain_mask")).array > 0 for scan in scans]
    mask: np.ndarray = np.logical_and.reduce(masks)
    if not mask.any():
        raise InputError("voxels: expected participants whose masks overlap on the template, found none")
    width = [group.smoothing / _FWHM / size for size in np.linalg.norm(affine[:3, :3], axis=0)]
    share = np.maximum(gaussian_filter(mask.astype(np.float32), width), 1e-6)
    data = np.stack([(gaussian_filter(volume * mask, width) / share)[mask] for volume in volumes])
    return data, mask, affine


def _in_template(out_dir: Path, scan: str, cohort: str, end: str) -> Path:
    found = sorted(out_dir.glob(f"{scan.partition('_')[0]}/**/{scan}_space-{cohort}_{end}.nii.gz"))
    if not found:
        raise InputError(f"voxels: expected {scan}_space-{cohort}_{end}.nii.gz, found nothing; make the template first")
    return found[0]


def _write(
    out_dir: Path, group: GroupSettings, desc: str, maps: TermMaps, affine: np.ndarray, facts: Mapping[str, Any]
) -> None:
    described = {"t": "t values", "tfce": "threshold-free cluster enhancement", "p": "family-wise corrected p values"}
    for stat, text in described.items():
        path = out_dir / f"tpl-{group.cohort}" / "anat" / f"tpl-{group.cohort}_desc-{desc}_stat-{stat}_statmap.nii.gz"
        sidecar = {
            "Description": f"{text} of {facts['term']} in {facts['model']}", "Participants": facts["participants"],
            "Permutations": facts["permutations"], "SmoothingFWHM": group.smoothing, "SkullStripped": True,
            "QSMxTVersion": version(),
        }  # fmt: skip
        save_volume(path, getattr(maps, stat), affine, unit_label="1", sidecar=sidecar)


def peak(maps: TermMaps, mask: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """Where a term is most significant: world coordinates (mm), t and p there, and how much is below 0.05."""
    at = np.unravel_index(int(np.argmin(np.where(mask, maps.p - 1e-9 * np.abs(maps.t), 2.0))), mask.shape)
    x, y, z = (affine[:3, :3] @ np.array(at) + affine[:3, 3]).tolist()
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    return {
        "p": float(maps.p[at]), "t": float(maps.t[at]), "x": x, "y": y, "z": z,
        "volume_mm3": int(np.count_nonzero(mask & (maps.p < LEVEL))) * voxel,
    }  # fmt: skip


def _label(term: str) -> str:
    """Letters and digits of a term.

    >>> _label("group[T.patient]")
    'groupTpatient'
    """
    return "".join(c for c in term if c.isalnum())
