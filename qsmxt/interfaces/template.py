r"""Nodes of the cohort template.

A scan is prepared once (registration channels: T1-weighted image or magnitude freed from the coils' inhomogeneity and
cut to the brain, clipped susceptibility). Every scan i has an affine map :math:`A_i` from the template's world to its
own, a displacement :math:`\varphi_i` before it, and all share the shape correction :math:`\psi`: a point y of the
template lies at :math:`A_i(\varphi_i(\psi(y)))` in scan i, and values come from there in one interpolation by cubic
B-splines: at 2 mm these keep 99 % of the gradient energy of a susceptibility map, linear interpolation 89 %. The
mean of the :math:`A_i` is held at the identity and the mean of the :math:`\varphi_i \circ \psi` is the identity
(:mod:`qsmxt.algorithms.template`), so no scan has more say in where the template lies than its weight, 1 over the
number of scans of its participant.

Nodes pass JSON text with a fingerprint; scans are keyed by name. Averages hold one scan in memory at a time, medians a
few planes of all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, isdefined, traits

from qsmxt.interfaces.base import Interface
from qsmxt.interfaces.state import digest

#: Bands around masks, mm: what of the magnitude guides registration, and where deformation is compared.
RIM, _COMPARED = 4.0, 6.0

#: Room around the brains on the grid of the template, and around the deep nuclei where they are refined, mm.
_MARGIN, _DEEP_ROOM = 10.0, 12.0

#: Values that a median holds in memory at once.
_MEDIAN_VALUES = 40_000_000

#: Grids of linear registration, mm: where a deformation follows, and where none does.
_COARSE, _FINE = (8.0, 4.0), (8.0, 4.0, 2.0)

#: Channels of registration: key of the prepared scan, key of the template.
CHANNELS = ("reference", "guide")

#: What is averaged in the end, and whether only inside masks.
AVERAGED = {"magnitude": False, "t1w": False, "chi": True, "r2star": True}


class TemplateInputSpec(BaseInterfaceInputSpec):
    """Inputs that the nodes of the template share; each uses those it needs."""

    scan = traits.Str(desc="prepared scan (JSON)")
    scans = traits.List(traits.Str(), desc="prepared scans, by name (JSON)")
    placement = traits.Str(desc="where a scan lies (JSON)")
    placements = traits.List(traits.Str(), desc="where all scans lie, by name (JSON)")
    frame = traits.Str(desc="grid of the template, affine maps, shape correction (JSON)")
    template = traits.Str(desc="present mean (JSON)")
    brought = traits.List(traits.Str(), desc="scans on the grid of the template, by name (JSON)")
    parameters = traits.Str("{}", usedefault=True, desc="settings (JSON)")
    code = traits.Str(mandatory=True, desc="version and digest of the code")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class TemplateOutputSpec(TraitedSpec):
    """One state."""

    state = traits.Str(desc="result (JSON)")


class TemplateInterface(Interface):
    """Base of the nodes: reads JSON, adds a fingerprint to the result."""

    input_spec = TemplateInputSpec
    output_spec = TemplateOutputSpec

    def execute(self, folder: str) -> None:
        """Compute and write down."""
        given = {name: value for name, value in self.inputs.get().items() if isdefined(value) and name != "num_threads"}
        state = self.compute(Path(folder))
        state["fingerprint"] = digest(type(self).__name__, {k: _fingerprints(v) for k, v in given.items()})
        self._results["state"] = json.dumps(state, sort_keys=True)

    def compute(self, folder: Path) -> dict[str, Any]:
        """The result as plain values."""
        raise NotImplementedError

    def one(self, name: str) -> dict[str, Any]:
        """A state among the inputs."""
        state: dict[str, Any] = json.loads(getattr(self.inputs, name))
        return state

    def many(self, name: str) -> list[dict[str, Any]]:
        """States among the inputs in the order of their names."""
        return sorted((json.loads(text) for text in getattr(self.inputs, name)), key=lambda state: state["name"])


def _fingerprints(value: Any) -> Any:
    """Of states their fingerprints, in order; other values as they are."""
    if isinstance(value, (list, tuple)):
        return sorted(str(_fingerprints(item)) for item in value)
    if isinstance(value, str) and value.startswith("{"):
        content = json.loads(value)
        return content.get("fingerprint", value)
    return value


class PrepareScan(TemplateInterface):
    """Read the maps of a scan and make its channels."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Arrays as ``.npy``; all on the grid of the susceptibility map but labels, which keep theirs."""
        from scipy.ndimage import distance_transform_edt

        from qsmxt.algorithms.template import sharpness
        from qsmxt.interfaces.registration import CHI_RANGE, Volume, correct_bias, read_volume

        given = json.loads(self.inputs.parameters)
        chi = read_volume(given["maps"]["chi"])
        volumes = {key: read_volume(path) for key, path in sorted(given["maps"].items())}
        arrays = {key: _on_grid(volume, chi) for key, volume in volumes.items()}
        mask = arrays.pop("mask") > 0.5 if "mask" in arrays else chi.array != 0
        _check_mask(given["name"], mask)
        outside = np.asarray(distance_transform_edt(~mask, sampling=chi.voxel_size))
        even = correct_bias(Volume(arrays.pop("combined_magnitude"), chi.affine))
        arrays["magnitude"] = even.array / np.float32(even.array[mask].mean())
        if given.get("t1w"):
            arrays["t1w"] = aligned_t1w(given["t1w"], given.get("rigid"), even, outside <= RIM, folder)
            arrays["t1w"] /= np.float32(arrays["t1w"][mask].mean())
        anatomical = arrays[given.get("anatomy", "magnitude")]
        arrays["reference"] = np.where(outside <= RIM, anatomical, 0).astype(np.float32)
        arrays["guide"] = np.where(mask, np.clip(chi.array, *CHI_RANGE), 0).astype(np.float32)
        arrays["mask"] = mask
        extra: dict[str, Any] = {}
        if given.get("labels"):
            labels = read_volume(given["labels"])
            arrays["labels"] = labels.array.astype(np.int32)
            extra = {"labels_affine": labels.affine.tolist()}
            deep = np.isin(labels.array, given.get("deep", ()))
            if deep.any():
                extra["deep_corners"] = corners_of(deep, labels.affine)
        return {
            "name": given["name"], "weight": given["weight"], "affine": chi.affine.tolist(),
            "files": save_state_arrays(folder, arrays),
            "sharpness": sharpness(arrays["reference"], mask, chi.voxel_size),
            "corners": corners_of(mask, chi.affine), "voxel_size": list(chi.voxel_size), "shape": list(mask.shape),
            **extra,
        }  # fmt: skip


