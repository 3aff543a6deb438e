"""Nodes of segmentation: register the anatomy of a unit, then carry labels over, write them and measure the maps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, isdefined, traits

from qsmxt.algorithms.statistics.regions import Region, region_statistics
from qsmxt.bids.atomic import write_json
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.base import Interface, StepInputSpec
from qsmxt.interfaces.deformable import Deformation, align_linearly, deform, refine, write_both_ways
from qsmxt.interfaces.derivatives import FolderOutputSpec
from qsmxt.interfaces.normative import deep_nuclei, synthetic_chi
from qsmxt.interfaces.regions import FREESURFER, dictionary, named, read_regions, regions_text, table_text
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.state import State, digest, digest_files

#: Below these numbers a registration is reported as doubtful.
LEAST_SIMILARITY, LEAST_OVERLAP = 0.5, 0.8

#: By how much the mirror image must be more similar for left and right to be suspected of being exchanged.
FLIPPED = 0.005

#: Volume of a mask above which it is taken for a whole brain, mm^3.
WHOLE_BRAIN = 7e5

#: Grid of the rigid registration, mm; finer ones cost time and gain nothing.
RIGID_GRID = 1.5

#: How far beyond the brain registration looks, and how much of the head it keeps, mm.
MARGIN, ROOM = 8.0, 16.0

#: Grid of the deformation of the whole brain, mm.
WHOLE_GRID = 2.0

#: How far around the deep nuclei it is refined, how far beyond the brain mask that looks (mm), and its most voxels.
FOCUS_ROOM, FOCUS_MARGIN, FOCUS_VOXELS = 12.0, 2.0, 4e5

#: Maps that are measured, in the order of the table.
MEASURED = (
    "chi", "chi_paramagnetic", "chi_diamagnetic", "r2star", "t2star", "s0", "combined_magnitude",
)  # fmt: skip

#: Maps that are referenced, and the noise that weights a map.
_REFERENCED = ("chi",)
_NOISE = {"chi": "field_noise", "r2star": "r2star_noise"}

#: Maps carried to other spaces.
_CARRIED = ("chi", "r2star")

#: Outputs of a unit whose records the table is made of; a test compares them with all that a unit can give.
OUTPUTS = ("qsm", "swi", "r2star", "t2star", "separation", "orientation")


class AnatomyFingerprintInputSpec(BaseInterfaceInputSpec):
    """Files."""

    files = traits.List(traits.Str(), mandatory=True, desc="files whose contents count")


class AnatomyFingerprintOutputSpec(TraitedSpec):
    """A digest."""

    fingerprint = traits.Str(desc="digest of the contents of the files")


class AnatomyFingerprint(Interface):
    """Digest of everything besides the gradient echo that segmentation reads. It always runs."""

    input_spec = AnatomyFingerprintInputSpec
    output_spec = AnatomyFingerprintOutputSpec
    _always_run = True

    def execute(self, folder: str) -> None:
        """Read all files once."""
        self._results["fingerprint"] = digest_files(list(self.inputs.files))


@dataclass(frozen=True)
class Anatomy:
    """How the spaces of a unit hang together: files of transforms, and what is known of their quality.

    ``rigid`` takes points of the gradient echo to the T1-weighted image; ``forward`` brings the template to the
    anatomical image (T1w, or the gradient echo if there is none), ``inverse`` leads back. ``labels`` is what a
    program made of the T1-weighted image.
    """

    fingerprint: str
    rigid: str | None = None
    forward: str | None = None
    inverse: str | None = None
    labels: str | None = None
    quality: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Text that :meth:`from_json` reads back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Anatomy:
        """Inverse of :meth:`to_json`."""
        return cls(**json.loads(text))


class RegisterAnatomyInputSpec(StepInputSpec):
    """A state with the combined magnitude, and what to register it to."""

    fingerprint = traits.Str(mandatory=True, desc="digest of the files of the anatomy")
    cache = traits.Str(nohash=True, desc="folder shared by all units")


class RegisterAnatomyOutputSpec(TraitedSpec):
    """Transforms."""

    anatomy = traits.Str(desc="transforms and their quality (JSON)")


class RegisterAnatomy(Interface):
    """Gradient echo to T1w, template to T1w (or to the gradient echo), and the program that segments, if any."""

    input_spec = RegisterAnatomyInputSpec
    output_spec = RegisterAnatomyOutputSpec

    def execute(self, folder: str) -> None:
        """Register."""
        plan = json.loads(self.inputs.plan)
        state = self._state()
        fingerprint = digest(state.fingerprint, self.inputs.plan, self.inputs.fingerprint, self.inputs.code)
        work = Registration(Path(folder), plan, state)
        work.align_t1w()
        if plan["template"] is not None:
            work.align_template(Path(self.inputs.cache) if isdefined(self.inputs.cache) else None, self.inputs.code)
        labels = None
        if plan["engine"] is not None:
            labels = self._segment(plan, Path(folder))
        result = Anatomy(fingerprint, work.rigid, work.forward, work.inverse, labels, work.quality, work.notes)
        self._results["anatomy"] = result.to_json()

    def _segment(self, plan: dict[str, Any], folder: Path) -> str:
        """Labels that a program makes of the T1-weighted image, computed once for all runs of a session."""
        import importlib

        engine = importlib.import_module(f"qsmxt.external.{plan['engine']}")
        shared = Path(self.inputs.cache) if isdefined(self.inputs.cache) else folder
        place = shared / digest(plan["engine"], digest_files([plan["t1w"]]), self.inputs.code)
        with locked(place):
            result = place / "labels.nii.gz"
            if not result.exists():
                made = engine.segment(Path(plan["t1w"]), place, self.inputs.num_threads)
                if made != result:
                    made.rename(result)
        return str(result)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold a shared folder; the lock ends with the process."""
    import fcntl

    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Registration:
    """Images of a unit while they are registered."""

    def __init__(self, folder: Path, plan: dict[str, Any], state: State) -> None:
        self.folder, self.plan = folder, plan
        affine = np.array(state.affine)
        self.magnitude = Volume(np.asarray(state.load("combined_magnitude")), affine)
        mask = state.load("mask")
        self.mask = None if mask is None else np.asarray(mask, dtype=bool)
        self.chi = None if state.load("chi") is None else Volume(np.asarray(state.load("chi")), affine)
        self.gre = reg.correct_bias(self.magnitude)
        self.t1w: Volume | None = None
        self.rigid: str | None = None
        self.forward: str | None = None
        self.inverse: str | None = None
        self.quality: dict[str, float] = {}
        self.notes: list[str] = list(plan["notes"])

    def align_t1w(self) -> None:
        """Rigid transform between the gradient echo and the T1-weighted image, if there is one."""
        if self.plan["t1w"] is None:
            return
        self.t1w = reg.correct_bias(reg.read_volume(self.plan["t1w"]))
        size = max(self.plan["resolution"], RIGID_GRID)
        grid = reg.at_resolution(self.gre, size)
        fixed = grid.with_array(reg.resample(self.gre, grid, []))
        mask = self._around(grid, [])
        self.rigid = reg.register_rigid(fixed, self.t1w, mask, self.folder)
        value = reg.similarity(self.gre, self.t1w, [self.rigid], self.mask)
        self._judge("similarity_gre_t1w", value, LEAST_SIMILARITY)
        mirrored = reg.mirrored_similarity(fixed, self.t1w, self.rigid, mask, self.folder)
        self.quality["similarity_gre_mirrored_t1w"] = round(mirrored, 4)
        if mirrored > value + FLIPPED:
            self.notes.append(
                f"segmentation: the gradient echo resembles the mirror image of {Path(self.plan['t1w']).name} more "
                f"({mirrored:.2f}) than the image itself ({value:.2f}); left and right may be exchanged, "
                "check both headers"
            )

    def align_template(self, shared: Path | None, code: str) -> None:
        """Template to T1w, or to the gradient echo where there is none.

        The whole brain by anatomy, once for all scans that share a T1-weighted image; then the regions of interest, by
        the susceptibility of this scan, too, or without it once for all again.
        """
        template = self.plan["template"]
        source = self.t1w if self.t1w is not None else self.gre
        moving = reg.read_volume(self._anatomical(template))
        common = shared if self.t1w is not None and not self.plan["stripped"] else None
        settings = [self.plan["whole"], code]
        whole = self._kept("whole", common, settings, lambda place: self._register_whole(source, moving, place))
        settings += [self.plan["fine"], self.plan["resolution"]]
        fine = self._refined(source, moving, whole, common, settings)
        parts = [*([fine] if fine else []), whole]
        self.forward, self.inverse = write_both_ways(parts, self.folder)
        grid = reg.at_resolution(source, WHOLE_GRID)
        around = self._around(grid, [self.rigid] if self.rigid else [])
        value = reg.similarity(grid.with_array(reg.resample(source, grid, [])), moving, [self.forward], around)
        self._judge("similarity_template", value, LEAST_SIMILARITY)
        if template["brain"] and self.mask is not None:
            brain = reg.read_volume(template["brain"])
            chain = [*([self.rigid] if self.rigid else []), self.forward]
            there = reg.resample(brain, self.magnitude, chain) > 0.5
            entire = float(self.mask.sum()) * float(np.prod(self.magnitude.voxel_size)) > WHOLE_BRAIN
            self._judge("overlap_of_brain_masks", reg.overlap(there, self.mask), LEAST_OVERLAP if entire else 0.0)

    def _anatomical(self, template: dict[str, Any]) -> str:
        """The image of the template that is compared with the anatomical image of the subject."""
        if self.t1w is not None and template["t1w"]:
            return str(template["t1w"])
        return str(template["magnitude"] or template["t1w"])

    def _kept(
        self, step: str, shared: Path | None, settings: Sequence[Any], make: Callable[[Path], Deformation]
    ) -> Deformation:
        """What ``make`` finds in a folder of this scan, or in one of all scans with this T1-weighted image.

        In the latter it is found once; ``settings`` are what it depends on besides images.
        """
        place = self.folder / step
        if shared is not None:
            template = self.plan["template"]
            images = (self.plan["t1w"], self._anatomical(template), template["brain"])
            place = shared / digest(step, digest_files([path for path in images if path]), *settings)
        with locked(place):
            record = place / "deformation.json"
            if shared is None or not record.exists():
                write_json(record, asdict(make(place)))
            found = json.loads(record.read_text(encoding="utf-8"))
        return Deformation(**found)

    def _register_whole(self, source: Volume, moving: Volume, place: Path) -> Deformation:
        """Rigid, affine, deformable; where the template's brain is, or the mask if the template shows a brain alone.

        Images are taken to the grid of the deformation first; what is finer has no say in it.
        """
        from qsmxt.algorithms.morphology import dilate

        stripped, iterations = self.plan["stripped"], self.plan["whole"]
        to_grid = [self.rigid] if self.rigid else []
        use_mask = self.mask is not None and (stripped or self.t1w is None)
        grid = reg.at_resolution(source, WHOLE_GRID, self._box(source, to_grid) if use_mask else None)
        fixed = grid.with_array(reg.resample(source, grid, []))
        around = self._around(grid, to_grid) if use_mask else None
        if stripped and around is not None:
            fixed = fixed.with_array(fixed.array * around)
        coarse = reg.at_resolution(moving, WHOLE_GRID)
        there = coarse.with_array(reg.resample(moving, coarse, []))
        affine = align_linearly(fixed, there, place)
        if around is None and self.plan["template"]["brain"]:
            brain = reg.read_volume(self.plan["template"]["brain"])
            inside = reg.resample(brain, grid, [affine]) > 0.5
            box = reg.box_around(inside, [ROOM / v for v in grid.voxel_size])
            if box is not None:
                fixed = reg.part(fixed, box)
                around = dilate(inside[box], Grid.from_affine(fixed.affine, fixed.array.shape), MARGIN)
        return deform([fixed], [there], around, place / "whole", iterations=iterations, affine=affine)

    def _refined(
        self, source: Volume, moving: Volume, whole: Deformation, common: Path | None, settings: Sequence[Any]
    ) -> Deformation | None:
        """The rest of the deformation around the deep nuclei of the atlases; ``None`` where there are none."""
        interest = deep_nuclei(self.plan["atlases"])
        if interest is None:
            return None
        coarse = reg.at_resolution(source, WHOLE_GRID)
        inside = reg.resample(interest, coarse, whole.forward(), interpolation="nearestNeighbor") > 0.5
        box = reg.box_around(inside, [FOCUS_ROOM / v for v in coarse.voxel_size])
        if box is None:
            return None
        room = reg.part(coarse, box)
        size = max(self.plan["resolution"], (room.array.size * np.prod(room.voxel_size) / FOCUS_VOXELS) ** (1 / 3))
        grid = reg.regridded(room, [max(size, v) for v in source.voxel_size])
        to_grid = [self.rigid] if self.rigid else []
        subject, images = [grid.with_array(reg.resample(source, grid, []))], [moving]
        guide = self._template_chi(self.plan["template"])
        if guide is not None and self.chi is not None:
            clipped = self.chi.with_array(np.clip(self.chi.array, *reg.CHI_RANGE))
            subject.append(grid.with_array(reg.resample(clipped, grid, to_grid, [True] * len(to_grid))))
            images.append(guide.with_array(np.clip(guide.array, *reg.CHI_RANGE)))
        mask = self._around(grid, to_grid, FOCUS_MARGIN) if len(subject) > 1 or self.t1w is None else None
        alone = len(subject) == 1 and self.t1w is not None and bool(self.plan["template"]["t1w"])

        def make(place: Path) -> Deformation:
            steps = self.plan["fine"]
            return refine(subject, images, whole, mask, place / "fine", iterations=steps, same_contrast=alone)

        labels = digest_files([atlas["labels"] for atlas in self.plan["atlases"]])
        return self._kept("fine", common if alone else None, [*settings, labels], make)

    def _template_chi(self, template: dict[str, Any]) -> Volume | None:
        """The template's susceptibility, painted from its atlas if it has none; ``None`` if it shall not guide."""
        if self.chi is None or self.plan["channels"] != "auto":
            return None
        return reg.read_volume(template["chi"]) if template["chi"] else synthetic_chi(self.plan["atlases"])

    def _box(self, source: Volume, to_source: list[str]) -> tuple[slice, slice, slice] | None:
        """Part of the anatomical image around a brain that is whole."""
        if self.mask is None or float(self.mask.sum()) * float(np.prod(self.magnitude.voxel_size)) < WHOLE_BRAIN:
            return None
        mask = self.magnitude.with_array(self.mask)
        there = reg.resample(mask, source, to_source, [True] * len(to_source)) > 0.5
        return reg.box_around(there, [ROOM / v for v in source.voxel_size])

    def _around(self, grid: Volume, to_grid: list[str], margin: float = MARGIN) -> np.ndarray | None:
        """The brain mask and its surroundings on another grid."""
        from qsmxt.algorithms.morphology import dilate

        if self.mask is None:
            return None
        mask = self.magnitude.with_array(self.mask)
        there = reg.resample(mask, grid, to_grid, [True] * len(to_grid)) > 0.5
        return dilate(there, Grid.from_affine(grid.affine, there.shape), margin)

    def _judge(self, name: str, value: float, least: float) -> None:
        self.quality[name] = round(value, 4)
        if value < least:
            self.notes.append(
                f"segmentation: {name.replace('_', ' ')} is {value:.2f}, expected at least {least:g}; "
                "look at the contours before using the regions"
            )


