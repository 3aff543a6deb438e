"""Headers without files: image planes as the index would give them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from qsmxt.convert.headers import Frame, Source

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_NUMBERS = count(1)
_TYPES = {
    "mag": ("ORIGINAL", "PRIMARY", "M", "ND"), "phase": ("ORIGINAL", "PRIMARY", "P", "ND"),
    "real": ("ORIGINAL", "PRIMARY", "R", "ND"), "imag": ("ORIGINAL", "PRIMARY", "I", "ND"),
    "": ("ORIGINAL", "PRIMARY", "OTHER"),
}  # fmt: skip


def plane(place: float = 0.0, **changes: Any) -> Frame:
    """One plane at ``place`` mm; keywords go to the frame, or to its file if the frame does not have them."""
    number = next(_NUMBERS)
    source = Source(
        path=f"/scan/{number}", sop_uid=f"1.{number}", modality="MR", patient_id="p1", study_uid="1.2",
        series_uid="1.2.3", study_date="20240315", study_time="101500", series_number=2, protocol="GRE",
        series_description="GRE",
        manufacturer="SIEMENS", acquisition_time="101600", acquisition_type="3D", scanning_sequence=("GR",),
        instance_number=number, rows=8, columns=8, field_strength=3.0, repetition_time=0.04, flip_angle=15.0,
    )  # fmt: skip
    frame = Frame(source, component="mag", echo_time=0.004, position=(0.0, 0.0, place), orientation=AXIAL)
    for name, value in changes.items():
        setattr(frame if hasattr(frame, name) else source, name, value)
    if not frame.image_type:
        frame.image_type = _TYPES.get(frame.component, _TYPES[""])
    return frame


def series(number: int, component: str = "mag", echo_times: Sequence[float | None] = (0.004, 0.010), slices: int = 4,
           **changes: Any) -> list[Frame]:  # fmt: skip
    """All planes of a series: a volume of ``slices`` for every echo time."""
    given = {"series_number": number, "series_uid": f"1.2.{number}", **changes}
    return [plane(2.0 * k, component=component, echo_time=time, **given) for time in echo_times for k in range(slices)]
