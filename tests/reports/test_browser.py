"""The page in a real browser."""

from __future__ import annotations

import time

import nibabel
import numpy as np
import pytest
from PIL import Image

from qsmxt.reports.assemble import write_report
from qsmxt.reports.group import write_group_report
from tests.reports.browser import Browser, executable

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium, e.g. apt-get install chromium")


@pytest.fixture(scope="module")
def shown(dataset, tmp_path_factory):
    path = write_report(dataset, "1", {"sub-1_acq-x_MEGRE": "no memory"})
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser, path
    browser.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_complete_quiet_and_fits(shown, width):
    browser, path = shown
    browser.events.clear()
    browser.open(path, width)
    images = browser.value("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    assert len(images) == 8 and all(complete and size > 8 and alt for complete, size, alt in images)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") == "QSMxT: sub-1", "metadata do not run"
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests()} <= {"data", "file"}


@pytest.fixture(scope="module", params=[True, False], ids=["niivue", "plain"])
def viewed(request, dataset, tmp_path_factory):
    """The page in a browser with or without WebGL2, its viewer ready."""
    browser = Browser(tmp_path_factory.mktemp("profile"), webgl=request.param)
    browser.open(write_report(dataset, "1"))
    browser.value("document.querySelector('.viewer').scrollIntoView()")
    for _ in range(200):
        state = browser.value("({...document.querySelector('.viewer').dataset})")
        if "ready" in state or "problem" in state:
            break
        time.sleep(0.1)
    assert state == {"renderer": "niivue" if request.param else "plain", "ready": "true"}
    yield browser
    browser.close()


#: First voxel of the part that the viewer shows along the second axis: the mask with a margin of 6 mm.
FIRST = 2

SAID = "document.querySelector('.viewer output').textContent"


def _choose(browser, kind, number):
    browser.value(f"document.querySelectorAll('.viewer input[data-choice={kind}]')[{number}].click()")


def _place(browser, *place):
    """Move the sliders."""
    for axis, at in enumerate(place):
        browser.value(
            f"(() => {{ const r = document.querySelectorAll('.viewer input[type=range]')[{axis}]; r.value = {at};"
            "r.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )


def _waited(browser, expression, expected):
    for _ in range(100):
        found = browser.value(expression)
        if found == expected:
            return
        time.sleep(0.05)
    assert found == expected


def test_viewer_tells_the_value_of_the_voxel_and_its_label(viewed, dataset):
    browser, chi = viewed, nibabel.load(dataset / "sub-1/anat/sub-1_Chimap.nii.gz").get_fdata()
    _choose(browser, "map", 0)
    _choose(browser, "overlay", 2)
    for place in ((12, 14, 4), (8, 11, 7)):
        _place(browser, place[0], place[1] - FIRST, place[2])
        label = ", Left-Putamen" if place == (12, 14, 4) else ""
        mm = f"(x {2 * place[0]:.1f}, y {2 * place[1]:.1f}, z {4 * place[2]:.1f} mm)"
        _waited(browser, SAID, f"Susceptibility: {chi[place]:+.3f} ppm{label} {mm}")
    _choose(browser, "map", 3)
    _waited(browser, f"{SAID}.startsWith('Phase: ')", True)
    _choose(browser, "map", 0)


def test_viewer_follows_the_keyboard(viewed):
    browser = viewed
    _place(browser, 12, 14, 4)
    browser.value("document.querySelector('.viewer canvas').focus()")
    for key, code in (("ArrowLeft", 37), ("ArrowUp", 38), ("ArrowUp", 38), ("PageUp", 33)):
        browser.press(key, code)
    ranges = "[...document.querySelectorAll('.viewer input[type=range]')].map(r => Number(r.value))"
    assert browser.value(ranges) == [11, 16, 5]
    for _ in range(9):
        browser.press("PageUp", 33)
    assert browser.value(ranges) == [11, 16, 8], "the last slice"


def test_viewer_draws_white_what_is_white_in_its_window(viewed, tmp_path):
    """Middle of the nucleus (0.1 ppm, white), of the brain (0, grey); a click moves the cross to its voxel."""
    browser = viewed
    _choose(browser, "overlay", 0)
    _choose(browser, "plane", 3)
    _place(browser, 4, 22, 4)
    time.sleep(0.5)
    browser.screenshot(tmp_path / "window.png")
    left, top, width, height = browser.value(
        "(() => { const b = document.querySelector('.viewer canvas').getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]; })()"
    )
    pixels = np.asarray(Image.open(tmp_path / "window.png").convert("L")).astype(float)
    shown = pixels[int(top) : int(top + height), int(left) : int(left + width)]
    scale, middle = height / 25, width / 2
    patch = {
        x: shown[int(12 * scale) : int(13 * scale), int(middle + (x - 12) * scale) :][:, : int(scale)] for x in (12, 7)
    }
    assert patch[12].mean() > 220 and 90 < patch[7].mean() < 170
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=left + middle + 0.5 * scale, y=top + 12.5 * scale,
                     button="left", clickCount=1)  # fmt: skip
    ranges = "[...document.querySelectorAll('.viewer input[type=range]')].map(r => Number(r.value))"
    _waited(browser, ranges, [12, 14 - FIRST, 4])
    _choose(browser, "plane", 0)


