"""Tests of prompt_tuning/sweeps/runner.py: what is run, what is not run again, what remains."""

import contextlib
import json
import os
import re
import shutil
import socket
import time

import pytest

from prompt_tuning.cli import main
from prompt_tuning.data import batches
from prompt_tuning.model import decoding
from prompt_tuning.pocket import models
from prompt_tuning.sweeps import estimates, grid, leases, measure, resolved, results, runner
from prompt_tuning.training import lock, step

ONLY_A = ["task=awful", "size=a"]


def lines(sweep_file):
    """The results, in the order of the sweep's cells."""
    keys = [cell.key for cell in grid.read_sweep(str(sweep_file)).cells]
    paths = [sweep_file.parent / "results" / f"{key}.json" for key in keys]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def attempts(sweep_file, key):
    """The entries of a cell that has no result, oldest first."""
    paths = (sweep_file.parent / "results" / "attempts").glob(f"{key}.*.json")
    return [json.loads(path.read_text()) for path in sorted(paths)]


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

    monkeypatch.setattr(measure, "measure", run)
    return made, fails


@pytest.mark.slow
def test_all_methods_leave_a_result_and_no_weights(sweep_file, quick, capsys):
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
    shutil.rmtree(sweep_file.parent / "results")
    runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=prompt"], keep="nothing")
    assert step.make_train_step.cache_info().misses == made.misses
    assert decoding.generate._cache_size() == programs
    assert not any((sweep_file.parent / "runs").iterdir())


monkeypatch_free_load = batches.load_examples  # `quick` puts another in its place


def test_what_is_done_is_not_run_again(sweep_file, counted):
    """Neither what has a file of its own nor what was collected in one file."""
    made, _ = counted
    assert runner.run_sweep(str(sweep_file), only=ONLY_A) == 5
    results_folder = sweep_file.parent / "results"
    with open(sweep_file.parent / "results.jsonl", "w") as file:
        for path in results_folder.glob("awful-a-prompt-*.json"):
            file.write(path.read_text())
            path.unlink()
        file.write('{"key": "awful-b-frozen-0", "error": "ValueError: no"}\n')
        file.write('{"key": "awful-b-frozen-0", "valu')  # a kill cut this line short
    made.clear()
    assert runner.run_sweep(str(sweep_file), only=["task=awful"]) == 5
    assert made == [f"awful-b-{r}" for r in ("frozen-0", "prompt-0", "prompt-1", "model-0",
                                             "model-1")]  # fmt: skip
    assert len(results.read_results(grid.read_sweep(str(sweep_file)))) == 10


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
    assert lines(sweep_file) == []
    assert [each["state"] for each in attempts(sweep_file, "awful-a-prompt-0")] == [
        "running",
        "stopped",
    ]
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
    assert len(lines(sweep_file)) == 4
    _, failed = attempts(sweep_file, "awful-a-prompt-1")
    assert (failed["state"], failed["error"]) == ("failed", "FloatingPointError: the loss is nan")
    me = f"{socket.gethostname()}:{os.getpid()}"
    out = capsys.readouterr().out
    assert f"3/5  awful-a-prompt-1  FAILED on {me}: FloatingPointError: the loss is nan" in out
    assert f"awful-a-model-0  begins on {me}" in out
    assert f"4/5  awful-a-model-0  dev_score 50.00  0 s on {me}  ETA 0:00:00" in out
    log = sweep_file.parent / "runs" / "awful-a-prompt-1" / "log.txt"
    assert "FloatingPointError" in log.read_text()
    fails.clear()
    with pytest.raises(ValueError, match="1 of 1 runs failed: .*; --retry_failed runs them again"):
        runner.run_sweep(str(sweep_file), only=ONLY_A)
    assert len(made) == 5  # kept with its error
    assert "FAILED on" in capsys.readouterr().out
    assert runner.run_sweep(str(sweep_file), only=ONLY_A, retry_failed=True) == 1
    assert made[5:] == ["awful-a-prompt-1"]
    assert not attempts(sweep_file, "awful-a-prompt-1")


