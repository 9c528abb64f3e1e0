"""Writes a sweep's time to convergence: `python -m experiments.table5_runtime.report FOLDER`.

The sweep in FOLDER has an axis 'size' and an axis 'length'. Lester et al. 2021, table 5: a run has
converged at its first evaluation within 1% of the mean of its configuration, which is the mean of
the runs' best dev scores.

A record has the seconds of the whole run, so the time of a step is its share of them: start-up and
evaluations are spread over all steps.
"""

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.speed.report import replace_between_marks
from prompt_tuning.sweeps import grid, results

FOLDER = Path(__file__).parent / "t5_1_1"
README = Path(__file__).with_name("README.md")
WITHIN = 0.01  # of the mean
MISSING = "missing"

# The paper's table 5 [P] in seconds, mean and standard deviation; it leaves out some cells.
PAPER = {
    ("large", "1"): (197, 130),
    ("xl", "1"): (217, 131),
    ("xxl", "1"): (1283, 114),
    ("xl", "20"): (2948, 1133),
    ("xxl", "20"): (3183, 985),
    ("small", "50"): (545, 307),
    ("base", "50"): (3301, 1668),
    ("large", "50"): (4456, 792),
    ("xl", "50"): (9010, 1540),
    ("xxl", "50"): (11593, 1388),
    ("small", "100"): (985, 75),
    ("base", "100"): (1797, 18),
    ("large", "100"): (5016, 621),
    ("xl", "100"): (12900, 3282),
    ("xxl", "100"): (13875, 2753),
}


class Convergence(NamedTuple):
    """When the runs of one configuration converged.

    Attributes:
      target: the dev score that counts as converged.
      seconds, steps: of each run that reached it.
      runs: how many runs there are.
    """

    target: float
    seconds: list[float]
    steps: list[int]
    runs: int

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.seconds) if self.seconds else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None of fewer than two runs."""
        return statistics.stdev(self.seconds) if len(self.seconds) > 1 else None


def converged_step(curve: Sequence[tuple[int, float]], target: float) -> int | None:
    """The first step whose dev score is the target or better.

    >>> converged_step([(100, 50.0), (200, 80.0), (300, 79.0)], 79.0)
    200
    """
    return next((step for step, score in curve if score >= target), None)


def convergence(records: Sequence[Mapping[str, Any]]) -> Convergence:
    """When the runs of one configuration, which differ in the seed, converged.

    Raises:
      ValueError: there is no run.

    >>> curve = [(100, 60.0), (200, 79.5), (300, 80.0)]
    >>> run = {'best': {'dev_score': 80.0}, 'curve': curve, 'seconds': 30.0, 'steps': 300}
    >>> convergence([run]).seconds
    [20.0]
    """
    if not records:
        raise ValueError("Expected the records of one or more runs, got none.")
    mean = statistics.mean(record["best"]["dev_score"] for record in records)
    target = mean - WITHIN * abs(mean)
    found = Convergence(target, [], [], len(records))
    for record in records:
        step = converged_step(record["curve"], target)
        if step is not None:
            found.steps.append(step)
            found.seconds.append(record["seconds"] * step / record["steps"])
    return found


def by_cell(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Convergence]:
    """The convergence of each size and length that has a run.

    Raises:
      ValueError: the sweep has other axes of more than one value.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    others = set()
    for record in records:
        values = dict(record["values"])
        if not {"size", "length"} <= values.keys():
            raise ValueError(
                f"Expected a sweep with the axes 'size' and 'length', got {', '.join(values)}."
            )
        groups.setdefault((values.pop("size"), values.pop("length")), []).append(record)
        others.add(tuple(values.items()))
    if len(others) > 1:
        raise ValueError(
            "Expected one value of each other axis, since runs of a configuration differ in the "
            f"seed alone; got {', '.join(map(str, sorted(others)))}."
        )
    return {cell: convergence(group) for cell, group in groups.items()}


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(197), clock(4456.4)
    ('3:17', '1:14:16')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def table(sweep: grid.Sweep, found: Mapping[tuple[str, str], Convergence]) -> str:
    """Ours beside the paper's."""
    lines = [
        "| P | size | time to convergence | steps | converged at | runs | paper's table 5 [P] |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for length in (value.name for value in sweep.axes["length"]):
        for size in (value.name for value in sweep.axes["size"]):
            ours = _ours(found.get((size, length)))
            paper = PAPER.get((size, length))
            printed = f"{clock(paper[0])} ± {clock(paper[1])}" if paper else "–"
            lines.append(f"| {length} | {size} | {ours} | {printed} |")
    return "\n".join(lines)


def _ours(one: Convergence | None) -> str:
    if one is None:
        return f"{MISSING} | | | 0"
    if one.mean is None:
        return f"{MISSING} | | {one.target:.1f} | 0 of {one.runs}"
    spread = "" if one.std is None else f" ± {clock(one.std)}"
    steps = f"{statistics.mean(one.steps):,.0f}"
    runs = f"{len(one.seconds)} of {one.runs}"
    return f"{clock(one.mean)}{spread} | {steps} | {one.target:.1f} | {runs}"


def write_csv(sweep: grid.Sweep, found: Mapping[tuple[str, str], Convergence]) -> str:
    """The same numbers, in seconds; what is missing is empty."""
    with io.StringIO() as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["length", "size", "seconds", "std", "steps", "target", "reached", "runs"]
            + ["paper_seconds", "paper_std"]
        )
        for length in (value.name for value in sweep.axes["length"]):
            for size in (value.name for value in sweep.axes["size"]):
                one = found.get((size, length))
                numbers = ["", "", "", "", 0, 0] if one is None else _numbers(one)
                writer.writerow([length, size, *numbers, *PAPER.get((size, length), ("", ""))])
        return file.getvalue()


def _numbers(one: Convergence) -> list[Any]:
    steps = statistics.mean(one.steps) if one.steps else None
    texts = ["" if x is None else f"{x:.6g}" for x in (one.mean, one.std, steps, one.target)]
    return [*texts, len(one.seconds), one.runs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes runtime.md and runtime.csv beside the sweep, and the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(FOLDER), help="of sweep.toml")
    folder = Path(parser.parse_args(arguments).folder)
    sweep = grid.read_sweep(str(folder / "sweep.toml"))
    found = by_cell([*results.read_results(sweep).values()])
    (folder / "runtime.md").write_text(table(sweep, found) + "\n", encoding="utf-8")
    (folder / "runtime.csv").write_text(write_csv(sweep, found), encoding="utf-8")
    if folder.resolve() == FOLDER:
        text = README.read_text(encoding="utf-8")
        README.write_text(replace_between_marks(text, table(sweep, found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
