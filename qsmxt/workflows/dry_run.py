"""What would run: steps, memory and time of every unit, as text."""

from __future__ import annotations

from collections.abc import Sequence

from qsmxt.config import Settings
from qsmxt.workflows.estimate import estimate_plan
from qsmxt.workflows.participants import Prepared, expected_seconds
from qsmxt.workflows.progress import duration
from qsmxt.workflows.watch import Outcome


def describe_plans(prepared: Sequence[Prepared], skipped: Sequence[Outcome], settings: Settings) -> str:
    """One block per unit, then what is skipped, then the totals."""
    blocks = [describe_plan(item) for item in prepared]
    blocks += [f"{outcome.name}: skipped\n  {outcome.reason}\n" for outcome in skipped]
    seconds = sum(expected_seconds(item) for item in prepared)
    blocks.append(f"{len(prepared)} to do, {len(skipped)} skipped; about {duration(seconds)} of processor time\n")
    return "\n".join(blocks)


def describe_plan(item: Prepared) -> str:
    """Steps of one unit with the memory of their nodes."""
    plan, size = item.plan, item.size
    saved = [name for output in plan.outputs() for name in plan.saved(output)]
    estimates = estimate_plan(plan, size, saved)
    peak = max(estimate.mem_gb for estimate in estimates.values())
    head = (
        f"{item.unit.name}: {size.echoes} echoes of {size.voxels / 1e6:.2f} million voxels, "
        f"{peak:.1f} GB, about {duration(expected_seconds(item))}"
    )
    lines = [head]
    for group in plan.groups:
        needs = estimates[group.name]
        names = ", ".join(step.name for step in group.steps)
        lines.append(f"  {group.name:<12} {needs.mem_gb:5.1f} GB {needs.cpu_seconds:7.1f} s  {names}")
    lines.append(f"  saves        {', '.join(saved)}")
    return "\n".join(lines) + "\n"


def peak_memory(item: Prepared) -> float:
    """Memory of the dearest node of a unit, GB."""
    saved = [name for output in item.plan.outputs() for name in item.plan.saved(output)]
    return max(estimate.mem_gb for estimate in estimate_plan(item.plan, item.size, saved).values())
