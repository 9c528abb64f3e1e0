"""Tests of experiments/per_task_superglue."""

import pytest

from experiments.per_task_superglue import report
from prompt_tuning.sweeps import grid, results


def record(task, size, method, seed, **best):
    return {"values": {"task": task, "size": size, "method": method}, "seed": seed, "best": best}


@pytest.fixture(scope="module")
def real():
    return grid.read_sweep(str(report.SWEEPS["t5_1_1"]))


def test_each_metric_and_their_mean(real):
    records = [
        record("cb", "base", "prompt", seed, accuracy=80 + seed, mean_3class_f1=60, dev_score=70)
        for seed in (0, 2)
    ]
    lines = report.table(real, records).splitlines()
    assert "| cb | accuracy | base | 81.0 ± 1.4 (2) | – | – |" in lines
    assert "| cb | mean_3class_f1 | base | 60.0 ± 0.0 (2) | – | – |" in lines
    assert "| cb | mean of metrics | base | 70.0 ± 0.0 (2) | – | 92.7 ± 1.9 [S] |" in lines
    assert "| boolq | accuracy | base | – | – | 73.0 ± 1.2 [S] |" in lines


def test_every_value_of_the_paper_is_in_the_table(real):
    text = report.table(real, [])
    assert all(value in text for value in report.PAPER.values())
    assert {metric for task, metric, _ in report.PAPER} <= {
        metric for task in report.TASKS for metric in report.metrics_of(task)
    }


def test_the_readme_has_the_tables_of_the_results():
    text = report.README.read_text(encoding="utf-8")
    for folder in report.SWEEPS.values():
        sweep = grid.read_sweep(str(folder))
        assert report.table(sweep, list(results.read_results(sweep).values())) in text
