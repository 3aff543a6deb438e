"""Digital heads as a BIDS dataset with its truth, and the comparison of a result with that truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt import __version__
from qsmxt.bids.atomic import write_bytes, write_json, write_text
from qsmxt.bids.compression import compress
from qsmxt.bids.entities import stem
from qsmxt.bids.images import file_content
from qsmxt.bids.outputs import RAW, save_volume
from qsmxt.errors import InputError, ParameterError
from qsmxt.phantom.anatomical import AnatomicalScan, motion, simulate_anatomical
from qsmxt.phantom.anatomy import INDEX, TISSUES
from qsmxt.phantom.atlas import nuclei, regions_table
from qsmxt.phantom.deformation import AMPLITUDE
from qsmxt.phantom.head import Head, HeadSettings, simulate

#: Folder of the truth inside the dataset.
TRUTH = Path("derivatives") / "truth"
#: Change of susceptibility with age, ppm per year from the age of 50.
AGE_SLOPES = (("putamen", 0.0006), ("caudate", 0.0003))
#: Nucleus in which patients differ from controls.
PATIENT_NUCLEUS = "substantia-nigra"
#: Tilt of an oblique gradient echo, degrees.
OBLIQUE_TILT = 20.0

README = """# A digital head

Simulated brains of known susceptibility: multi-echo gradient echo (magnitude and phase) and T1-weighted volume.
Everything is computed from closed forms; nobody was scanned. Subjects are smooth deformations of one head, which lies
differently in the scanner for each scan. The phase of every second subject is stored in radians, that of the others as
integers with a slope, as scanners do.

Susceptibility of the putamen rises by 0.0006 ppm and that of the caudate by 0.0003 ppm a year from the age of 50.

The truth is in `derivatives/truth`: susceptibility, fields, relaxation rate, brain mask and labels.
"""


@dataclass(frozen=True)
class Participant:
    """One digital subject: label, age in years, sex, group, and what that does to the susceptibility of its nuclei."""

    label: str
    number: int
    age: int
    sex: str
    group: str
    chi_change: tuple[tuple[str, float], ...]


def write_bids(
    folder: str | Path,
    subjects: int = 2,
    *,
    voxel_size: tuple[float, float, float] = (2.0, 2.0, 2.0),
    t1w_voxel_size: tuple[float, float, float] | None = None,
    echo_times: tuple[float, ...] = (0.005, 0.011, 0.017, 0.023),
    field_strength: float = 3.0,
    snr: float = 60.0,
    oblique: bool = False,
    sessions: int = 1,
    seed: int = 0,
    deformation_amplitude: float = AMPLITUDE,
    group_difference: float = 0.0,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Write a BIDS dataset of digital heads and return its folder.

    Parameters
    ----------
    folder
        Made if it does not exist; files of the same names are replaced.
    subjects, sessions
        How many; ``ses-`` appears only if there are several, which differ in noise and position of the head.
    voxel_size, t1w_voxel_size
        mm; the T1-weighted volume has isotropic voxels of the shortest side unless told otherwise.
    echo_times, field_strength, snr
        See :class:`~qsmxt.phantom.head.HeadSettings`. A single echo is named ``T2starw``, several ``MEGRE``.
    oblique
        Tilt the gradient echo by 20 degrees.
    seed
        Of everything random. The same arguments give the same bytes.
    deformation_amplitude
        How much the subjects differ, mm.
    group_difference
        What every second subject, then a patient, has more in the substantia nigra, ppm.
    report
        Called with a sentence before each scan.
    """
    if subjects < 1 or sessions < 1:
        raise ParameterError(f"subjects, sessions: expected at least 1, found {subjects}, {sessions}")
    root = Path(folder)
    people = participants(subjects, seed, group_difference)
    _write_descriptions(root, people)
    for person in people:
        for session in range(1, sessions + 1):
            entities = {"subject": person.label} | ({"session": str(session)} if sessions > 1 else {})
            if report:
                report(f"Simulating {stem(entities, 'x')[:-2].replace('_', ' ')}")
            settings = HeadSettings(
                voxel_size=voxel_size,
                echo_times=echo_times,
                field_strength=field_strength,
                snr=snr,
                tilt=np.deg2rad(OBLIQUE_TILT) if oblique else 0.0,
                seed=1000 * seed + person.number,
                deformation=1000 * seed + person.number,
                deformation_amplitude=deformation_amplitude,
                chi_change=person.chi_change,
                repetition=session,
            )
            _write_gradient_echo(root, entities, simulate(settings), settings, radians=person.number % 2 == 0)
            side = min(voxel_size)
            _write_anatomical(root, entities, _anatomical(settings, t1w_voxel_size or (side, side, side)))
    return root


