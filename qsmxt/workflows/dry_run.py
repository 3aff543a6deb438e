"""What would run: steps, memory and time of every unit, as text."""

from __future__ import annotations

from collections.abc import Sequence

from qsmxt.config import Settings
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
    estimates = item.estimates()
    peak = max(estimate.mem_gb for estimate in estimates.values())
    head = (
        f"{item.unit.name}: {size.echoes} echoes of {size.voxels / 1e6:.2f} million voxels, "
        f"{peak:.1f} GB, about {duration(sum(estimate.cpu_seconds for estimate in estimates.values()))}"
    )
    lines = [head]
    for group in plan.groups:
        needs = estimates[group.name]
        names = ", ".join(step.name for step in group.steps)
        lines.append(f"  {group.name:<12} {needs.mem_gb:5.1f} GB {needs.cpu_seconds:7.1f} s  {names}")
    lines.append(f"  saves        {', '.join(item.saved)}")
    return "\n".join(lines) + "\n"


def peak_memory(item: Prepared) -> float:
    """Memory of the dearest node of a unit, GB."""
    return max(estimate.mem_gb for estimate in item.estimates().values())
