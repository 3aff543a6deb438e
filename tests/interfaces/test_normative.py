"""A painted susceptibility channel shows the nuclei whose names tell what they are."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from qsmxt.interfaces.normative import normative_chi, synthetic_chi


def write(folder, name, labels, rows, size=1.0):
    path, table = folder / f"{name}_dseg.nii.gz", folder / f"{name}_dseg.tsv"
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.diag([size, size, size, 1.0])), path)
    table.write_text("index\tname\n" + "".join(f"{index}\t{text}\n" for index, text in rows))
    return {"name": name, "labels": str(path), "table": str(table)}


@pytest.mark.parametrize(
    "name, chi",
    [
        ("Left-Caudate", 0.044), ("Pu_R", 0.038), ("GPi-l", 0.131), ("SNr_L", 0.111), ("Right-Red-Nucleus", 0.1),
        ("STN", 0.1), ("Left-Cerebral-White-Matter", -0.03), ("CA1", None), ("Left-Amygdala", None), ("fornix", None),
    ],
)  # fmt: skip
def test_tissue_from_names(name, chi):
    assert normative_chi(name) == chi


def test_nuclei_are_painted_and_the_first_atlas_counts(tmp_path):
    labels = np.zeros((24, 24, 24), dtype=int)
    labels[4:12, 4:12, 4:12], labels[14:20, 14:20, 14:20], labels[14:20, 2:8, 2:8] = 1, 2, 3
    deep = write(tmp_path, "deep", labels, [(1, "GP_L"), (2, "RN_L"), (3, "AMY_L")])
    whole = write(tmp_path, "whole", np.full((24, 24, 24), 7), [(7, "Left-Cerebral-White-Matter")])
    chi = synthetic_chi([deep, whole])
    assert chi is not None and chi.array.shape == labels.shape
    assert chi.array[7, 7, 7] == pytest.approx(0.131, abs=0.002) and chi.array[17, 17, 17] == pytest.approx(
        0.1, abs=0.004
    )
    assert chi.array[17, 4, 4] == pytest.approx(-0.03, abs=1e-6), "what one atlas does not know the next one may"
    coarse = write(tmp_path, "coarse", np.full((12, 12, 12), 7), [(7, "csf")], size=2.0)
    mixed = synthetic_chi([deep, coarse])
    assert mixed is not None and mixed.array[17, 4, 4] == pytest.approx(0.019, abs=1e-6)


def test_too_little_iron_makes_no_channel(tmp_path):
    labels = np.ones((6, 6, 6), dtype=int)
    assert synthetic_chi([write(tmp_path, "x", labels, [(1, "GP_L")])]) is None
    assert synthetic_chi([]) is None
