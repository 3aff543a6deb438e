"""What a schedule may never do, whatever the jobs: exceed what there is, run too early, or leave something out."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from qsmxt.workflows.schedule import Job, Schedule


@st.composite
def many_jobs(draw):
    jobs = []
    for number in range(draw(st.integers(1, 12))):
        after = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        unit = draw(st.sampled_from("abc"))
        jobs.append(Job(number, unit, tuple(after), draw(st.integers(1, 6)), draw(st.floats(0, 12))))
    return jobs


@settings(max_examples=200, deadline=None)
@given(
    many_jobs(), st.integers(0, 12), st.integers(1, 4), st.floats(0.1, 8), st.sets(st.integers(0, 11), max_size=2),
    st.randoms(), st.integers(0, 2),
)  # fmt: skip
def test_limits_order_and_completeness(jobs, later, processors, memory, faulty, moments, ahead):
    families = _families(jobs)
    first = [job for job in jobs if families[job.name] < later]
    rest = [job for job in jobs if families[job.name] >= later]
    schedule = Schedule(first, processors, memory, ahead)
    running, done, lost = {}, set(), set()
    while schedule.unfinished or rest:
        if rest and moments.random() < 0.3:
            schedule.add(rest)
            rest = []
        assert schedule.units == {job.unit for job in _added(jobs, rest) if job.name not in done | lost}
        if not schedule.unfinished:
            continue
        running |= {job.name: job for job in schedule.start()}
        assert running, "nothing runs though something is left"
        alone = len(running) == 1
        used = [min(job.processors, processors) for job in running.values()]
        assert alone or sum(used) <= processors + (ahead if max(used) == 1 else 0)
        assert alone or sum(min(job.memory, memory) for job in running.values()) <= memory * (1 + 1e-9)
        assert all(done.issuperset(job.after) for job in running.values())
        ended = running.pop(moments.choice(sorted(running)))
        if ended.name in faulty:
            lost.update(schedule.failed(ended.name))
        else:
            schedule.done(ended.name)
            done.add(ended.name)
    assert not running
    assert done.isdisjoint(lost) and done | lost == {job.name for job in jobs}
    without = set()
    for job in jobs:
        if job.name in faulty or without.intersection(job.after):
            without.add(job.name)
    assert lost == without


def _families(jobs):
    """Jobs that depend on each other, by the number of the first of them."""
    family = {}
    for job in jobs:
        together = {family[name] for name in job.after} | {job.name}
        family[job.name] = min(together)
        family.update({name: min(together) for name, value in family.items() if value in together})
    return family


def _added(jobs, rest):
    return [job for job in jobs if job not in rest]


def test_what_is_more_than_there_is_runs_alone():
    schedule = Schedule([Job("large", processors=9, memory=99), Job("small", memory=1)], 2, 8)
    assert [job.name for job in schedule.start()] == ["large"]
    assert schedule.start() == []
    schedule.done("large")
    assert [job.name for job in schedule.start()] == ["small"]


def test_the_unit_that_started_first_goes_on_first():
    jobs = [Job(f"{unit}{step}", unit, (f"{unit}{step - 1}",) if step else ()) for step in range(2) for unit in "abc"]
    schedule = Schedule(jobs, 1, 1)
    order = []
    while schedule.unfinished:
        (job,) = schedule.start()
        order.append(job.name)
        schedule.done(job.name)
    assert order == ["a0", "a1", "b0", "b1", "c0", "c1"]
