"""The whole command on real data, arranged as BIDS: everything is made, and iron and veins are bright."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmxt.constants import hz_per_ppm
from tests.real import arrange


def _run(bids: Path, folder: Path, *options: str) -> Path:
    out = folder / "out"
    command = [sys.executable, "-m", "qsmxt", str(bids), str(out), "participant", "-w", str(folder / "work")]
    done = subprocess.run([*command, "--nprocs", "1", *options], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def _map(out: Path, pattern: str) -> np.ndarray:
    (path,) = out.glob(pattern)
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def crop(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crop")
    bids = arrange.brain_crop(real_data, folder / "bids")
    return bids, _run(bids, folder)


def test_veins_of_the_brain_are_paramagnetic(crop):
    """Voxels that lose signal fastest are veins; their susceptibility lies above the rest (measured: by 0.06 ppm)."""
    bids, out = crop
    chi = _map(out, "**/*_Chimap.nii.gz")
    mask = _map(out, "**/*_desc-reliable_mask.nii.gz") > 0
    echoes = [np.asarray(nib.load(p).dataobj, dtype=float) for p in sorted(bids.rglob("*part-mag*.nii*"))]
    decay = np.log(echoes[0] / echoes[-1])
    inner = np.zeros_like(mask)
    inner[5:-5, 5:-5, 5:-5] = mask[5:-5, 5:-5, 5:-5]
    fast = inner & (decay > np.percentile(decay[inner], 99))
    assert np.median(chi[fast]) > np.median(chi[inner]) + 0.03


def test_map_keeps_the_grid_of_the_input(crop):
    bids, out = crop
    source = nib.load(next(bids.rglob("*part-phase*.nii*")))
    (path,) = out.glob("**/*_Chimap.nii.gz")
    assert nib.load(path).shape == source.shape
    np.testing.assert_allclose(nib.load(path).affine, source.affine, atol=1e-5)


def test_field_of_a_head_by_ge_is_that_of_its_scanner(real_data, tmp_path):
    """Sign, scale and alternation of GE: the total field is the field map that the scanner computed itself."""
    bids = arrange.head_ge(real_data, tmp_path / "bids")
    out = _run(bids, tmp_path)
    scanner = np.asanyarray(
        nib.load(real_data / "head-ge-b0map-invivo" / "Ref" / "GE_6_CV_Neuro_HH_Adv_fieldmaphz.nii").dataobj
    )
    found = hz_per_ppm(3.0) * _map(out, "**/*_desc-totalfield_T2starw.nii.gz")
    reliable = _map(out, "**/*_desc-reliable_mask.nii.gz") > 0
    assert np.median(np.abs(found - scanner)[reliable]) < 1.0
    assert np.percentile(np.abs(found - scanner)[reliable], 99) < 5.0


def test_liquid_of_a_phantom_is_uniform(real_data, tmp_path):
    bids = arrange.phantom_philips(real_data, tmp_path / "bids")
    out = _run(bids, tmp_path, "--preset", "phantom")
    chi, mask = _map(out, "**/*_Chimap.nii.gz"), _map(out, "**/*_desc-brain_mask.nii.gz") > 0
    middle = tuple(slice(n // 2 - 8, n // 2 + 8) for n in chi.shape)
    assert chi[middle][mask[middle]].std() < 0.02


@pytest.mark.parametrize("scans", ["abdomen_philips", "abdomen_siemens", "abdomen_real_imag"])
def test_every_scan_of_the_abdomen_is_mapped(real_data, tmp_path, scans):
    bids = getattr(arrange, scans)(real_data, tmp_path / "bids")
    out = _run(bids, tmp_path, "--preset", "body")
    units = {p.name.split("_echo-")[0] for p in bids.rglob("*_echo-1_part-*.nii*")}
    maps = {p.name.removesuffix("_Chimap.nii.gz") for p in out.rglob("*_Chimap.nii.gz")}
    assert maps == units
