"""Lets the prompts of a sweep vote: `python -m experiments.table3_ensembling.report FOLDER`.

The runs of a sweep that differ in the seed alone are one ensemble, if all of them are done. Their
best prompts, which `sweep run` keeps, are evaluated by themselves and together, over one model.

    FOLDER/ensembles.jsonl    one line an ensemble: average, best and vote of each metric
    FOLDER/ensembling.md      the table, beside the paper's; also as .csv

A line stays until its runs are made anew with other settings, so the table can be written again
without the prompts.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prompt_tuning import paths
from prompt_tuning.data.super_glue import METRIC_NAMES
from prompt_tuning.inference import ensemble
from prompt_tuning.sweeps import commands, grid, resolved, results
from prompt_tuning.sweeps.table import MISSING

FOLDER = Path(__file__).parent
LINES = "ensembles.jsonl"
COLUMNS = ("average", "best", "ensemble")
TASKS = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
SUPERGLUE = "SuperGLUE"
SCORE = ensemble.SCORE

# Lester et al. 2021, table 3 [P]: average, best and vote of five prompts over T5 XXL, dev.
PAPER = {
    ("boolq", "accuracy"): (91.1, 91.3, 91.7),
    ("cb", "accuracy"): (99.3, 100.0, 100.0),
    ("cb", "mean_3class_f1"): (99.0, 100.0, 100.0),
    ("copa", "accuracy"): (98.8, 100.0, 100.0),
    ("multirc", "exact_match"): (65.7, 66.3, 67.1),
    ("multirc", "f1"): (88.7, 89.0, 89.4),
    ("record", "em"): (92.7, 92.9, 93.2),
    ("record", "f1"): (93.4, 93.5, 93.9),
    ("rte", "accuracy"): (92.6, 93.5, 93.5),
    ("wic", "accuracy"): (76.2, 76.6, 77.4),
    ("wsc", "accuracy"): (95.8, 96.2, 96.2),
    (SUPERGLUE, SCORE): (90.5, 91.0, 91.3),
}
Line = Mapping[str, Any]


def ensembles(sweep: grid.Sweep) -> list[list[grid.Cell]]:
    """The runs of each ensemble: all seeds of a combination.

    Raises:
      ValueError: the sweep has no axis 'task', or only one seed.
    """
    if "task" not in sweep.axes:
        raise ValueError(f"{sweep.path}: expected an axis 'task'; got {', '.join(sweep.axes)}.")
    groups = itertools.groupby(sweep.cells, key=lambda cell: cell.values)
    found = [list(cells) for _, cells in groups]
    if min(map(len, found)) < 2:
        raise ValueError(f"{sweep.path}: an ensemble needs two seeds or more; got one.")
    return found


def vote(sweep: grid.Sweep, kept: Sequence[Line]) -> list[Line]:
    """The line of each ensemble whose runs are done.

    Args:
      sweep: the sweep.
      kept: lines that were written before. Those of the same runs are taken as they are.

    Raises:
      ValueError: see `results.read_results` and `ensemble.ensemble_run`.
    """
    records = results.read_results(sweep)
    lines = []
    for cells in ensembles(sweep):
        of_runs = [records[cell.key] for cell in cells if cell.key in records]
        if len(of_runs) < len(cells):
            continue
        about = _about(cells, of_runs)
        same = [line for line in kept if about.items() <= line.items()]
        folders = [commands.folder(sweep, cell) for cell in cells]
        if same:
            lines.append(same[0])
        elif all(paths.is_folder(os.path.join(folder, "prompts")) for folder in folders):
            lines.append(about | _ensembled(sweep, cells[0], folders))
    return lines


def _about(cells: Sequence[grid.Cell], records: Sequence[results.Record]) -> dict[str, Any]:
    """What a line depends on: which runs, their settings and their model."""
    return {
        "values": dict(cells[0].values),
        "seeds": [cell.seed for cell in cells],
        "settings": records[0]["settings"],
        "frozen_model": records[0]["frozen_model"],
        "scores": [record["best"][SCORE] for record in records],
    }


def _ensembled(sweep: grid.Sweep, cell: grid.Cell, folders: Sequence[str]) -> dict[str, Any]:
    run = resolved.load_run(cell, folders[0])
    output = os.path.join(sweep.runs, "ensembles", "-".join(cell.values.values()))
    run = dataclasses.replace(run, eval_output_dir=output)
    rows = ensemble.ensemble_run(run, folders).rows()
    return {
        column: {name: row[place] for name, row in rows.items()}
        for place, column in enumerate(COLUMNS)
    }


def table(sweep: grid.Sweep, lines: Sequence[Line]) -> pd.DataFrame:
    """A row per combination and metric, as texts; SuperGLUE's are means over all eight tasks."""
    others = [axis for axis in sweep.axes if axis != "task"]
    by_values = {tuple(line["values"].items()): line for line in lines}
    rows = []
    groups: dict[tuple[str, ...], list[Line]] = {}
    for cells in ensembles(sweep):
        values = cells[0].values
        line = by_values.get(tuple(values.items()), {})
        groups.setdefault(tuple(values[axis] for axis in others), []).append(
            {"task": values["task"], **line}
        )
        rows += [
            _row(values, metric, [line.get(column, {}).get(metric) for column in COLUMNS])
            for metric in METRIC_NAMES[values["task"]]
        ]
    for place, members in groups.items():
        values = {"task": SUPERGLUE, **dict(zip(others, place, strict=True))}
        rows.append(_row(values, SCORE, [_mean(members, column) for column in COLUMNS]))
    return pd.DataFrame(rows)


def _mean(lines: Sequence[Line], column: str) -> float | None:
    """The mean over the tasks of the mean of a task's metrics; None if a task is missing."""
    scores = {line["task"]: line[column][SCORE] for line in lines if column in line}
    return sum(scores.values()) / len(TASKS) if set(scores) == set(TASKS) else None


def _row(values: Mapping[str, str], metric: str, ours: Sequence[float | None]) -> dict[str, str]:
    paper = PAPER.get((values["task"], metric), (None,) * len(COLUMNS))
    row = {"task": values["task"], **values, "metric": metric}
    row |= {name: _text(x) for name, x in zip(COLUMNS, ours, strict=True)}
    return row | {f"paper, {name}": _text(x) for name, x in zip(COLUMNS, paper, strict=True)}


def _text(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def markdown(rows: pd.DataFrame) -> str:
    """The table; numbers stand at the right."""
    n_texts = list(rows.columns).index(COLUMNS[0])
    lines = [list(rows.columns), ["---"] * n_texts + ["---:"] * (len(rows.columns) - n_texts)]
    lines += rows.values.tolist()
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lets vote what has not voted yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(FOLDER), help="of sweep.toml")
    folder = Path(parser.parse_args(arguments).folder)
    sweep = grid.read_sweep(str(folder / "sweep.toml"))
    file = folder / LINES
    kept = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    lines = vote(sweep, [json.loads(line) for line in kept])
    if lines:
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = table(sweep, lines)
    (folder / "ensembling.md").write_text(markdown(rows) + "\n", encoding="utf-8")
    (folder / "ensembling.csv").write_text(
        rows.replace(MISSING, "").to_csv(index=False, lineterminator="\n"), encoding="utf-8"
    )
    print(f"{len(lines)} of {len(ensembles(sweep))} ensembles, written to {folder}/ensembling.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