def aligned_t1w(path: str, rigid: str | None, magnitude: Any, near: np.ndarray, folder: Path) -> np.ndarray:
    """The T1-weighted image on the grid of the magnitude, by the rigid transform there is, else by one found now."""
    from qsmxt.interfaces.registration import correct_bias, read_volume, register_rigid

    t1w = correct_bias(read_volume(path))
    return sharply(t1w, magnitude, [rigid or register_rigid(magnitude, t1w, near, folder)])


def _on_grid(volume: Any, reference: Any) -> np.ndarray:
    """The volume's array, interpolated if it lies on another grid than ``reference``."""
    if volume.array.shape == reference.array.shape and np.allclose(volume.affine, reference.affine, atol=1e-3):
        return np.asarray(volume.array, dtype=np.float32)
    return sharply(volume, reference, [])


def sharply(volume: Any, reference: Any, transforms: Sequence[str]) -> np.ndarray:
    """The volume on the grid of ``reference`` by cubic B-splines, within the range of its values."""
    from qsmxt.interfaces.registration import resample

    values = resample(volume, reference, transforms, interpolation="bSpline")
    return np.clip(values, np.float32(volume.array.min()), np.float32(volume.array.max()))


def _check_mask(name: str, mask: np.ndarray) -> None:
    from qsmxt.errors import InputError

    if np.count_nonzero(mask) < 100:
        raise InputError(f"{name}: expected a brain mask or a susceptibility map that is not 0, found neither")


