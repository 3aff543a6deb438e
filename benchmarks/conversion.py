"""CPU seconds until the table of a large DICOM tree stands: list, read all headers, sort, classify.

The tree is written for the purpose: classic files of 128 x 128 pixels with a private header of the size that scanners
write, magnitude and phase of ten sessions in folders of their own.
"""

from __future__ import annotations

import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from qsmxt.convert.dicom import Settings, read_table

#: Files of the tree: sessions x parts x echoes x slices.
SESSIONS, ECHOES, SLICES = 10, 5, 100
#: Bytes of the private header.
PRIVATE = 60_000
_ROOT = "1.2.826.0.1.3680043.10.999"


def table() -> list[tuple[str, float, float]]:
    """``(what, CPU seconds, seconds)`` with one process and with all."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        count = write_tree(Path(folder))
        for workers in (1, None):
            before, started = cpu_seconds(), time.perf_counter()
            with read_table(folder, Settings(workers=workers)) as found:
                assert (found.files, len(found.rows), found.problems) == (count, 2 * SESSIONS, [])
            name = f"{count} files, {'one process' if workers else 'all processors'}"
            rows.append((name, cpu_seconds() - before, time.perf_counter() - started))
    return rows


def cpu_seconds() -> float:
    """Processor time of this process and of those it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def write_tree(folder: Path) -> int:
    """Write the files; returns their number."""
    count = 0
    for session in range(1, SESSIONS + 1):
        for part, kind in enumerate("MP"):
            template = _template(kind, session)
            place = folder / f"exam{session:02d}" / kind
            place.mkdir(parents=True)
            for instance in range(1, ECHOES * SLICES + 1):
                echo, index = divmod(instance - 1, SLICES)
                content = template
                for old, new in (
                    (b"100001.777777", f"{100000 + session * 10 + part}.{100000 + instance}".encode()),
                    (b"11.11", f"{4 + 6 * echo:02d}.00".encode()),
                    (b"-222.22", f"{index * 1.5 - 75:+07.2f}".encode()),
                    (b"777777", f"{instance:06d}".encode()),
                ):
                    content = content.replace(old, new)
                (place / f"{instance:06d}").write_bytes(content)
                count += 1
    return count


def _template(kind: str, session: int) -> bytes:
    """One file with marks where instances differ."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(f"{_ROOT}.100001.777777")
    for name, value in {
        "ImageType": ["ORIGINAL", "PRIMARY", kind, "ND"], "Modality": "MR", "Manufacturer": "SIEMENS",
        "PatientID": "P1", "PatientName": "One^Patient", "StudyDate": f"202401{session:02d}", "StudyTime": "101500",
        "AcquisitionTime": "101600", "StudyInstanceUID": f"{_ROOT}.{session}", "ProtocolName": "gre",
        "SeriesInstanceUID": f"{_ROOT}.{session}.{ord(kind)}", "SeriesNumber": ord(kind), "SeriesDescription": "gre",
        "ScanningSequence": "GR", "SequenceVariant": "SP", "MRAcquisitionType": "3D", "SequenceName": "*fl3d5",
        "EchoTime": "11.11", "RepetitionTime": "40", "FlipAngle": "15", "MagneticFieldStrength": "3",
        "InstanceNumber": "777777", "ImagePositionPatient": ["-100", "-100", "-222.22"], "PixelSpacing": ["1", "1"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "SliceThickness": "1.5", "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": 128, "Columns": 128, "BitsAllocated": 16,
        "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "FrameOfReferenceUID": f"{_ROOT}.{session}.9",
    }.items():  # fmt: skip
        setattr(dataset, name, value)
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(PRIVATE))
    dataset.PixelData = np.zeros((128, 128), "<u2").tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
