"""Files made to do harm: they cost their own unit and nothing else, and nothing is written outside OUT and work."""

from __future__ import annotations

import gzip
import json
import os
import resource
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.images import MOST_COMPRESSION, read_header
from qsmxt.bids.outputs import Derivatives
from qsmxt.bids.queries import find_units
from qsmxt.bids.units import ProcessingUnit
from qsmxt.cli.run import main
from qsmxt.errors import InputError, MissingInputError
from tests.bids.datasets import Dataset
from tests.heads import contents, head, write_description, write_subject

MASK = ["--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain", "--preset", "fast", "--inversion", "tkd"]
SCRIPT = "<script>document.title='run'</script><img src=x onerror=alert(1)>"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A sound subject ``good``; tests add others."""
    made = Dataset(tmp_path / "raw")
    made.gradient_echo("sub-good")
    return made


def rejected(dataset: Dataset) -> str:
    """Why the one other unit was refused; the sound one must be there."""
    selection = find_units(dataset.root)
    assert [unit.name for unit in selection.units] == ["sub-good_MEGRE"]
    (other,) = selection.rejected
    return other.error


def header_of(shape: tuple[int, ...], bits: int = 16) -> bytes:
    """A NIfTI-1 header that announces ``shape``, whatever follows it."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    content = bytearray(image.to_bytes()[:352])
    content[40:56] = struct.pack("<8h", len(shape), *shape, *(1,) * (7 - len(shape)))
    return bytes(content)


def spoil(dataset: Dataset, content: bytes) -> Path:
    """A subject whose first phase image is ``content``."""
    path = dataset.gradient_echo("sub-bad")[1]
    path.write_bytes(content)
    return path


