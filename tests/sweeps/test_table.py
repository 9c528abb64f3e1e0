"""Tests of prompt_tuning/sweeps/table.py: means over axes and levels, computed by hand."""

import math

import pytest

from prompt_tuning.sweeps import grid, table

SWEEP = """
runs = "runs"
seeds = [0, 1]
gin_files = ["gin/runs/run.gin"]
{report}
[axes.domain.home]
[axes.domain.sea]
[axes.task.cb]
[axes.task.rte]
[axes.length.1]
[axes.length.20]
[axes.length.100]
"""


def read(tmp_path, report):
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP.format(report=report))
    sweep = grid.read_sweep(str(path))
    return sweep, sweep.reports[0]


def record(domain, task, length, seed, score, **more):
    values = {"domain": domain, "task": task, "length": length}
    return {"values": values, "seed": seed, "best": {"dev_score": score}} | more


def rows_of(sweep, report, records):
    found = table.runs(report, records)
    rows = table.summary(sweep, report, found)
    return [dict(row) for _, row in rows.iterrows()]


REPORT = '[report]\nscore = "dev_score"\nx = "length"\nlines = "task"\n'


def test_an_axis_that_is_averaged_over(tmp_path):
    """cb at 1: seed 0 has 40 and 60, seed 1 has 70 alone and is left out."""
    sweep, report = read(tmp_path, REPORT + 'average = ["domain"]')
    records = [
        record("home", "cb", "1", 0, 40.0, floor=10.0),
        record("sea", "cb", "1", 0, 60.0, floor=20.0),
        record("home", "cb", "1", 1, 70.0),
        record("home", "rte", "20", 0, 10.0),
        record("sea", "rte", "20", 0, 20.0),
        record("home", "rte", "20", 1, 30.0),
        record("sea", "rte", "20", 1, 20.0),
    ]
    rows = rows_of(sweep, report, records)
    assert [(row["length"], row["task"]) for row in rows] == [
        (length, task) for length in ("1", "20", "100") for task in ("cb", "rte")
    ]
    assert (rows[0]["n"], rows[0]["mean"], rows[0]["floor"]) == (1, 50.0, 15.0)
    assert (rows[3]["n"], rows[3]["mean"]) == (2, 20.0)
    assert rows[3]["std"] == pytest.approx(math.sqrt(2 * 5.0**2))
    assert all(row["n"] == 0 and math.isnan(row["mean"]) for row in (rows[1], rows[2], rows[4]))


def test_further_axes_are_rows(tmp_path):
    sweep, report = read(tmp_path, REPORT)
    rows = table.summary(sweep, report, table.runs(report, [record("sea", "cb", "1", 0, 40.0)]))
    shown = table.shown(report, rows, ["cb", "rte"])
    assert list(shown.columns) == ["domain", "length", "cb", "rte", "majority"]
    assert len(shown) == 6
    assert list(shown.iloc[3]) == ["sea", "1", "40.0 (1)", "–", "–"]
    assert list(shown.iloc[0]) == ["home", "1", "–", "–", "–"]


def test_the_overall_score_weighs_tasks_equally(tmp_path):
    """As the paper's: the mean over tasks of the mean of a task's metrics, which is dev_score."""
    text = '[report]\nscore = "dev_score"\nx = "length"\npanels = "task"\noverall = "both"\n'
    sweep, report = read(tmp_path, text + 'average = ["domain"]')
    records = [
        record(domain, task, "1", 0, score)
        for domain in ("home", "sea")
        for task, score in (("cb", 90.0), ("rte", 50.0))
    ]
    rows = rows_of(sweep, report, records)
    assert (rows[0]["task"], rows[0]["length"], rows[0]["mean"]) == ("both", "1", 70.0)
    assert math.isnan(rows[1]["mean"])


def test_levels_are_an_axis(tmp_path):
    text = '[report]\nscore = "dev_score"\nsplit = "level"\nx = "level"\nlines = "task"\n'
    sweep, report = read(tmp_path, text + 'average = ["domain", "length"]')
    records = [
        record(
            domain, "cb", length, seed, 75.0, levels={"1": 100.0, "2": 50.0 + 4 * seed, "10": 0.0}
        )
        for domain in ("home", "sea")
        for length in ("1", "20", "100")
        for seed in (0, 1)
    ]
    records.append(record("home", "rte", "1", 0, 75.0))  # has no levels
    rows = rows_of(sweep, report, records)
    assert [(row["level"], row["task"], row["n"]) for row in rows] == [
        ("1", "cb", 2), ("1", "rte", 0), ("2", "cb", 2), ("2", "rte", 0), ("10", "cb", 2),
        ("10", "rte", 0),
    ]  # fmt: skip
    assert [row["mean"] for row in rows[::2]] == [100.0, 52.0, 0.0]
    assert rows[2]["std"] == pytest.approx(math.sqrt(8.0))


def test_other_numbers_can_be_the_score(tmp_path):
    sweep, report = read(tmp_path, REPORT.replace("dev_score", "seconds"))
    (row,) = [
        r
        for r in rows_of(sweep, report, [record("sea", "cb", "1", 0, 1.0, seconds=90.0)])
        if r["n"]
    ]
    assert row["mean"] == 90.0
    assert math.isnan(row["floor"])  # that of the dev score


def test_digits(tmp_path):
    sweep, report = read(tmp_path, REPORT + "digits = 3")
    rows = table.summary(sweep, report, table.runs(report, [record("sea", "cb", "1", 0, 0.25)]))
    assert list(table.shown(report, rows, ["cb", "rte"]).iloc[3])[:3] == ["sea", "1", "0.250 (1)"]


def test_costs_name_what_was_measured_alone(tmp_path):
    """Records from before a number was measured lack it."""
    sweep, report = read(tmp_path, REPORT)
    new = {"seconds": 10.0, "trainable_parameters": 512, "peak_memory_bytes": 1.5e9,
           "tuned_bytes": 2100, "forgetting": 0.25}  # fmt: skip
    records = [
        record("home", "cb", "1", 0, 1.0, **new),
        record("home", "cb", "20", 0, 1.0, seconds=20.0),
    ]
    shown = table.costs(report, table.runs(report, records))
    assert list(shown.columns) == [
        "length", "task", "trainable parameters", "seconds", "peak memory, MB", "tuned file, kB",
        "forgetting, nats",
    ]  # fmt: skip
    assert list(shown.iloc[0]) == ["1", "cb", "512", "10.0", "1,500", "2.1", "+0.250"]
    assert list(shown.iloc[1]) == ["20", "cb", "–", "20.0", "–", "–", "–"]


def test_no_run_has_a_score(tmp_path):
    sweep, report = read(tmp_path, REPORT + 'average = ["domain"]')
    rows = rows_of(sweep, report, [record("home", "cb", "1", 0, None)])
    assert len(rows) == 6 and all(row["n"] == 0 for row in rows)
