"""Tests of prompt_tuning/sweeps/elsewhere.py: what a run scores on tasks it was not trained on."""

import json
import math
import shlex
import shutil

import pytest

from prompt_tuning.cli import main
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.planning import planned
from prompt_tuning.sweeps import (
    commands,
    elsewhere,
    grid,
    measure,
    reference,
    report,
    resolved,
    results,
    runner,
    table,
)

EVALUATE = """
[evaluate.true]
gin_files = ["gin/tasks/generated_sentiment_true_false.gin"]
task = "awful"
[evaluate.twenty]
bindings = ["Run.eval_examples = 12"]
method = "prompt"
"""
ONLY = ["task=awful", "size=a"]


@pytest.fixture
def evaluating(sweep_file):
    sweep_file.write_text(
        sweep_file.read_text().replace("seeds = [0, 1]", "seeds = [0]") + EVALUATE
    )
    return sweep_file


def record_of(sweep_file, key):
    return json.loads((sweep_file.parent / "results" / f"{key}.json").read_text())


def test_the_cells_of_an_evaluation(evaluating):
    """Files of a folder take the place of the run's; a table may be for some cells only."""
    cells = {cell.key: cell for cell in grid.read_sweep(str(evaluating)).cells}
    prompt = cells["awful-a-prompt-0"]
    assert [*prompt.evaluated] == ["true", "twenty"]
    assert [*cells["awful-a-model-0"].evaluated] == ["true"]
    assert [*cells["true-a-prompt-0"].evaluated] == ["twenty"]
    true = prompt.evaluated["true"]
    assert "gin/tasks/generated_sentiment.gin" in prompt.gin_files
    assert [file for file in true.gin_files if "tasks" in file] == [
        "gin/tasks/generated_sentiment_true_false.gin"
    ]
    assert set(prompt.gin_files) - set(true.gin_files) == {"gin/tasks/generated_sentiment.gin"}
    assert prompt.evaluated["twenty"].bindings == (*prompt.bindings, "Run.eval_examples = 12")
    run = resolved.load_run(true, "runs/x")
    assert (run.task, run.model_dir) == ("generated_sentiment_true_false", "runs/x")
    assert run.eval_output_dir == "runs/x/evaluated/true"


def test_names_of_values_stand_in_an_evaluation(evaluating):
    text = evaluating.read_text().replace("generated_sentiment_true_false.gin\"]\ntask",
                                          "{task}_{size}.gin\"]\ntask")  # fmt: skip
    evaluating.write_text(text)
    cell = grid.read_sweep(str(evaluating)).cells[0]
    assert cell.evaluated["true"].gin_files[-1] == "gin/tasks/awful_a.gin"


@pytest.mark.parametrize("method", ["frozen", "prompt", "model"])
def test_the_scores_are_those_of_the_command(evaluating, quick, capsys, method):
    """Each pasted `prompt-tuning eval` finds the scores that the record has."""
    runner.run_sweep(str(evaluating), only=[*ONLY, f"method={method}"], keep="all")
    record = record_of(evaluating, f"awful-a-{method}-0")
    sweep = grid.read_sweep(str(evaluating))
    (cell,) = grid.select(sweep, only=[*ONLY, f"method={method}"])
    assert [*record["evaluated"]] == [*cell.evaluated]
    folder = evaluating.parent / "runs" / cell.key / "evaluated"
    for name, line in zip(cell.evaluated, commands.lines(sweep, cell)[1:], strict=True):
        files = [path for path in (folder / name).rglob("*.json*")]
        written = {path.name: path.read_bytes() for path in files}
        assert len(written) == 2  # metrics and predictions
        shutil.rmtree(folder / name)
        assert main(shlex.split(line)[1:]) == 0
        assert {path.name: path.read_bytes() for path in files} == written
        found, scores = json.loads(written["metrics.json"]), record["evaluated"][name]
        expected = found["metrics"] | found["rank"] | {"dev_score": found["dev_score"]}
        assert scores == pytest.approx(expected)
    assert json.loads((folder / "true" / "metrics.json").read_text())["task"] == (
        "generated_sentiment_true_false"
    )


