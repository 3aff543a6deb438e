"""Phase import of real data: every vendor's numbers become the same radians."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.acquisition import Acquisition, load_acquisition
from qsmxt.bids.queries import find_units
from tests.real import arrange

ARRANGED = {
    "brain crop": arrange.brain_crop,
    "brain crop without slope": lambda data, root: arrange.brain_crop(data, root, keep_slope=False),
    "abdomen, Philips": arrange.abdomen_philips,
    "abdomen, Siemens": arrange.abdomen_siemens,
    "abdomen, real and imaginary": arrange.abdomen_real_imag,
    "phantom, Philips": arrange.phantom_philips,
}


def load_all(root: Path) -> list[Acquisition]:
    selection = find_units(root)
    assert selection.rejected == ()
    return [load_acquisition(unit) for unit in selection.units]


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * np.asarray(difference, dtype=np.float64)))


def field_hz(acquisition: Acquisition) -> np.ndarray:
    """Field from the first two echoes, Hz, ambiguous by 1 / (echo spacing)."""
    first, second = acquisition.wrapped_phase[:2].astype(np.float64)
    spacing = acquisition.echo_times[1] - acquisition.echo_times[0]
    return wrapped(second - first) / (2 * np.pi * spacing)


@pytest.mark.parametrize("name", ARRANGED)
def test_phase_fills_the_circle_evenly(name: str, real_data: Path, tmp_path: Path) -> None:
    """A scaling error would leave a gap at the ends, or pile values up there."""
    for acquisition in load_all(ARRANGED[name](real_data, tmp_path / "raw")):
        assert np.abs(acquisition.wrapped_phase).max() <= np.pi
        last = acquisition.wrapped_phase[-1][acquisition.magnitude[-1] > 0]
        assert last.max() > np.pi - 0.01 and last.min() < -np.pi + 0.01
        counts, _ = np.histogram(last, bins=40, range=(-np.pi, np.pi))
        assert counts.min() > 0.1 * counts.mean()
        # the circle closes: as many just below pi as just above -pi
        assert counts[0] == pytest.approx(counts[-1], rel=0.25)


def test_brain_crop_echoes_agree_with_one_frequency(real_data: Path, tmp_path: Path) -> None:
    """Equal echo spacing: the phase between echoes 2 and 3 equals that between 1 and 2 (0.02 rad, sd 0.13)."""
    for keep_slope in (True, False):
        (acquisition,) = load_all(arrange.brain_crop(real_data, tmp_path / str(keep_slope), keep_slope=keep_slope))
        first, second, third = acquisition.wrapped_phase.astype(np.float64)
        disagreement = wrapped((third - second) - wrapped(second - first))
        assert abs(np.median(disagreement)) < 0.05
        assert 1.4826 * np.median(np.abs(disagreement)) < 0.15
        # extrapolated to time zero, phase is the same small offset: a false gain would leave the field in it
        offset = wrapped(2 * first - second)
        assert abs(np.median(offset) + 0.14) < 0.05
        assert acquisition.grid.voxel_size == pytest.approx((0.46875, 0.46875, 1.0), abs=1e-4)


def test_real_and_imaginary_equal_magnitude_and_phase(real_data: Path, tmp_path: Path) -> None:
    (cartesian,) = load_all(arrange.abdomen_real_imag(real_data, tmp_path / "a"))
    (polar,) = load_all(arrange.abdomen_real_imag(real_data, tmp_path / "b", cartesian=False))
    strong = (polar.magnitude > 0.2 * polar.magnitude.max()).all(axis=0)
    assert strong.sum() > 5000
    difference = wrapped(cartesian.wrapped_phase - polar.wrapped_phase)[:, strong]
    assert np.std(difference) < 0.006
    assert abs(np.mean(difference)) < 0.002
    ratio = cartesian.magnitude[:, strong] / polar.magnitude[:, strong]
    assert np.median(ratio) == pytest.approx(1.007, abs=0.01)


def test_different_echo_spacing_gives_the_same_field(real_data: Path, tmp_path: Path) -> None:
    """One liver at spacings of 2.3 and 3.45 ms: the same field in Hz, where phase differs by half."""
    short, long = load_all(arrange.abdomen_philips(real_data, tmp_path / "raw"))
    assert np.diff(short.echo_times)[0] == pytest.approx(0.0023, abs=1e-5)
    assert np.diff(long.echo_times)[0] == pytest.approx(0.00345, abs=1e-5)
    liver = np.s_[25:46, 72:96, 2:7]
    first, second = field_hz(short)[liver], field_hz(long)[liver]
    strong = np.logical_and.reduce([(scan.magnitude > 200).all(axis=0)[liver] for scan in (short, long)])
    strong &= (np.abs(first) < 100) & (np.abs(second) < 100)
    assert strong.sum() > 1500
    assert np.corrcoef(first[strong], second[strong])[0, 1] > 0.85
    assert np.std(second[strong]) / np.std(first[strong]) == pytest.approx(1, abs=0.15)


def test_field_equals_the_map_of_the_scanner(real_data: Path, tmp_path: Path) -> None:
    """Two breath-holds of one abdomen: the scanner's map in Hz, up to a difference in shim of second order."""
    (acquisition,) = load_all(arrange.abdomen_philips(real_data, tmp_path / "raw", ("philips_01",)))
    (path,) = (real_data / "abdomen-philips-dualecho" / "philips_01").glob("00501__*_e1a.nii.gz")
    scanner = nib.load(path).get_fdata()
    measured = field_hz(acquisition)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in scanner.shape), indexing="ij")
    terms = np.stack([scanner, np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z])
    strong = (acquisition.magnitude > 0.25 * acquisition.magnitude.max()).all(axis=0)
    kept = strong
    for _ in range(10):
        weights, *_ = np.linalg.lstsq(terms[:, kept].T, measured[kept], rcond=None)
        residual = np.abs(measured - np.tensordot(weights, terms, 1))
        kept = strong & (residual < 3.7 * np.median(residual[strong]))
    assert kept.sum() > 0.85 * strong.sum()
    assert weights[0] == pytest.approx(1, abs=0.08)


def test_oblique_slabs(real_data: Path, tmp_path: Path) -> None:
    """Coronal oblique slices: B0 lies near the second voxel axis, tilted as the scanner says."""
    for acquisition in load_all(arrange.abdomen_siemens(real_data, tmp_path / "raw")):
        assert np.abs(acquisition.grid.b0_direction) == pytest.approx((0, 0.976296, 0.21644), abs=1e-4)
