"""Tests of prompt_tuning/sweeps/runner.py: what is run, what is not run again, what remains."""

import json
import os
import re

import pytest

from prompt_tuning.cli import main
from prompt_tuning.data import batches
from prompt_tuning.model import decoding
from prompt_tuning.pocket import models
from prompt_tuning.sweeps import grid, resolved, runner
from prompt_tuning.training import step

ONLY_A = ["task=awful", "size=a"]


def lines(sweep_file):
    text = (sweep_file.parent / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def counted(monkeypatch):
    """Replaces the work of a run: keys are noted, and those in `fails` fail."""
    made, fails = [], set()

    def run(run, train):
        key = os.path.basename(run.model_dir)
        made.append(key)
        if key in fails:
            raise FloatingPointError("the loss is nan")
        return {"best": {"dev_score": 50.0}}

    monkeypatch.setattr(runner, "_run", run)
    return made, fails


@pytest.mark.slow
def test_all_methods_leave_a_line_and_no_weights(sweep_file, quick, capsys):
    assert runner.run_sweep(str(sweep_file), only=ONLY_A) == 5
    found = {line["key"]: line for line in lines(sweep_file)}
    assert [*found] == [f"awful-a-{r}" for r in ("frozen-0", "prompt-0", "prompt-1", "model-0",
                                                 "model-1")]  # fmt: skip
    prompt, model = found["awful-a-prompt-1"], found["awful-a-model-1"]
    assert (prompt["trainable_parameters"], prompt["frozen_parameters"]) == (4 * 16, 17_136)
    assert (model["trainable_parameters"], model["frozen_parameters"]) == (17_136, 0)
    assert found["awful-a-frozen-0"]["trainable_parameters"] == 0
    assert {line["model_parameters"] for line in found.values()} == {17_136}
    assert prompt["floor"] == 50.0
    assert (prompt["steps"], prompt["last"]["step"], prompt["seed"]) == (4, 4, 1)
    assert [point[0] for point in prompt["curve"]] == [2, 4]
    assert 0 <= prompt["best"]["rank_accuracy"] <= 100
    assert {"hardware", "versions", "commit"} <= prompt.keys()
    folder = sweep_file.parent / "runs"
    assert sorted(p.name for p in (folder / "awful-a-model-1").iterdir()) == [
        "config.gin",
        "metrics.jsonl",
    ]
    assert (folder / "awful-a-prompt-1" / "prompts" / "best.safetensors").is_file()
    assert "5/5  awful-a-model-1  dev_score" in capsys.readouterr().out


def test_equal_shapes_compile_and_read_once(sweep_file, quick, monkeypatch):
    read = []
    load = batches._load
    monkeypatch.setattr(batches, "load_examples", monkeypatch_free_load)
    monkeypatch.setattr(batches, "_load", lambda *a: read.append(a[1]) or load(*a))
    runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=prompt"], keep="nothing")
    assert sorted(read) == ["train", "validation"]
    made = step.make_train_step.cache_info()
    programs = decoding.generate._cache_size()
    (sweep_file.parent / "results.jsonl").unlink()
    runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=prompt"], keep="nothing")
    assert step.make_train_step.cache_info().misses == made.misses
    assert decoding.generate._cache_size() == programs
    assert not any((sweep_file.parent / "runs").iterdir())


monkeypatch_free_load = batches.load_examples  # `quick` puts another in its place


def test_what_is_done_is_not_run_again(sweep_file, counted):
    made, _ = counted
    assert runner.run_sweep(str(sweep_file), only=ONLY_A) == 5
    with open(sweep_file.parent / "results.jsonl", "a") as file:
        file.write('{"key": "awful-b-frozen-0", "valu')  # a kill cut this line short
    made.clear()
    assert runner.run_sweep(str(sweep_file), only=["task=awful"]) == 5
    assert made == [f"awful-b-{r}" for r in ("frozen-0", "prompt-0", "prompt-1", "model-0",
                                             "model-1")]  # fmt: skip
    assert len(runner.read_results(grid.read_sweep(str(sweep_file)))) == 10


def test_a_killed_run_resumes(sweep_file, quick, monkeypatch):
    """Killed after the first save of the first run: it is resumed at that step."""
    from prompt_tuning.checkpoints.training_state import StateStore

    reached = StateStore.reached_preemption
    monkeypatch.setattr(
        StateStore, "reached_preemption", lambda self, at: 15 * (at == 2)
    )  # SIGTERM
    only = [*ONLY_A, "method=prompt"]
    with pytest.raises(SystemExit, match="42"):
        runner.run_sweep(str(sweep_file), only=only)
    assert not (sweep_file.parent / "results.jsonl").exists()
    monkeypatch.setattr(StateStore, "reached_preemption", reached)
    assert runner.run_sweep(str(sweep_file), only=only, keep="all") == 2
    log = (sweep_file.parent / "runs" / "awful-a-prompt-0" / "log.txt").read_text()
    assert "resuming at step 2" in log
    assert [point[0] for point in lines(sweep_file)[0]["curve"]] == [2, 4]


def test_the_others_continue_after_a_failure(sweep_file, counted, capsys):
    made, fails = counted
    fails.add("awful-a-prompt-1")
    message = "1 of 5 runs failed: awful-a-prompt-1. Their output is in"
    with pytest.raises(ValueError, match=re.escape(message)):
        runner.run_sweep(str(sweep_file), only=ONLY_A)
    assert len(made) == 5
    assert lines(sweep_file)[2]["error"] == "FloatingPointError: the loss is nan"
    assert "FAILED: FloatingPointError: the loss is nan" in capsys.readouterr().out
    log = sweep_file.parent / "runs" / "awful-a-prompt-1" / "log.txt"
    assert "FloatingPointError" in log.read_text()
    fails.clear()
    assert runner.run_sweep(str(sweep_file), only=ONLY_A) == 1
    assert made[5:] == ["awful-a-prompt-1"]


def test_results_of_other_settings_stop_it(sweep_file, counted):
    runner.run_sweep(str(sweep_file), only=ONLY_A)
    sweep_file.write_text(sweep_file.read_text().replace("PROMPT_LENGTH = 4", "PROMPT_LENGTH = 5"))
    with pytest.raises(ValueError, match=r"a result of awful-a-prompt-0 that was made with other"):
        runner.run_sweep(str(sweep_file), only=ONLY_A)


def test_results_of_another_model_stop_it(sweep_file, counted, monkeypatch):
    """A family that states the fingerprints of its models is asked, also for the report."""
    sweep_file.write_text(sweep_file.read_text().replace("'random'", "'pocket_s'"))
    fingerprint = models.read_card("pocket_s")["checkpoints"]["pocket_s@100"]["fingerprint"]
    runner.run_sweep(str(sweep_file), only=ONLY_A)
    assert {line["frozen_model"] for line in lines(sweep_file)} == {fingerprint}
    assert runner.run_sweep(str(sweep_file), only=ONLY_A) == 0
    card = {"checkpoints": {"pocket_s@100": {"fingerprint": "0123"}}}
    monkeypatch.setattr(models, "read_card", lambda size: card)
    message = rf"another pocket_s \(fingerprint {fingerprint}\) than there is now \(0123\)"
    with pytest.raises(ValueError, match=message):
        runner.read_results(grid.read_sweep(str(sweep_file)))


def test_a_replaced_model_stops_it_before_more_is_run(sweep_file, counted, monkeypatch):
    made, _ = counted
    with monkeypatch.context() as patch:
        patch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
        runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=prompt"])
    monkeypatch.setattr(resolved, "_read_fingerprint", lambda *_: "4567")
    assert len(runner.read_results(grid.read_sweep(str(sweep_file)))) == 2
    message = r"another random \(fingerprint 0123\) than there is now \(4567\)"
    with pytest.raises(ValueError, match=message):
        runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=model"])
    assert made == ["awful-a-prompt-0", "awful-a-prompt-1"]
    assert runner.run_sweep(str(sweep_file), only=["size=b", "method=model"]) == 2  # another model


def test_the_seconds_of_attempts_that_were_killed_count(sweep_file, counted, monkeypatch):
    """Two attempts that took 100 and 20 seconds before they were killed, and one of no time."""
    monkeypatch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
    only = [*ONLY_A, "method=prompt"]
    folder = sweep_file.parent / "runs/awful-a-prompt-0"
    folder.mkdir(parents=True)
    (folder / "seconds.json").write_text('{"seconds": 100.0, "began": 5000.0}')
    for name, written in {"log.txt": 5010, "metrics.jsonl": 5020, "config.gin": 5500}.items():
        (folder / name).write_text("")
        os.utime(folder / name, (written, written))
    runner.run_sweep(str(sweep_file), only=only)
    first, second = (line["seconds"] for line in lines(sweep_file))
    assert 120.0 <= first < 150.0
    assert second < 30.0
    assert not (folder / "seconds.json").exists()


def test_the_seconds_of_an_attempt_that_failed_count(sweep_file, counted, monkeypatch):
    made, fails = counted
    monkeypatch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
    only = [*ONLY_A, "method=frozen"]
    fails.add("awful-a-frozen-0")
    with pytest.raises(ValueError, match="1 of 1 runs failed"):
        runner.run_sweep(str(sweep_file), only=only)
    path = sweep_file.parent / "runs/awful-a-frozen-0/seconds.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"began": written["began"] - 60}))
    fails.clear()
    runner.run_sweep(str(sweep_file), only=only, keep="all")
    assert 60.0 <= lines(sweep_file)[-1]["seconds"] < 90.0
    assert json.loads(path.read_text())["seconds"] >= 60.0


def test_what_is_left_takes_as_long_as_what_is_like_it(sweep_file):
    cells = grid.read_sweep(str(sweep_file)).cells
    done = [
        {"values": {"task": "awful", "size": "a", "method": "prompt"}, "seconds": 10.0},
        {"values": {"task": "awful", "size": "a", "method": "prompt"}, "seconds": 20.0},
        {"values": {"task": "awful", "size": "a", "method": "model"}, "seconds": 70.0},
    ]
    left = [cell for cell in cells if cell.key in ("awful-a-prompt-1", "true-a-model-0")]
    assert runner.seconds_left(left, done) == 15.0 + 70.0
    assert runner.seconds_left(left, []) == 0.0


def test_keep_must_be_known(sweep_file):
    with pytest.raises(ValueError, match=r"--keep is one of prompts, nothing, all; got 'some'."):
        runner.run_sweep(str(sweep_file), keep="some")


def test_the_command(sweep_file, counted, capsys):
    made, fails = counted
    options = ["--shard=1/2", "--only=task=awful", "--only=size=a", "--keep=nothing"]
    assert main(["sweep", "run", str(sweep_file), *options]) == 0
    assert made == ["awful-a-prompt-0", "awful-a-prompt-1"]
    fails.add("true-a-frozen-0")
    capsys.readouterr()
    assert main(["sweep", "run", str(sweep_file), "--only=task=true"]) == 2
    assert capsys.readouterr().err.startswith("error: 1 of 5 runs failed: true-a-frozen-0.")
