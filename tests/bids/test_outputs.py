"""Derivatives: names, bytes, sidecars; the official validator has the last word."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.description import write_bidsignore, write_dataset_description, write_descriptions
from qsmxt.bids.outputs import Derivatives, bids_uri, save_volume, sidecar, sidecar_path
from qsmxt.bids.queries import find_units
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.bids.validation import find_validator, validate
from qsmxt.errors import InputError, OutputError
from qsmxt.registry.artifacts import ARTIFACTS
from tests.bids.datasets import AFFINE, SHAPE, Dataset


def unit_of(entities: dict[str, str], suffix: str = "MEGRE", *, distinct: bool = True) -> ProcessingUnit:
    echo = EchoFiles(0.01, Path("/raw/phase.nii.gz"))
    return ProcessingUnit(entities, suffix, "anat", (echo,), 3.0, distinct=distinct)


# names


def test_name_carries_the_entities_of_the_source_in_bids_order(tmp_path: Path) -> None:
    unit = unit_of(
        {"run": "1", "subject": "a", "reconstruction": "r", "acquisition": "x", "session": "b", "ceagent": "g"}
    )
    out = Derivatives(tmp_path)
    folder = tmp_path / "sub-a" / "ses-b" / "anat"
    stem = "sub-a_ses-b_acq-x_ce-g_rec-r_run-1"
    assert out.path(unit, "Chimap") == folder / f"{stem}_Chimap.nii.gz"
    assert out.path(unit, "mask", desc="brain") == folder / f"{stem}_desc-brain_mask.nii.gz"
    named = out.path(unit, "dseg", desc="d", extension=".tsv", space="T1w", res="1", atlas="x", label="l")
    assert named.name == f"{stem}_space-T1w_atlas-x_res-1_label-l_desc-d_dseg.tsv"
    assert (
        out.figure(unit, "Chimap", desc="mosaic") == tmp_path / "sub-a" / "figures" / f"{stem}_desc-mosaic_Chimap.png"
    )
    assert out.artifact(unit, "mask") == folder / f"{stem}_desc-brain_mask.nii.gz"
    assert out.report("a") == tmp_path / "sub-a.html"
    assert out.logs("a") == tmp_path / "logs" / "sub-a"


def test_entities_that_maps_may_not_carry_move_into_acq(tmp_path: Path) -> None:
    unit = unit_of({"subject": "1", "acquisition": "x", "run": "2", "flip": "2", "mtransfer": "off"}, "MPM")
    assert Derivatives(tmp_path).path(unit, "Chimap").name == "sub-1_acq-xFlip2Mtoff_run-2_Chimap.nii.gz"
    assert Derivatives(tmp_path).path(unit_of({"subject": "1", "direction": "AP"}), "Chimap").name == (
        "sub-1_acq-DirAP_Chimap.nii.gz"
    )


def test_two_suffixes_do_not_collide(tmp_path: Path) -> None:
    out = Derivatives(tmp_path)
    first = out.path(unit_of({"subject": "1"}, "MEGRE", distinct=False), "Chimap")
    second = out.path(unit_of({"subject": "1"}, "T2starw", distinct=False), "Chimap")
    assert first.name == "sub-1_acq-MEGRE_Chimap.nii.gz" and second.name == "sub-1_acq-T2starw_Chimap.nii.gz"


@pytest.mark.parametrize("label", ["../x", "a/b", "", ".", "a_b", "a-b", "a b"])
def test_nothing_is_written_outside(tmp_path: Path, label: str) -> None:
    out = Derivatives(tmp_path / "out")
    good = unit_of({"subject": "1"})
    with pytest.raises(InputError):
        out.path(unit_of({"subject": label}), "Chimap")
    with pytest.raises(InputError):
        out.path(unit_of({"subject": "1", "session": label}), "Chimap")
    with pytest.raises(InputError):
        out.path(good, label)
    with pytest.raises(InputError):
        out.path(good, "Chimap", desc=label)
    with pytest.raises(InputError):
        out.path(good, "Chimap", space=label)
    with pytest.raises(InputError):
        out.path(good, "Chimap", datatype=label)
    with pytest.raises(InputError):
        out.report(label)
    with pytest.raises(InputError):
        out.path(good, "Chimap", extension="/../../x")


def test_artifact_without_suffix_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phase_offset"):
        Derivatives(tmp_path).artifact(unit_of({"subject": "1"}), "phase_offset")


# images


def test_volume_comes_back_as_it_was(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(SHAPE)
    affine = np.array([[0, 0, 3, 4], [0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 6], [0, 0, 0, 1.0]])
    path = save_volume(tmp_path / "a" / "x_Chimap.nii.gz", values, affine, unit_label="ppm", sidecar={"A": 1})
    image = nib.load(path)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.get_fdata(), values.astype(np.float32))
    assert np.allclose(image.affine, affine) and np.allclose(image.get_qform(), affine, atol=1e-5)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(sidecar_path(path).read_text()) == {"A": 1, "Units": "ppm", "Digest": {"sha256": digest}}


def test_masks_and_labels_are_integers_without_units(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1] = True
    path = save_volume(tmp_path / "x_mask.nii.gz", mask, AFFINE, unit_label="1", sidecar={"Units": "1"})
    assert nib.load(path).get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(nib.load(path).dataobj), mask)
    assert "Units" not in json.loads(sidecar_path(path).read_text())
    labels = np.arange(mask.size).reshape(SHAPE)
    path = save_volume(tmp_path / "x_dseg.nii.gz", labels, AFFINE, unit_label="1", sidecar={})
    assert np.array_equal(np.asarray(nib.load(path).dataobj), labels)


def test_same_array_same_bytes_wherever_and_whenever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    first = save_volume(tmp_path / "a.nii.gz", values, AFFINE, unit_label="ppm", sidecar={"b": 1, "a": 2})
    monkeypatch.setattr("time.time", lambda: 5e8)
    second = save_volume(
        tmp_path / "b" / "c.nii.gz", np.asfortranarray(values), AFFINE, unit_label="ppm", sidecar={"a": 2, "b": 1}
    )
    for one, other in ((first, second), (sidecar_path(first), sidecar_path(second))):
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def test_echoes_in_one_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="volume"):
        save_volume(tmp_path / "x.nii.gz", np.zeros((2, *SHAPE)), AFFINE, unit_label="rad", sidecar={})


@pytest.mark.parametrize(
    ("name", "metadata", "word"),
    [
        ("sub-1_space-T1w_Chimap", {}, "SpatialReference"),
        ("sub-1_space-MNI152NLin6Asym_res-2_Chimap", {}, "Resolution"),
    ],
)
def test_space_and_resolution_must_be_explained(tmp_path: Path, name: str, metadata: dict[str, str], word: str) -> None:
    path = tmp_path / f"{name}.nii.gz"
    with pytest.raises(InputError, match=word):
        save_volume(path, np.ones(SHAPE), AFFINE, unit_label="ppm", sidecar=metadata)
    assert not path.exists()


def test_a_crash_leaves_the_old_file_and_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x_Chimap.nii.gz"
    save_volume(path, np.ones(SHAPE), AFFINE, unit_label="ppm", sidecar={})
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_volume(path, np.zeros(SHAPE), AFFINE, unit_label="ppm", sidecar={})
    assert path.read_bytes() == before
    # what a kill -9 leaves behind is hidden, and gone after the next run
    (tmp_path / f".{path.name}.abc.tmp").write_bytes(b"half")
    save_volume(path, np.zeros(SHAPE), AFFINE, unit_label="ppm", sidecar={})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x_Chimap.json", "x_Chimap.nii.gz"]


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        save_volume(tmp_path / "file" / "x.nii.gz", np.ones(SHAPE), AFFINE, unit_label="ppm", sidecar={})


def test_files_are_readable_by_the_group(tmp_path: Path) -> None:
    path = save_volume(tmp_path / "x.nii.gz", np.ones(SHAPE), AFFINE, unit_label="ppm", sidecar={})
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


# sidecars


@dataclass(frozen=True)
class Record:
    title: str
    references: tuple[str, ...]


def test_sidecar_tells_where_a_map_comes_from(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "raw")
    dataset.gradient_echo("sub-1_ses-a", metadata={"FlipAngle": 15, "Manufacturer": "Siemens"})
    (unit,) = find_units(dataset.root).units
    records = [Record("Phase unwrapping", ("b",)), Record("Dipole inversion", ("a", "b"))]
    values = sidecar(
        unit, dataset.root, "chi", method_records=records, parameters={"inversion.x": {"delta": np.float32(0.25)}},
        version="1.2", extra={"Remarks": ["r"]},
    )  # fmt: skip
    assert values["Units"] == "ppm" and values["SkullStripped"] is True
    assert values["Sources"][0] == "bids:raw:sub-1/ses-a/anat/sub-1_ses-a_echo-1_part-phase_MEGRE.nii.gz"
    assert len(values["Sources"]) == 6
    assert values["EchoTime"] == [0.004, 0.008, 0.012]
    assert values["MagneticFieldStrength"] == 3.0
    assert values["FlipAngle"] == 15 and values["Manufacturer"] == "Siemens"
    assert values["EstimationAlgorithm"] == "Phase unwrapping; Dipole inversion"
    assert values["EstimationReference"] == ["a", "b"]
    assert values["EstimationParameters"] == {"inversion.x": {"delta": 0.25}}
    assert values["QSMxTVersion"] == "1.2" and values["Remarks"] == ["r"]
    json.dumps(values, allow_nan=False)


def test_parameters_that_vary_over_echoes_are_not_claimed(tmp_path: Path) -> None:
    echoes = tuple(
        EchoFiles(time, tmp_path / "p.nii", metadata={"FlipAngle": angle}) for time, angle in ((0.01, 10), (0.02, 20))
    )
    unit = ProcessingUnit({"subject": "1"}, "MEGRE", "anat", echoes, 3.0)
    values = sidecar(unit, tmp_path, "combined_magnitude", method_records=(), parameters={}, version="1")
    assert "FlipAngle" not in values
    assert values["SkullStripped"] is False
    assert "EstimationAlgorithm" not in values


# the whole dataset


def write_derivatives(raw: Path, out_dir: Path) -> None:
    """Every artifact that has a suffix, of every unit, with the files of the dataset."""
    out = Derivatives(out_dir)
    write_dataset_description(out_dir, raw, "1.2", {"Type": "docker", "Tag": "qsmxt:1.2"})
    write_bidsignore(out_dir)
    write_descriptions(out_dir)
    for unit in find_units(raw).units:
        for record in ARTIFACTS.values():
            if record.suffix is None:
                continue
            kinds = {"mask": bool, "labels": np.int16}
            values = np.ones(SHAPE, kinds.get(record.kind, np.float32))
            information = sidecar(
                unit, raw, record.name, method_records=[Record("t", ("k",))], parameters={"a": {"b": 1}}, version="1.2"
            )
            save_volume(out.artifact(unit, record.name), values, AFFINE, unit_label=record.unit, sidecar=information)
        named = {
            "T1w": {"SpatialReference": bids_uri(raw / "sub-1" / "T1w.nii.gz", raw)},
            "study": {"SpatialReference": bids_uri(out_dir / "x.nii.gz", out_dir, "")},
            "MNI152NLin2009cAsym": {},
        }
        for space, meaning in named.items():
            path = out.path(unit, "Chimap", space=space, res="1mm")
            metadata = {"SkullStripped": True, "Resolution": "1 mm", **meaning}
            save_volume(path, np.ones(SHAPE), AFFINE, unit_label="ppm", sidecar=metadata)
        figure = out.figure(unit, "Chimap", desc="mosaic")
        figure.parent.mkdir(exist_ok=True)
        figure.write_bytes(b"png")
        out.report(unit.subject).write_text("<html></html>")
        out.logs(unit.subject).mkdir(parents=True, exist_ok=True)
        (out.logs(unit.subject) / "references.txt").write_text("r\n")
    (out_dir / "references.txt").write_text("r\n")


def rich_dataset(root: Path) -> Dataset:
    dataset = Dataset(root)
    dataset.gradient_echo("sub-1")
    dataset.gradient_echo("sub-1", "T2starw", (0.02,), labels=("",))
    dataset.gradient_echo("sub-2_ses-a_acq-x_ce-g_rec-r_run-01", parts=["", "phase"], labels=["01", "02", "03"])
    dataset.gradient_echo("sub-2_ses-a_acq-x_ce-g_rec-r_run-02", parts=["real", "imag"])
    dataset.gradient_echo("sub-2_ses-b", "T1w", (0.003,), labels=("",))
    for flip, transfer in (("1", "on"), ("2", "off")):
        dataset.gradient_echo(f"sub-3_acq-w_flip-{flip}_mt-{transfer}", "MPM", (0.004,), labels=("",), parts=["phase"])
    return dataset


def test_the_validator_finds_no_error(tmp_path: Path) -> None:
    if find_validator() is None:
        pytest.skip("bids-validator-deno is not installed")
    dataset = rich_dataset(tmp_path / "raw")
    out = dataset.root / "derivatives" / "qsmxt"
    write_derivatives(dataset.root, out)
    assert len(list(out.rglob("*Chimap.nii.gz"))) == 11 * 7
    assert validate(out) == []
