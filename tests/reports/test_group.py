"""Figures of the group's page."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.image
import numpy as np

from qsmxt.reports.group import quality_figures


def test_points_of_the_distributions_lead_to_their_participants():
    """A link lies on the point that it stands for: values grow to the right, and the picture is not white there."""
    rows = [{"participant_id": f"sub-{k}", "snr": value, "same": 1.0} for k, value in enumerate((3.0, 1.0, 2.0))]
    (figure,) = quality_figures(rows)
    links = re.findall(r'<a href="(sub-\d)\.html"[^>]*left:([\d.]+)%;top:([\d.]+)%', figure)
    assert [name for name, _, _ in links] == ["sub-0", "sub-1", "sub-2"]
    left = [float(x) for _, x, _ in links]
    assert left[1] < left[2] < left[0] and abs(left[2] - (left[0] + left[1]) / 2) < 0.1
    png = base64.b64decode(re.search(r"base64,([^\"]+)", figure)[1])
    picture = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    high, wide = picture.shape[:2]
    for _, x, y in links:
        assert np.ptp(picture[int(float(y) / 100 * high), int(float(x) / 100 * wide)]) > 0.2, "colour of a point"
