"""Names are parsed and put together in BIDS order."""

from __future__ import annotations

import pytest

from qsmxt.bids.entities import in_order, is_label, parse_name, stem, strip_prefix
from qsmxt.errors import InputError


@pytest.mark.parametrize(
    "name",
    [
        "sub-1_ses-a_acq-x_ce-g_rec-r_dir-AP_run-1_echo-2_flip-1_inv-1_mt-on_part-phase_MEGRE",
        "sub-1_task-t_run-1_chunk-2_T2starw",
        "tpl-X_cohort-1_space-Y_atlas-A_seg-S_scale-1_res-2_label-L_desc-D_dseg",
    ],
)
def test_order_of_bids_is_kept(name: str) -> None:
    entities, suffix, extension = parse_name(f"{name}.nii.gz")
    assert extension == ".nii.gz"
    backwards = dict(reversed(entities.items()))
    assert stem(backwards, suffix) == name


def test_unknown_entities_come_last() -> None:
    assert stem({"coil": "1", "run": "2", "subject": "3"}, "MEGRE") == "sub-3_run-2_coil-1_MEGRE"
    assert list(in_order({"coil": "1", "subject": "3"})) == ["subject", "coil"]


def test_prefix() -> None:
    assert strip_prefix("sub-01", "sub") == strip_prefix("01", "sub") == "01"
    assert strip_prefix("subject", "sub") == "subject"


@pytest.mark.parametrize("text", ["..", "a/b", "a_b", "a-b", "", "a\n", "é"])
def test_what_is_no_label(text: str) -> None:
    assert not is_label(text)
    with pytest.raises(InputError):
        stem({"subject": text}, "MEGRE")
