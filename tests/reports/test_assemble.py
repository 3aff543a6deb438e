"""The page of a subject: complete, self-contained, and safe against what stands in metadata."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np

from qsmxt.reports.assemble import read_records, write_report
from qsmxt.reports.figures import png
from qsmxt.reports.page import Pictures

EVIL = '<script>alert("x")</script>'


def _store(out, subject="1", **changes):
    record = {
        "unit": f"sub-{subject}_MEGRE", "subject": subject, "version": "1", "echo_times": [0.005, 0.01],
        "field_strength": 3.0, "grid": {"shape": [4, 5, 6], "voxel_size": [1, 1, 2], "b0_direction": [0, 0, 1]},
        "files": {"chi": f"sub-{subject}/anat/sub-{subject}_Chimap.nii.gz"},
        "steps": [{"method": "inversion.tkd", "parameters": {"threshold": 0.17, "correct": False}}],
        "notes": ["phase was inverted"], "statistics": {}, **changes,
    }  # fmt: skip
    path = out / "logs" / f"sub-{subject}" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    figure = out / f"sub-{subject}" / "figures" / f"sub-{subject}_Chimap.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    figure.write_bytes(png(np.zeros((2, 2, 3), dtype=np.uint8)))


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _parsed(path):
    tags = _Tags()
    tags.feed(path.read_text())
    assert not tags.open
    return tags.seen


def test_page_shows_facts_figures_notes_settings_methods_and_references(tmp_path):
    _store(tmp_path)
    page = write_report(tmp_path, "1").read_text()
    for text in ("sub-1_MEGRE", "4 x 5 x 6", "1 x 1 x 2 mm", "5, 10 ms", "3.0 T", "phase was inverted",
                 "threshold = 0.17", "Shmueli", "10.1002/mrm.22135"):  # fmt: skip
        assert text in page, text
    assert page.count("data:image/png;base64,") == 1


def test_reasons_of_failure_are_shown(tmp_path):
    page = write_report(tmp_path, "1", {"sub-1_MEGRE": "no memory & no hope"}).read_text()
    assert "no memory &amp; no hope" in page


def test_nothing_is_fetched_and_nothing_from_metadata_runs(tmp_path):
    _store(tmp_path, notes=[EVIL], unit=f"sub-1{EVIL}", field_strength=EVIL,
           steps=[{"method": f"inversion.{EVIL}", "parameters": {EVIL: EVIL}}])  # fmt: skip
    path = write_report(tmp_path, "1", {EVIL: EVIL})
    seen = _parsed(path)
    assert EVIL not in path.read_text() and path.read_text().count("<script") == 1
    assert not {tag for tag, _ in seen} & {"link", "iframe", "object"}
    assert all(attrs.get("src", "data:").startswith("data:") for _, attrs in seen)
    assert not [name for _, attrs in seen for name in attrs if name.startswith("on")]


def test_units_of_a_subject_share_its_page_and_others_keep_away(tmp_path):
    _store(tmp_path, "1")
    _store(tmp_path, "10")
    page = write_report(tmp_path, "1").read_text()
    assert "sub-1_MEGRE" in page and "sub-10" not in page
    assert len(read_records(tmp_path)) == 2


def test_the_mask_is_described_with_the_agreement_of_its_sections():
    from qsmxt.reports.assemble import _mask_facts

    mask = {
        "volume_ml": 1400.4, "reliable_volume_ml": 1330.4, "euler_number": 1, "components": 1,
        "agreement": {"magnitude,bet | phase-quality,otsu": 0.9123},
    }  # fmt: skip
    assert _mask_facts([{"statistics": {}}, {"statistics": {"mask": mask}}]) == {
        "Mask volume": "1400 ml",
        "Reliable phase": "95.0 % of the mask",
        "Euler number of the mask": "1",
        "Pieces of the mask": "1",
        "Dice of magnitude,bet and phase-quality,otsu": "0.912",
    }
    assert _mask_facts([{"statistics": {"mask": {"warnings": []}}}]) == {}


def test_damaged_records_are_passed_over(tmp_path):
    _store(tmp_path)
    (tmp_path / "logs/sub-1/half.json").write_text('{"unit": "x", "fil')
    (tmp_path / "logs/sub-1/list.json").write_text("[]")
    assert [record["unit"] for record in read_records(tmp_path)] == ["sub-1_MEGRE"]


def test_same_input_same_bytes(tmp_path):
    _store(tmp_path)
    assert write_report(tmp_path, "1").read_bytes() == write_report(tmp_path, "1").read_bytes()


def test_warnings_come_before_results_and_say_what_to_do(dataset):
    page = write_report(dataset, "1").read_text()
    warning = page.index("sub-1_MEGRE: The mask has 3 pieces.")
    assert (
        warning
        < page.index("Noise of the field: 0.05 ppm is far from usual (usual: at most 0.01). Use more")
        < page.index("<img")
    )


def test_crash_text_is_shown_for_the_unit_that_failed_alone(dataset):
    page = write_report(dataset, "1", {"sub-1_acq-x_MEGRE": "it broke"}).read_text()
    assert "it broke" in page and "ValueError: &lt;b&gt;boom&lt;/b&gt;" in page
    assert "boom" not in write_report(dataset, "1", {"sub-1_MEGRE": "it broke"}).read_text()
    assert "boom" not in write_report(dataset, "1").read_text()


def test_page_holds_pictures_labels_regions_time_and_consensus(dataset):
    path = write_report(dataset, "1")
    page = path.read_text()
    _parsed(path)
    for text in ("Phase of the first echo", "Quality of the phase", "Outlines of the labels sub-1_atlas-A_dseg",
                 "Median susceptibility of regions", "Histogram of susceptibility", "<td>12.5</td>",
                 "Deep grey contrast", "the run departs from: exact phase unwrapping (laplacian)"):  # fmt: skip
        assert text in page, text
    assert "99.5" not in page, "another unit's time"
    assert page.count("data-maps=") == 4 and page.count("data-overlays=") == 2 and page.count("<script>") == 1


def test_pictures_beyond_the_budget_are_linked(dataset):
    pictures = Pictures(dataset, budget=10)
    assert pictures.source("sub-1/figures/sub-1_Chimap.png") == "sub-1/figures/sub-1_Chimap.png"
    assert pictures.source("sub-1/figures/none.png") == ""
