"""Nodes that write the cohort template, every scan's maps on its grid, and the transforms between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import TraitedSpec, isdefined, traits

from qsmxt.interfaces.template import (
    AVERAGED,
    TemplateInputSpec,
    TemplateInterface,
    grid_of,
    near_brain,
    near_standard_brain,
    similarities,
    slabwise_median,
    streaming_deviation,
    streaming_mean,
    volume_of,
)
from qsmxt.interfaces.transforms import Displacement, read_displacement, world, write_composite

#: Suffix and unit of what is averaged.
_SUFFIX = {
    "magnitude": ("T2starw", "arbitrary"),
    "t1w": ("T1w", "arbitrary"),
    "chi": ("Chimap", "ppm"),
    "r2star": ("R2starmap", "1/s"),
}

_WHAT = {
    "magnitude": "magnitude freed from coil inhomogeneity, mean of the brain 1",
    "t1w": "T1-weighted, freed from coil inhomogeneity, mean of the brain 1",
    "chi": "susceptibility",
    "r2star": "R2*",
}


class FolderOutputSpec(TraitedSpec):
    """A folder laid out like the output dataset."""

    folder = traits.Str(desc="folder laid out like the output dataset")
    record = traits.Str(desc="record of what was made, a file in it")
    state = traits.Str(desc="result (JSON)")


class TemplateWriter(TemplateInterface):
    """Base of the nodes that write: ``parameters`` hold the cohort's name, the version, and names of files."""

    input_spec = TemplateInputSpec
    output_spec = FolderOutputSpec

    def compute(self, folder: Path) -> dict[str, Any]:
        """Write below ``derivatives`` and record it."""
        from qsmxt.bids.atomic import write_json

        root = folder / "derivatives"
        given = json.loads(self.inputs.parameters)
        files, facts = self.write(root, given)
        record = root / "logs" / "group" / f"{given['record']}.json"
        names = {f"{number:04d}": path.relative_to(root).as_posix() for number, path in enumerate(sorted(files))}
        write_json(record, {**facts, "files": names})
        self._results.update(folder=str(root), record=str(record))
        return {"name": given["record"], **facts}

    def write(self, root: Path, given: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        """Write files below ``root``; returns them with facts for the record."""
        raise NotImplementedError


class WriteScanInTemplate(TemplateWriter):
    """A scan's maps on the grid of the template, and the transforms of both directions."""

    def write(self, root: Path, given: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        """Maps, masks, labels, transforms."""
        from qsmxt.bids.outputs import save_volume

        scan, frame, brought = (self.one(name) for name in ("scan", "frame", "template"))
        placement = self.one("placement") if isdefined(self.inputs.placement) else {}
        affine = np.array(frame["affine"])
        common = {"SpatialReference": given["reference"], "Sources": given["sources"], "QSMxTVersion": given["version"]}
        written = []
        for key, name in sorted(given["names"].items()):
            if key not in brought["files"]:
                continue
            array = np.load(brought["files"][key])
            extra: dict[str, Any] = {"Type": "Brain"} if key == "mask" else {}
            if key in _SUFFIX:
                extra = {"SkullStripped": AVERAGED[key], "Description": _WHAT[key]}
            unit = _SUFFIX[key][1] if key in _SUFFIX else ""
            array = array.astype(bool) if key == "mask" else array
            written.append(save_volume(root / name, array, affine, unit_label=unit, sidecar={**common, **extra}))
        forward, backward = _both_ways(scan, frame, placement)
        to, back = (root / given["transforms"][way] for way in ("to", "from"))
        written.append(write_composite([Displacement(forward, affine)], to))
        written.append(write_composite([Displacement(backward, np.array(scan["affine"]))], back))
        return written, {"scan": scan["name"], "moved_mm": _distance(forward, frame, scan)}


def _distance(forward: np.ndarray, frame: Mapping[str, Any], scan: Mapping[str, Any]) -> float:
    """Root mean square displacement after the affine part, mm."""
    matrix = np.array(frame["matrices"][scan["name"]])
    points = world(grid_of(frame))
    rest = points + forward - (points @ matrix[:3, :3].T + matrix[:3, 3])
    middle = tuple(slice(n // 4, -(n // 4) or None) for n in frame["shape"])
    return float(np.sqrt((rest[middle] ** 2).sum(axis=-1).mean()))


def _both_ways(
    scan: Mapping[str, Any], frame: Mapping[str, Any], placement: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement (mm, world axes) from the template's grid to the scan, and from the scan's grid to the template."""
    from qsmxt.algorithms.template import sampled

    affine, matrix = np.array(frame["affine"]), np.array(frame["matrices"][scan["name"]])
    to_voxels = np.linalg.inv(affine)

    def moved(points: np.ndarray, field: np.ndarray) -> np.ndarray:
        result: np.ndarray = points + sampled(field, points @ to_voxels[:3, :3].T + to_voxels[:3, 3])
        return result

    start = world(grid_of(frame))
    points = moved(start, np.load(frame["files"]["shape"])) if "files" in frame else start
    points = moved(points, read_displacement(placement["warp"]).field) if "warp" in placement else points
    forward = points @ matrix[:3, :3].T + matrix[:3, 3] - start
    begin, back = world(grid_of(scan)), np.linalg.inv(matrix)
    points = begin @ back[:3, :3].T + back[:3, 3]
    points = moved(points, read_displacement(placement["inverse"]).field) if "inverse" in placement else points
    points = moved(points, np.load(frame["files"]["unshape"])) if "files" in frame else points
    return forward, points - begin


class WriteTemplate(TemplateWriter):
    """Means, medians, standard deviations and images of all maps, brain mask, atlas of probabilities, record.

    ``placements`` are the means of all rounds.
    """

    def write(self, root: Path, given: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        """Everything in ``tpl-<cohort>/anat``."""
        from qsmxt.bids.atomic import write_json

        brought, template = self.many("brought"), self.one("template")
        stem = root / f"tpl-{given['cohort']}" / "anat" / f"tpl-{given['cohort']}"
        affine = np.array(template["affine"])
        written = _write_averages(stem, brought, affine, given)
        written += _write_mask(stem, template, affine, given["version"])
        written += _write_atlas(stem, brought, affine, given)
        description = stem.parent.parent / "template_description.json"
        write_json(description, _description(given, affine, np.load(template["files"]["mask"]).shape))
        facts = {
            "cohort": given["cohort"], "version": given["version"], "steps": given["steps"],
            "scans": list(similarities(brought, template)),
            "rounds": [json.loads(text)["metrics"] for text in self.inputs.placements],
        }  # fmt: skip
        return [*written, description], facts


class LinkToStandard(TemplateWriter):
    """Transforms between the template and a standard one, by anatomy and, if both have it, susceptibility."""

    def write(self, root: Path, given: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        """One registration; its two files beside the template."""
        import shutil

        from qsmxt.interfaces import registration as reg
        from qsmxt.interfaces.deformable import align_linearly, deform, write_both_ways

        template, images = self.one("template"), given["images"]
        key = "t1w" if given["anatomy"] == "t1w" or "magnitude" not in images else "magnitude"
        there = reg.read_volume(images[key])
        there = there.with_array(near_standard_brain(there, images.get("brain")) * there.array)
        fixed, moving = [volume_of(template, "mean_reference")], [there]
        if "chi" in images:
            fixed.append(volume_of(template, "mean_guide"))
            moving.append(reg.read_volume(images["chi"]))
        folder = root.parent / "link"
        folder.mkdir(parents=True, exist_ok=True)
        affine = align_linearly(fixed[0], moving[0], folder)
        made = deform(fixed, moving, near_brain(template), folder / "link", iterations=given["schedule"], affine=affine)
        found = write_both_ways([made], folder)
        stem = root / f"tpl-{given['cohort']}" / "anat" / f"tpl-{given['cohort']}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = []
        for file, (source, to) in zip(found, self._ways(given), strict=True):
            written.append(stem.with_name(f"{stem.name}_from-{source}_to-{to}_mode-image_xfm.h5"))
            shutil.copyfile(file, written[-1])
        value = reg.similarity(fixed[0], there, [found[0]], near_brain(template))
        return written, {"standard": given["standard"], "similarity": round(value, 4), "steps": []}

    @staticmethod
    def _ways(given: dict[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
        return (given["standard"], given["cohort"]), (given["cohort"], given["standard"])


def _write_averages(
    stem: Path, brought: list[dict[str, Any]], affine: np.ndarray, given: Mapping[str, Any]
) -> list[Path]:
    """Mean, median and standard deviation of every map, and its sharpened mean, the template's image."""
    from qsmxt.algorithms.template import sharpened
    from qsmxt.bids.outputs import save_volume

    written = []
    for key, inside in AVERAGED.items():
        having = [scan for scan in brought if key in scan["files"]]
        if not having:
            continue
        suffix, unit = _SUFFIX[key]
        mean = streaming_mean(having, key, inside=inside)
        deviation = streaming_deviation(having, key, mean, inside=inside)
        median = slabwise_median(having, key, inside=inside)
        amount = given["sharpening"]
        image = sharpened(mean, amount, mask=mean != 0 if inside else None)
        volumes = {"_desc-mean": mean, "_desc-median": median, "_desc-std": deviation, "": image}
        for desc, volume in volumes.items():
            what = desc.removeprefix("_desc-") or f"mean, sharpened by unsharp masking ({amount:g} times, one voxel),"
            sidecar = {
                "Description": f"{what} over {len(having)} scans: {_WHAT[key]}", "SkullStripped": inside,
                "NumberOfScans": len(having), "QSMxTVersion": given["version"],
            }  # fmt: skip
            if not desc:
                sidecar["Sharpening"] = amount
            path = stem.with_name(f"{stem.name}{desc}_{suffix}.nii.gz")
            written.append(save_volume(path, volume, affine, unit_label=unit, sidecar=sidecar))
    return written


def _write_mask(stem: Path, template: Mapping[str, Any], affine: np.ndarray, version: str) -> list[Path]:
    from qsmxt.bids.outputs import save_volume

    share = np.load(template["files"]["mask"])
    mask = stem.with_name(f"{stem.name}_label-brain_mask.nii.gz")
    sidecar = {"Type": "Brain", "QSMxTVersion": version}
    return [save_volume(mask, share > 0.5, affine, unit_label="", sidecar=sidecar)]


def _write_atlas(stem: Path, brought: list[dict[str, Any]], affine: np.ndarray, given: dict[str, Any]) -> list[Path]:
    """How often every label lies at every voxel, label by label, and the most frequent one where half agree."""
    from qsmxt.bids.atomic import write_text
    from qsmxt.bids.outputs import save_volume

    having = [scan for scan in brought if "labels" in scan["files"]]
    if not having:
        return []
    indices = sorted({int(i) for scan in having for i in np.unique(np.load(scan["files"]["labels"])) if i > 0})
    names, written = given.get("label_names", {}), []
    seg = given.get("segmentation") or "labels"
    shape = np.load(having[0]["files"]["labels"], mmap_mode="r").shape
    most, best = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    total = sum(scan["weight"] for scan in having)
    for index in indices:
        share = np.zeros(shape, np.float64)
        for scan in having:
            share += scan["weight"] * (np.load(scan["files"]["labels"], mmap_mode="r") == index)
        probability = (share / total).astype(np.float32)
        larger = probability > most
        most[larger], best[larger] = probability[larger], index
        label = "".join(c for c in names.get(str(index), str(index)) if c.isalnum()) or str(index)
        path = stem.with_name(f"{stem.name}_seg-{seg}_label-{label}_probseg.nii.gz")
        sidecar = {"Description": f"share of scans with {names.get(str(index), index)}", "SkullStripped": True}
        written.append(save_volume(path, probability, affine, unit_label="1", sidecar=sidecar))
    best[most < 0.5] = 0
    path = stem.with_name(f"{stem.name}_seg-{seg}_dseg.nii.gz")
    written.append(save_volume(path, best, affine, unit_label="", sidecar={"Description": "labels that half agree on"}))
    rows = "".join(f"{index}\t{names.get(str(index), index)}\n" for index in indices)
    written.append(write_text(path.with_name(f"{stem.name}_seg-{seg}_dseg.tsv"), f"index\tname\n{rows}"))
    return written


def _description(given: Mapping[str, Any], affine: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "Name": f"Template of the cohort {given['cohort']}", "Identifier": given["cohort"], "BIDSVersion": "1.10.0",
        "Authors": ["QSMxT"], "License": "see the source dataset",
        "res": {"1": {"origin": affine[:3, 3].tolist(), "shape": list(shape), "zooms": [affine[0, 0]] * 3}},
    }  # fmt: skip
