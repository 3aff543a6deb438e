"""Masks from sections: combination, inputs, ready masks, the reliable part, the default on heads and real data."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from qsmxt.algorithms.masking.build import build_mask
from qsmxt.algorithms.masking.plausibility import dice
from qsmxt.algorithms.masking.presets import PRESETS
from qsmxt.algorithms.quality import phase_quality
from qsmxt.errors import InputError, MissingInputError, ParameterError
from qsmxt.geometry import Grid
from qsmxt.phantom.head import Head, HeadSettings, simulate

GRID = Grid((16, 16, 16), (1.0, 1.0, 1.0))


def two_echoes() -> np.ndarray:
    """Background 1; a block of 9, in the second echo only its lower half."""
    magnitude = np.ones((2, *GRID.shape), dtype=np.float32)
    magnitude[:, 4:12, 4:12, 4:12] = 9.0
    magnitude[1, 8:12] = 1.0
    return magnitude


def test_sections_are_combined_by_and_or():
    arrays = {"magnitude": two_echoes()}
    sections = ["magnitude:first,otsu", "magnitude:last,otsu"]
    assert build_mask(sections, arrays, GRID, human_brain=False).mask.sum() == 256
    result = build_mask(sections, arrays, GRID, combine="or", human_brain=False)
    assert result.mask.sum() == 512
    assert {k: int(v.sum()) for k, v in result.parts.items()} == dict(zip(sections, (512, 256), strict=True))
    assert result.statistics["agreement"] == pytest.approx({" | ".join(sections): 2 / 3})
    assert result.statistics["volume_ml"] == pytest.approx(0.512)
    with pytest.raises(ParameterError, match="xor"):
        build_mask(sections, arrays, GRID, combine="xor")


@pytest.mark.parametrize(("echoes", "voxels"), [("2", 256), ("each", 256), ("rss", 512), ("last", 256), ("1", 512)])
def test_which_echoes_are_looked_at(echoes, voxels):
    text = f"magnitude:{echoes},value:5"
    assert build_mask([text], {"magnitude": two_echoes()}, GRID, human_brain=False).mask.sum() == voxels


def test_an_echo_that_does_not_exist():
    with pytest.raises(ParameterError, match="from 1 to 2, found 3"):
        build_mask(["magnitude:3,otsu"], {"magnitude": two_echoes()}, GRID)


def test_refinements_run_in_order():
    arrays = {"magnitude": two_echoes()}
    opened = build_mask(["magnitude,otsu,erode:1,dilate:1"], arrays, GRID, human_brain=False).mask
    closed = build_mask(["magnitude,otsu,dilate:1,erode:1"], arrays, GRID, human_brain=False).mask
    assert opened.sum() < 512 <= closed.sum()


def test_a_ready_mask_is_returned_as_it_is():
    ready = np.random.default_rng(0).random(GRID.shape) < 0.5
    result = build_mask(["mask:edited"], {"external_masks": {"edited": ready.astype(np.uint8)}}, GRID)
    np.testing.assert_array_equal(result.mask, ready)
    with pytest.raises(MissingInputError, match=r"'other'.*found edited"):
        build_mask(["mask:other"], {"external_masks": {"edited": ready}}, GRID)


def test_n4_sees_image_signal_and_grid_and_its_result_is_used():
    seen = []

    def n4(image, mask, grid):
        seen.append((mask, grid))
        return np.where(mask, 9.0, 0.0).astype(np.float32)

    magnitude = two_echoes()
    magnitude[0, 4:8] *= 0.4
    arrays = {"magnitude": magnitude, "n4": n4}
    result = build_mask(["magnitude:first:n4,value:8"], arrays, GRID, human_brain=False)
    assert seen[0][1] is GRID
    np.testing.assert_array_equal(result.mask, seen[0][0])
    with pytest.raises(MissingInputError, match="N4"):
        build_mask(["magnitude:n4,otsu"], {"magnitude": magnitude}, GRID)


def test_missing_arrays_are_named():
    with pytest.raises(MissingInputError, match="phase quality"):
        build_mask(["phase-quality,otsu"], {"magnitude": two_echoes()}, GRID)
    with pytest.raises(MissingInputError, match="step snr: needs magnitude"):
        build_mask(["phase-quality,value,snr"], {"phase_quality": two_echoes()[0]}, GRID)


def test_inputs_are_not_changed_and_must_fit():
    arrays = {"magnitude": two_echoes()}
    before = arrays["magnitude"].copy()
    build_mask(["magnitude,otsu,trim,erode,smooth"], arrays, GRID, human_brain=False)
    np.testing.assert_array_equal(arrays["magnitude"], before)
    with pytest.raises(InputError, match="shape"):
        build_mask(["magnitude,otsu"], arrays, Grid((8, 8, 8)))


def test_nothing_found():
    arrays = {"magnitude": two_echoes()}
    with pytest.raises(InputError, match="empty"):
        build_mask(["magnitude,value:100"], arrays, GRID, human_brain=False)
    result = build_mask(["magnitude,value:100"], arrays, GRID)
    assert result.mask.any() and "No brain was found" in result.statistics["warnings"][0]


def test_the_reliable_part_lies_within_the_mask():
    good = np.full(GRID.shape, 0.1, dtype=np.float32)
    good[2:10] = 0.9
    result = build_mask(["magnitude,otsu"], {"magnitude": two_echoes(), "phase_quality": good}, GRID)
    assert result.reliable_mask.any() and not (result.reliable_mask & ~result.mask).any()
    assert not result.reliable_mask[10:].any()
    assert result.statistics["reliable_volume_ml"] < result.statistics["volume_ml"]
    none = build_mask(["magnitude,otsu"], {"magnitude": two_echoes(), "phase_quality": 0.2 * good}, GRID)
    np.testing.assert_array_equal(none.reliable_mask.any(), True)


def test_progress_ends_at_one():
    seen: list[float] = []
    build_mask(["magnitude,otsu", "magnitude,gmm"], {"magnitude": two_echoes()}, GRID, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


@functools.cache
def head(**changes) -> Head:
    return simulate(HeadSettings(**{"voxel_size": (3, 3, 3), "snr": 100, "seed": 3} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"snr": 20, "tilt": 0.4},
        {"field_strength": 7, "echo_times": (0.004, 0.012, 0.02)},
    ],
    ids=["3T", "noisy oblique", "7T"],
)
def test_masks_of_a_brain_keep_it_and_no_air(changes):
    simulated = head(**changes)
    quality = phase_quality(simulated.wrapped_phase, None, np.array(simulated.echo_times), simulated.grid)
    times = np.array(simulated.echo_times)
    arrays = {"magnitude": simulated.magnitude, "phase_quality": quality, "echo_times": times}
    result = build_mask(PRESETS["gre"].sections, arrays, simulated.grid)
    skull = ~np.isin(simulated.labels, (0, 12, 13))
    assert dice(result.mask, simulated.brain) > 0.95
    assert dice(result.support_mask, skull) > 0.95
    assert result.mask[simulated.brain].mean() > 0.99
    assert not (result.mask & ~result.support_mask).any()
    assert not (result.support_mask & (simulated.labels == 0)).any()
    assert result.reliable_mask[simulated.brain].mean() > 0.96
    assert not (result.reliable_mask & ~simulated.head).any()
    assert result.statistics["warnings"] == []


def test_single_echo_with_dropouts():
    simulated = head(echo_times=(0.03,), snr=20)
    result = build_mask(PRESETS["gre"].sections, {"magnitude": simulated.magnitude}, simulated.grid)
    assert dice(result.mask, simulated.brain) > 0.95
    assert result.mask[simulated.brain].mean() > 0.94
    assert not (result.support_mask & (simulated.labels == 0)).any()


def test_what_follows_the_word_support_only_cuts_the_map():
    ball = sum(i**2 for i in np.indices(GRID.shape) - 7.5) < 36
    arrays = {"external_masks": {"a": ball}}
    result = build_mask(["mask:a,support,erode:2"], arrays, GRID)
    np.testing.assert_array_equal(result.support_mask, ball)
    np.testing.assert_array_equal(result.mask, build_mask(["mask:a,erode:2"], arrays, GRID).mask)
    wider = build_mask(["mask:a,support,dilate:2"], arrays, GRID)
    np.testing.assert_array_equal(wider.mask, ball)


def test_the_real_crop_inside_a_brain_is_taken_whole(real_data):
    import nibabel as nib

    folder = real_data / "brain-crop-gre-3echo"
    magnitude, phase = (
        np.moveaxis(nib.load(folder / f"{n}.nii").get_fdata(dtype=np.float32), 3, 0) for n in ("Mag", "Phase")
    )
    grid = Grid(magnitude.shape[1:], (0.4688, 0.4688, 1.0))
    quality = phase_quality(phase / np.abs(phase).max() * np.pi, None, np.array([0.004, 0.008, 0.012]), grid)
    result = build_mask(PRESETS["gre"].sections, {"magnitude": magnitude, "phase_quality": quality}, grid)
    assert result.mask.mean() > 0.97
    assert result.reliable_mask.mean() > 0.9
    assert any("no background" in w for w in result.statistics["warnings"])


@pytest.mark.parametrize("preset", ["body", "gre"])
def test_real_abdomens_and_phantoms_get_a_mask(real_data, preset):
    import nibabel as nib

    folders = [real_data / "abdomen-philips-dualecho", real_data / "phantom-philips-dualecho" / "Ref"]
    for folder in folders:
        phase_file = sorted(folder.rglob("*e1_ph.nii*"))[0]
        stored = nib.load(phase_file)
        phase = stored.get_fdata(dtype=np.float32)[None]
        magnitude = nib.load(str(phase_file).replace("_ph.nii", ".nii")).get_fdata(dtype=np.float32)[None]
        grid = Grid.from_affine(stored.affine, stored.shape)
        quality = phase_quality(phase / np.abs(phase).max() * np.pi, None, np.array([0.005]), grid)
        arrays = {"magnitude": magnitude, "phase_quality": quality}
        chosen = PRESETS[preset]
        result = build_mask(chosen.sections, arrays, grid, combine=chosen.combine, human_brain=chosen.human_brain)
        signal = magnitude[0] > 0.2 * np.percentile(magnitude[0], 98)
        if preset == "body":
            assert (result.mask & signal).sum() > 0.6 * signal.sum()
        assert (result.mask & signal).sum() > 0.9 * result.mask.sum()
