"""Compressed files: what goes in comes out, no more is unpacked than was asked for, no time or name is in them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

from qsmxt.bids.compression import DAMAGED, compress, compress_stream, length, read
from qsmxt.bids.images import file_content, stored_values
from tests.bids.datasets import AFFINE, write_image

CONTENT = np.random.default_rng(3).normal(size=5000).astype(np.float32).tobytes() + bytes(40_000)


def test_other_programs_unpack_it_and_no_time_or_name_is_in_it() -> None:
    packed = compress(CONTENT)
    assert gzip.decompress(packed) == CONTENT
    assert packed[3] == 0, "no name"
    assert packed[4:8] == bytes(4), "no time"
    assert packed == compress(bytearray(CONTENT))
    assert zlib.decompress(compress_stream(CONTENT)) == CONTENT


def test_files_of_other_programs_are_read_as_far_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(CONTENT[:7000]) + gzip.compress(CONTENT[7000:], 9))
    assert read(path, len(CONTENT)).tobytes() == CONTENT
    assert read(path, 10).tobytes() == CONTENT[:10]
    assert length(path, 10**9) == len(CONTENT)


@pytest.mark.parametrize("kept", [0, 5, 3000, -1])
def test_damage_is_reported(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(CONTENT)[:kept])
    with pytest.raises(DAMAGED):
        read(path, len(CONTENT) + 1)
    assert length(path, 10**9) <= len(CONTENT)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("slope", [None, (0.25, -3.0)])
def test_content_of_a_file_is_what_nibabel_writes(dtype: str, slope: tuple[float, float] | None) -> None:
    values = (np.random.default_rng(1).random((5, 7, 3)) * 99).astype(dtype)
    image = nibabel.Nifti1Image(values, AFFINE)
    if slope:
        image.header.set_slope_inter(*slope)
        stored = bytearray(nibabel.Nifti1Image(values, AFFINE).to_bytes())
        stored[112:120] = np.array(slope, dtype="<f4").tobytes()
        assert bytes(file_content(image)) == bytes(stored)
    else:
        assert bytes(file_content(image)) == image.to_bytes()


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("slope", [(1.0, 0.0), (0.5, -2.0), (0.0, 7.0), (np.nan, 0.0)])
def test_stored_numbers_are_those_that_nibabel_reads(tmp_path: Path, dtype: str, slope: tuple[float, float]) -> None:
    values = (np.random.default_rng(2).random((4, 3, 2)) * 100).astype(dtype)
    path = write_image(tmp_path / "x.nii.gz", values, slope=slope)
    stored, factor, offset = stored_values(path)
    proxy = nibabel.load(path).dataobj
    np.testing.assert_array_equal(stored, proxy.get_unscaled())
    expected = slope if slope[0] == 0.5 else (1.0, 0.0)
    assert (factor, offset) == expected