def test_a_header_that_announces_more_than_its_file_can_hold_is_not_believed(dataset: Dataset) -> None:
    path = spoil(dataset, gzip.compress(header_of((32767, 32767, 32767)) + bytes(2000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "truncated" in rejected(dataset)
    with pytest.raises(InputError, match="truncated"):
        read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


@pytest.mark.parametrize("shape", [(0, 4, 4), (-3, 4, 4), (4, 4, 4, 5), (4, 4, 4, 1, 3)])
def test_absurd_dimensions_are_refused(dataset: Dataset, shape: tuple[int, ...]) -> None:
    spoil(dataset, gzip.compress(header_of(shape) + bytes(4096)))
    assert "sub-bad" in rejected(dataset)


def test_a_bomb_is_not_unpacked_further_than_its_header_says(dataset: Dataset) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(1 << 20)
    parts = [packer.compress(header_of((64, 64, 64)))] + [packer.compress(block) for _ in range(300)]
    path = spoil(dataset, b"".join([*parts, packer.flush()]))
    assert path.stat().st_size < 310_000 <= path.stat().st_size * MOST_COMPRESSION / 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_header(path).shape == (64, 64, 64)
    assert "shape" in rejected(dataset)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


def test_images_larger_than_the_machine_are_refused_before_they_are_read(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qsmxt import config
    from qsmxt.workflows import participants

    monkeypatch.setattr(participants, "memory_limit", lambda: 1e6)
    prepared, skipped = participants.prepare(find_units(dataset.root).units, config.load())
    assert not prepared and "use a larger machine" in skipped[0].reason and skipped[0].exit_code == 65


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"EchoTime": ' + "9" * 5000 + "}", '{"EchoTime": 1e999}', '{"EchoTime": "0.004"}', "{", "", "[]",
     '{"EchoTime": ' + "1" + "0" * 400 + "}", '{"EchoTime": {"a": []}}', "\x00\x01", '{"EchoTime": NaN}'],
)  # fmt: skip
def test_sidecars_that_break_parsers(dataset: Dataset, text: str) -> None:
    path = dataset.gradient_echo("sub-bad")[1]
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(text)
    assert "sub-bad" in rejected(dataset)


def test_a_sidecar_that_never_ends_is_not_read(dataset: Dataset) -> None:
    path = dataset.gradient_echo("sub-bad")[1]
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    sidecar.unlink()
    os.mkfifo(sidecar)
    assert "no regular file" in rejected(dataset)
    sidecar.unlink()
    sidecar.symlink_to("/dev/zero")
    assert "no regular file" in rejected(dataset)


def test_links_that_lead_back_are_not_followed_for_ever(dataset: Dataset) -> None:
    anat = dataset.root / "sub-good" / "anat"
    for name in ("a", "b"):
        (anat / name).symlink_to(dataset.root)
        (dataset.root / "sub-good" / name).symlink_to(dataset.root / "sub-good")
        (dataset.root / name).symlink_to(dataset.root)
        (dataset.root / "sub-good" / f"ses-{name}").symlink_to(dataset.root / "sub-good")
    (anat / "self").symlink_to("self")
    (dataset.root / "sub-good2").symlink_to(dataset.root)
    selection = find_units(dataset.root)
    assert [unit.name for unit in selection.units] == ["sub-good_MEGRE"] and not selection.rejected


@pytest.mark.parametrize("label", ["../../escape", "..", "a/b", "a\nb", "a;rm", "$(id)", "\u202e"])
def test_labels_never_become_paths(dataset: Dataset, tmp_path: Path, label: str) -> None:
    arguments = [str(dataset.root), str(tmp_path / "out"), "participant", "--skip-bids-validation"]
    assert main([*arguments, "-w", str(tmp_path / "work"), "--participant-label", label]) == 18
    for entities in ({"subject": label}, {"subject": "1", "session": label}, {"subject": "1", "acquisition": label}):
        with pytest.raises(InputError):
            Derivatives(tmp_path / "out").path(ProcessingUnit(entities), "Chimap")
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_output_is_replaced_not_written_through(tmp_path: Path) -> None:
    from qsmxt.bids.atomic import write_text

    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "references.txt").symlink_to(victim)
    write_text(tmp_path / "out" / "references.txt", "new")
    assert victim.read_text() == "untouched" and (tmp_path / "out" / "references.txt").read_text() == "new"


def test_an_unreadable_database_or_filter_is_named(dataset: Dataset, tmp_path: Path) -> None:
    from qsmxt.bids.filters import load_filter_file

    for text in ("{" * 5000, '{"qsm": 3}', '{"qsm": {"subject": "(", "regex_search": true}}', "\xff"):
        (tmp_path / "filter.json").write_bytes(text.encode("latin-1"))
        with pytest.raises((InputError, MissingInputError), match=r"filter\.json"):
            load_filter_file(tmp_path / "filter.json")
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "layout_index.sqlite").write_bytes(b"not a database")
    with pytest.raises(InputError, match="delete it if it is damaged"):
        find_units(dataset.root, database_dir=tmp_path / "database")


def test_a_run_over_hostile_metadata_harms_nobody(tmp_path: Path) -> None:
    root = tmp_path / "home" / "bids"
    write_description(root)
    description = json.loads((root / "dataset_description.json").read_text())
    (root / "dataset_description.json").write_text(json.dumps({**description, "Name": SCRIPT, "Authors": [SCRIPT]}))
    images = write_subject(root, "1", head())
    for path in images:
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        facts = {"Manufacturer": SCRIPT, "ManufacturersModelName": "../../../etc/passwd", "Units": "rad"}
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **facts}))
    broken = write_subject(root, "2", head())
    broken[1].write_bytes(gzip.compress(header_of((32767, 32767, 32767))))
    before = contents(tmp_path)
    out, work = tmp_path / "home" / "out", tmp_path / "home" / "work"
    arguments = [str(root), str(out), "participant", "-w", str(work), "--nprocs", "1", "--skip-bids-validation"]
    assert main([*arguments, *MASK]) == 65
    page = (out / "sub-1.html").read_text()
    assert "<script>document.title" not in page and "<img src=x" not in page
    after = {
        name: content
        for name, content in contents(tmp_path).items()
        if not name.startswith(("home/out/", "home/work/"))
    }
    assert after == before
    sidecar = json.loads((out / "sub-1/anat/sub-1_Chimap.json").read_text())
    assert sidecar["Manufacturer"] == SCRIPT, "JSON keeps what was there"
