"""Tests of experiments/table3_ensembling: prompts of a sweep that vote, and means by hand."""

import json
import statistics

import pytest
import tiny_runs

from experiments.table3_ensembling import report
from prompt_tuning.inference import ensemble
from prompt_tuning.sweeps import grid, runner

SWEEP = """
runs = "{folder}/runs"
gin_files = ["gin/models/tiny_byt5.gin", "gin/prompts/class_labels.gin", "gin/decoding/greedy.gin",
             "gin/runs/run.gin", "gin/methods/prompt_tuning.gin"]
bindings = ["T5Config.emb_dim = 16", "T5Config.num_heads = 2", "T5Config.head_dim = 8",
            "T5Config.num_encoder_layers = 1", "T5Config.num_decoder_layers = 1",
            "T5Config.mlp_dim = 16", "PROMPT_LENGTH = 4",
            "INITIAL_CHECKPOINT_PATH = 'random'", "BATCH_SIZE = 8", "Run.eval_examples = 20",
            "TRAIN_STEPS = 2", "EVAL_PERIOD = 2", "DROPOUT_RATE = 0.0"]
seeds = [0, 1]
[report]
score = "dev_score"
x = "task"
[axes.task.rte]
gin_files = ["gin/tasks/generated_sentiment.gin"]
[axes.task.wic]
gin_files = ["gin/tasks/generated_sentiment_true_false.gin"]
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    with tiny_runs.quick(tmp_path_factory.mktemp("compiled_programs")):
        yield


@pytest.fixture
def folder(tmp_path, quick):
    """A sweep of two tasks and two seeds, one of whose tasks is done."""
    (tmp_path / "sweep.toml").write_text(SWEEP.format(folder=tmp_path))
    runner.run_sweep(str(tmp_path), only=["task=rte"])
    return tmp_path


def answers(t5, prompts, examples, run):
    """The first prompt is right in rows 0 to 9, the second in 5 to 12; the first one wins ties."""
    rows = [row["targets_pretokenized"].decode() for row in examples.raw]
    right = (range(10), range(5, 13))
    return [[text if n in each else "neither" for each in right] for n, text in enumerate(rows)]


def test_two_prompts_of_a_sweep(folder, monkeypatch, capsys):
    monkeypatch.setattr(ensemble, "all_votes", answers)
    assert report.main([str(folder)]) == 0
    assert "1 of 2 ensembles" in capsys.readouterr().out
    (line,) = [json.loads(x) for x in (folder / "ensembles.jsonl").read_text().splitlines()]
    assert (line["values"], line["seeds"]) == ({"task": "rte"}, [0, 1])
    assert line["average"] == {"accuracy": 45.0, "dev_score": 45.0}
    assert line["best"]["accuracy"] == line["ensemble"]["accuracy"] == 50.0
    assert (folder / "ensembling.md").read_text().splitlines() == [
        "| task | metric | average | best | ensemble | paper, average | paper, best | paper, "
        "ensemble |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| rte | accuracy | 45.0 | 50.0 | 50.0 | 92.6 | 93.5 | 93.5 |",
        "| wic | accuracy | – | – | – | 76.2 | 76.6 | 77.4 |",
        "| SuperGLUE | dev_score | – | – | – | 90.5 | 91.0 | 91.3 |",
    ]
    assert "rte,accuracy,45.0,50.0,50.0,92.6,93.5,93.5\n" in (folder / "ensembling.csv").read_text()

    monkeypatch.setattr(ensemble, "ensemble_run", None)  # what has voted is not asked again
    before = {path.name: path.read_bytes() for path in folder.glob("ensembl*")}
    assert report.main([str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("ensembl*")} == before


def test_the_numbers_are_those_of_the_command(folder):
    report.main([str(folder)])
    (line,) = [json.loads(x) for x in (folder / "ensembles.jsonl").read_text().splitlines()]
    file = folder / "runs" / "ensembles" / "rte" / "metrics.json"
    found = json.loads(file.read_text())
    assert {name: line[name] for name in report.COLUMNS} == {
        name: found[name] for name in report.COLUMNS
    }
    each = [found["prompts"][path]["dev_score"] for path in found["prompts"]]
    assert line["average"]["dev_score"] == statistics.fmean(each)
    assert each == line["scores"]  # as training measured them


def test_lines_of_other_runs_are_made_anew(folder, monkeypatch):
    report.main([str(folder)])
    (line,) = [json.loads(x) for x in (folder / "ensembles.jsonl").read_text().splitlines()]
    sweep = grid.read_sweep(str(folder))
    monkeypatch.setattr(report, "_ensembled", lambda *_: {"average": "new"})
    assert report.vote(sweep, [line]) == [line]
    (made,) = report.vote(sweep, [line | {"settings": "0123"}])
    assert made["average"] == "new"
    for path in (folder / "runs").glob("*/prompts/*"):
        path.unlink()
        path.parent.rmdir() if not any(path.parent.iterdir()) else None
    assert report.vote(sweep, [line | {"settings": "0123"}]) == []  # no prompts: missing
    assert report.vote(sweep, [line]) == [line]


def test_the_mean_is_that_of_the_paper():
    """With the paper's own numbers: the mean over tasks of the mean of a task's metrics."""
    lines = []
    for task in report.TASKS:
        line = {"values": {"task": task, "size": "xxl"}}
        for place, column in enumerate(report.COLUMNS):
            own = {metric: x[place] for (of, metric), x in report.PAPER.items() if of == task}
            line[column] = own | {"dev_score": statistics.fmean(own.values())}
        lines.append(line)
    sweep = grid.read_sweep(str(report.FOLDER / "t5_1_1"))
    rows = report.table(sweep, lines)
    last = rows.iloc[-1]
    assert list(rows.columns)[:3] == ["task", "size", "metric"]
    assert list(last[["task", "average", "best", "ensemble"]]) == [
        "SuperGLUE", "90.5", "91.1", "91.3",
    ]  # fmt: skip
    assert len(rows) == len(report.PAPER)
    assert not (rows == "–").any().any()  # every value of the paper has a row
    without = report.table(sweep, lines[:-1])
    assert list(without.iloc[-1][["average", "best", "ensemble"]]) == ["–"] * 3


def test_other_sweeps_are_refused(folder):
    text = (folder / "sweep.toml").read_text()
    (folder / "sweep.toml").write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    with pytest.raises(ValueError, match="an ensemble needs two seeds or more; got one"):
        report.ensembles(grid.read_sweep(str(folder)))
    (folder / "sweep.toml").write_text(text.replace("task", "set").replace("gin/sets", "gin/tasks"))
    with pytest.raises(ValueError, match="expected an axis 'task'; got set"):
        report.ensembles(grid.read_sweep(str(folder)))