def test_runs_are_trained_together(sweep_file, quick, capsys):
    """Prompts of one size, each as if alone; what trains the model is not among them."""
    only = [*ONLY_A, "method=prompt"]
    runner.run_sweep(str(sweep_file), only=only)
    alone = lines(sweep_file)
    shutil.rmtree(sweep_file.parent / "results")
    shutil.rmtree(sweep_file.parent / "runs")
    assert runner.run_sweep(str(sweep_file), only=only, together=3, keep="all") == 2
    for mine, theirs in zip(lines(sweep_file), alone, strict=True):
        assert mine["together"] == 2
        assert mine["best"] == pytest.approx(theirs["best"], rel=1e-4)
        assert (mine["key"], mine["settings"]) == (theirs["key"], theirs["settings"])
    log = (sweep_file.parent / "runs" / "awful-a-prompt-1" / "log.txt").read_text()
    assert log.startswith("trained together with awful-a-prompt-0; see ")
    saved = r"2 runs were trained together, \d+ s each; none was made alone, to compare with"
    assert re.search(saved, capsys.readouterr().out)


def test_what_is_run_together(sweep_file, counted, monkeypatch, capsys):
    """Three tasks and two seeds of a method; a failure of one is its own."""
    made, _ = counted
    groups = []

    def measure_together(runs):
        keys = [os.path.basename(run.model_dir) for run in runs]
        groups.append(keys)
        bad = FloatingPointError("the loss is nan")
        return [bad if key == "awful-a-prompt-1" else {"best": {"step": 4}} for key in keys]

    monkeypatch.setattr(measure, "measure_together", measure_together)
    with pytest.raises(ValueError, match=r"1 of 8 runs failed: awful-a-prompt-1\."):
        only = ["task=awful", "method=prompt", "method=model"]
        runner.run_sweep(str(sweep_file), only=only, together=9)
    assert groups == [[f"awful-{size}-prompt-{seed}" for seed in (0, 1)] for size in "ab"]
    assert made == [f"awful-{size}-model-{seed}" for size in "ab" for seed in (0, 1)]


def test_the_time_that_was_saved():
    record = {"values": {"task": "a"}, "best": {"step": 4}}
    alone = [record | {"seconds": 90.0}, record | {"seconds": 110.0}]
    other = record | {"values": {"task": "b"}, "seconds": 1000.0}
    joint = [record | {"seconds": 50.0, "together": 2}] * 2
    assert estimates.compare_together(alone) is None
    assert estimates.compare_together([*alone, other, *joint]) == (
        "2 runs were trained together, 50 s each; similar ones alone took 100 s, 2.00 times as "
        "long: 0:01:40 saved"
    )


def test_results_of_other_settings_stop_it(sweep_file, counted):
    runner.run_sweep(str(sweep_file), only=ONLY_A)
    sweep_file.write_text(sweep_file.read_text().replace("PROMPT_LENGTH = 4", "PROMPT_LENGTH = 5"))
    message = (
        r"results/awful-a-prompt-0.json holds a result of awful-a-prompt-0 that was made with "
        r"other settings than .* describes now. Remove that file to run it again."
    )
    with pytest.raises(ValueError, match=message):
        runner.run_sweep(str(sweep_file), only=ONLY_A)
    result = sweep_file.parent / "results" / "awful-a-prompt-0.json"
    (sweep_file.parent / "results.jsonl").write_text(result.read_text())
    result.unlink()
    message = r"results.jsonl holds a result of awful-a-prompt-0 .* Remove that line to run"
    with pytest.raises(ValueError, match=message):
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
        results.read_results(grid.read_sweep(str(sweep_file)))


def test_a_replaced_model_stops_it_before_more_is_run(sweep_file, counted, monkeypatch):
    made, _ = counted
    with monkeypatch.context() as patch:
        patch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
        runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=prompt"])
    monkeypatch.setattr(resolved, "_read_fingerprint", lambda *_: "4567")
    assert len(results.read_results(grid.read_sweep(str(sweep_file)))) == 2
    message = r"another random \(fingerprint 0123\) than there is now \(4567\)"
    with pytest.raises(ValueError, match=message):
        runner.run_sweep(str(sweep_file), only=[*ONLY_A, "method=model"])
    assert made == ["awful-a-prompt-0", "awful-a-prompt-1"]
    assert runner.run_sweep(str(sweep_file), only=["size=b", "method=model"]) == 2  # another model


