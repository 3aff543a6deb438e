"""What would run: steps, memory and time of every unit, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qsmxt.config import GroupSettings, Settings
from qsmxt.workflows.participants import Prepared, expected_seconds
from qsmxt.workflows.progress import duration
from qsmxt.workflows.watch import Outcome

if TYPE_CHECKING:
    from qsmxt.workflows.cohort import Cohort


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
    for name in ("register_anatomy", "segmentation"):
        if name in estimates:
            lines.append(f"  {name:<12} {estimates[name].mem_gb:5.1f} GB {estimates[name].cpu_seconds:7.1f} s")
    lines.append(f"  saves        {', '.join(item.saved)}")
    return "\n".join(lines) + "\n"


def peak_memory(item: Prepared) -> float:
    """Memory of the dearest node of a unit, GB."""
    return max(estimate.mem_gb for estimate in item.estimates().values())


def describe_cohort(cohort: Cohort, group: GroupSettings) -> str:
    """What the group level would run: the scans, and time and memory of the template."""
    from qsmxt.workflows.template import choose_scans, estimate_template

    lines = [
        f"group: {len(cohort.scans)} scans"
        + (f", without results: {', '.join(cohort.missing)}" if cohort.missing else "")
    ]
    if group.template:
        scans, left_out = choose_scans(cohort)
        lines += [f"  left out of the template: {name}: {reason}" for name, reason in sorted(left_out.items())]
        needs = estimate_template(scans, group)
        lines.append(
            f"  template     {needs.mem_gb:5.1f} GB {needs.cpu_seconds:7.1f} s  of {len(scans)} scans, "
            f"about {duration(needs.cpu_seconds)} of processor time"
        )
    return "\n".join(lines) + "\n"
