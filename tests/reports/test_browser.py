"""The page in a real browser."""

from __future__ import annotations

import pytest

from qsmxt.reports.assemble import write_report
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
    assert len(images) >= 10 and all(complete and size > 8 and alt for complete, size, alt in images)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") == "QSMxT: sub-1", "metadata do not run"
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests()} <= {"data", "file"}


def test_slices_follow_the_keyboard_and_the_choice_of_map(shown):
    browser, path = shown
    browser.open(path)
    browser.value("document.querySelector('.viewer input[type=range]').focus()")
    said = "document.querySelector('.viewer output').textContent"
    style = "document.querySelector('.slice img').style.transform"
    assert browser.value(said) == "5 of 9"
    before = browser.value(style)
    browser.press("ArrowRight", 39)
    assert browser.value(said) == "6 of 9" and browser.value(style) != before
    visible = "[...document.querySelectorAll('.slice img')].findIndex(i => !i.hidden)"
    assert browser.value(visible) == 0
    browser.value("document.querySelectorAll('.viewer input[type=radio]')[2].click()")
    assert browser.value(visible) == 2 and browser.value(said) == "6 of 9"


def test_slice_shown_is_the_one_that_the_slider_says(shown):
    browser, path = shown
    browser.open(path)
    offset = """(() => { const box = document.querySelector('.slice').getBoundingClientRect(),
        image = document.querySelector('.slice img').getBoundingClientRect();
        return [(box.left - image.left) / box.width, (box.top - image.top) / box.height]; })()"""
    for number in (1, 8, 9):
        browser.value(
            f"(() => {{ const r = document.querySelector('.viewer input[type=range]'); r.value = {number};"
            "r.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        column, row = (number - 1) % 8, (number - 1) // 8
        assert browser.value(offset) == pytest.approx([column, row], abs=0.02)


def test_tabulator_reaches_links_tables_and_the_slider(shown):
    browser, path = shown
    browser.open(path)
    reached = set()
    for _ in range(40):
        browser.press("Tab", 9)
        reached.add(browser.value("document.activeElement.tagName + (document.activeElement.type || '')"))
    assert {"A", "DIV", "INPUTrange", "INPUTradio", "SUMMARY"} <= reached


def test_page_prints(shown):
    browser, path = shown
    browser.open(path)
    assert browser.pdf().startswith(b"%PDF")
    assert browser.value("[...document.querySelectorAll('details')].every(d => d.open)"), "nothing is folded on paper"


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
