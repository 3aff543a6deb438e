"""Segmentation and cohort template on digital heads that differ by known deformations.

Eight heads at 2 mm, deformed by waves of 2.5 mm along each axis (4.3 mm in all, root mean square) besides scaling and
shift, with another texture, other veins and other noise each; the template is the undeformed head. Susceptibility is
what the default chain reconstructs from the phase, and the T1-weighted scan is 10 degrees and 15 mm off. CPU seconds
are those of one process; ANTs works in one thread.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np

from benchmarks import chains
from qsmxt import config
from qsmxt.algorithms.statistics.regions import Region, region_statistics
from qsmxt.algorithms.template import sharpness
from qsmxt.external.templates import find_template
from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.registration import Volume
from qsmxt.interfaces.segmentation import Registration
from qsmxt.phantom import acquisition
from qsmxt.phantom.anatomical import motion, simulate_anatomical
from qsmxt.phantom.anatomy import Coordinates, paint
from qsmxt.phantom.atlas import REGIONS, nuclei, regions_table
from qsmxt.phantom.head import Head, HeadSettings, simulate
from qsmxt.phantom.template import template
from qsmxt.workflows import tables
from qsmxt.workflows.cohort import Cohort, Scan, table_text
from qsmxt.workflows.group import run_group
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.segmentation import SCHEDULES
from qsmxt.workflows.template import make_template

#: Number of heads, and their voxels (mm).
COUNT, VOXEL = 8, 2.0

#: What is changed in half of the heads, and by how much (ppm); so many heads find it in spite of their own texture.
CHANGED, CHANGE, MANY = "substantia-nigra", 0.02, 32

#: 10 degrees in all and 15 mm, from the T1-weighted scan to the gradient echo.
MOTION = motion((8.0, -5.0, 3.0), (9.0, -10.0, 7.0))


def cache() -> Path:
    """Folder of what is costly to make."""
    home = os.environ.get("QSMXT_BENCHMARK_CACHE", str(Path.home() / ".cache" / "qsmxt" / "benchmarks"))
    folder = Path(home) / "regions"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_changed(number: int) -> bool:
    """Whether a head is one of those whose substantia nigra has more susceptibility: 5 to 8, 13 to 16 and so on."""
    return number > 0 and (number - 1) // 4 % 2 == 1


def settings(number: int, voxel: float = VOXEL, **more: Any) -> HeadSettings:
    """Head ``number``; 0 is the undeformed one, the template. Every second four have a changed substantia nigra."""
    given = {"chi_change": ((CHANGED, CHANGE),) if is_changed(number) else (), **more}
    return HeadSettings(voxel_size=(voxel,) * 3, seed=number, deformation=number or None, **given)


def second_scan(number: int) -> HeadSettings:
    """The head of that number in another session, with other noise: changed where it was not, and the reverse."""
    return settings(number, chi_change=() if is_changed(number) else ((CHANGED, CHANGE),), repetition=2)


@dataclass
class Subject:
    """A head as the participant level leaves it: maps, the mask, and true labels."""

    head: Head
    chi: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    t1w: Volume

    @property
    def affine(self) -> np.ndarray:
        """Voxel to scanner, mm."""
        return self.head.affine

    @property
    def magnitude(self) -> np.ndarray:
        """Root sum of squares of the echoes."""
        combined: np.ndarray = np.sqrt((self.head.magnitude.astype(np.float64) ** 2).sum(axis=0)).astype(np.float32)
        return combined

    def volume(self, array: np.ndarray) -> Volume:
        """An array on the grid of the gradient echo."""
        return Volume(array, self.affine)


def subject(given: HeadSettings) -> Subject:
    """A head, its reconstruction, and a T1-weighted scan after the head moved; from the cache or made now."""
    path = cache() / f"{hashlib.sha256(repr(given).encode()).hexdigest()[:16]}.npz"
    made = path.with_suffix(".chi.npz")
    if not made.exists():
        if not path.exists():
            simulate(given).save(path)
        head = Head.load(path)
        result = chains.run(chains.default_chain(), head)
        chi = result.chi - result.chi[result.mask].mean(dtype=np.float64)
        t1w = simulate_anatomical(given, given.voxel_size, MOTION)
        arrays = {"chi": np.where(result.mask, chi, 0).astype(np.float32), "mask": result.mask}
        np.savez(made, t1w=t1w.volume, t1w_affine=t1w.affine, **arrays)  # type: ignore[arg-type]
    head = Head.load(path)
    with np.load(made) as stored:
        return Subject(
            head, stored["chi"], stored["mask"], nuclei(head.labels, given.voxel_size, given.subject),
            Volume(stored["t1w"], stored["t1w_affine"]),
        )  # fmt: skip


def fine_nuclei(given: HeadSettings) -> Volume:
    """The true nuclei on the grid of the simulation, half the length of the voxels."""
    path = cache() / f"{hashlib.sha256(repr(given).encode()).hexdigest()[:16]}.nuclei.npz"
    if not path.exists():
        classes, _ = paint(Coordinates(given.fine_shape, given.spacing, given.subject), given.streams[0])
        np.savez_compressed(path, nuclei=nuclei(classes, given.spacing, given.subject))
    affine = np.diag([*given.spacing, 1.0])
    affine[:3, 3] = [-0.5 * (n - 1) * size for n, size in zip(given.fine_shape, given.spacing, strict=True)]
    with np.load(path) as stored:
        return Volume(stored["nuclei"], affine)


@dataclass
class State:
    """What the nodes of segmentation ask of a unit."""

    affine: np.ndarray
    arrays: dict[str, np.ndarray]

    def load(self, name: str) -> np.ndarray | None:
        """The array, ``None`` if there is none."""
        return self.arrays.get(name)


def template_home(voxel: float) -> Path:
    """Folder of the undeformed head as a template, from the cache or made now."""
    home = cache() / f"template-{voxel:g}"
    if not (home / "tpl-QSMxTHead" / "template_description.json").exists():
        template(home, voxel_size=(voxel,) * 3)
    return home


@dataclass
class Segmented:
    """Labels in the gradient echo, error of the rigid registration (mm, largest in the brain), quality, CPU seconds."""

    labels: np.ndarray
    misplaced: float
    quality: dict[str, float]
    seconds: float


def segment(
    own: Subject, *, voxel: float = VOXEL, t1w: bool = True, qsm: str = "template", fast: bool = False
) -> Segmented:
    """Register as the participant level does.

    ``qsm`` is ``template`` (its susceptibility map guides), ``painted`` (a map made from its atlas does) or ``none``.
    """
    found = find_template(None, [], template_home(voxel))
    size, whole, fine = SCHEDULES["fast" if fast else "default"]
    images = {key: str(getattr(found, key)) for key in ("t1w", "magnitude", "chi", "brain")}
    images["chi"] = images["chi"] if qsm == "template" else ""
    atlases = [{"name": a.name, "labels": str(a.labels), "table": str(a.table)} for a in found.atlases]
    plan: dict[str, Any] = {
        "resolution": size, "whole": whole, "fine": fine, "channels": "anatomy" if qsm == "none" else "auto",
        "notes": [], "template": images, "stripped": False, "atlases": atlases, "t1w": None,
    }  # fmt: skip
    arrays = {"combined_magnitude": own.magnitude, "mask": own.mask, "chi": own.chi}
    with scratch() as folder:
        if t1w:
            plan["t1w"] = str(folder / "T1w.nii")
            nib.save(nib.Nifti1Image(own.t1w.array, own.t1w.affine), plan["t1w"])  # type: ignore[attr-defined]
        start = time.process_time()
        work = Registration(folder, plan, State(own.affine, arrays))  # type: ignore[arg-type]
        work.align_t1w()
        work.align_template(None, "")
        chain = [*([work.rigid] if work.rigid else []), str(work.forward)]
        labels = reg.read_volume(atlases[0]["labels"])
        moved = reg.transport_labels(labels, own.volume(own.mask), chain).labels
        spent = time.process_time() - start
        misplaced = rigid_error(work.rigid, own) if work.rigid else 0.0
    return Segmented(moved, misplaced, work.quality, spent)


def rigid_error(file: str, own: Subject) -> float:
    """Largest distance between found and true place of the brain's voxels in the T1-weighted scan, mm."""
    points = np.argwhere(own.head.brain)[::50] @ own.affine[:3, :3].T + own.affine[:3, 3]
    difference = reg.read_affine(file) - np.linalg.inv(MOTION)
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def dice_rows(numbers: Sequence[int], voxel: float = VOXEL) -> list[list[str]]:
    """Dice of the nuclei with what guides the registration: mean, the worst nucleus (mean of both sides), all."""
    rows = []
    for name, options in GUIDES.items():
        heads = (subject(settings(number, voxel)) for number in numbers)
        found = [(own, segment(own, voxel=voxel, **options)) for own in heads]
        scores = [dice(result.labels, own.labels) for own, result in found]
        by_tissue: dict[str, list[float]] = {}
        for region in REGIONS:
            by_tissue.setdefault(region.abbreviation[:-2], []).extend(score[region.name] for score in scores)
        rows.append(
            [
                name, f"{np.mean([list(score.values()) for score in scores]):.3f}",
                *(f"{np.mean(values):.2f}" for values in by_tissue.values()),
                f"{min(min(score.values()) for score in scores):.2f}",
                f"{max(result.misplaced for _, result in found):.2f}", f"{np.mean([r.seconds for _, r in found]):.0f}",
            ]
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


#: What guides the registration of the template.
GUIDES: dict[str, dict[str, Any]] = {
    "T1w": {"qsm": "none"},
    "T1w + QSM": {},
    "T1w + QSM, fast": {"fast": True},
    "T1w + QSM painted from the atlas": {"qsm": "painted"},
    "magnitude + QSM, no T1w": {"t1w": False},
}


def dice(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Dice coefficient of every nucleus."""
    return {region.name: reg.overlap(found == region.index, true == region.index) for region in REGIONS}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes away."""
    folder = Path(tempfile.mkdtemp(prefix="regions-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def roi_rows_of_all() -> list[list[str]]:
    """The same for all heads."""
    return roi_rows(range(1, COUNT + 1))


def roi_rows(numbers: Sequence[int]) -> list[list[str]]:
    """Means of the reconstruction in the true nuclei less those of the true susceptibility, ppm."""
    rows = []
    for region in REGIONS:
        errors = []
        for number in numbers:
            own = subject(settings(number))
            inside = (own.labels == region.index) & own.mask
            truth = own.head.chi - own.head.chi[own.mask].mean(dtype=np.float64)
            errors.append(float(own.chi[inside].mean() - truth[inside].mean()))
        rows.append([region.name, f"{np.mean(errors):+.4f}", f"{np.abs(errors).max():.4f}"])
    return rows


@dataclass
class Built:
    """A template: output dataset, heads of it, CPU seconds (0 where parts were there)."""

    out: Path
    numbers: Sequence[int]
    seconds: float


def build(numbers: Sequence[int], nprocs: int = 1, *, t1w: bool = True, **group: Any) -> Built:
    """The cohort's template with the settings ``group``; kept in the cache, so that it can be made in pieces."""
    wanted = config.load(flags={"group": {"cohort": "heads", **group}})
    key = hashlib.sha256(repr((list(numbers), t1w, wanted.group)).encode()).hexdigest()[:8]
    folder = cache() / f"cohort-{key}"
    out = folder / "out"
    scans = []
    for number in numbers:
        own = subject(settings(number))
        stem = out / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}"
        arrays = {
            "Chimap": own.chi, "desc-combined_T2starw": own.magnitude, "desc-brain_mask": own.mask.astype(np.uint8),
            "R2starmap": np.where(own.mask, own.head.r2star, 0).astype(np.float32),
        }  # fmt: skip
        nuclei_of = fine_nuclei(settings(number))
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = {end: stem.with_name(f"{stem.name}_{end}.nii.gz") for end in arrays}
        image, labels = (stem.with_name(f"{stem.name}_{end}.nii.gz") for end in ("T1w", "seg-nuclei_dseg"))
        if not image.exists():
            for end, array in arrays.items():
                nib.save(nib.Nifti1Image(array, own.affine), paths[end])  # type: ignore[attr-defined]
            nib.save(nib.Nifti1Image(nuclei_of.array, nuclei_of.affine), labels)  # type: ignore[attr-defined]
            labels.with_name(labels.name.replace(".nii.gz", ".tsv")).write_text(regions_table())
            nib.save(nib.Nifti1Image(own.t1w.array, own.t1w.affine), image)  # type: ignore[attr-defined]
        keys = {"chi": "Chimap", "combined_magnitude": "desc-combined_T2starw", "r2star": "R2starmap"}
        maps = {key: paths[end] for key, end in {**keys, "mask": "desc-brain_mask"}.items()}
        entities = {"subject": f"{number:02d}"}
        scans.append(Scan(entities, maps, (labels,), t1w=image if t1w else None))
    before = sum(os.times()[:4])
    made = make_template(out, Cohort(tuple(scans)), wanted, folder / "work", Resources(nprocs, 8.0))
    if made["failed"]:
        raise RuntimeError(made["failed"])
    return Built(out, numbers, sum(os.times()[:4]) - before)


def on_template(built: Built, number: int, end: str) -> np.ndarray:
    """A map of a head on the template."""
    path = built.out / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_space-heads_{end}.nii.gz"
    return np.asarray(reg.read_volume(path).array)


def agreement(labels: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean Dice over all pairs of heads, by nucleus (both sides)."""
    scores: dict[str, list[float]] = {}
    for i, first in enumerate(labels):
        for second in labels[:i]:
            for name, score in zip((r.abbreviation[:-2] for r in REGIONS), dice(first, second).values(), strict=True):
                scores.setdefault(name, []).append(score)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def labels_of_scans(built: Built) -> list[np.ndarray]:
    """Labels on the grid of the gradient echo, brought to the template: their voxels are as large as small nuclei."""
    found = []
    for number in built.numbers:
        own = subject(settings(number))
        grid = reg.read_volume(built.out / "tpl-heads" / "anat" / "tpl-heads_label-brain_mask.nii.gz")
        path = built.out / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_from-orig_to-heads_mode-image_xfm.h5"
        found.append(reg.transport_labels(own.volume(own.labels), grid, [str(path)]).labels)
    return found


def places(built: Built) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of the template's brain (mm), their coordinates in every head, and where on average they should be."""
    mask = reg.read_volume(built.out / "tpl-heads" / "anat" / "tpl-heads_label-brain_mask.nii.gz")
    inside = mask.array > 0
    points = np.argwhere(inside) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    subjects, found = [], []
    for number in built.numbers:
        path = built.out / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_from-orig_to-heads_mode-image_xfm.h5"
        with h5py.File(path) as file:
            values = np.array(file["TransformGroup/1/TransformParameters"])
        field = values.reshape(*inside.shape[::-1], 3).transpose(2, 1, 0, 3) * [-1, -1, 1]
        own = settings(number).subject
        assert own is not None
        subjects.append(own)
        found.append(own.at(points + field[inside]))
    heads = np.array(found)
    true = np.mean([own.inverse(heads.mean(axis=0)) for own in subjects], axis=0)
    return points, heads, true


def sharpnesses(built: Built, suffix: str) -> dict[str, float]:
    """Gradient energy of the template's mean and image, of a head on the template, and of it as it was scanned."""
    stem = built.out / "tpl-heads" / "anat" / "tpl-heads"
    inside = reg.read_volume(f"{stem}_label-brain_mask.nii.gz").array > 0
    found = {}
    for name, part in (("mean", "_desc-mean"), ("image", "")):
        volume = reg.read_volume(f"{stem}{part}_{suffix}.nii.gz")
        found[name] = sharpness(volume.array, inside, volume.voxel_size)
    single = [sharpness(on_template(built, n, suffix), inside, volume.voxel_size) for n in built.numbers]
    return {
        **found,
        "head there": float(np.mean(single)),
        "head": float(np.mean([_own(n, suffix) for n in built.numbers])),
    }


def _own(number: int, suffix: str) -> float:
    """Gradient energy in the mask of a head, where it was scanned."""
    own = subject(settings(number))
    if suffix == "T1w":
        with scratch() as folder:
            back = reg.write_affine(MOTION, folder / "motion.mat")
            inside = reg.resample(own.volume(own.mask), own.t1w, [back]) > 0.5
        return sharpness(reg.correct_bias(own.t1w).array, inside, own.t1w.voxel_size)
    array = own.chi if suffix == "Chimap" else reg.correct_bias(own.volume(own.magnitude)).array
    return sharpness(array, own.mask, own.head.grid.voxel_size)


def _measured(given: HeadSettings, **head: Any) -> list[dict[str, Any]]:
    """Statistics of the nuclei in the reconstruction of a head, with true labels of 1 mm."""
    own = subject(given)
    moved = reg.transport_labels(fine_nuclei(given), own.volume(own.mask), [])
    regions = [Region(region.index, region.name) for region in REGIONS]
    rows = region_statistics(
        {"chi": own.chi}, moved.labels, own.head.grid, regions=regions, mask=own.mask, probabilities=moved.shares
    )
    return [{"group": "changed" if given.chi_change else "as it was", **head, **row} for row in rows]


def difference_rows(numbers: Sequence[int], statistic: str = "mean_unmixed") -> list[dict[str, Any]]:
    """Effect of the changed substantia nigra on all nuclei, between heads."""
    long = [row for n in numbers for row in _measured(settings(n), participant_id=f"sub-{n:02d}")]
    return tables.effect_rows(long, ["group"], statistic)


def change_rows(numbers: Sequence[int], statistic: str = "mean_unmixed") -> list[dict[str, Any]]:
    """The same within heads, each scanned before and after the change: a random intercept per head."""
    long = []
    for number in numbers:
        for given in (settings(number), second_scan(number)):
            session = "after" if given.chi_change else "before"
            long += _measured(given, participant_id=f"sub-{number:02d}", session_id=session)
    return [row for row in tables.model_rows(long, ["chi ~ group"], ["group"], statistic) if "group" in row["term"]]


def true_difference_rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The same of the susceptibility itself, before there are voxels: what the heads differ by."""
    long = []
    for number in numbers:
        given = settings(number)
        texture, veins = given.streams[1], given.streams[0]
        classes, inside = paint(Coordinates(given.fine_shape, given.spacing, given.subject), veins)
        pattern = acquisition.texture(given.fine_shape, given.spacing, texture)
        chi = acquisition.properties(classes, pattern, given)["chi"]
        labels, reference = nuclei(classes, given.spacing, given.subject), float(chi[inside].mean(dtype=np.float64))
        head = {"participant_id": f"sub-{number:02d}", "group": "changed" if is_changed(number) else "as it was"}
        for region in REGIONS:
            mean = float(chi[labels == region.index].mean(dtype=np.float64)) - reference
            long.append({**head, "map": "chi", "index": region.index, "region": region.name, "mean": mean})
    return tables.effect_rows(long, ["group"], "mean")


def template_rows(numbers: Sequence[int] = range(1, COUNT + 1), nprocs: int = 1, **options: Any) -> list[list[str]]:
    """Everything that is asked of a template."""
    built = build(numbers, nprocs, **options)
    overlaps = agreement([on_template(built, number, "seg-nuclei_dseg") for number in built.numbers])
    coarse = agreement(labels_of_scans(built))
    points, heads, true = places(built)
    spread = np.sqrt(((heads - heads.mean(axis=0)) ** 2).sum(axis=-1).mean())
    offset = np.linalg.norm((true - points).mean(axis=0))
    rows = [
        ["overlap of the nuclei of two heads", f"{np.mean(list(overlaps.values())):.3f}"],
        *([f"overlap of {name}", f"{value:.2f}"] for name, value in overlaps.items()),
        ["overlap of the nuclei, labels of 2 mm", f"{np.mean(list(coarse.values())):.3f}"],
        ["distance of the same point in two heads from its mean, mm", f"{spread:.2f}"],
        ["mean displacement of the template, mm", f"{offset:.2f}"],
        ["its displacement, root mean square, mm", f"{np.sqrt(((true - points) ** 2).sum(axis=1).mean()):.2f}"],
    ]
    for suffix in ("T1w", "T2starw", "Chimap"):
        if (built.out / "tpl-heads" / "anat" / f"tpl-heads_desc-mean_{suffix}.nii.gz").exists():
            found = sharpnesses(built, suffix)
            for name, other in itertools.product(("mean", "image"), ("head there", "head")):
                text = f"gradient energy of the {name}, {suffix}, in that of one {other}"
                rows.append([text, f"{100 * found[name] / found[other]:.0f} %"])
    return [*rows, ["CPU s", f"{built.seconds:.0f}"]]


def table_rows(count: int = 200) -> list[list[str]]:
    """CPU seconds of all tables of so many subjects, with 40 regions and three maps each, and a model."""
    rng = np.random.default_rng(0)
    with scratch() as out:
        for number in range(count):
            rows = [
                {"map": quantity, "index": r, "region": f"r{r}", "mean": rng.normal(), "median": 0.1, "volume_mm3": 8.0}
                for quantity in ("chi", "r2star", "t2star") for r in range(40)
            ]  # fmt: skip
            folder = out / f"sub-{number:03d}" / "anat"
            folder.mkdir(parents=True)
            (folder / f"sub-{number:03d}_stats.tsv").write_text(table_text(rows))
        people = [f"sub-{n:03d}\t{n % 60 + 20}\t{'FM'[n % 2]}\n" for n in range(count)]
        (out / "participants.tsv").write_text("participant_id\tage\tsex\n" + "".join(people))
        wanted = config.load(flags={"group": {"template": False, "models": ("chi ~ age + sex",)}})
        start = time.process_time()
        run_group(out, settings=wanted)
        return [[str(count), f"{time.process_time() - start:.0f}"]]


def _difference_table(count: int) -> list[list[str]]:
    numbers = range(1, count + 1)
    found = [true_difference_rows(numbers), *(difference_rows(numbers, name) for name in ("mean", "mean_unmixed"))]
    every = [{row["region"]: f"{row['difference']:+.4f} ({row['q']:.2g})" for row in rows} for rows in found]
    return [[region.name, *(texts[region.name] for texts in every)] for region in REGIONS]


def _change_table() -> list[list[str]]:
    found = [
        {row["region"]: row for row in change_rows(range(1, COUNT + 1), name)} for name in ("mean", "mean_unmixed")
    ]
    return [
        [region.name, *(f"{rows[region.name]['estimate']:+.4f} ({rows[region.name]['q']:.2g})" for rows in found)]
        for region in REGIONS
    ]


_NUCLEI = list(dict.fromkeys(region.abbreviation[:-2] for region in REGIONS))

#: Title, header and maker of every table.
TABLES: tuple[tuple[str, list[str], Any], ...] = (
    *(
        (
            f"segmentation: Dice of the nuclei at {voxel:g} mm",
            ["guided by", "mean", *_NUCLEI, "smallest", "T1w to GRE, mm", "CPU s"],
            functools.partial(dice_rows, heads, voxel),
        )
        for voxel, heads in ((VOXEL, range(1, 5)), (1.0, range(1, 3)))
    ),
    ("means of the reconstruction in true regions, error in ppm", ["region", "mean", "largest"], roi_rows_of_all),
    *(
        (
            f"difference of 0.02 ppm in the substantia nigra, {count} heads: ppm (q)",
            ["region", "truth", "mean", "freed from partial volume"],
            functools.partial(_difference_table, count),
        )
        for count in (COUNT, MANY)
    ),
    (
        "change of 0.02 ppm in the substantia nigra, eight heads before and after: ppm (q)",
        ["region", "mean", "freed from partial volume"],
        _change_table,
    ),
    ("template of eight heads", ["", ""], template_rows),
    ("tables", ["subjects", "CPU s"], table_rows),
)
