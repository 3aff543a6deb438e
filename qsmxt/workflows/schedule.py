"""Which node runs next: those whose predecessors are done, unit by unit, within processors and memory."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A node as the schedule sees it.

    Attributes
    ----------
    name
        What it is called; unique.
    unit
        What it belongs to. Units are finished in the order in which they started: the first results come early, and
        less lies about half-done.
    after
        Names of the jobs that must be done before.
    processors, memory
        What it needs; memory in the unit of the limit.
    """

    name: Hashable
    unit: str = ""
    after: tuple[Hashable, ...] = ()
    processors: int = 1
    memory: float = 0.0


@dataclass
class _Unit:
    """When a unit came, and how many of its jobs have not ended."""

    number: int
    left: int = 0


class Schedule:
    """Hands out jobs so that those at work never need more than there is.

    A job that needs more than there is at all runs alone. An event costs time for the jobs that are ready, not for
    all of them, and a job that has ended is forgotten.

    ``ahead`` jobs more than there are processors are handed out while all need one: they lie ready, with their memory
    reserved, for the first worker that is free, which then waits for nobody.
    """

    def __init__(self, jobs: Sequence[Job], processors: int, memory: float, ahead: int = 0) -> None:
        self.processors, self.memory, self.ahead = processors, memory, ahead
        self._numbers = itertools.count()
        self._unit_numbers = itertools.count()
        self._units: dict[str, _Unit] = {}
        self._place: dict[Hashable, tuple[int, int]] = {}
        self._waiting: dict[Hashable, int] = {}
        self._next: dict[Hashable, list[Job]] = {}
        self._ready: list[tuple[tuple[int, int], Job]] = []
        self._running: dict[Hashable, Job] = {}
        self._left: dict[Hashable, Job] = {}
        self.add(jobs)

    def add(self, jobs: Sequence[Job]) -> None:
        """More jobs, which may wait for each other; their units come after those that are at work."""
        for job in jobs:
            unit = self._units.get(job.unit)
            if unit is None:
                unit = self._units[job.unit] = _Unit(next(self._unit_numbers))
            unit.left += 1
            self._left[job.name] = job
            self._place[job.name] = (unit.number, next(self._numbers))
            self._waiting[job.name] = len(job.after)
            for before in job.after:
                self._next.setdefault(before, []).append(job)
            self._ready_if_free(job)

    def _ready_if_free(self, job: Job) -> None:
        if self._waiting[job.name] == 0:
            heapq.heappush(self._ready, (self._place[job.name], job))

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to run or runs."""
        return bool(self._left)

    @property
    def units(self) -> Set[str]:
        """Units of which anything is left to run or runs."""
        return self._units.keys()

    def start(self) -> list[Job]:
        """The jobs to start now; they count as running from here on."""
        started, kept = [], []
        while self._ready and self._free_processors(1) > 0:
            place, job = heapq.heappop(self._ready)
            if self._fits(job):
                self._running[job.name] = job
                started.append(job)
            else:
                kept.append((place, job))
        for entry in kept:
            heapq.heappush(self._ready, entry)
        return started

    def _free_processors(self, needed: int) -> int:
        """Processors for a job that needs so many of them, with those that will be free next."""
        used = [min(job.processors, self.processors) for job in self._running.values()]
        ahead = self.ahead if max(used, default=1) == needed == 1 else 0
        return self.processors + ahead - sum(used)

    def _fits(self, job: Job) -> bool:
        held = sum(min(other.memory, self.memory) for other in self._running.values())
        room = min(job.memory, self.memory) <= self.memory - held or not self._running
        needed = min(job.processors, self.processors)
        return room and needed <= self._free_processors(needed)

    def done(self, name: Hashable) -> None:
        """The job has ended well; what waits for it may start."""
        self._end(name)
        for job in self._next.pop(name, ()):
            if job.name in self._left:
                self._waiting[job.name] -= 1
                self._ready_if_free(job)

    def failed(self, name: Hashable) -> list[Hashable]:
        """The job has failed; returns its name and those of all that cannot run without it."""
        self._end(name)
        lost, look = [name], [name]
        while look:
            for job in self._next.pop(look.pop(), ()):
                if job.name in self._left:
                    self._forget(job.name)
                    lost.append(job.name)
                    look.append(job.name)
        return lost

    def _end(self, name: Hashable) -> None:
        del self._running[name]
        self._forget(name)

    def _forget(self, name: Hashable) -> None:
        job = self._left.pop(name)
        del self._place[name], self._waiting[name]
        unit = self._units[job.unit]
        unit.left -= 1
        if unit.left == 0:
            del self._units[job.unit]
