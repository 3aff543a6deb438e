"""Files of a dataset: all at once or not at all, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from qsmxt.convert.dataset import add_participants, add_scans, check_inside, describe, install, read_tsv, save_image
from qsmxt.convert.vendor import Image
from qsmxt.errors import InputError, OutputError


def pairs(folder: Path, names: str) -> list[tuple[Path, Path]]:
    (folder / "ready").mkdir(exist_ok=True)
    made = []
    for name in names:
        (folder / "ready" / name).write_text(f"new {name}")
        made.append((folder / "ready" / name, folder / "data" / name))
    return made


def test_install_moves_all(tmp_path: Path) -> None:
    install(pairs(tmp_path, "ab"))
    assert (tmp_path / "data" / "b").read_text() == "new b"


def test_install_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("old a")
    broken = [*pairs(tmp_path, "ab"), (tmp_path / "ready" / "absent", tmp_path / "data" / "c")]
    with pytest.raises(OutputError):
        install(broken, overwrite=True)
    assert {p.name: p.read_text() for p in (tmp_path / "data").iterdir()} == {"a": "old a"}


def test_install_does_not_replace_unless_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b").write_text("old b")
    with pytest.raises(OutputError, match="overwrite"):
        install(pairs(tmp_path, "ab"))
    assert {p.name: p.read_text() for p in (tmp_path / "data").iterdir()} == {"b": "old b"}
    install(pairs(tmp_path, "ab"), overwrite=True)
    assert (tmp_path / "data" / "b").read_text() == "new b"


def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "sub-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="outside"):
        check_inside(tmp_path / "data", "sub-1/x.nii.gz")
    assert check_inside(tmp_path / "data", "sub-2/anat/x.nii.gz").name == "x.nii.gz"


def test_image_keeps_its_numbers_and_says_nothing_else(tmp_path: Path) -> None:
    header = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2, 2, 3, 1])).header
    header["descrip"], header["db_name"] = b"TE=4;Time=161404.741", b"Bond^James"
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = Image(stored, 0.5, -3.0, header)
    one, two = (save_image(tmp_path / name, image).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert one == two
    back = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(back.dataobj.get_unscaled(), stored)
    np.testing.assert_array_equal(back.get_fdata(), stored * 0.5 - 3)
    assert bytes(back.header["descrip"]).strip(b"\0") == b"" and bytes(back.header["db_name"]).strip(b"\0") == b""
    np.testing.assert_array_equal(back.affine, np.diag([2, 2, 3, 1]))


def test_tables_grow_and_keep_what_was_written_by_hand(tmp_path: Path) -> None:
    add_participants(tmp_path, {"2": {"age": "40", "sex": "F"}})
    path = tmp_path / "participants.tsv"
    path.write_text(path.read_text().replace("F", "F").replace("40", "41"))
    add_participants(tmp_path, {"1": {"age": "", "sex": "M"}, "2": {"age": "99", "sex": "M"}})
    assert read_tsv(path)[1] == [
        {"participant_id": "sub-1", "age": "n/a", "sex": "M"}, {"participant_id": "sub-2", "age": "41", "sex": "F"},
    ]  # fmt: skip
    folder = tmp_path / "sub-1" / "anat"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).touch()
        add_scans(tmp_path, "1", "", {f"anat/{name}": ""})
    assert [row["filename"] for row in read_tsv(tmp_path / "sub-1" / "sub-1_scans.tsv")[1]] == ["anat/a", "anat/b"]


def test_description_does_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text('{"Name": "mine"}')
    (tmp_path / "README").write_text("mine")
    (tmp_path / ".bidsignore").write_text("mine/\n")
    describe(tmp_path)
    describe(tmp_path)
    assert (tmp_path / "dataset_description.json").read_text() == '{"Name": "mine"}'
    assert not (tmp_path / "README.md").exists()
    assert (tmp_path / ".bidsignore").read_text() == "mine/\n*_coil-*\n"


def test_table_with_a_short_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\n")
    with pytest.raises(InputError, match="line 2"):
        read_tsv(tmp_path / "t.tsv")
