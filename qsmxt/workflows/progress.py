"""How far a run is: steps of every subject and the time left, as bars on a terminal and as lines in a log.

The time left follows from the expected processor time of the steps and from how fast this run has worked through them
so far; steps that were done before, and end at once, do not count as work.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("qsmxt")

#: A step that takes less than this part of its expected time was done before.
DONE_BEFORE = 0.02

#: Least time that a step counts for, s: nipype spends it on any.
LEAST = 0.2


@dataclass
class UnitProgress:
    """Steps of one unit: expected seconds by name, those that ended, those that run since when."""

    seconds: dict[str, float] = field(default_factory=dict)
    whole: float = 0.0
    ended: set[str] = field(default_factory=set)
    running: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Expected seconds of what has not ended."""
        if not self.seconds:
            return self.whole
        return sum(seconds for name, seconds in self.seconds.items() if name not in self.ended)


class Progress(AbstractContextManager["Progress"]):
    """Count steps; say every one that ends in a line of the log.

    Parameters
    ----------
    units
        Expected seconds of every unit of the run, by the name of its workflow.
    clock
        Seconds that only go forward.

    Attributes
    ----------
    rest
        Expected seconds of all that has not ended.
    """

    def __init__(self, units: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.units = {name: UnitProgress(whole=seconds) for name, seconds in units.items()}
        self.clock = clock
        self.began: float | None = None
        self.worked = 0.0
        self.rest = sum(units.values())

    def __exit__(self, *arguments: Any) -> None:
        """Nothing to put away."""

    def expect(self, unit: str, seconds: Mapping[str, float]) -> None:
        """The steps of a unit, with their expected seconds."""
        progress = self.units.setdefault(unit, UnitProgress())
        self.rest -= progress.left
        progress.seconds = {name: max(float(value), LEAST) for name, value in seconds.items()}
        self.rest += progress.left

    def started(self, unit: str, step: str) -> None:
        """A step begins."""
        now = self.clock()
        self.began = now if self.began is None else self.began
        self.units[unit].running[step] = now
        self.show(unit, step)

    def ended(self, unit: str, step: str, *, failed: bool = False) -> None:
        """A step ends."""
        progress, now = self.units[unit], self.clock()
        took = now - progress.running.pop(step, now)
        expected = progress.seconds.get(step, LEAST)
        if step in progress.seconds and step not in progress.ended:
            self.rest -= expected
        progress.ended.add(step)
        if took >= DONE_BEFORE * expected:
            self.worked += expected
        self.say(unit, step, failed)
        self.show(unit, step)

    def left(self) -> float | None:
        """Seconds until all is done; ``None`` as long as nothing is known."""
        if self.began is None or self.worked == 0:
            return None
        return max(self.rest, 0.0) * (self.clock() - self.began) / self.worked

    def say(self, unit: str, step: str, failed: bool) -> None:
        """One line for a step that ended."""
        progress, left = self.units[unit], self.left()
        done = f"{len(progress.ended)} of {len(progress.seconds)}"
        rest = "" if left is None else f", {duration(left)} left in all"
        logger.info("%s: %s %s (%s%s)", unit, step, "failed" if failed else "finished", done, rest)

    def show(self, unit: str, step: str) -> None:
        """Draw what has changed; a log has nothing to draw."""


class Bars(Progress):
    """A bar for the run and one for every unit that is at work, on a terminal."""

    def __init__(self, units: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        from rich import progress
        from rich.console import Console

        super().__init__(units, clock)
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[about]}"), console=Console(stderr=True),
        )  # fmt: skip
        self.all = self.bars.add_task(f"{len(units)} in all", total=1.0, about="")
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        """Start to draw."""
        self.bars.start()
        return self

    def __exit__(self, *arguments: Any) -> None:
        """Leave the last state on the screen."""
        self.bars.stop()

    def say(self, unit: str, step: str, failed: bool) -> None:
        """Bars say it, save for what failed."""
        if failed:
            logger.warning("%s: %s failed", unit, step)

    def show(self, unit: str, step: str) -> None:
        """Move the bars."""
        progress = self.units[unit]
        if unit not in self.tasks:
            self.tasks[unit] = self.bars.add_task(unit, total=len(progress.seconds), about="")
        self.bars.update(self.tasks[unit], completed=len(progress.ended), about=", ".join(progress.running))
        if len(progress.ended) == len(progress.seconds):
            self.bars.remove_task(self.tasks.pop(unit))
        wholes = sum(sum(p.seconds.values()) or p.whole for p in self.units.values())
        left = self.left()
        about = "" if left is None else f"{duration(left)} left"
        self.bars.update(self.all, completed=1 - max(self.rest, 0.0) / wholes if wholes else 1.0, about=about)


def make_progress(units: Mapping[str, float]) -> Progress:
    """Bars where somebody looks at a terminal, lines elsewhere."""
    return Bars(units) if sys.stderr.isatty() else Progress(units)


def duration(seconds: float) -> str:
    """Rounded as one would say it.

    >>> duration(42), duration(400), duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7000 else f"{seconds / 3600:.1f} h"