def test_viewer_is_quiet_and_asks_for_nothing(viewed):
    assert viewed.complaints() == []
    assert {url.partition(":")[0] for url in viewed.requests()} <= {"data", "file"}


def test_tabulator_reaches_links_tables_and_the_slider(shown):
    browser, path = shown
    browser.open(path)
    reached = set()
    for _ in range(40):
        browser.press("Tab", 9)
        reached.add(browser.value("document.activeElement.tagName + (document.activeElement.type || '')"))
    assert {"A", "DIV", "INPUTrange", "INPUTradio", "CANVAS", "SUMMARY"} <= reached


def test_page_prints(shown):
    browser, path = shown
    browser.open(path)
    assert browser.pdf().startswith(b"%PDF")
    assert browser.value("[...document.querySelectorAll('details')].every(d => d.open)"), "nothing is folded on paper"


@pytest.mark.parametrize("width", [1280, 400])
def test_page_of_the_group_is_complete_quiet_and_fits(shown, tmp_path, width):
    rows = [
        {"participant_id": f"sub-{n}", "age": 20.0 + n, "sex": "FM"[n % 2], "map": "chi", "region": region,
         "mean": 0.01 * n, "a_column_with_a_long_name": "x" * 60}
        for n in range(6) for region in ("Left-Putamen", "Right-Putamen")
    ]  # fmt: skip
    quality = [{"participant_id": f"sub-{n}", "snr": 50.0 + n} for n in range(6)]
    browser, path = (
        shown[0],
        write_group_report(tmp_path, {"long": rows, "summary": rows, "quality": quality}, ["sub-7"]),
    )
    browser.events.clear()
    browser.open(path, width)
    images = browser.value("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    assert len(images) == 3 and all(complete and size > 8 and alt for complete, size, alt in images)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('nav a').length") == 4
    assert browser.value("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert browser.complaints() == [] and {url.partition(":")[0] for url in browser.requests()} <= {"data", "file"}


def test_these_tests_would_notice(shown, tmp_path):
    browser, _ = shown
    path = tmp_path / "bad.html"
    path.write_text(
        "<title>x</title><div style='width:900px'>wide</div><img src='http://127.0.0.1:9/a.png'>"
        "<script>console.error('no')</script>"
    )
    browser.events.clear()
    browser.open(path, 400)
    assert "http://127.0.0.1:9/a.png" in browser.requests()
    assert any("no" in text for text in browser.complaints())
    assert browser.value("document.images[0].naturalWidth") == 0
    assert browser.value("document.documentElement.scrollWidth") > 400