def test_the_seconds_of_earlier_attempts_count(sweep_file, counted, monkeypatch):
    """One that failed after 100 seconds, and one of no time."""
    made, fails = counted
    monkeypatch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
    only = [*ONLY_A, "method=prompt"]
    fails.add("awful-a-prompt-0")
    with pytest.raises(ValueError, match="1 of 2 runs failed"):
        runner.run_sweep(str(sweep_file), only=only)
    path = sweep_file.parent / "results/attempts/awful-a-prompt-0.2.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 100.0}))
    fails.clear()
    runner.run_sweep(str(sweep_file), only=only, retry_failed=True)
    first, second = (line["seconds"] for line in lines(sweep_file))
    assert 100.0 <= first < 130.0
    assert second < 30.0


def test_a_failure_elsewhere_is_not_retried_at_once(sweep_file, counted, monkeypatch):
    """Another worker has taken a cell before this one began, and fails while it waits."""
    made, _ = counted
    only = [*ONLY_A, "method=prompt"]
    other = leases.Cells(str(sweep_file.parent / "results"))
    other.process = 77
    lease = other.claim("awful-a-prompt-0", None)
    monkeypatch.setattr(time, "sleep", lambda seconds: lease.end("failed", error="no memory"))
    with pytest.raises(ValueError, match="1 of 2 runs failed: awful-a-prompt-0"):
        runner.run_sweep(str(sweep_file), only=only, retry_failed=True)
    assert made == ["awful-a-prompt-1"]
    assert runner.run_sweep(str(sweep_file), only=only, retry_failed=True) == 1
    assert made == ["awful-a-prompt-1", "awful-a-prompt-0"]


def test_the_result_of_another_worker_is_shown(sweep_file, counted, monkeypatch, capsys):
    made, _ = counted
    only = [*ONLY_A, "method=prompt"]
    runner.run_sweep(str(sweep_file), only=only)
    record, _ = lines(sweep_file)
    shutil.rmtree(sweep_file.parent / "results")
    other = leases.Cells(str(sweep_file.parent / "results"))
    other.host, other.process = "node3", 77
    lease = other.claim("awful-a-prompt-0", None)
    record |= {"worker": "node3:77"}
    monkeypatch.setattr(time, "sleep", lambda seconds: lease.publish(record))
    capsys.readouterr()
    assert runner.run_sweep(str(sweep_file), only=only) == 1
    assert made[2:] == ["awful-a-prompt-1"]
    out = capsys.readouterr().out
    assert "waiting for 1 runs of other workers: awful-a-prompt-0 (on node3:77)" in out
    assert "2/2  awful-a-prompt-0  dev_score 50.00  0 s on node3:77  ETA" in out


def test_a_result_that_another_worker_made_with_other_settings_stops_it(
    sweep_file, counted, monkeypatch
):
    only = [*ONLY_A, "method=prompt"]
    other = leases.Cells(str(sweep_file.parent / "results"))
    lease = other.claim("awful-a-prompt-0", None)
    record = {"key": "awful-a-prompt-0", "settings": "0123"}
    monkeypatch.setattr(time, "sleep", lambda seconds: lease.publish(record))
    with pytest.raises(ValueError, match="made with other settings"):
        runner.run_sweep(str(sweep_file), only=only)


def test_other_seeds_first_and_those_of_other_workers_last(sweep_file, counted):
    """So that a worker seldom compiles what another compiles too."""
    made, _ = counted
    other = leases.Cells(str(sweep_file.parent / "results"), lease_seconds=2.0)
    other.process = 77
    assert other.claim("awful-a-prompt-0", None) is not None
    runner.run_sweep(str(sweep_file), only=ONLY_A, lease_seconds=2)
    assert [key.removeprefix("awful-a-") for key in made] == [
        "frozen-0",
        "model-0",
        "model-1",
        "prompt-1",
        "prompt-0",  # its lease expired
    ]


def test_a_run_whose_lease_is_lost_publishes_nothing(sweep_file, counted, monkeypatch, capsys):
    """Another worker has taken it over and publishes first; the run is interrupted."""
    made, _ = counted
    key, only = "awful-a-frozen-0", [*ONLY_A, "method=frozen"]
    runner.run_sweep(str(sweep_file), only=only)
    (record,) = lines(sweep_file)
    shutil.rmtree(sweep_file.parent / "results")
    other = leases.Cells(str(sweep_file.parent / "results"))
    ended = []

    def run(run, train):
        (sweep_file.parent / "runs" / key / "weights").write_text("of both workers")
        entry = other.newest([key])[key]
        lease = other.claim(key, entry)
        ended.append("begun")
        time.sleep(20)
        ended.append("ended")
        assert lease is None

    def publish(*waited):
        newest = other.newest([key])[key]
        leases.Lease(other, key, newest.number, newest.content).publish(record | {"seconds": 7.0})

    monkeypatch.setattr(measure, "measure", run)
    monkeypatch.setattr(runner.Worker, "_sleep", publish)
    capsys.readouterr()
    assert runner.run_sweep(str(sweep_file), only=only, lease_seconds=2, keep="nothing") == 0
    assert ended == ["begun"]
    (found,) = lines(sweep_file)
    assert found == record | {"seconds": 7.0}
    assert (sweep_file.parent / "runs" / key / "weights").exists()
    assert f"{key}  LOST on " in capsys.readouterr().out


