"""The T1-weighted image on the grid of the acquisition."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from qsmxt.interfaces.acquisition import aligned_t1w
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
