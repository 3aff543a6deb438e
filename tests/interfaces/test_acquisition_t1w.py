"""The T1-weighted image, and regions of other derivatives, on the grid of the acquisition."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from qsmxt.errors import InputError
from qsmxt.interfaces.acquisition import aligned_t1w, read_region
from tests.heads import head


def test_a_displaced_t1_weighted_image_is_brought_back(tmp_path):
    simulated = head()
    moved = simulated.affine.copy()
    moved[:3, 3] += (9.0, -7.0, 6.0)
    nib.save(nib.Nifti1Image(simulated.t1w, moved), tmp_path / "t1w.nii.gz")
    found = aligned_t1w(tmp_path / "t1w.nii.gz", simulated.magnitude[0], simulated.affine, tmp_path)
    assert found.shape == simulated.t1w.shape and found.min() >= 0
    inside = simulated.head
    assert np.corrcoef(found[inside], simulated.t1w[inside])[0, 1] > 0.9


def test_regions_are_labels_or_a_mask_on_the_grid_of_the_acquisition(tmp_path):
    labels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    stored = nib.Nifti1Image((labels * 2).astype(np.int16), np.eye(4))
    stored.header.set_slope_inter(0.5, 0)
    for name, image in {"dseg": stored, "echo": nib.Nifti1Image(labels, np.eye(4))}.items():
        nib.save(image, tmp_path / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 1, 1, 1])), tmp_path / "other.nii.gz")
    source = tmp_path / "echo.nii.gz"
    found = read_region("labels", tmp_path / "dseg.nii.gz", source)
    assert found.dtype == np.int32
    nib_labels = np.asanyarray(nib.load(tmp_path / "dseg.nii.gz").dataobj)
    np.testing.assert_array_equal(found, np.rint(nib_labels))
    np.testing.assert_array_equal(read_region("csf_mask", source, source), labels > 0)
    with pytest.raises(InputError, match=r"other\.nii\.gz: expected the affine"):
        read_region("labels", tmp_path / "other.nii.gz", source)
