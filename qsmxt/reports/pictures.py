"""What a page shows: pictures of maps, and the maps of its slice viewer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes
    ----------
    name
        Name of the artifact.
    title
        With the meaning of black and white.
    window
        Values shown black and white; ``None``: from 0 to above the 99th percentile.
    desc
        Label of its file, if the artifact itself is not saved.
    contours
        Artifacts whose outlines are drawn.
    background
        What is shown in its place, if there is such an artifact.
    """

    name: str
    title: str
    window: tuple[float, float] | None = None
    desc: str | None = None
    contours: tuple[str, ...] = ()
    background: str | None = None


#: Pictures in the order of the page.
PICTURES: tuple[Picture, ...] = (
    Picture("chi", "Susceptibility, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("magnitude", "Magnitude of the first echo", None, "magnitude"),
    Picture("wrapped_phase", "Phase of the first echo, -3.14 (black) to 3.14 rad (white)", (-np.pi, np.pi), "phase"),
    Picture("phase_quality", "Quality of the phase, 0 (black) to 1 (white)", (0.0, 1.0), "phasequality"),
    Picture(
        "mask",
        "Combined magnitude with outlines: mask (orange), voxels with reliable phase (blue), where the field was "
        "inverted if elsewhere (yellow)",
        None, None, ("mask", "reliable_mask", "support_mask"), "combined_magnitude",
    ),
    Picture(
        "two_pass_difference", "Reliable voxels alone less all voxels, susceptibility, -0.1 (black) to 0.1 ppm (white)",
        (-0.1, 0.1), "twopassdifference",
    ),
    Picture("total_field", "Total field, -0.5 (black) to 0.5 ppm (white)", (-0.5, 0.5)),
    Picture("field_noise", "Noise of the field, 0 (black) to 0.02 ppm (white)", (0.0, 0.02), "fieldnoise"),
    Picture("local_field", "Local field, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("chi_paramagnetic", "Susceptibility of paramagnetic sources, 0 (black) to 0.1 ppm (white)", (0.0, 0.1)),
    Picture("chi_diamagnetic", "Susceptibility of diamagnetic sources, 0 (black) to -0.1 ppm (white)", (0.0, -0.1)),
    Picture(
        "closed_form_paramagnetic", "Paramagnetic sources in closed form, to compare, 0 (black) to 0.1 ppm (white)",
        (0.0, 0.1),
    ),
    Picture(
        "closed_form_diamagnetic", "Diamagnetic sources in closed form, to compare, 0 (black) to -0.1 ppm (white)",
        (0.0, -0.1),
    ),
    Picture("orientation_chi", "Susceptibility from all orientations, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("tensor_mean", "Mean of the susceptibility tensor, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("tensor_anisotropy", "Anisotropy of susceptibility, 0 (black) to 0.1 ppm (white)", (0.0, 0.1)),
    Picture("r2star", "R2*, 0 (black) to 60 1/s (white)", (0.0, 60.0)),
    Picture("r2star_noise", "Standard deviation of R2*, 0 (black) to 5 1/s (white)", (0.0, 5.0)),
    Picture("t2star", "T2*, 0 (black) to 80 ms (white)", (0.0, 0.08)),
    Picture("t2star_noise", "Standard deviation of T2*, 0 (black) to 10 ms (white)", (0.0, 0.01)),
    Picture("swi", "Susceptibility-weighted image"),
    Picture("minimum_intensity_projection", "Minimum intensity projection"),
)  # fmt: skip


@dataclass(frozen=True)
class Viewed:
    """A map of the slice viewer.

    Attributes
    ----------
    name
        Of the artifact.
    title, unit
        What the viewer calls it and its values.
    digits
        Decimals of a value.
    step
        Unit of the whole numbers in its file; ``None``: grey levels.
    masked
        Whether voxels outside the mask are left out.
    """

    name: str
    title: str
    unit: str
    digits: int
    step: float | None
    masked: bool = False


#: Maps of the slice viewer, those first that are kept if a page gets too large.
VIEWED: tuple[Viewed, ...] = (
    Viewed("chi", "Susceptibility", "ppm", 3, 0.001),
    Viewed("magnitude", "Magnitude", "", 0, None),
    Viewed("local_field", "Local field", "ppm", 3, 0.002),
    Viewed("wrapped_phase", "Phase", "rad", 2, 0.05, masked=True),
)

#: Labels of the mask in the viewer.
MASK_LABELS = {"1": "mask, phase unreliable", "2": "mask"}
