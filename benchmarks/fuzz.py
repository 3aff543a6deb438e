"""Coverage-guided fuzzing of the parsers of files from outside: sidecars, filters, mappings, NIfTI and DICOM headers.

atheris (libFuzzer) changes the bytes of small valid files and keeps what reaches new branches. A parser must answer, or
refuse with an error that names the file; any other exception ends the run with the bytes that caused it.

``python -m benchmarks.fuzz sidecar nifti --runs 100000``: two parsers; all if none is named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Largest file, bytes, and most memory of the process, MB.
LONGEST, MEMORY = 2048, 2048


def sidecar(path: Path) -> None:
    """A sidecar, and the two numbers that are taken from it."""
    from qsmxt.bids.metadata import echo_time, magnetic_field_strength, read_json

    found = read_json(path)
    for reader in (echo_time, magnetic_field_strength):
        with contextlib.suppress(_refusal()):
            reader(path, found)


def filters(path: Path) -> None:
    """A filter file, applied."""
    from qsmxt.bids.filters import load_filter_file, matches, qsm_filter

    matches({"subject": "1", "suffix": "MEGRE"}, qsm_filter(load_filter_file(path)))


def mapping(path: Path) -> None:
    """A mapping of DICOM series to BIDS."""
    from qsmxt.convert.mapping import load_mapping

    load_mapping(path)


def nifti(path: Path) -> None:
    """Header and values of an image."""
    from qsmxt.bids.images import read_header, stored_values

    read_header(path)
    stored_values(path)


def dicom(path: Path) -> None:
    """Headers of a DICOM file."""
    from qsmxt.convert.headers import read_frames

    read_frames(path)


#: Parser -> how its file is called and what it is called on.
PARSERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "sidecar": ("image.json", sidecar),
    "filters": ("filter.json", filters),
    "mapping": ("mapping.toml", mapping),
    "table": ("mapping.tsv", mapping),
    "nifti": ("image.nii", nifti),
    "zipped": ("image.nii.gz", nifti),
    "dicom": ("file.dcm", dicom),
}


def seeds() -> dict[str, list[bytes]]:
    """Valid files of every parser, from which the changes start."""
    import gzip
    import io

    import nibabel
    import numpy as np
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1])).to_bytes()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", 4, 4
    dataset.SeriesInstanceUID, dataset.EchoTime, dataset.PatientName = "1.2.3", "5", "../../<script>"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    rule = {"qsm": {"suffix": "MEGRE", "run": ["1", "2"], "regex_search": True}, "t1w": {"session": "*"}}
    return {
        "sidecar": [json.dumps({"EchoTime": 0.004, "MagneticFieldStrength": 3}).encode(), b"[]", b"{"],
        "filters": [json.dumps(rule).encode(), b"{}"],
        "mapping": [b'[[series]]\nprotocol = "gre*"\ntype = "mag"\nsub = "1"\n'],
        "table": [b"protocol\ttype\tsub\ngre*\tphase\t1\n"],
        "nifti": [image],
        "zipped": [gzip.compress(image, mtime=0)],
        "dicom": [stream.getvalue()],
    }


def _refusal() -> type[Exception]:
    from qsmxt.errors import QSMxTError

    return QSMxTError


def fuzz(parser: str, runs: int, corpus: Path) -> None:
    """Fuzz one parser in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["qsmxt.bids", "qsmxt.convert"], enable_loader_override=False):
        import qsmxt.bids.filters
        import qsmxt.bids.images
        import qsmxt.bids.metadata
        import qsmxt.convert.headers
        import qsmxt.convert.mapping  # noqa: F401
    refusal = _refusal()
    name, reader = PARSERS[parser]
    path = corpus / "under-test" / name
    path.parent.mkdir()

    def once(content: bytes) -> None:
        path.write_bytes(content)
        try:
            reader(path)
        except refusal as error:
            assert name in str(error), f"the error does not name the file: {error}"

    start = corpus / "seeds"
    start.mkdir()
    for number, content in enumerate(seeds()[parser]):
        (start / str(number)).write_bytes(content)
    options = [f"-runs={runs}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY}", "-seed=1", "-timeout=20"]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={Path.cwd()}/fuzz-", str(start)], once)
    atheris.Fuzz()


def table(parsers: list[str], runs: int) -> list[tuple[str, Any]]:
    """Every parser in a process of its own; what libFuzzer said last, and its exit code."""
    rows: list[tuple[str, Any]] = []
    for parser in parsers:
        command = [sys.executable, "-m", "benchmarks.fuzz", parser, "--here", "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        rows.append((parser, done.returncode))
        print(parser, done.returncode, *(said[-40:] if done.returncode else said[-1:]), sep="\n", flush=True)
    return rows


def main() -> int:
    """Entry point."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    arguments.add_argument("parsers", nargs="*", choices=[*PARSERS, []], help="all if none is named")
    arguments.add_argument("--runs", type=int, default=20000, help="changed files per parser")
    arguments.add_argument("--here", action="store_true", help="in this process (one parser)")
    options = arguments.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            fuzz(options.parsers[0], options.runs, Path(folder))
        return 0
    return max(code for _, code in table(options.parsers or list(PARSERS), options.runs))


if __name__ == "__main__":
    raise SystemExit(main())
