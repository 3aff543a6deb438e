"""Templates from folders and through (a stand-in for) TemplateFlow."""

from __future__ import annotations

import pytest

from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.external import templates as module
from qsmxt.external.templates import find_template, split_atlas


def touch(folder, *names, content="x"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(content)


def test_layout_of_templateflow(tmp_path):
    touch(
        tmp_path / "tpl-A", "tpl-A_res-02_T1w.nii.gz", "tpl-A_res-01_T1w.nii.gz", "tpl-A_res-01_desc-brain_T1w.nii.gz",
        "tpl-A_res-01_Chimap.nii.gz", "tpl-A_res-01_desc-brain_mask.nii.gz", "tpl-A_res-01_atlas-X_dseg.nii.gz",
        "tpl-A_atlas-X_dseg.tsv", "tpl-A_res-01_atlas-Y_dseg.nii.gz",
    )  # fmt: skip
    found = find_template(None, [], tmp_path)
    assert found.name == "A" and found.t1w.name == "tpl-A_res-01_T1w.nii.gz" and found.magnitude is None
    assert found.chi.name == "tpl-A_res-01_Chimap.nii.gz" and found.brain.name == "tpl-A_res-01_desc-brain_mask.nii.gz"
    assert [(a.name, a.table.name if a.table else None) for a in found.atlases] == [
        ("X", "tpl-A_atlas-X_dseg.tsv"), ("Y", None),
    ]  # fmt: skip
    assert [a.name for a in find_template("A", ["Y"], tmp_path).atlases] == ["Y"]
    assert find_template(None, [], tmp_path / "tpl-A").atlases == found.atlases
    with pytest.raises(MissingInputError, match=r"_atlas-Z_dseg.nii.gz, found atlases X, Y"):
        find_template("A", ["Z"], tmp_path)
    with pytest.raises(MissingInputError, match="expected tpl-B, found A"):
        find_template("B", [], tmp_path)


def test_two_templates_need_a_name(tmp_path):
    for name in "AB":
        touch(tmp_path / f"tpl-{name}", f"tpl-{name}_T1w.nii.gz", f"tpl-{name}_atlas-X_dseg.nii.gz")
    with pytest.raises(ParameterError, match="expected one template, found A, B"):
        find_template(None, [], tmp_path)
    assert find_template("B", [], tmp_path).name == "B"


def test_a_plain_folder(tmp_path, real_data=None):
    touch(tmp_path / "my_atlas", "mean_T1w.nii.gz", "atlas-CIT168_space-MNI_res-1_dseg.nii.gz", "atlas-CIT168_dseg.tsv")
    found = find_template(None, [], tmp_path / "my_atlas")
    assert (found.name, found.atlases[0].name, found.atlases[0].table.name) == (
        "myatlas",
        "CIT168",
        "atlas-CIT168_dseg.tsv",
    )
    (tmp_path / "my_atlas" / "mean_T1w.nii.gz").unlink()
    with pytest.raises(MissingInputError, match=r"_T1w.nii.gz or _T2starw.nii.gz"):
        find_template(None, [], tmp_path / "my_atlas")
    with pytest.raises(MissingInputError, match="--template-dir"):
        find_template(None, [], tmp_path / "nowhere")


class Skeleton:
    """TemplateFlow without network: it lists files, of which some are empty."""

    def __init__(self, home):
        self.home = home

    def templates(self):
        return ["A"]

    def ls(self, name, suffix, extension, desc=None, atlas=None, segmentation=None):
        found = (path for path in sorted((self.home / f"tpl-{name}").glob(f"*_{suffix}{extension}")))
        asked = [f"{key}-{label}" for key, label in (("atlas", atlas), ("seg", segmentation)) if label]
        return [p for p in found if all(a in p.name for a in asked) and ("desc" in p.name) == (desc is not None)]

    def get(self, *arguments, **query):
        raise ConnectionError("no network")


def test_templateflow_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_interface", lambda: Skeleton(tmp_path))
    touch(tmp_path / "tpl-A", "tpl-A_res-01_T1w.nii.gz", "tpl-A_atlas-X_dseg.tsv", "tpl-A_res-01_atlas-X_dseg.nii.gz")
    touch(tmp_path / "tpl-A", "tpl-A_res-01_desc-brain_mask.nii.gz", content="")
    found = find_template("A", ["X"])
    assert found.brain is None, "what is not needed need not be there"
    assert found.atlases[0].table.name == "tpl-A_atlas-X_dseg.tsv"
    touch(tmp_path / "tpl-A", "tpl-A_res-01_atlas-X_dseg.nii.gz", content="")
    with pytest.raises(MissingInputError, match=r"atlas-X_dseg.nii.gz is not here.*templateflow get A .*--atlas X"):
        find_template("A", ["X"])
    with pytest.raises(MissingInputError, match="no atlas Z for it; its atlases are X"):
        find_template("A", ["Z"])
    with pytest.raises(MissingInputError, match="TemplateFlow has none of this name; expected one of A"):
        find_template("B", ["X"])


def test_deep_nuclei_by_default_and_whole_brain_where_it_is_to_be_had(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_interface", lambda: Skeleton(tmp_path))
    monkeypatch.setattr(module, "DEFAULT_TEMPLATE", "A")
    names = ["tpl-A_res-01_T1w.nii.gz", "tpl-A_res-01_atlas-MASSP20_dseg.nii.gz", "tpl-A_res-01_seg-aseg_dseg.nii.gz"]
    touch(tmp_path / "tpl-A", *names)
    found = find_template(None, [])
    assert [(a.name, a.labels.name) for a in found.atlases] == [("MASSP20", names[1]), ("aseg", names[2])]
    touch(tmp_path / "tpl-A", names[2], content="")
    assert [atlas.name for atlas in find_template(None, []).atlases] == ["MASSP20"]
    with pytest.raises(MissingInputError, match=r"templateflow get A .*--segmentation aseg"):
        find_template("A", ["aseg"])


def test_atlas_with_and_without_template():
    assert split_atlas("A:X") == ("A", "X") and split_atlas("X") == (None, "X")
