"""Archives: unpacked if they are harmless, refused by name if they are not."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from qsmxt.convert import archives
from qsmxt.convert.archives import list_sources
from qsmxt.errors import MissingInputError


def zipped(path: Path, members: dict[str, bytes], **kinds: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kinds.get("mode", 0o100644) << 16
            archive.writestr(info, content)
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_files_of_folders_and_archives(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "b" / "1").write_bytes(b"one")
    (source / "DICOMDIR").write_bytes(b"index")
    (source / "._1").write_bytes(b"resource fork")
    zipped(source / "a.zip", {"x/2": b"two"})
    tarred(source / "c.tgz", [(tarfile.TarInfo("./y/3"), b"three")])
    found = list_sources(source, tmp_path / "scratch")
    assert found.problems == []
    assert [path.read_bytes() for path in found.files] == [b"two", b"one", b"three"]


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/etc/escape", "C:\\escape", "..\\escape"])
def test_member_outside_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "evil.zip", {"good": b"good", name: b"evil"})
    found = list_sources(path, tmp_path / "deep" / "scratch")
    assert found.files == []
    assert "evil.zip" in str(found.problems[0]) and "outside" in str(found.problems[0])
    assert not list(tmp_path.rglob("escape"))


def test_tar_member_outside_and_links_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for number, info in enumerate((tarfile.TarInfo("../escape"), link)):
        path = tarred(tmp_path / f"evil{number}.tar.gz", [(info, b"")])
        found = list_sources(path, tmp_path / f"scratch{number}")
        assert found.files == []
        assert "refused" in str(found.problems[0])


def test_zip_link_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "link.zip", {"link": b"/etc/passwd"}, mode=0o120777)
    assert "link" in str(list_sources(path, tmp_path / "scratch").problems[0])


def test_bomb_is_stopped_while_it_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
    path = zipped(tmp_path / "bomb.zip", {"zeros": bytes(1 << 24)})
    assert path.stat().st_size * archives.EXPANSION < 1 << 24
    found = list_sources(path, tmp_path / "scratch")
    assert "expands" in str(found.problems[0])
    assert sum(p.stat().st_size for p in (tmp_path / "scratch").rglob("*") if p.is_file()) == 0


def test_ordinary_compression_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 22)
    path = zipped(tmp_path / "blank.zip", {"zeros": bytes(1 << 21)})
    assert list_sources(path, tmp_path / "scratch").problems == []


def test_damaged_nested_and_doubled_archives_are_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    whole = zipped(tmp_path / "inner.zip", {"1": b"one"}).read_bytes()
    (source / "damaged.zip").write_bytes(whole[:-10])
    zipped(source / "outer.zip", {"inner.zip": whole, "2": b"two"})
    tarred(source / "twice.tgz", [(tarfile.TarInfo("3"), b"a"), (tarfile.TarInfo("3"), b"b")])
    found = list_sources(source, tmp_path / "scratch")
    assert [path.read_bytes() for path in found.files] == [b"two"]
    assert [name in str(p) for name, p in zip(("twice", "outer", "damaged"), reversed(found.problems), strict=True)]
    assert len(found.problems) == 3


def test_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"one")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(list_sources(tmp_path, tmp_path / "scratch").files) == 1


def test_absent_source(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        list_sources(tmp_path / "nothing", tmp_path)