class SegmentRegionsInputSpec(StepInputSpec):
    """Transforms, labels and the derivatives to measure: a record and a digest for each of :data:`OUTPUTS`."""

    anatomy = traits.Str(mandatory=True, desc="transforms (JSON)")
    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    bids_dir = traits.Str(mandatory=True, desc="root of the source dataset")
    version = traits.Str(mandatory=True, desc="version of QSMxT")
    fingerprint = traits.Str(mandatory=True, desc="digest of the files of the anatomy")


for _output in OUTPUTS:
    SegmentRegionsInputSpec.add_class_trait(f"record_{_output}", traits.Str(desc=f"record of the output {_output}"))
    SegmentRegionsInputSpec.add_class_trait(f"fingerprint_{_output}", traits.Str(desc=f"digest of {_output}"))


class SegmentRegions(Interface):
    """Labels in both spaces, transforms, maps in other spaces, and the statistics of the maps as they are saved."""

    input_spec = SegmentRegionsInputSpec
    output_spec = FolderOutputSpec

    def execute(self, folder: str) -> None:
        """Carry over, write, measure."""
        state = self._state()
        writer = _Writer(self.inputs, state, Path(folder))
        for source in writer.sources():
            writer.add(source)
        writer.write_transforms()
        writer.write_spaces()
        writer.write_table()
        record = writer.write_record()
        fingerprint = digest(self.inputs.anatomy, state.fingerprint, self.inputs.plan, self.inputs.code)
        self._results.update(folder=str(writer.target.out_dir), record=str(record), fingerprint=fingerprint)