def corners_of(mask: np.ndarray, affine: np.ndarray) -> list[list[float]]:
    """World coordinates of the corners of the box around a mask."""
    from qsmxt.algorithms.cropping import bounding_box

    starts, stops = bounding_box(mask)
    ends = [(float(a) - 0.5, float(b) - 0.5) for a, b in zip(starts, stops, strict=True)]
    points = np.array([[x, y, z, 1.0] for x in ends[0] for y in ends[1] for z in ends[2]])
    corners: list[list[float]] = (points @ np.asarray(affine).T)[:, :3].tolist()
    return corners


class ChooseTarget(TemplateInterface):
    """What scans are aligned to at first: a given image, else the sharpest scan."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """A state like that of a template."""
        from qsmxt.interfaces.registration import read_volume

        given = json.loads(self.inputs.parameters)
        if given.get("target"):
            volume = read_volume(given["target"])
            image = volume.array.astype(np.float32) * near_standard_brain(volume, given.get("brain"))
            files = save_state_arrays(folder, {"reference": image})
            return {"name": "", "affine": volume.affine.tolist(), "files": files}
        best = max(self.many("scans"), key=lambda scan: (scan["sharpness"], scan["name"]))
        return {"name": best["name"], "affine": best["affine"], "files": {"reference": best["files"]["reference"]}}


def near_standard_brain(volume: Any, brain: str | None) -> np.ndarray:
    """Where the image of a standard template is kept: its brain and a band around it, like in the cohort's."""
    from scipy.ndimage import distance_transform_edt

    from qsmxt.interfaces.registration import read_volume, resample

    if not brain:
        return np.ones(volume.array.shape, dtype=np.float32)
    mask = resample(read_volume(brain), volume, [], interpolation="nearestNeighbor") > 0.5
    near: np.ndarray = (distance_transform_edt(~mask, sampling=volume.voxel_size) <= RIM).astype(np.float32)
    return near


class AlignRigidly(TemplateInterface):
    """Rigid map from the target to a scan, starting with the centres of both on each other."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """The matrix."""
        from qsmxt.interfaces.registration import placements, read_affine, run_linear, write_affine

        scan, target = self.one("scan"), self.one("template")
        if scan["name"] == target["name"]:
            return {"name": scan["name"], "matrix": np.eye(4).tolist()}
        fixed, moving = volume_of(target, "reference"), volume_of(scan, "reference")
        initial = write_affine(placements(fixed, moving)[-1], folder / "start.mat")
        levels = _FINE if json.loads(self.inputs.parameters).get("fine") else _COARSE
        found = run_linear(fixed, moving, [linear_stage("Rigid", levels)], initial, folder / "rigid", None)
        return {"name": scan["name"], "matrix": read_affine(found).tolist()}


class AlignAffinely(TemplateInterface):
    """Affine map from the template to a scan, starting from the one so far."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """The matrix."""
        from qsmxt.interfaces.registration import read_affine, run_linear, write_affine

        scan, template = self.one("scan"), self.one("template")
        initial = write_affine(np.array(self.one("frame")["matrices"][scan["name"]]), folder / "start.mat")
        fixed, moving = volume_of(template, "reference"), volume_of(scan, "reference")
        near = near_brain(template)
        found = run_linear(fixed, moving, [linear_stage("Affine")], initial, folder / "affine", near)
        return {"name": scan["name"], "matrix": read_affine(found).tolist()}


def linear_stage(kind: str, levels: tuple[float, ...] = _COARSE) -> Any:
    """A linear stage on grids of ``levels``, mm; what the coarse ones leave over is for the deformation."""
    from qsmxt.interfaces.registration import Stage

    return Stage(kind, levels, tuple(round(100 / 2**number) for number in range(len(levels))))


def near_brain(template: Mapping[str, Any]) -> np.ndarray:
    """Where registration compares: the brain of the template and a band around it."""
    from scipy.ndimage import distance_transform_edt

    mask = np.load(template["files"]["mask"]) > 0.5
    size = np.linalg.norm(np.array(template["affine"])[:3, :3], axis=0)
    near: np.ndarray = distance_transform_edt(~mask, sampling=size) <= _COMPARED
    return near


class CentreMaps(TemplateInterface):
    """Put the mean of all affine maps at the identity, and the grid of the template around all brains."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Frame: grid and matrices by name."""
        from qsmxt.algorithms.template import mean_affine

        scans, placements = self.many("scans"), self.many("placements")
        back = np.linalg.inv(
            mean_affine([np.array(p["matrix"]) for p in placements], [scan["weight"] for scan in scans])
        )
        matrices = {p["name"]: np.array(p["matrix"]) @ back for p in placements}
        if isdefined(self.inputs.frame):
            before = self.one("frame")
            affine, shape = before["affine"], before["shape"]
        else:
            size = json.loads(self.inputs.parameters).get("voxel_size")
            size = float(size or max(1.0, min(min(scan["voxel_size"]) for scan in scans)))
            affine, shape = _grid_around(scans, matrices, size)
        frame = {"affine": affine, "shape": shape, "matrices": {name: m.tolist() for name, m in matrices.items()}}
        return {**frame, "deep": _deep_box(scans, matrices, np.array(affine), shape)}