def test_what_is_evaluated_is_the_best_prompt(evaluating, quick, monkeypatch):
    """Not the last one: the tuned arrays are those of prompts/best."""
    loaded = []
    real = loading.load_trained
    monkeypatch.setattr(loading, "load_trained", lambda *a: loaded.append(real(*a)) or loaded[-1])
    runner.run_sweep(str(evaluating), only=[*ONLY, "method=prompt"], keep="all")
    whats = [one.what for one in loaded]
    assert len(whats) == 1  # once for both tasks
    assert whats[0].startswith("prompt ") and "prompts/best" in whats[0]


def test_runs_that_are_trained_together(evaluating, quick):
    text = evaluating.read_text().replace(
        "\nseeds = [0]\n\n[report]", "\nseeds = [0, 1]\n\n[report]"
    )
    evaluating.write_text(text)
    only = [*ONLY, "method=prompt"]
    assert runner.run_sweep(str(evaluating), only=only, together=2, keep="all") == 2
    sweep = grid.read_sweep(str(evaluating))
    for cell in grid.select(sweep, only=only):
        record = record_of(evaluating, cell.key)
        assert record["together"] == 2
        other = resolved.load_run(cell.evaluated["true"], commands.folder(sweep, cell))
        assert record["evaluated"]["true"] == measure.scores(evaluate.evaluate_run(other))