@dataclass(frozen=True)
class Source:
    """Labels to carry over: their file, names, and the space they are in (template, T1w or gre)."""

    name: str
    labels: str
    table: str | None
    space: str
    entity: str = "atlas"


class _Writer:
    """Everything that segmentation adds to the derivatives of a unit."""

    def __init__(self, inputs: Any, state: State, folder: Path) -> None:
        from qsmxt.bids.outputs import Derivatives
        from qsmxt.bids.units import ProcessingUnit

        self.inputs, self.state = inputs, state
        self.plan = json.loads(inputs.plan)
        self.anatomy = Anatomy.from_json(inputs.anatomy)
        self.unit = ProcessingUnit.from_dict(json.loads(inputs.unit))
        self.target = Derivatives(folder / "derivatives")
        shutil.rmtree(self.target.out_dir, ignore_errors=True)
        self.files: dict[str, str] = {}
        self.notes = list(self.anatomy.notes)
        self.rows: list[dict[str, Any]] = []
        self.gre = Volume(np.zeros(tuple(state.grid["shape"]), np.uint8), np.array(state.affine))
        self.t1w = None if self.plan["t1w"] is None else self._header(self.plan["t1w"])
        self.records = self._read_records()

    @staticmethod
    def _header(path: str) -> Volume:
        from qsmxt.bids.images import read_header

        header = read_header(Path(path))
        return Volume(np.zeros(header.shape, np.uint8), header.affine)

    def _read_records(self) -> list[tuple[Path, dict[str, Any]]]:
        """Records of the derivatives, each with the folder that its files are in."""
        found = []
        for name in OUTPUTS:
            path = getattr(self.inputs, f"record_{name}")
            if isdefined(path):
                record = Path(path)
                found.append((record.parents[2], json.loads(record.read_text(encoding="utf-8"))))
        return found

    def sources(self) -> list[Source]:
        """All labels of this unit."""
        found = [Source(atlas["name"], atlas["labels"], atlas["table"], "template") for atlas in self.plan["atlases"]]
        if self.anatomy.labels is not None:
            found.append(Source(self.plan["engine"], self.anatomy.labels, str(FREESURFER), "T1w", "seg"))
        found += [Source(entity="seg", **values) for values in self.plan["precomputed"]]
        found += [Source(entity="label", **values) for values in self.plan["rois"]]
        return found

    def _chain(self, space: str, to: str) -> list[str]:
        """Transforms that bring labels of ``space`` to the grid of the gradient echo or of the T1-weighted image."""
        if space == "template":
            rigid = [self.anatomy.rigid] if to == "gre" and self.anatomy.rigid else []
            return [*rigid, self.anatomy.forward or ""]
        if space == "T1w" and to == "gre":
            return [self.anatomy.rigid or ""]
        return []

    def add(self, source: Source) -> None:
        """Labels of one source in both spaces, and the statistics in them."""
        labels = whole_numbers(reg.read_volume(source.labels), source.labels)
        table = Path(source.table) if source.table else None
        regions = read_regions(table) if source.entity != "label" else [Region(1, source.name)]
        if table == FREESURFER:
            present = set(np.unique(labels.array).tolist())
            regions = [region for region in regions if region.index in present]
        regions = named((i for i in np.unique(labels.array).tolist() if i > 0), regions)
        moved = reg.transport_labels(labels, self.gre, self._chain(source.space, "gre"))
        volumes = {"gre": moved.labels}
        if self.t1w is not None and source.space != "gre":
            volumes["T1w"] = reg.transport_labels(labels, self.t1w, self._chain(source.space, "T1w")).labels
        if source.entity != "label":
            for space, volume in volumes.items():
                self._write_labels(source, space, volume, regions)
            self._look_for_missing(source, volumes, regions)
        self._measure(source, moved, regions)

    def _look_for_missing(self, source: Source, volumes: dict[str, np.ndarray], regions: list[Region]) -> None:
        """Say which regions the slab of the gradient echo does not hold."""
        present = set(np.unique(volumes["gre"]).tolist())
        absent = [region.name for region in regions if region.index not in present]
        if absent:
            shown = ", ".join(absent[:6]) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
            self.notes.append(f"{source.name}: no voxel of the map lies in {shown}; their rows say n/a")

    def _write_labels(self, source: Source, space: str, volume: np.ndarray, regions: list[Region]) -> None:
        from qsmxt.bids.atomic import write_text
        from qsmxt.bids.outputs import save_volume

        entities = {source.entity: source.name} | ({"space": "T1w"} if space == "T1w" else {})
        path = self.target.path(self.unit, "dseg", **entities)
        grid = self.gre if space == "gre" or self.t1w is None else self.t1w
        sidecar: dict[str, Any] = {
            "Description": f"regions of {source.name}, carried over in one interpolation" if source.space != space
            else f"regions of {source.name}",
            "Sources": [uri for uri in (self.plan["t1w_uri"],) if uri],
            "QSMxTVersion": self.inputs.version,
        }  # fmt: skip
        if space == "T1w":
            sidecar["SpatialReference"] = self.plan["t1w_uri"]
        save_volume(path, volume, grid.affine, unit_label="", sidecar={k: v for k, v in sidecar.items() if v})
        table = write_text(path.with_name(path.name.removesuffix(".nii.gz") + ".tsv"), regions_text(regions))
        key = f"dseg_{source.name}_{space}"
        self.files |= {key: self._relative(path), f"{key}_table": self._relative(table)}

    def _measure(self, source: Source, moved: reg.Transported, regions: list[Region]) -> None:
        maps, units = self._maps()
        mask = self.state.load("eroded_mask")
        mask = self.state.load("mask") if mask is None else mask
        noise = {name: self.state.load(array) for name, array in _NOISE.items() if name in maps}
        listed = {**self._identity(), "atlas": source.name}
        for name, volume in maps.items():
            whole = name == "combined_magnitude" or name not in MEASURED or mask is None
            rows = region_statistics(
                {name: volume}, moved.labels, self.state.sampling(), regions=regions,
                mask=None if whole else np.asarray(mask, dtype=bool),
                reliable_mask=_bool(self.state.load("reliable_mask")),
                noise={key: array for key, array in noise.items() if array is not None},
                probabilities=moved.shares,
            )  # fmt: skip
            reference = self._reference() if name in _REFERENCED else None
            self.rows += [{**listed, **row, "unit": units[name], "reference": reference} for row in rows]

    def _maps(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The maps as they were written, and their units; those of the user are brought to the grid if they are not."""
        from qsmxt.registry.artifacts import ARTIFACTS

        found: dict[str, np.ndarray] = {}
        for name in MEASURED:
            for folder, record in self.records:
                if name in record["files"]:
                    volume = reg.read_volume(folder / record["files"][name])
                    if volume.array.shape != self.gre.array.shape:
                        raise InputError(f"{record['files'][name]}: expected the grid of the gradient echo")
                    found[name] = volume.array.astype(np.float32, copy=False)
        units = {name: ARTIFACTS[name].unit for name in found}
        for given in self.plan["maps"]:
            volume = reg.read_volume(given["path"])
            same = volume.array.shape == self.gre.array.shape and np.allclose(volume.affine, self.gre.affine, atol=1e-3)
            array = volume.array if same else reg.resample(volume, self.gre, [])
            found[given["name"]] = array.astype(np.float32, copy=False)
            units[given["name"]] = given["unit"]
        return found, units

    def _reference(self) -> str:
        for _, record in self.records:
            for step in record["steps"]:
                stage, _, key = step["method"].partition(".")
                if stage == "referencing":
                    values = " ".join(f"{name}={value}" for name, value in step["parameters"].items())
                    return f"{key} {values}".strip()
        return "none"

    def _identity(self) -> dict[str, Any]:
        own = self.unit.entities
        names = {"session": "session_id", "acquisition": "acquisition", "run": "run"}
        return {"participant_id": f"sub-{self.unit.subject}"} | {
            column: (f"ses-{own[name]}" if name == "session" else own[name]) if name in own else None
            for name, column in names.items()
        }

    def write_transforms(self) -> None:
        """The transforms under names that say what leads where."""
        anatomy = "T1w" if self.anatomy.rigid else "GRE"
        pairs: list[tuple[str | None, str, str]] = [(self.anatomy.rigid, "T1w", "GRE")]
        if self.plan["template"] is not None:
            name = self.plan["template"]["name"]
            pairs += [(self.anatomy.forward, name, anatomy), (self.anatomy.inverse, anatomy, name)]
        for file, source, to in pairs:
            if file is None:
                continue
            entities = {"from": source, "to": to, "mode": "image"}
            path = self.target.path(self.unit, "xfm", extension=Path(file).suffix, **entities)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
            self.files[f"xfm_{source}_{to}"] = self._relative(path)

    def write_spaces(self) -> None:
        """Maps in the spaces asked for."""
        from qsmxt.bids.outputs import save_volume
        from qsmxt.registry.artifacts import ARTIFACTS

        maps, units = self._maps()
        template = self.plan["template"]
        for space in self.plan["spaces"]:
            if space == "T1w" and self.t1w is not None:
                grid, chain, inverted = self.t1w, [self.anatomy.rigid or ""], [True]
                reference = self.plan["t1w_uri"]
            elif template is not None and space == template["name"]:
                grid = self._header(template["t1w"] or template["magnitude"])
                chain, inverted = [self.anatomy.inverse or ""], [False]
                if self.anatomy.rigid:
                    chain, inverted = [*chain, self.anatomy.rigid], [False, True]
                reference = f"template {space}"
            else:
                continue
            for name in (name for name in _CARRIED if name in maps):
                moved = reg.resample(self.gre.with_array(maps[name]), grid, chain, inverted)
                artifact = ARTIFACTS[name]
                path = self.target.artifact(self.unit, name, space=space)
                sidecar = {
                    "Description": f"{artifact.description}, in the space of {space}",
                    "SpatialReference": reference, "SkullStripped": True, "QSMxTVersion": self.inputs.version,
                }  # fmt: skip
                save_volume(path, moved, grid.affine, unit_label=units[name], sidecar=sidecar)
                self.files[f"{name}_{space}"] = self._relative(path)

    def write_table(self) -> None:
        """The statistics as CSV and TSV, and what the columns mean."""
        from qsmxt.bids.atomic import write_text

        table = self.target.path(self.unit, "stats", extension=".tsv")
        write_text(table, table_text(self.rows, tabs=True))
        write_text(table.with_suffix(".csv"), table_text(self.rows, tabs=False))
        described = dictionary({"Labels": {name: path for name, path in self.files.items() if name.startswith("dseg")}})
        write_json(table.with_suffix(".json"), described)
        self.files |= {"stats": self._relative(table), "stats_csv": self._relative(table.with_suffix(".csv"))}

    def write_record(self) -> Path:
        """Record of the run."""
        from qsmxt.interfaces.derivatives import make_record

        path = self.target.logs(self.unit.subject) / f"{self.unit.name}_segmentation.json"
        record = make_record(self.unit, self.state, self.files, self.inputs.version)
        record |= {
            "output": "segmentation", "steps": [], "notes": self.notes, "parameters": self._parameters(),
            "statistics": {"registration": self.anatomy.quality},
        }  # fmt: skip
        write_json(path, record)
        return path

    def _parameters(self) -> dict[str, Any]:
        """What was chosen, without the places of files."""
        names = {key: [item["name"] for item in self.plan[key]] for key in ("atlases", "precomputed", "rois")}
        template = self.plan["template"]["name"] if self.plan["template"] else None
        chosen = {key: self.plan[key] for key in ("method", "channels", "resolution", "whole", "fine", "spaces")}
        return {**chosen, **names, "template": template}

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.target.out_dir).as_posix()


def whole_numbers(labels: Volume, origin: str) -> Volume:
    """The labels as integers; :class:`InputError` if they are not."""
    array = labels.array
    if array.dtype.kind not in "iu":
        rounded = np.rint(array)
        if np.abs(array - rounded).max(initial=0) > 1e-3:
            raise InputError(f"{origin}: expected labels (whole numbers), found fractions; give a dseg image")
        array = rounded.astype(np.int32)
    if array.min(initial=0) < 0:
        raise InputError(f"{origin}: expected labels from 0, found {int(array.min())}")
    return labels.with_array(array)


def _bool(array: Any) -> np.ndarray | None:
    return None if array is None else np.asarray(array, dtype=bool)