def participants(subjects: int, seed: int = 0, group_difference: float = 0.0) -> list[Participant]:
    """The people of a dataset, ages 25 to 75; the first ones do not depend on how many follow."""
    width = max(2, len(str(subjects)))
    people = []
    for number in range(1, subjects + 1):
        rng = np.random.default_rng([104729, seed, number])
        age, patient = int(rng.integers(25, 76)), bool(group_difference) and number % 2 == 0
        change = tuple((name, slope * (age - 50)) for name, slope in AGE_SLOPES)
        change += ((PATIENT_NUCLEUS, group_difference),) if patient else ()
        group = "patient" if patient else "control"
        people.append(Participant(f"{number:0{width}d}", number, age, "FM"[int(rng.integers(2))], group, change))
    return people


def _anatomical(settings: HeadSettings, voxel_size: tuple[float, float, float]) -> AnatomicalScan:
    """The T1-weighted scan, the head turned by up to 4 degrees about each axis and moved by up to 5 mm."""
    rng = np.random.default_rng([15485863, settings.seed, settings.repetition])
    return simulate_anatomical(
        settings, voxel_size, motion(rng.uniform(-4, 4, 3).tolist(), rng.uniform(-5, 5, 3).tolist())
    )


def _write_descriptions(root: Path, people: list[Participant]) -> None:
    write_text(root / "README", README)
    common: dict[str, Any] = {"BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["QSMxT developers"]}
    generated = [{"Name": "QSMxT digital head", "Version": __version__}]
    write_json(
        root / "dataset_description.json",
        {**common, "Name": "QSMxT digital head", "DatasetType": "raw", "GeneratedBy": generated},
    )
    groups = any(person.group == "patient" for person in people)
    rows = ["participant_id\tage\tsex" + ("\tgroup" if groups else "")]
    rows += [f"sub-{p.label}\t{p.age}\t{p.sex}" + (f"\t{p.group}" if groups else "") for p in people]
    write_text(root / "participants.tsv", "\n".join(rows) + "\n")
    columns: dict[str, Any] = {
        "age": {"Description": "Age of the digital participant", "Units": "year"},
        "sex": {"Description": "Sex of the digital participant", "Levels": {"F": "female", "M": "male"}},
    }
    if groups:
        levels = {"control": "as described", "patient": f"more susceptibility in the {PATIENT_NUCLEUS}"}
        columns["group"] = {"Description": "Group", "Levels": levels}
    write_json(root / "participants.json", columns)
    truth = root / TRUTH
    write_json(
        truth / "dataset_description.json",
        {
            **common,
            "Name": "Truth of the QSMxT digital head",
            "DatasetType": "derivative",
            "GeneratedBy": generated,
            "SourceDatasets": [{"URL": "../.."}],
            "DatasetLinks": {RAW: "../.."},
        },
    )
    write_text(truth / "README", "What the simulated signal was made of. Volumes are means over each voxel.\n")
    tissues = [f"{t.index}\t{t.name}" for t in TISSUES if t.index]
    write_text(truth / "seg-tissue_dseg.tsv", "\n".join(["index\tname", *tissues]) + "\n")
    write_text(truth / "seg-nuclei_dseg.tsv", regions_table())


def _folder(root: Path, entities: dict[str, str]) -> Path:
    root = root / f"sub-{entities['subject']}"
    return (root / f"ses-{entities['session']}" if "session" in entities else root) / "anat"


def _write_gradient_echo(
    root: Path, entities: dict[str, str], head: Head, settings: HeadSettings, *, radians: bool
) -> None:
    """Magnitude and phase of all echoes, and their truth."""
    white = head.brain & (head.labels == INDEX["white-matter"])
    scale = 1000 / float(head.magnitude[0][white].mean())
    several = len(head.echo_times) > 1
    for echo, time in enumerate(head.echo_times):
        sidecar: dict[str, Any] = {
            "EchoTime": time,
            "MagneticFieldStrength": head.field_strength,
            "RepetitionTime": round(max(head.echo_times) + 0.012, 6),
            "FlipAngle": 15,
            "MRAcquisitionType": "3D",
            "Manufacturer": "QSMxT",
            "ManufacturersModelName": "digital head",
        }
        number = {"echo": str(echo + 1)} if several else {}
        for part in ("mag", "phase"):
            name = stem({**entities, **number, "part": part}, "MEGRE" if several else "T2starw")
            path = _folder(root, entities) / f"{name}.nii.gz"
            if part == "mag":
                stored = np.clip(np.rint(head.magnitude[echo] * scale), 0, 32767).astype(np.int16)
                _write_nifti(path, stored, head.affine)
                write_json(path.with_name(f"{name}.json"), sidecar)
            else:
                _write_phase(path, head.wrapped_phase[echo], head.affine, radians=radians)
                units = "rad" if radians else "arbitrary"
                write_json(path.with_name(f"{name}.json"), {**sidecar, "Units": units})
    _write_truth(root, entities, head, settings)


def _write_phase(path: Path, phase: np.ndarray, affine: np.ndarray, *, radians: bool) -> None:
    """Radians as they are, or 0 to 4095 with the slope 2 and the intercept -4096."""
    if radians:
        _write_nifti(path, phase, affine)
    else:
        stored = np.rint((phase + np.pi) * (4096 / (2 * np.pi))).astype(np.int16) % 4096
        _write_nifti(path, stored, affine, slope=2.0, intercept=-4096.0)


def _write_truth(root: Path, entities: dict[str, str], head: Head, settings: HeadSettings) -> None:
    folder = _folder(root / TRUTH, entities)
    brain = {"SkullStripped": True}
    volumes: tuple[tuple[dict[str, str], str, np.ndarray, str, dict[str, Any]], ...] = (
        ({}, "Chimap", np.where(head.brain, head.chi, 0), "ppm", brain),
        ({"desc": "totalfield"}, "T2starw", head.total_field, "ppm", {"SkullStripped": False}),
        ({"desc": "localfield"}, "T2starw", np.where(head.brain, head.local_field, 0), "ppm", brain),
        ({}, "R2starmap", np.where(head.brain, head.r2star, 0), "1/s", brain),
        ({"desc": "brain"}, "mask", head.brain, "", {"Type": "Brain"}),
        ({"seg": "tissue"}, "dseg", head.labels, "", {}),
        ({"seg": "nuclei"}, "dseg", nuclei(head.labels, settings.voxel_size, settings.subject), "", {}),
    )
    for more, suffix, volume, unit, sidecar in volumes:
        named = stem({**entities, **{_LONG[key]: label for key, label in more.items()}}, suffix)
        save_volume(folder / f"{named}.nii.gz", volume, head.affine, unit_label=unit, sidecar=sidecar)


_LONG = {"desc": "description", "seg": "segmentation"}


def _write_anatomical(root: Path, entities: dict[str, str], scan: AnatomicalScan) -> None:
    """The T1-weighted volume, and its truth with the motion between the scans."""
    name = stem(entities, "T1w")
    path = _folder(root, entities) / f"{name}.nii.gz"
    _write_nifti(path, np.clip(np.rint(scan.volume), 0, 32767).astype(np.int16), scan.affine)
    write_json(
        path.with_name(f"{name}.json"),
        {"RepetitionTime": 2.0, "EchoTime": 0.003, "InversionTime": 0.9, "FlipAngle": 9, "Manufacturer": "QSMxT"},
    )
    reference = f"bids:{RAW}:{path.relative_to(root).as_posix()}"
    sidecar = {"SpatialReference": reference, "MotionToGradientEcho": scan.to_gre.tolist()}
    volumes: tuple[tuple[dict[str, str], str, np.ndarray], ...] = (
        ({"segmentation": "tissue"}, "dseg", scan.labels),
        ({"segmentation": "nuclei"}, "dseg", scan.nuclei),
        ({"description": "brain"}, "mask", scan.brain),
    )
    for more, suffix, volume in volumes:
        named = stem({**entities, "space": "T1w", **more}, suffix)
        extra = {"Type": "Brain"} if suffix == "mask" else {}
        target = _folder(root / TRUTH, entities) / f"{named}.nii.gz"
        save_volume(target, volume, scan.affine, unit_label="", sidecar={**sidecar, **extra})


def _write_nifti(
    path: Path, stored: np.ndarray, affine: np.ndarray, *, slope: float | None = None, intercept: float | None = None
) -> None:
    """The numbers as they are stored, with the slope and intercept of the header; the same bytes every time."""
    import nibabel

    image = nibabel.Nifti1Image(stored, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    write_bytes(path, compress(file_content(image)))


def truth_folder(bids: str | Path) -> Path:
    """Folder of the truth of the dataset, or :class:`InputError` if it has none."""
    folder = Path(bids) / TRUTH
    if not folder.is_dir():
        raise InputError(f"{bids}: expected a dataset of digital heads with {TRUTH.as_posix()}, found none")
    return folder