def test_a_run_that_is_interrupted_while_it_is_evaluated(evaluating, quick, monkeypatch):
    """It is not trained again, and has the same scores."""
    only = [*ONLY, "method=prompt"]
    with monkeypatch.context() as patch:

        def interrupted(*_):
            raise KeyboardInterrupt

        patch.setattr(elsewhere, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run_sweep(str(evaluating), only=only)
    assert not (evaluating.parent / "results" / "awful-a-prompt-0.json").exists()
    log = evaluating.parent / "runs" / "awful-a-prompt-0" / "log.txt"
    before = log.read_text()
    runner.run_sweep(str(evaluating), only=only, keep="all")
    assert "loss" in before and "loss" not in log.read_text().removeprefix(before)
    resumed = record_of(evaluating, "awful-a-prompt-0")
    for folder in ("runs", "results"):
        shutil.rmtree(evaluating.parent / folder)
    runner.run_sweep(str(evaluating), only=only)
    assert resumed["evaluated"] == record_of(evaluating, "awful-a-prompt-0")["evaluated"]


def test_a_run_without_a_best_step_is_not_evaluated(evaluating, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda run, train: {"best": {"step": None}})
    monkeypatch.setattr(elsewhere, "measure", None)
    runner.run_sweep(str(evaluating), only=[*ONLY, "method=prompt"])
    assert "evaluated" not in record_of(evaluating, "awful-a-prompt-0")


def test_data_is_found_before_anything_trains(evaluating, monkeypatch):
    made = []
    monkeypatch.setattr(measure, "measure", lambda *a: made.append(a))
    text = evaluating.read_text()
    evaluating.write_text(text.replace('"Run.eval_examples = 12"', "\"Run.eval_split = 'no'\""))
    with pytest.raises(ValueError, match="1 of 1 runs failed"):
        runner.run_sweep(str(evaluating), only=[*ONLY, "method=prompt"])
    assert made == []
    (path,) = (evaluating.parent / "results" / "attempts").glob("awful-a-prompt-0.2.json")
    assert "ValueError: [evaluate.twenty]: " in json.loads(path.read_text())["error"]


def digests(path):
    sweep = grid.read_sweep(str(path))
    return {
        cell.key: resolved.digest(
            resolved.load_run(cell), cell.train, resolved.load_evaluations(cell)
        )
        for cell in sweep.cells
    }


def test_the_settings_of_a_result_are_also_those_of_its_evaluations(evaluating):
    """Without a table they are what they were, so that older results stay valid."""
    with_tables = digests(evaluating)
    text = evaluating.read_text()
    evaluating.write_text(text.replace("eval_examples = 12", "eval_examples = 13"))
    changed = digests(evaluating)
    assert [key for key in changed if changed[key] != with_tables[key]] == [
        key for key in changed if "prompt" in key
    ]
    evaluating.write_text(text.partition("[evaluate.true]")[0])
    without = digests(evaluating)
    assert [key for key in without if without[key] == with_tables[key]] == [
        "true-a-frozen-0", "true-a-model-0",
    ]  # fmt: skip
    runs = resolved.load_runs(grid.read_sweep(str(evaluating)).cells, {})
    assert without["awful-a-prompt-0"] == resolved.digest(runs["awful-a-prompt-0"], True)


def test_results_of_other_evaluations_are_refused(evaluating, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda run, train: {"best": {"dev_score": 50.0}})
    runner.run_sweep(str(evaluating), only=[*ONLY, "method=prompt"])
    text = evaluating.read_text()
    assert len(results.read_results(grid.read_sweep(str(evaluating)))) == 1
    evaluating.write_text(text.replace("eval_examples = 12", "eval_examples = 13"))
    with pytest.raises(ValueError, match="awful-a-prompt-0 that was made with other settings"):
        results.read_results(grid.read_sweep(str(evaluating)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("evaluate.true]", "evaluate.trained]", "'trained' is the task that was trained on"),
        ("evaluate.true]", 'evaluate."a b"]', "a table whose name is letters, digits"),
        ('\nmethod = "prompt"', '\nmethod = "promt"', "names method = 'promt'; there are"),
        ('\nmethod = "prompt"', '\nmethods = "prompt"', "names the axis 'methods'"),
        ('["Run.eval_examples = 12"]', "[12]", "bindings is a list of texts"),
        ("[report]", '[report]\nsplit = "evaluated"', "split is 'level' or 'evaluated_on'"),
    ],
)  # fmt: skip
def test_what_is_refused(evaluating, old, new, message):
    evaluating.write_text(evaluating.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        grid.read_sweep(str(evaluating))


def test_a_split_needs_an_evaluation(sweep_file):
    text = sweep_file.read_text().replace("[report]", '[report]\nsplit = "evaluated_on"')
    sweep_file.write_text(text)
    with pytest.raises(ValueError, match=r"splits by evaluated_on, but there is no \[evaluate"):
        grid.read_sweep(str(sweep_file))


def test_an_evaluation_leaves_what_was_trained(evaluating):
    text = evaluating.read_text()
    evaluating.write_text(text.replace("Run.eval_examples = 12", "PROMPT_LENGTH = 5"))
    cells = {cell.key: cell for cell in grid.read_sweep(str(evaluating)).cells}
    message = (
        r"awful-a-prompt-0, \[evaluate.twenty\]: It says what a trained run is evaluated on, so it "
        r"leaves PROMPT_LENGTH as it is, 4; got 5\."
    )
    with pytest.raises(ValueError, match=message):
        resolved.load_evaluations(cells["awful-a-prompt-0"])


def test_the_dry_run_prints_the_evaluations(evaluating, capsys):
    sweep = grid.read_sweep(str(evaluating))
    lines = planned.dry_run(sweep, grid.select(sweep, only=[*ONLY, "method=prompt"]))
    key, train, true, twenty, total = lines
    assert (key, total) == (
        "# awful-a-prompt-0",
        "# 1 runs, and 2 evaluations of them on other tasks",
    )
    assert train.startswith("prompt-tuning train ") and "evaluated" not in train
    folder = f"{evaluating.parent}/runs/awful-a-prompt-0"
    for line, name in ((true, "true"), (twenty, "twenty")):
        assert line.startswith("prompt-tuning eval ")
        assert f"--gin.MODEL_DIR='\"'\"'{folder}'\"'\"'" in line
        assert f"{folder}/evaluated/{name}" in line


TABLE = """
runs = "runs"
seeds = [0, 1]
gin_files = ["gin/runs/run.gin"]
[[report]]
score = "f1"
split = "evaluated_on"
x = "evaluated_on"
lines = "method"
average = ["task"]
comparable = true
[[report]]
name = "by_task"
score = "em"
split = "evaluated_on"
x = "task"
lines = "evaluated_on"
rows = ["method"]
[axes.task.a]
[axes.task.b]
[axes.method.prompt]
[axes.method.model]
[evaluate.drop]
[evaluate.race]
method = "model"
"""


def scored(task, method, seed, own, **others):
    evaluated = {name: {"f1": f1, "em": f1 - 10} for name, f1 in others.items()}
    values = {"task": task, "method": method}
    return {
        "values": values,
        "seed": seed,
        "best": {"f1": own, "em": own - 10},
        "evaluated": evaluated,
    }


@pytest.fixture
def made(tmp_path):
    (tmp_path / "sweep.toml").write_text(TABLE)
    records = [
        scored("a", "prompt", 0, 90.0, drop=60.0),
        scored("b", "prompt", 0, 80.0, drop=40.0),
        scored("a", "prompt", 1, 92.0, drop=64.0),
        scored("b", "prompt", 1, 82.0, drop=44.0),
        scored("a", "model", 0, 95.0, drop=50.0, race=30.0),
    ]
    return grid.read_sweep(str(tmp_path / "sweep.toml")), records


def test_tasks_are_an_axis(made):
    """Means over a and b by seed: 85 and 87 where trained, 50 and 54 on drop."""
    sweep, records = made
    rows = table.summary(sweep, sweep.reports[0], table.runs(sweep.reports[0], records))
    found = {(row["evaluated_on"], row["method"]): row for _, row in rows.iterrows()}
    assert [*found] == [
        ("trained", "prompt"), ("trained", "model"), ("drop", "prompt"), ("drop", "model"),
        ("race", "model"),
    ]  # fmt: skip
    assert found["trained", "prompt"][["n", "mean"]].tolist() == [2, 86.0]
    assert found["drop", "prompt"][["n", "mean"]].tolist() == [2, 52.0]
    assert found["drop", "prompt"]["std"] == pytest.approx(math.sqrt(8.0))
    assert found["race", "model"]["n"] == 0  # b is missing
    second = sweep.reports[1]
    rows = table.summary(sweep, second, table.runs(second, records))
    found = {(r["method"], r["task"], r["evaluated_on"]): r["mean"] for _, r in rows.iterrows()}
    assert found["model", "a", "race"] == 20.0
    assert found["prompt", "b", "drop"] == 32.0
    assert ("prompt", "a", "race") not in found


def test_reference_values_of_an_evaluation_and_of_one_score(made):
    sweep, records = made
    with open(f"{sweep.folder}/reference.csv", "w") as file:
        file.write(
            "evaluated_on,score,method,value,std,source\n"
            "drop,f1,prompt,67.1,1.9,P\ntrained,f1,prompt,94.8,0.1,P\n"
        )
    values = reference.read(sweep, sweep.reports[0])
    assert reference.read(sweep, sweep.reports[1]) is None  # of another score
    rows = table.summary(sweep, sweep.reports[0], table.runs(sweep.reports[0], records), values)
    shown = table.shown(sweep.reports[0], rows, ["prompt", "model"])
    assert shown[["evaluated_on", "prompt, paper", "prompt, difference"]].values.tolist() == [
        ["trained", "94.8 ± 0.1 [P]", "-8.8"],
        ["drop", "67.1 ± 1.9 [P]", "-15.1"],
        ["race", "–", "–"],
    ]
    for one in sweep.reports:
        assert report.make(sweep, one, [r | {"seconds": 1.0} for r in records]).figures["png"]
