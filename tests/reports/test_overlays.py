"""Labels of an atlas become outlines and numbers of the viewer, with their names."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np

from qsmxt.reports.overlays import outlined
from qsmxt.reports.volumes import Frame

LAYOUT = Frame((slice(2, 8), slice(0, 8), slice(0, 8)), (1, 1, 1)).to_dict()


def _dataset(folder, shape=(8, 8, 8)):
    (folder / "sub-1/anat").mkdir(parents=True)
    files = {"chi": "sub-1/anat/sub-1_Chimap.nii.gz", "dseg_A": "sub-1/anat/sub-1_atlas-A_dseg.nii.gz"}
    labels = np.zeros(shape, dtype=np.int32)
    labels[3, 3, 3], labels[5, 5, 5], labels[6, 6, 6] = 30001, 12, 7
    nibabel.Nifti1Image(np.zeros((8, 8, 8), dtype=np.float32), np.eye(4)).to_filename(folder / files["chi"])
    nibabel.Nifti1Image(labels, np.eye(4)).to_filename(folder / files["dseg_A"])
    table = folder / files["dseg_A"].replace(".nii.gz", ".tsv")
    table.write_text("index\tname\n12\tPutamen\n30001\tRed nucleus\n99\tNowhere\n")
    return files


def test_viewer_numbers_labels_in_their_order(tmp_path):
    files = _dataset(tmp_path)
    (one,) = outlined(tmp_path, files, LAYOUT)
    assert (one.name, one.names) == ("A", {"1": "7", "2": "Putamen", "3": "Red nucleus"})
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress((tmp_path / one.volume).read_bytes()))
    stored = np.asarray(image.dataobj)
    assert stored.shape == (6, 8, 8) and image.header["intent_code"] == 1002
    assert [stored[1, 3, 3], stored[3, 5, 5], stored[4, 6, 6], (stored > 0).sum()] == [3, 2, 1, 3]


def test_pictures_need_no_viewer_and_labels_elsewhere_are_passed_over(tmp_path, caplog):
    (one,) = outlined(tmp_path, _dataset(tmp_path), {})
    assert one.volume == "" and (tmp_path / one.picture).read_bytes().startswith(b"\x89PNG")
    other = tmp_path / "other"
    assert outlined(other, _dataset(other, shape=(8, 8, 9)), LAYOUT) == []
    assert "expected the shape (8, 8, 8) of the map, found (8, 8, 9)" in caplog.text
