"""The terminal interface, driven by keys and clicks on a screen that nobody sees."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from qsmxt.cli.arguments import build_parser
from qsmxt.cli.tui.choices import Choices, mask_methods, output_switches, preset_methods, problem, stages
from qsmxt.registry.catalogue import catalogue

textual = pytest.importorskip("textual", reason="textual is not installed (extra: tui)")

from textual.widgets import Checkbox, Input, Label, ProgressBar, RichLog, Select, SelectionList, Static  # noqa: E402

from qsmxt.cli.tui import app as tui  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two subjects of one echo each; the second does not tell its echo time."""
    root = tmp_path_factory.mktemp("tui") / "bids"
    (root / "sub-1/anat").mkdir(parents=True)
    (root / "sub-2/anat").mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    for subject in "12":
        for part in ("mag", "phase"):
            path = root / f"sub-{subject}/anat/sub-{subject}_part-{part}_T2starw.nii.gz"
            nibabel.Nifti1Image(np.linspace(-3, 3, 512, dtype=np.float32).reshape(8, 8, 8), np.eye(4)).to_filename(path)
            known = {"EchoTime": 0.02} if subject == "1" else {}
            sidecar = {**known, "MagneticFieldStrength": 3, **({"Units": "rad"} if part == "phase" else {})}
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return root


def _drive(steps, *arguments):
    async def run():
        app = tui.QSMxTApp(*map(str, arguments))
        async with app.run_test(size=(140, 60)) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(run())


async def _until(pilot, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        await pilot.pause(0.05)


def test_command_says_what_was_chosen_and_nothing_else():
    assert Choices("/data/x y").command() == "qsmxt '/data/x y' '/data/x y-qsm' participant -w '/data/x y-work'"
    chosen = Choices(
        "b", "o", "w", ("1", "2"), "body", {"qsm": False, "swi": True, "r2star": False}, "magnitude:first", "bet",
        "erode:2", {"inversion": "rts", "background": "", "separation": "wavesep", "unwrapping": "romeo"}, "--nprocs 3",
    )  # fmt: skip
    namespace = build_parser().parse_intermixed_args(shlex.split(chosen.command())[1:])
    assert namespace.participant_label == ["1", "2"] and namespace.preset == "body"
    assert namespace.flags == {
        "outputs": {"qsm": False, "swi": True}, "masking": {"sections": ("magnitude:first,bet,erode:2",)},
        "inversion": {"method": "rts"}, "separation": {"method": "wavesep"}, "execution": {"nprocs": 3},
    }  # fmt: skip


def test_all_methods_of_the_catalogue_are_on_offer():
    for stage, _, offered in stages():
        assert {key for _, key in offered} == {*catalogue()[stage], "none"}
    assert {key for _, key in mask_methods()} >= {"bet", "otsu", "quality", "robust"}
    assert "erode" not in {key for _, key in mask_methods()}
    assert preset_methods("fast")["inversion"] == "tkd" != preset_methods("default")["inversion"]


def test_what_is_wrong_is_said():
    assert "dataset" in problem(Choices())
    assert "quotation" in problem(Choices("b", more="'"))
    assert "erod" in problem(Choices("b", mask_image="magnitude", mask_method="bet", mask_more="erod:2"))
    assert problem(Choices("b")) == ""


def test_units_are_listed_and_choices_change_the_command(dataset):
    async def steps(app, pilot):
        units = app.query_one("#units", SelectionList)
        await _until(pilot, lambda: units.option_count == 2)
        shown = [str(units.get_option_at_index(index).prompt) for index in range(2)]
        assert "sub-1_T2starw (T2starw, 1 echo, 3 T)" in shown[0] and "EchoTime" in shown[1]
        units.focus()
        await pilot.press("space")
        assert {box.id for box in app.query(Checkbox)} == {f"out-{entry.name}" for entry in output_switches()}
        app.query_one("#out-swi", Checkbox).toggle()
        app.query_one("#stage-inversion", Select).value = "rts"
        app.query_one("#preset", Select).value = "body"
        app.query_one("#out_dir", Input).value = "/tmp/o"
        await pilot.pause()
        for name in ("command", "run", "units"):
            seen = app.query_one(f"#{name}").region
            assert seen.area > 0 and seen.bottom < app.size.height, f"{name} is on the screen"
        command = str(app.query_one("#command", Static).content)
        assert command == app.choices.command()
        assert command.endswith("--preset body --swi --inversion rts") and "/tmp/o" in command
        assert "--participant-label 1" in command and app.chosen_units() == [next(iter(app.units))]
        assert "phase-quality" in str(app.query_one("#preset-mask", Static).content)

    _drive(steps, dataset)


def test_folders_that_are_no_dataset_are_told(tmp_path):
    async def steps(app, pilot):
        title = app.query_one("#units-title", Label)
        await _until(pilot, lambda: "no dataset_description.json" in str(title.content))
        app.query_one("#bids_dir", Input).value = ""
        await pilot.pause()
        assert app.query_one("#run").disabled
        await pilot.press("ctrl+r")
        assert not isinstance(app.screen, tui.RunScreen)

    _drive(steps, tmp_path)


def test_keyboard_alone_reaches_everything(dataset):
    async def steps(app, pilot):
        reached = set()
        for _ in range(14):
            await pilot.press("tab")
            reached.add(app.focused.id if app.focused else None)
        assert {"bids_dir", "tree", "out_dir", "units", "plan", "run"} <= reached

    _drive(steps, dataset)


def test_plan_is_that_of_the_command(dataset):
    async def steps(app, pilot):
        await _until(pilot, lambda: app.units)
        app.query_one("#more", Input).value = "--skip-bids-validation"
        await pilot.press("ctrl+p")
        await _until(pilot, lambda: isinstance(app.screen, tui.RunScreen) and app.screen.code is not None)
        told = "\n".join(line.text for line in app.screen.query_one("#log", RichLog).lines)
        assert "sub-1_T2starw: 1 echoes" in told and "1 to do, 1 skipped" in told
        await pilot.press("escape")
        assert not isinstance(app.screen, tui.RunScreen)

    _drive(steps, dataset, dataset.parent / "out")


def test_progress_follows_the_run_and_leaving_stops_it(dataset, monkeypatch, tmp_path):
    talk = tmp_path / "talk.py"
    talk.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a suite in the background may ignore it
        "print('12:00:00 INFO sub-1_T2starw: chi finished (3 of 6, 7 s left in all)', file=sys.stderr, flush=True)\n"
        "time.sleep(600)\n"
    )
    started = []

    def start(words):
        started.append(words)
        command = [sys.executable, str(talk)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    monkeypatch.setattr(tui, "start_run", start)

    async def steps(app, pilot):
        await _until(pilot, lambda: len(app.units) == 2)
        await pilot.press("ctrl+r")
        await _until(pilot, lambda: isinstance(app.screen, tui.RunScreen) and app.screen.shares)
        await pilot.pause()
        assert app.screen.query_one("#bar", ProgressBar).progress == pytest.approx(0.25), "half of one of two"
        assert "7 s left" in str(app.screen.query_one("#state", Label).content)
        process = app.screen.process
        await pilot.press("escape")
        await _until(pilot, lambda: process.poll() is not None)

    _drive(steps, dataset)
    assert started[0][0] == str(dataset)