def test_a_run_that_ends_after_its_lease_was_lost_publishes_nothing(
    sweep_file, counted, monkeypatch
):
    """The worker was frozen: no beat told it."""
    key, only = "awful-a-frozen-0", [*ONLY_A, "method=frozen"]
    runner.run_sweep(str(sweep_file), only=only)
    (record,) = lines(sweep_file)
    shutil.rmtree(sweep_file.parent / "results")
    other = leases.Cells(str(sweep_file.parent / "results"))

    def run(run, train):
        lease = other.claim(key, other.newest([key])[key])
        lease.publish(record | {"seconds": 7.0})
        return {"best": {"dev_score": 1.0}}

    monkeypatch.setattr(measure, "measure", run)
    assert runner.run_sweep(str(sweep_file), only=only) == 0
    assert lines(sweep_file) == [record | {"seconds": 7.0}]


def test_a_folder_in_which_another_process_trains_is_waited_for(sweep_file, counted, monkeypatch):
    def run(run, train):
        with lock.held(run.model_dir):
            return {"best": {"dev_score": 1.0}}

    monkeypatch.setattr(measure, "measure", run)
    only = [*ONLY_A, "method=prompt"]
    with contextlib.ExitStack() as locked:
        locked.enter_context(lock.held(str(sweep_file.parent / "runs" / "awful-a-prompt-0")))
        monkeypatch.setattr(time, "sleep", lambda seconds: locked.close())
        assert runner.run_sweep(str(sweep_file), only=only) == 2


def test_a_folder_in_which_another_process_goes_on_training_fails(sweep_file, counted, monkeypatch):
    def run(run, train):
        with lock.held(run.model_dir):
            return {"best": {"dev_score": 1.0}}

    monkeypatch.setattr(measure, "measure", run)
    only = [*ONLY_A, "method=prompt"]
    with lock.held(str(sweep_file.parent / "runs" / "awful-a-prompt-0")):
        with pytest.raises(ValueError, match="1 of 2 runs failed: awful-a-prompt-0"):
            runner.run_sweep(str(sweep_file), only=only, lease_seconds=1)
    _, failed = attempts(sweep_file, "awful-a-prompt-0")
    assert f"is locked by process {os.getpid()} on {socket.gethostname()}" in failed["error"]


def test_what_is_left_takes_as_long_as_what_is_like_it(sweep_file):
    cells = grid.read_sweep(str(sweep_file)).cells
    done = [
        {"values": {"task": "awful", "size": "a", "method": "prompt"}, "seconds": 10.0},
        {"values": {"task": "awful", "size": "a", "method": "prompt"}, "seconds": 20.0},
        {"values": {"task": "awful", "size": "a", "method": "model"}, "seconds": 70.0},
    ]
    left = [cell for cell in cells if cell.key in ("awful-a-prompt-1", "true-a-model-0")]
    assert estimates.seconds_left(left, done) == 15.0 + 70.0
    assert estimates.seconds_left(left, []) == 0.0


def test_keep_must_be_known(sweep_file):
    with pytest.raises(ValueError, match=r"--keep is one of prompts, nothing, all; got 'some'."):
        runner.run_sweep(str(sweep_file), keep="some")


def test_the_command(sweep_file, counted, capsys):
    made, fails = counted
    options = ["--shard=1/2", "--only=task=awful", "--only=size=a", "--keep=nothing"]
    options += ["--lease_seconds=60"]
    assert main(["sweep", "run", str(sweep_file), *options]) == 0
    assert made == ["awful-a-prompt-0", "awful-a-prompt-1"]
    fails.add("true-a-frozen-0")
    capsys.readouterr()
    assert main(["sweep", "run", str(sweep_file), "--only=task=true"]) == 2
    assert capsys.readouterr().err.startswith("error: 1 of 5 runs failed: true-a-frozen-0.")
