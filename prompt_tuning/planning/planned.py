"""Hours of a run from plans that were made before: experiments/plan/rows.jsonl, nothing compiles.

The table has prompt tuning of every size of T5 1.1 on slices of every TPU. A run of another shape
takes its operations, by formula, over the peak of the same chips. As in `plan.py` no run is faster
than that, and sums over devices, input, compilation and evaluation are left out.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prompt_tuning import config
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model import compute
from prompt_tuning.planning import chips, plan
from prompt_tuning.run import Run
from prompt_tuning.sweeps import commands, grid, resolved

ROWS = Path("experiments/plan/rows.jsonl")
SLICE = "v5e:2x2"  # the smallest in the table; every size fits
SHAPE = {"P": 100, "batch": 32, "inputs": 512, "targets": 8}  # of the runs in the table


class Estimate(NamedTuple):
    """What is known of a run.

    Attributes:
      hours: at least, of all steps; None if nothing is known.
      said: a sentence.
    """

    hours: float | None
    said: str


def read_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """The newest row of each size and slice; an installed copy has none."""
    for root in config.roots():
        if (root / ROWS).is_file():
            lines = (root / ROWS).read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            return {(f"t5_1_1_{row['size']}", row["slice"]): row for row in rows}
    return {}


def estimate(run: Run, name: str, rows: dict[tuple[str, str], dict[str, Any]]) -> Estimate:
    """Estimates a run that trains.

    Args:
      run: the run.
      name: of a slice, such as 'v5e:2x2'.
      rows: see `read_rows`.
    """
    row = rows.get((run.model.name, name))
    if row is None or not row["fits"]:
        return Estimate(None, f"unknown: experiments/plan has no {run.model.name} on {name}")
    if run.method.kind != prompt_tuning.KIND or run.trains_model or run.packing:
        return Estimate(None, "unknown: experiments/plan has prompt tuning of a frozen model only")
    on = chips.find(name)
    chosen = compute.choose(run.model, "tpu", layers=run.layers, remat=run.remat)
    operations = sum(plan.count_operations(run, chosen.remat))
    seconds = operations / (on.chips * on.chip.tflops * 1e12)
    if row["bound"] == "memory":
        seconds = max(seconds, row["step_seconds"])
    hours = run.train_steps * seconds / 3600
    devices = f"{on.chips} chips, {hours * on.chips:.3g} chip-hours"
    return Estimate(hours, f"{hours:.3g} hours or more on {name} ({devices}){_caution(run)}")


def _caution(run: Run) -> str:
    """What about the run may take more memory than was planned."""
    size = {
        "P": run.prompt_length,
        "batch": run.batch_size,
        "inputs": run.task_feature_lengths["inputs"],
        "targets": run.task_feature_lengths["targets"],
    }
    larger = [f"{name} {x:,} > {SHAPE[name]}" for name, x in size.items() if x > SHAPE[name]]
    if run.param_dtype not in ("bfloat16", "int8", "int8_w8a8"):
        larger.append(f"parameters in {run.param_dtype}, not bfloat16")
    return f"; whether it fits was not planned: {', '.join(larger)}" if larger else ""


def dry_run(sweep: grid.Sweep, cells: Iterable[grid.Cell], name: str = SLICE) -> list[str]:
    """The command of each cell, to be pasted, below a comment with its hours and devices.

    Args:
      sweep: the sweep.
      cells: of it.
      name: of the slice that hours are given for.

    Raises:
      ValueError: the slice is unknown, or a configuration cannot be loaded.
    """
    chips.find(name)
    cells, rows = list(cells), read_rows()
    runs = resolved.load_runs(cells, {})
    sizes = {size for size, _ in rows}
    lines, hours, unknown = [], [], 0
    for cell in cells:
        run = runs[cell.key]
        said = ""
        if cell.train and (run.model.name in sizes or run.model.name.startswith("t5_")):
            found = estimate(run, name, rows)
            said = f": {found.said}"
            hours += [] if found.hours is None else [found.hours]
            unknown += found.hours is None
        lines += [f"# {cell.key}{said}", *commands.lines(sweep, cell)]
    total = f"# {len(cells):,} runs"
    evaluations = sum(len(cell.evaluated) for cell in cells)
    if evaluations:
        total += f", and {evaluations:,} evaluations of them on other tasks"
    if hours:
        total += (
            f"; {len(hours):,} take {sum(hours):,.3g} hours or more one after the other on {name}"
        )
    if unknown:
        total += f"; the hours of {unknown:,} are unknown"
    return [*lines, total]
