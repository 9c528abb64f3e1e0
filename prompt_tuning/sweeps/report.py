"""From a sweep's results to a table and a figure: mean and spread over seeds.

    table.md     one row per panel and x, one column per line: 91.2 ± 0.8 (3)
    table.csv    the same numbers for other tools, one row per combination
    figure.png   one panel per task, score against size, one line per method

± is the standard deviation over the seeds (n - 1), (3) their number. Runs that are missing or
failed are shown as missing and never imputed. The overall panel, if there is one, is the mean of
the others for each seed that all of them have.
"""

import csv
import io
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import shared_files
from prompt_tuning.sweeps import grid, results

MISSING = "–"
COLUMNS = (4, 3)  # panels side by side, whichever leaves fewer panels empty
PANEL_INCHES = (3.0, 2.6)
FLOOR = "majority"
CSV_COLUMNS = (
    "score", "n", "mean", "std", "rank_accuracy", "floor", "model_parameters",
    "trainable_parameters", "steps", "seconds",
)  # fmt: skip


class Combination(NamedTuple):
    """The runs of one combination, over its seeds."""

    scores: list[float]
    records: list[Mapping[str, Any]]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """Over the seeds, with n - 1; None for fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def average(self, name: str) -> float | None:
        """The mean of another number of the runs, at the best step where it is measured there."""
        values = [record["best"].get(name, record.get(name)) for record in self.records]
        values = [value for value in values if value is not None]
        return statistics.fmean(values) if values else None

    def __str__(self) -> str:
        if self.mean is None:
            return MISSING
        spread = "" if self.std is None else f" ± {self.std:.1f}"
        return f"{self.mean:.1f}{spread} ({len(self.scores)})"


def write_report(path: str) -> list[str]:
    """Writes the table and the figure of a sweep next to its file.

    Args:
      path: the sweep's file.

    Returns:
      The paths written: Markdown, CSV, PNG.

    Raises:
      ValueError: the sweep cannot be read, or has no results yet.
    """
    sweep = grid.read_sweep(path)
    records = list(results.read_results(sweep).values())
    if not records:
        raise ValueError(
            f"There are no results of {path} yet; run `prompt-tuning sweep run {path}` first."
        )
    paths = [os.path.join(sweep.folder, name) for name in ("table.md", "table.csv", "figure.png")]
    shared_files.replace(paths[0], markdown(sweep, records).encode())
    _write_csv(paths[1], sweep, records)
    _draw(paths[2], sweep, records)
    return paths


def gather(sweep: grid.Sweep, records: Sequence[Mapping[str, Any]], **values: str) -> Combination:
    """Collects the runs with the given values; those without a finite score count as missing.

    Args:
      sweep: names the score.
      records: results, see `results.read_results`.
      **values: axis values; all of them for the overall panel.
    """
    if values.get(sweep.report["panels"]) in _overall(sweep):
        return _mean_of_panels(sweep, records, values)
    chosen = [r for r in records if values.items() <= r["values"].items()]
    score = sweep.report["score"]
    chosen = [r for r in chosen if math.isfinite(r["best"].get(score, math.nan))]
    return Combination([r["best"][score] for r in chosen], chosen)


def _mean_of_panels(
    sweep: grid.Sweep, records: Sequence[Mapping[str, Any]], values: Mapping[str, str]
) -> Combination:
    cells = [gather(sweep, records, **one) for one in _in_each_panel(sweep, values)]
    by_seed = [
        {record["seed"]: score for record, score in zip(cell.records, cell.scores, strict=True)}
        for cell in cells
    ]
    seeds = [seed for seed in by_seed[0] if all(seed in scores for scores in by_seed)]
    means = [statistics.fmean(scores[seed] for scores in by_seed) for seed in seeds]
    return Combination(means, [r for cell in cells for r in cell.records if r["seed"] in seeds])


def _floor(sweep: grid.Sweep, records: Sequence[Mapping[str, Any]], **values: str) -> float | None:
    """The floor of a panel; for the overall one the mean of all."""
    is_overall = values[sweep.report["panels"]] in _overall(sweep)
    places = _in_each_panel(sweep, values) if is_overall else [values]
    floors = [gather(sweep, records, **place).average("floor") for place in places]
    return None if None in floors else statistics.fmean(floors)


def _in_each_panel(sweep: grid.Sweep, values: Mapping[str, str]) -> list[dict[str, str]]:
    panels = sweep.report["panels"]
    return [{**values, panels: value.name} for value in sweep.axes[panels]]


def _overall(sweep: grid.Sweep) -> list[str]:
    """The name of the overall panel, if there is one."""
    return [sweep.report["overall"]] if "overall" in sweep.report else []


def _panels(sweep: grid.Sweep) -> list[str]:
    return [*_overall(sweep), *(value.name for value in sweep.axes[sweep.report["panels"]])]


def markdown(sweep: grid.Sweep, records: Sequence[Mapping[str, Any]]) -> str:
    """The table, below a line on the origin of its numbers."""
    panels, x, lines = (sweep.report[name] for name in ("panels", "x", "lines"))
    columns = [value.name for value in sweep.axes[lines]]
    header = [panels, x, *columns, FLOOR]
    rows = [header, ["---"] * 2 + ["---:"] * (len(columns) + 1)]
    for panel in _panels(sweep):
        for place in sweep.axes[x]:
            at = {panels: panel, x: place.name}
            cells = [gather(sweep, records, **at, **{lines: name}) for name in columns]
            floor = _floor(sweep, records, **at)
            shown = MISSING if floor is None else f"{floor:.1f}"
            rows.append([panel, place.name, *map(str, cells), shown])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_origin(sweep, records)}\n\n{table}\n"


def _origin(sweep: grid.Sweep, records: Sequence[Mapping[str, Any]]) -> str:
    commits = sorted({str(record["commit"]) for record in records})
    machines = sorted({record["hardware"] for record in records})
    hours = sum(record["seconds"] for record in records) / 3600
    return (
        f"{sweep.report['score']} at the best evaluation, mean ± standard deviation (number of "
        f"seeds); {len(records):,} of {len(sweep.cells):,} runs, {hours:.1f} hours on "
        f"{'; '.join(machines)}; commit {', '.join(commits)}."
    )


def _write_csv(path: str, sweep: grid.Sweep, records: Sequence[Mapping[str, Any]]) -> None:
    panels = sweep.report["panels"]
    every = [{**cell.values, panels: name} for name in _overall(sweep) for cell in sweep.cells]
    every += [dict(cell.values) for cell in sweep.cells]
    combinations = {tuple(values.items()): None for values in every}
    with io.StringIO() as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*sweep.axes, *CSV_COLUMNS])
        for combination in combinations:
            values = dict(combination)
            cell = gather(sweep, records, **values)
            numbers = [cell.mean, cell.std, *map(cell.average, CSV_COLUMNS[4:])]
            texts = ["" if number is None else f"{number:.10g}" for number in numbers]
            row = [*values.values(), sweep.report["score"], len(cell.scores), *texts]
            writer.writerow(row)
        shared_files.replace(path, file.getvalue().encode())


def _draw(path: str, sweep: grid.Sweep, records: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.figure import Figure  # needs no display; slow to import

    panels, x, lines = (sweep.report[name] for name in ("panels", "x", "lines"))
    names = _panels(sweep)
    columns = min(min(COLUMNS, key=lambda count: -len(names) % count), len(names))
    rows = -(-len(names) // columns)
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    places = _places(sweep, records)
    for axes, name in zip(all_axes, names):
        for line in (value.name for value in sweep.axes[lines]):
            at = {panels: name, lines: line}
            cells = {p: gather(sweep, records, **at, **{x: p}) for p in places}
            shown = {p: cell for p, cell in cells.items() if cell.scores}
            axes.errorbar(
                [places[p] for p in shown],
                [cell.mean for cell in shown.values()],
                yerr=[cell.std or 0.0 for cell in shown.values()],
                marker="o",
                capsize=3,
                label=line,
            )
        floor = _floor(sweep, records, **{panels: name})
        if floor is not None:
            axes.axhline(floor, color="gray", linestyle=":", label=FLOOR)
        if _counts_parameters(places):
            axes.set_xscale("log")
        axes.set_xticks([*places.values()], [*places], minor=False)
        axes.minorticks_off()
        axes.set(title=name, ylim=(-3, 103))
        axes.grid(alpha=0.3)
    for axes in all_axes[len(names) :]:
        axes.set_visible(False)
    figure.supylabel(sweep.report["score"])
    figure.supxlabel(f"{x}, by parameters" if _counts_parameters(places) else x)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    with io.BytesIO() as file:
        figure.savefig(file, dpi=120)
        shared_files.replace(path, file.getvalue())


def _places(sweep: grid.Sweep, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The x coordinate of each value: the models' parameter counts, if these are distinct."""
    x = sweep.report["x"]
    names = [value.name for value in sweep.axes[x]]
    found = [gather(sweep, records, **{x: name}).average("model_parameters") for name in names]
    sizes = [size for size in found if size is not None]
    if len(sizes) > 1 and len(set(sizes)) == len(sizes):
        return {name: size for name, size in zip(names, found, strict=True) if size is not None}
    return {name: float(place) for place, name in enumerate(names)}


def _counts_parameters(places: Mapping[str, float]) -> bool:
    return min(places.values()) > 0
