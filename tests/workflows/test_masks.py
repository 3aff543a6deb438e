"""Which mask of other derivatives belongs to a unit."""

from __future__ import annotations

import pytest

from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import MissingInputError
from qsmxt.workflows.masks import find_masks, named_masks

UNIT = ProcessingUnit({"subject": "1", "session": "a", "acquisition": "x", "run": "1"})


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _found(tmp_path, unit=UNIT, sections=("mask:other,erode:1",)):
    return find_masks(unit, sections, {"other": tmp_path})["other"].name


def test_names_are_read_from_the_sections():
    assert named_masks(["mask:a,erode:1", "magnitude,bet", "mask:b", "mask:a"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["ses-a/anat/sub-1_ses-a_mask.nii.gz"], 0),
        (["ses-a/anat/sub-1_ses-a_acq-y_mask.nii", "ses-a/anat/sub-1_ses-a_acq-x_mask.nii"], 1),
        (["ses-a/anat/sub-1_ses-a_run-2_mask.nii", "anat/sub-1_mask.nii"], 1),
        (["ses-a/anat/sub-1_ses-a_desc-ax_mask.nii", "ses-a/anat/sub-1_ses-a_desc-brain_mask.nii"], 1),
        (["ses-a/anat/sub-1_ses-a_space-MNI_mask.nii", "ses-a/anat/sub-1_ses-a_space-orig_mask.nii"], 1),
        (["ses-a/anat/sub-1_ses-a_label-csf_mask.nii", "ses-a/anat/sub-1_ses-a_label-brain_mask.nii"], 1),
    ],
)
def test_fitting_mask_is_chosen(tmp_path, names, chosen):
    _touch(tmp_path / "sub-1", *names)
    assert _found(tmp_path) == names[chosen].rsplit("/", 1)[1]


def test_none_is_an_error_that_says_where_it_was_looked_for(tmp_path):
    _touch(tmp_path / "sub-1", "ses-b/anat/sub-1_ses-b_mask.nii.gz")
    _touch(tmp_path / "sub-11", "ses-a/anat/sub-11_ses-a_mask.nii.gz")
    with pytest.raises(MissingInputError, match="expected a mask in"):
        _found(tmp_path)
    with pytest.raises(MissingInputError, match="give --derivatives third=PATH"):
        find_masks(UNIT, ("mask:third",), {"other": tmp_path})


def test_any_of_the_derivatives_will_do(tmp_path):
    _touch(tmp_path / "second" / "sub-1", "anat/sub-1_mask.nii.gz")
    found = find_masks(UNIT, ("mask:derivatives",), {"first": tmp_path / "first", "second": tmp_path / "second"})
    assert found["derivatives"].is_relative_to(tmp_path / "second")


def test_the_t1_weighted_image_of_the_session_comes_with_sections_that_look_at_it(tmp_path):
    images = tuple(tmp_path / f"sub-1_ses-{s}_T1w.nii.gz" for s in ("b", "a"))
    with_t1w = ProcessingUnit({"subject": "1", "session": "a"}, t1w=images)
    assert find_masks(with_t1w, ["T1w:corrected,bet"], {}) == {"input:t1w": images[1]}
    assert find_masks(with_t1w, ["magnitude,bet"], {}) == {}
    with pytest.raises(MissingInputError, match="T1w image of the subject"):
        find_masks(UNIT, ["t1w,bet"], {})
