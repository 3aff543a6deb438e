"""Time left is what is expected times how fast the run has been; what was done before tells nothing."""

from __future__ import annotations

import io
import logging

import pytest

from qsmxt.workflows import progress
from qsmxt.workflows.progress import Bars, Progress


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self):
        return self.now


def _run(kind=Progress, **units):
    clock = Clock()
    run = kind(units or {"a": 40.0, "b": 40.0}, clock)
    run.expect("a", {"load": 10.0, "chi": 30.0})
    return run, clock


def _step(run, clock, seconds, unit="a", step="load", **keywords):
    run.started(unit, step)
    clock.now += seconds
    run.ended(unit, step, **keywords)


def test_time_left_follows_the_speed_so_far():
    run, clock = _run()
    assert run.left() is None
    _step(run, clock, 20.0)
    assert run.left() == pytest.approx(2 * (30 + 40))
    _step(run, clock, 30.0, step="chi")
    assert run.left() == pytest.approx(50 / 40 * 40)
    run.expect("b", {"load": 5.0, "chi": 15.0})
    assert run.left() == pytest.approx(50 / 40 * 20)


def test_what_was_done_before_does_not_count_as_speed():
    run, clock = _run()
    _step(run, clock, 0.1)
    assert run.left() is None
    _step(run, clock, 59.9, step="chi")
    assert run.left() == pytest.approx(60 / 30 * 40)


def test_failed_steps_are_over_too():
    run, clock = _run(a=40.0)
    _step(run, clock, 10.0, failed=True)
    assert run.left() == pytest.approx(30)


def test_log_tells_step_count_and_time_left(caplog):
    run, clock = _run(a=40.0)
    with caplog.at_level(logging.INFO, "qsmxt"), run:
        _step(run, clock, 10.0)
    assert caplog.messages == ["a: load finished (1 of 2, 30 s left in all)"]


def test_terminal_shows_units_at_work_and_the_whole(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert isinstance(progress.make_progress({"a": 1.0}), Bars)
    run, clock = _run(Bars)
    with run:
        _step(run, clock, 10.0)
        run.started("a", "chi")
        run.bars.refresh()
        shown = screen.getvalue()
        assert "chi" in shown and "2 in all" in shown and "70 s left" in shown
        clock.now += 30
        run.ended("a", "chi")
        assert list(run.tasks) == [] and run.bars.tasks[0].percentage == pytest.approx(50)


def test_no_bars_in_a_log(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert type(progress.make_progress({})) is Progress
