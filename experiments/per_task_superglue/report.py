"""Writes the table of README.md: `python -m experiments.per_task_superglue.report`.

Every official metric of every task, from the runs of experiments/figure1_scale. The figure there is
of their mean, and hides what a task's two metrics say apart.
"""

import sys
from pathlib import Path

import pandas as pd

from experiments.speed.report import replace_between_marks
from prompt_tuning.data.super_glue import METRIC_NAMES
from prompt_tuning.sweeps import grid, results
from prompt_tuning.sweeps.table import MISSING

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
POCKET = FOLDER.with_name("figure1_scale")
SWEEPS = {"pocket": POCKET, "t5_1_1": POCKET / "t5_1_1"}
TASKS = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
METHODS = ("prompt", "model")
MEAN = "mean of metrics"

# Prompt tuning of T5 1.1, dev, by task, metric and size. [P]: Lester et al. 2021, table 3, the
# average of five prompts. [S]: Vu et al. 2022, table 6, 100,000 steps, three seeds.
PAPER = {
    ("boolq", "accuracy", "xxl"): "91.1 [P]",
    ("cb", "accuracy", "xxl"): "99.3 [P]",
    ("cb", "mean_3class_f1", "xxl"): "99.0 [P]",
    ("copa", "accuracy", "xxl"): "98.8 [P]",
    ("multirc", "exact_match", "xxl"): "65.7 [P]",
    ("multirc", "f1", "xxl"): "88.7 [P]",
    ("record", "em", "xxl"): "92.7 [P]",
    ("record", "f1", "xxl"): "93.4 [P]",
    ("rte", "accuracy", "xxl"): "92.6 [P]",
    ("wic", "accuracy", "xxl"): "76.2 [P]",
    ("wsc", "accuracy", "xxl"): "95.8 [P]",
    ("boolq", "accuracy", "base"): "73.0 ± 1.2 [S]",
    ("cb", MEAN, "base"): "92.7 ± 1.9 [S]",
    ("copa", "accuracy", "base"): "56.7 ± 1.7 [S]",
    ("rte", "accuracy", "base"): "68.7 ± 1.2 [S]",
    ("wic", "accuracy", "base"): "63.6 ± 1.6 [S]",
    ("wsc", "accuracy", "base"): "71.5 ± 1.7 [S]",
}


def metrics_of(task: str) -> tuple[str, ...]:
    """The names of a task's metrics, and of their mean where it has two."""
    names = METRIC_NAMES[task]
    return (*names, MEAN) if len(names) > 1 else names


def measured(records: list[results.Record]) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each metric at the best evaluation."""
    rows = [
        {**record["values"], "metric": metric, "seed": record["seed"],
         "value": record["best"]["dev_score" if metric == MEAN else metric]}
        for record in records
        for metric in metrics_of(record["values"]["task"])
    ]  # fmt: skip
    columns = ["task", "metric", "size", "method", "seed", "value"]
    by = pd.DataFrame(rows, columns=columns).groupby(columns[:4])["value"]
    return by.agg(["mean", "std", "count"])


def table(sweep: grid.Sweep, records: list[results.Record]) -> str:
    """One line per task, metric and size; what is missing is shown as missing."""
    found = measured(records)
    sizes = [value.name for value in sweep.axes["size"]]
    has_paper = any(size in sizes for *_, size in PAPER)
    header = ["task", "metric", "size", *METHODS, *(["paper, prompt"] if has_paper else [])]
    lines = [header, [*["---"] * 3, *["---:"] * (len(header) - 3)]]
    for task in TASKS:
        for metric in metrics_of(task):
            for size in sizes:
                cells = [_cell(found, (task, metric, size, method)) for method in METHODS]
                paper = [PAPER.get((task, metric, size), MISSING)] if has_paper else []
                lines.append([task, metric, size, *cells, *paper])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(found: pd.DataFrame, place: tuple[str, ...]) -> str:
    if place not in found.index:
        return MISSING
    mean, std, count = found.loc[place]
    spread = f" ± {std:.1f}" if count > 1 else ""
    return f"{mean:.1f}{spread} ({count:.0f})"


def main() -> int:
    """Writes both tables."""
    text = README.read_text(encoding="utf-8")
    for name, folder in SWEEPS.items():
        sweep = grid.read_sweep(str(folder))
        new = table(sweep, list(results.read_results(sweep).values()))
        text = replace_between_marks(text, new, f"<!-- {name} -->", f"<!-- /{name} -->")
    README.write_text(text, encoding="utf-8")
    print(f"written to {README}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
