"""A plan as text, and as a record for a file."""

from collections.abc import Sequence
from typing import Any

from prompt_tuning.planning import sweeping
from prompt_tuning.planning.chips import GIB
from prompt_tuning.planning.plan import Plan
from prompt_tuning.planning.sweeping import Group
from prompt_tuning.planning.targets import Target

LEFT_OUT = (
    "left out: sums over devices, activations, softmax, norms, dropout, input, compilation and "
    "evaluation"
)


def record(plan: Plan) -> dict[str, Any]:
    """What a plan found, as JSON can hold it; memory in bytes of a device."""
    compiled = plan.compiled
    return {
        "chips": plan.target.chips,
        "devices": len(plan.target.devices),
        "usable_bytes": plan.target.usable_bytes,
        "axes": dict(compiled.axes),
        "rows": compiled.rows,
        "parts": compiled.parts,
        "memory": compiled.memory and compiled.memory._asdict(),
        "needed": compiled.needed,
        "fits": plan.fits,
        "compile_seconds": round(compiled.seconds, 1),
        "operations": plan.operations,
        "operations_again": plan.operations_again,
        "step_seconds": plan.seconds,
        "bound": plan.bound,
        "steps": plan.steps,
        "largest_batch": plan.largest_batch,
    }


def text(plan: Plan, title: str) -> str:
    """A plan in a few lines.

    Args:
      plan: the plan.
      title: names the run.
    """
    target, compiled = plan.target, plan.compiled
    axes = compiled.axes
    lines = [
        f"{title} on {target.name}: {_count(target.chips, 'chip')}, "
        f"{_count(len(target.devices), 'device')}",
        f"  mesh           {dict(axes)}"
        + (", the smallest model axis that fits" if plan.fits and plan.chose_axes else ""),
        f"  step           {_micro(compiled.rows, compiled.parts)}, compiled in "
        f"{compiled.seconds:.0f} s",
        f"  memory         {_memory(plan)}",
    ]
    if plan.largest_batch is not None:
        lines.append(
            f"  largest batch  {plan.largest_batch}, of those that were compiled on this mesh"
        )
    again = f", {plan.operations_again:.3g} of them again" if plan.operations_again else ""
    total = plan.operations + plan.operations_again
    lines += [
        f"  operations     {total:.3g} a step by formula{again}",
        f"  time           {plan.seconds:.3g} s a step or more, by {plan.bound}; {target.source}",
        f"                 {LEFT_OUT}",
        f"  run            {plan.steps:,} steps, {plan.hours:.3g} hours, "
        f"{plan.chip_hours:.3g} chip-hours, or more",
    ]
    return "\n".join(lines)


def sweep(groups: Sequence[Group], target: Target) -> str:
    """The plan of a sweep: a line for each program, and the sum."""
    lines = [f"{_count(sum(len(group.cells) for group in groups), 'run')} on {target.name}"]
    for group in groups:
        plan, more = group.plan, len(group.cells) - 1
        name = group.cells[0] + (f" and {more} more" if more else "")
        lines.append(
            f"  {name}: mesh {dict(plan.compiled.axes)}, {_memory(plan)}; {group.steps:,} steps of "
            f"{plan.seconds:.3g} s, {group.hours:.3g} hours"
        )
    hours = sweeping.hours(groups)
    lines += [
        f"  {sum(group.steps for group in groups):,} steps, {hours:.3g} hours one after the other, "
        f"{hours * target.chips:.3g} chip-hours, or more; {target.source}",
        f"  {LEFT_OUT}",
    ]
    return "\n".join(lines)


def _memory(plan: Plan) -> str:
    memory, usable = plan.compiled.memory, _gib(plan.target.usable_bytes)
    if memory is None:
        needed = plan.compiled.needed
        said = f"needs {_gib(needed)} GiB" if needed else "does not compile"
        return f"{said}, {usable} GiB a device are usable: does not fit"
    parts = (
        f"{_gib(memory.total)} of {usable} GiB a device ({_gib(memory.arguments)} arguments, "
        f"{_gib(memory.temporaries)} temporaries, {_gib(memory.outputs)} outputs): "
    )
    return parts + ("fits" if plan.fits else "does not fit")


def _gib(size: int) -> str:
    return f"{size / GIB:.4g}"


def _micro(rows: int, parts: int) -> str:
    if parts > 1:
        return f"{parts} micro-batches of {rows} rows"
    return f"the whole batch of {rows} rows at once"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
