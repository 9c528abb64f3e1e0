"""Tests of experiments/table5_runtime: convergence worked out by hand, and the committed table."""

import csv
import json

import pytest

from experiments.table5_runtime import report
from prompt_tuning import config
from prompt_tuning.sweeps import grid, resolved


def record(curve, seconds=100.0, size="s", length="20", **values):
    best = max(score for _, score in curve)
    return {
        "values": {"size": size, "length": length, **values},
        "best": {"dev_score": best},
        "curve": curve,
        "seconds": seconds,
        "steps": curve[-1][0],
    }


def test_a_run_has_converged_within_one_percent_of_the_mean_of_all():
    """Best scores 80 and 90, mean 85, so 84.15 is converged: one run is, at step 20 of 40."""
    slow = record([(10, 70.0), (20, 80.0), (30, 79.0), (40, 80.0)])
    fast = record([(10, 84.1), (20, 84.2), (30, 90.0), (40, 80.0)], seconds=60.0)
    found = report.convergence([slow, fast])
    assert found.target == pytest.approx(84.15)
    assert (found.seconds, found.steps, found.runs) == ([30.0], [20], 2)
    assert (found.mean, found.std) == (30.0, None)


def test_mean_and_spread_of_three_runs():
    """All end at 80, so 79.2 is converged: after 10, 20 and, 79.1 being too little, 30 steps."""
    curves = [
        [(10, 80.0), (20, 80.0), (30, 80.0)],
        [(10, 60.0), (20, 80.0), (30, 80.0)],
        [(10, 60.0), (20, 79.1), (30, 80.0)],
    ]
    found = report.convergence([record(curve, seconds=90.0) for curve in curves])
    assert found.steps == [10, 20, 30]
    assert found.target == pytest.approx(79.2)
    assert found.seconds == [30.0, 60.0, 90.0]
    assert (found.mean, found.std) == (60.0, 30.0)


def test_a_step_that_falls_again_counts():
    assert report.converged_step([(1, 10.0), (2, 5.0)], 9.0) == 1
    assert report.converged_step([(1, 8.9), (2, 9.0)], 9.0) == 2
    assert report.converged_step([(1, 1.0)], 9.0) is None


def test_other_sweeps_are_refused():
    with pytest.raises(ValueError, match="axes 'size' and 'length', got size"):
        report.by_cell([{"values": {"size": "s"}}])
    runs = [record([(1, 1.0)], task=task) for task in ("boolq", "cb")]
    with pytest.raises(ValueError, match="one value of each other axis"):
        report.by_cell(runs)
    with pytest.raises(ValueError, match="got none"):
        report.convergence([])


def test_the_numbers_of_the_paper_read_as_they_are_printed():
    assert report.clock(report.PAPER["large", "1"][0]) == "3:17"
    assert report.clock(report.PAPER["xxl", "20"][0]) == "53:03"
    assert report.clock(report.PAPER["large", "50"][0]) == "1:14:16"
    assert report.clock(report.PAPER["xxl", "100"][0]) == "3:51:15"
    assert report.clock(report.PAPER["base", "100"][1]) == "0:18"
    assert len(report.PAPER) == 15


def test_the_report_of_a_sweep_with_a_missing_cell(tmp_path, monkeypatch):
    (tmp_path / "sweep.toml").write_text("""
runs = "runs"
seeds = [0]
[report]
score = "dev_score"
panels = "task"
x = "size"
lines = "length"
[axes.task.boolq]
[axes.size.s]
[axes.size.large]
[axes.length.1]
""")
    done = {"boolq-s-1-0": record([(10, 80.0), (20, 81.0)], length="1", seconds=7200.0)}
    monkeypatch.setattr(report.results, "read_results", lambda sweep: done)
    assert report.main([str(tmp_path)]) == 0
    lines = (tmp_path / "runtime.md").read_text(encoding="utf-8").splitlines()
    assert lines[2] == "| 1 | s | 2:00:00 | 20 | 80.2 | 1 of 1 | – |"
    assert lines[3] == "| 1 | large | missing | | | 0 | 3:17 ± 2:10 |"
    first, second = csv.DictReader((tmp_path / "runtime.csv").open(encoding="utf-8"))
    assert (first["seconds"], first["std"], first["reached"]) == ("7200", "", "1")
    assert (second["seconds"], second["runs"], second["paper_seconds"]) == ("", "0", "197")


def test_every_cell_of_the_sweep_loads():
    sweep = grid.read_sweep(str(report.FOLDER / "sweep.toml"))
    assert len(sweep.cells) == 5 * 4 * 3
    runs = resolved.load_runs(sweep.cells, {})
    assert {run.prompt_length for run in runs.values()} == {1, 20, 50, 100}
    one = config.load(sweep.cells[0].gin_files, [*sweep.cells[0].bindings, "MODEL_DIR='x'"])
    assert one.prompt_initializer.func.__name__ == "from_sampled_vocabulary"


def test_the_table_is_the_committed_one():
    sweep = grid.read_sweep(str(report.FOLDER / "sweep.toml"))
    path = report.FOLDER / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = report.by_cell([json.loads(line) for line in lines])
    table = report.table(sweep, found)
    written = report.README.read_text(encoding="utf-8")
    assert report.replace_between_marks(written, table) == written
    assert (report.FOLDER / "runtime.csv").read_text(encoding="utf-8") == (
        report.write_csv(sweep, found)
    )
