"""The library of the viewer is the one that its record names, and a page holds what fits."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

from qsmxt.reports.viewer import FOLDER, Viewers, library_record


def _layout(dataset):
    return json.loads((dataset / "logs/sub-1/sub-1_MEGRE_qsm_quality.json").read_text())["viewer"]


def test_library_is_what_its_record_says_and_brings_its_licences():
    code = gzip.decompress((FOLDER / "niivue.js.gz").read_bytes())
    record = library_record()
    assert hashlib.sha256(code).hexdigest() == record["sha256"]
    assert (record["name"], record["license"]) == ("@niivue/niivue", "BSD-2-Clause")
    licence = (FOLDER / "niivue.LICENSE").read_text()
    assert licence.startswith("BSD 2-Clause License\n\nCopyright (c) 2021, Niivue\n") and "--" not in licence
    others = (FOLDER / "niivue.THIRD-PARTY").read_text()
    assert all(name in others for name in ("gl-matrix", "fflate", "nifti-reader-js"))


def test_a_page_with_a_viewer_holds_the_library_once_and_admits_it(dataset):
    viewers = Viewers(dataset)
    assert viewers.library() == "" and viewers.script_digests() == []
    sections = [viewers.section(_layout(dataset), [], "sub-1", str(number)) for number in range(2)]
    assert len({re.search('name="(map-.*?)"', section).group(1) for section in sections}) == 2
    (block,) = re.findall('<script type="application/gzip" id="niivue">(.*?)</script>', viewers.library())
    digest = hashlib.sha256(gzip.decompress(base64.b64decode(block))).digest()
    assert viewers.script_digests() == [base64.b64encode(digest).decode()]
    assert "Redistribution and use" in viewers.library()


def test_what_does_not_fit_is_left_out_the_susceptibility_last(dataset):
    layout = _layout(dataset)
    sizes = [
        4 * -(-(dataset / entry["file"]).stat().st_size // 3) for entry in [layout["maps"][0], *layout["overlays"]]
    ]
    few = Viewers(dataset, budget=sum(sizes)).section(layout, [], "sub-1", "1")
    assert few.count("data-maps=") == 1 and few.count("data-overlays=") == 1
    none = Viewers(dataset, budget=sizes[0] - 1)
    assert none.section(layout, [], "sub-1", "1").startswith("<p>Slices to leaf through are left out")
    assert none.library() == ""


def test_viewers_share_what_there_is_and_the_last_are_left_out(dataset):
    layout = _layout(dataset)
    first = 4 * -(-(dataset / layout["maps"][0]["file"]).stat().st_size // 3)
    both = Viewers(dataset, 2, budget=2 * first, least=0)
    assert [both.section(layout, [], "s", str(n)).count("data-maps=") for n in range(2)] == [1, 1]
    many = Viewers(dataset, 4, budget=2 * first, least=first)
    assert [many.section(layout, [], "s", str(n)).count("data-maps=") for n in range(4)] == [1, 1, 0, 0]


def test_names_of_labels_cannot_end_the_block_of_the_layout(dataset):
    layout = _layout(dataset)
    layout["overlays"][0]["labels"] = {"1": "</script><script>alert(1)"}
    section = Viewers(dataset).section(layout, [], "sub-1", "1")
    (text,) = re.findall('<script type="application/json" class="layout">(.*?)</script>', section)
    assert json.loads(text)["overlays"][0]["labels"] == {"1": "</script><script>alert(1)"}
