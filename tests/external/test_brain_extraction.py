"""Brain masks by programs: how they are called, what is said when they are missing."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest

from qsmxt.errors import InputError, MissingProgramError
from qsmxt.external.brain_extraction import hd_bet, installed, registration, synthstrip

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 0, 3.0, -20], [0, 2.5, 0, 5], [0, 0, 0, 1]])

#: A program that thresholds its input and writes the mask where the option after FLAG says, with SUFFIX.
PROGRAM = """#!{python}
import sys
import nibabel as nib
arguments = sys.argv[1:]
if {refused!r} in arguments:
    sys.exit(2)
image = nib.load(arguments[arguments.index("-i") + 1])
out = arguments[arguments.index({flag!r}) + 1].replace(".nii.gz", {suffix!r})
nib.save(nib.Nifti1Image((image.get_fdata() > 5).astype("uint8"), image.affine), out)
"""


def install(folder, monkeypatch, name, *, flag, suffix, refused="--never"):
    program = folder / name
    program.write_text(PROGRAM.format(python=sys.executable, flag=flag, suffix=suffix, refused=refused))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 10, (6, 7, 8)).astype(np.float32)


def test_synthstrip(tmp_path, monkeypatch, image):
    install(tmp_path, monkeypatch, "mri_synthstrip", flag="-m", suffix=".nii.gz")
    assert installed("synthstrip")
    np.testing.assert_array_equal(synthstrip(image, AFFINE), image > 5)


@pytest.mark.parametrize(("suffix", "refused"), [("_bet.nii.gz", "--never"), ("_mask.nii.gz", "--save_bet_mask")])
def test_both_versions_of_hd_bet(tmp_path, monkeypatch, image, suffix, refused):
    install(tmp_path, monkeypatch, "hd-bet", flag="-o", suffix=suffix, refused=refused)
    np.testing.assert_array_equal(hd_bet(image, AFFINE), image > 5)


@pytest.mark.parametrize(("function", "program"), [(hd_bet, "hd-bet"), (synthstrip, "mri_synthstrip")])
def test_a_missing_program_is_named_with_advice(tmp_path, monkeypatch, image, function, program):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match=f"{program} is not on the path.*install"):
        function(image, AFFINE)


def test_a_program_that_fails_is_reported(tmp_path, monkeypatch, image):
    install(tmp_path, monkeypatch, "mri_synthstrip", flag="-m", suffix=".nii.gz", refused="-m")
    with pytest.raises(InputError, match="exit code 2"):
        synthstrip(image, AFFINE)


def test_a_program_that_writes_nothing_is_reported(tmp_path, monkeypatch, image):
    install(tmp_path, monkeypatch, "mri_synthstrip", flag="-m", suffix=".other")
    with pytest.raises((InputError, nib.filebasedimages.ImageFileError)):
        synthstrip(image, AFFINE)


def test_registration_brings_the_mask_of_the_template():
    pytest.importorskip("ants")
    x, y, z = np.indices((32, 32, 32)) - 15.5

    def head(shift: float) -> tuple[np.ndarray, np.ndarray]:
        distance = np.sqrt(((x - shift) / 10) ** 2 + (y / 12) ** 2 + (z / 9) ** 2)
        return (distance < 1).astype(np.float32) + 0.7 * ((distance > 1.15) & (distance < 1.3)), distance < 1

    template, template_mask = head(0.0)
    image, truth = head(2.0)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    turned = affine.copy()
    turned[0] = -turned[0]  # the image is stored from left to right, the template from right to left
    turned[0, 3] = 3.0 * 31
    mask = registration(image[::-1], turned, template, template_mask, affine, transform="Affine")[::-1]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