def _extent(
    scans: Sequence[Mapping[str, Any]], matrices: Mapping[str, np.ndarray], key: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest coordinates of the corners ``key`` of all scans that have them, in the template's world."""
    corners = []
    for scan in (scan for scan in scans if key in scan):
        points = np.column_stack([np.array(scan[key]), np.ones(8)])
        corners.append((points @ np.linalg.inv(matrices[scan["name"]]).T)[:, :3])
    return (np.min(corners, axis=(0, 1)), np.max(corners, axis=(0, 1))) if corners else None


def _grid_around(
    scans: Sequence[Mapping[str, Any]], matrices: Mapping[str, np.ndarray], size: float
) -> tuple[list[list[float]], list[int]]:
    """Axes to the right, front and top of the mean head; isotropic voxels."""
    found = _extent(scans, matrices, "corners")
    assert found is not None
    low, high = found[0] - _MARGIN, found[1] + _MARGIN
    shape = np.ceil((high - low) / size).astype(int)
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = 0.5 * (low + high) - 0.5 * size * (shape - 1)
    return affine.tolist(), shape.tolist()


def _deep_box(
    scans: Sequence[Mapping[str, Any]], matrices: Mapping[str, np.ndarray], affine: np.ndarray, shape: Sequence[int]
) -> list[list[int]] | None:
    """First and last voxel, axis by axis, of the box around everybody's deep nuclei; ``None`` without labels of them.

    Scans without labels are taken to have them where the others do.
    """
    found = _extent(scans, matrices, "deep_corners")
    if found is None:
        return None
    size, origin = affine[0, 0], affine[:3, 3]
    low = np.floor((found[0] - _DEEP_ROOM - origin) / size).astype(int).clip(0)
    high = np.minimum(np.ceil((found[1] + _DEEP_ROOM - origin) / size).astype(int) + 1, shape)
    box: list[list[int]] = np.column_stack([low, high]).tolist()
    return box


class Deform(TemplateInterface):
    """Displacement from the template to a scan.

    The whole brain by anatomy and, where the cohort's labels know deep nuclei, a box around these by both channels at
    the scale of the small nuclei (:mod:`qsmxt.interfaces.deformable`); without labels the whole brain by both channels.
    """

    def compute(self, folder: Path) -> dict[str, Any]:
        """Files of the displacement and its inverse."""
        from qsmxt.interfaces.deformable import Deformation, composed, deform, refine
        from qsmxt.interfaces.registration import part, write_affine

        scan, template, frame = self.one("scan"), self.one("template"), self.one("frame")
        initial = write_affine(np.array(frame["matrices"][scan["name"]]), folder / "start.mat")
        fixed, moving = ([volume_of(state, key) for key in CHANNELS] for state in (template, scan))
        schedule, near = json.loads(self.inputs.parameters)["schedule"], near_brain(template)
        if frame.get("deep") is None:
            made = deform(fixed, moving, near, folder / "syn", iterations=schedule, affine=initial)
            return {"name": scan["name"], "warp": made.warp, "inverse": made.inverse}
        whole = deform(fixed[:1], moving[:1], near, folder / "syn", iterations=schedule, affine=initial)
        first, second, third = (slice(start, stop) for start, stop in frame["deep"])
        box = (first, second, third)
        inside = [part(volume, box) for volume in fixed]
        fine = refine(inside, moving, whole, near[box], folder / "fine", iterations=(*schedule[1:3], 2 * schedule[3]))
        total = composed(fine, Deformation(whole.warp, whole.inverse), grid_of(frame), folder)
        return {"name": scan["name"], "warp": total.warp, "inverse": total.inverse}


class BalanceShape(TemplateInterface):
    """The shape correction that leaves no mean displacement."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """The frame with it; ``moved`` is its root mean square, mm."""
        from qsmxt.algorithms.template import inverse_displacement
        from qsmxt.interfaces.transforms import Displacement, read_displacement, write_displacement

        frame, template = self.one("frame"), self.one("template")
        weights = {scan["name"]: scan["weight"] for scan in self.many("scans")}
        total, weight = np.zeros((*frame["shape"], 3)), 0.0
        for placement in self.many("placements"):
            total += weights[placement["name"]] * read_displacement(placement["warp"]).field
            weight += weights[placement["name"]]
        mean = total / weight
        size = frame["affine"][0][0]
        shape = size * inverse_displacement(mean / size)
        inside = np.load(template["files"]["mask"]) > 0.5
        files = save_state_arrays(folder, {"shape": shape.astype(np.float32), "unshape": mean.astype(np.float32)})
        files["transform"] = write_displacement(Displacement(shape, np.array(frame["affine"])), folder / "shape.nii.gz")
        moved = float(np.sqrt((shape[inside] ** 2).sum(axis=-1).mean()))
        return {**frame, "files": files, "moved": moved}


class BringToTemplate(TemplateInterface):
    """Maps of a scan on the grid of the template, in one interpolation."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Arrays as ``.npy``."""
        from qsmxt.interfaces.registration import resample, transport_labels, write_affine

        scan, frame = self.one("scan"), self.one("frame")
        everything = json.loads(self.inputs.parameters).get("all", False)
        transforms = [write_affine(np.array(frame["matrices"][scan["name"]]), folder / "affine.mat")]
        if isdefined(self.inputs.placement):
            transforms = [frame["files"]["transform"], self.one("placement")["warp"], *transforms]
        grid = grid_of(frame)
        keys = [key for key in (*CHANNELS, *(AVERAGED if everything else ())) if key in scan["files"]]
        arrays = {key: sharply(volume_of(scan, key), grid, transforms) for key in keys}
        arrays["mask"] = resample(volume_of(scan, "mask"), grid, transforms) > 0.5
        for key in (key for key, inside in AVERAGED.items() if inside and key in arrays):
            arrays[key] = np.where(arrays["mask"], arrays[key], 0).astype(np.float32)
        if everything and "labels" in scan["files"]:
            arrays["labels"] = transport_labels(volume_of(scan, "labels"), grid, transforms).labels
        return {
            "name": scan["name"],
            "weight": scan["weight"],
            "affine": frame["affine"],
            "files": save_state_arrays(folder, arrays),
        }


class AverageScans(TemplateInterface):
    """Mean of the channels, sharpened for the next registration, and how far the template has settled."""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Template with ``metrics``."""
        from qsmxt.algorithms.template import sharpened, sharpness

        brought, frame = self.many("brought"), self.one("frame")
        amount = float(json.loads(self.inputs.parameters).get("sharpening", 0.0))
        share = streaming_mean(brought, "mask")
        inside = share > 0.5
        means = {key: streaming_mean(brought, key) for key in CHANNELS}
        size = frame["affine"][0][0]
        metrics: dict[str, Any] = {"moved_mm": frame.get("moved", 0.0)}
        for key in CHANNELS:
            alike = [_correlation(np.load(scan["files"][key]), means[key], inside) for scan in brought]
            metrics[f"similarity_{key}"] = float(np.mean(alike))
            metrics[f"sharpness_{key}"] = sharpness(means[key], inside, (size,) * 3)
            if isdefined(self.inputs.template):
                before = np.load(self.one("template")["files"][f"mean_{key}"])
                change = np.sqrt(np.mean((means[key] - before)[inside] ** 2)) / max(means[key][inside].std(), 1e-12)
                metrics[f"change_{key}"] = float(change)
        arrays = {key: sharpened(mean, amount) for key, mean in means.items()}
        arrays |= {f"mean_{key}": mean for key, mean in means.items()}
        files = save_state_arrays(folder, {**arrays, "mask": share})
        return {"name": "template", "affine": frame["affine"], "files": files, "metrics": metrics}


def streaming_mean(scans: Sequence[Mapping[str, Any]], key: str, *, inside: bool = False) -> np.ndarray:
    """Weighted mean over scans, float32, one in memory at a time.

    With ``inside`` each voxel counts the scans whose mask holds it, and is 0 where these are less than half.
    """
    total, weight, all_weight = 0.0, 0.0, 0.0
    for scan in scans:
        values = np.load(scan["files"][key]).astype(np.float64)
        part: Any = scan["weight"]
        if inside:
            part = part * np.load(scan["files"]["mask"])
        total, weight, all_weight = total + part * values, weight + part, all_weight + scan["weight"]
    covered = np.asarray(weight) >= 0.5 * all_weight
    return np.where(covered, np.asarray(total) / np.maximum(weight, 1e-12), 0).astype(np.float32)


def streaming_deviation(
    scans: Sequence[Mapping[str, Any]], key: str, mean: np.ndarray, *, inside: bool = False
) -> np.ndarray:
    """Weighted standard deviation about ``mean``, with the correction of small samples, float32."""
    total, weight, squares = np.zeros(mean.shape), np.zeros(mean.shape), np.zeros(mean.shape)
    for scan in scans:
        part: Any = scan["weight"] * (np.load(scan["files"]["mask"]) if inside else np.ones(mean.shape))
        total += part * (np.load(scan["files"][key]).astype(np.float64) - mean) ** 2
        weight, squares = weight + part, squares + part**2
    freedom = weight - squares / np.maximum(weight, 1e-12)
    return np.where((mean != 0) & (freedom > 0), np.sqrt(total / np.maximum(freedom, 1e-12)), 0).astype(np.float32)


def slabwise_median(scans: Sequence[Mapping[str, Any]], key: str, *, inside: bool = False) -> np.ndarray:
    """Median over scans, a few planes of all in memory at a time; inside masks like the mean."""
    volumes = [np.load(scan["files"][key], mmap_mode="r") for scan in scans]
    masks = [np.load(scan["files"]["mask"], mmap_mode="r") for scan in scans] if inside else []
    out = np.zeros(volumes[0].shape, dtype=np.float32)
    step = max(1, _MEDIAN_VALUES // (len(scans) * max(1, out[0].size)))
    for start in range(0, out.shape[0], step):
        planes = slice(start, start + step)
        values = np.stack([volume[planes] for volume in volumes])
        if not inside:
            out[planes] = np.median(values, axis=0)
            continue
        counted = np.stack([mask[planes] for mask in masks])
        covered = counted.sum(axis=0) >= 0.5 * len(scans)
        columns = np.where(counted, values, np.nan)[:, covered]
        out[planes][covered] = np.nanmedian(columns, axis=0) if columns.size else 0
    return out


def _correlation(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> float:
    a, b = first[inside].astype(np.float64), second[inside].astype(np.float64)
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def similarities(scans: Sequence[Mapping[str, Any]], template: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Correlation of every scan with the mean, channel by channel."""
    inside = np.load(template["files"]["mask"]) > 0.5
    means = {key: np.load(template["files"][f"mean_{key}"]) for key in CHANNELS}
    for scan in scans:
        alike = {key: _correlation(np.load(scan["files"][key]), means[key], inside) for key in CHANNELS}
        yield {"scan": scan["name"], **{f"similarity_{key}": value for key, value in alike.items()}}


def grid_of(frame: Mapping[str, Any]) -> Any:
    """The grid of the template as an empty volume."""
    from qsmxt.interfaces.registration import Volume

    return Volume(np.zeros(frame["shape"], dtype=np.float32), np.array(frame["affine"]))


def volume_of(state: Mapping[str, Any], key: str) -> Any:
    """A volume of a state."""
    from qsmxt.interfaces.registration import Volume

    affine = state.get("labels_affine", state["affine"]) if key == "labels" else state["affine"]
    return Volume(np.load(state["files"][key]), np.array(affine))


def save_state_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    from qsmxt.interfaces.state import save_arrays

    return save_arrays(folder, arrays)
