"""Several real processes train one run, save it together, and are killed together."""

import argparse
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import several
import tiny_runs

from prompt_tuning import cli_processes
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.parallel import processes
from prompt_tuning.training import lock

SPLIT = "MESH={'data': 2, 'model': 2}"
RANKS = ["Run.eval_rank=True", "MIXTURE_OR_TASK_NAME=generated_sentiment_true_false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def one(folder, compiled_programs):
    """The run in one process."""
    return several.start(folder / "one", compiled_programs, 1, *RANKS).finish()


@pytest.fixture(scope="module")
def two(folder, compiled_programs):
    """The run in two processes."""
    return several.start(folder / "two", compiled_programs, 2, *RANKS).finish()


@pytest.fixture(scope="module")
def four(folder, compiled_programs):
    """The run in four processes, two of which hold one copy of the model."""
    return several.start(folder / "four", compiled_programs, 4, SPLIT, *RANKS).finish()


def losses(model_dir):
    return [line["loss"] for line in tiny_runs.read_metrics(model_dir) if line["split"] == "train"]


def evaluations(model_dir):
    return [line for line in tiny_runs.read_metrics(model_dir) if line["split"] != "train"]


def fingerprint(started):
    return re.search(r"fingerprint (\w+)", started.printed())[1]


@pytest.mark.parametrize(
    ("name", "layout"), [("two", "2 x 1"), pytest.param("four", "2 x 2", marks=pytest.mark.slow)]
)
def test_several_processes_compute_what_one_computes(name, layout, folder, one, request):
    started = request.getfixturevalue(name)
    assert f"; {layout} devices, data x model; " in started.printed()
    assert fingerprint(started) == fingerprint(one)
    np.testing.assert_allclose(losses(folder / name), losses(folder / "one"), rtol=0, atol=1e-5)
    assert len(evaluations(folder / name)) == 2
    assert evaluations(folder / name) == evaluations(folder / "one")


@pytest.mark.slow
def test_only_the_first_process_writes(folder, four):
    files = sorted(path.name for path in (folder / "four").iterdir())
    assert files == [
        "config.gin", "metrics.jsonl", "prompts", "state", "tensorboard", "versions.json",
    ]  # fmt: skip
    assert len(list((folder / "four" / "tensorboard").iterdir())) == 1
    assert "done: best dev score" in four.printed(0)
    # gloo itself writes to stdout
    assert [
        line
        for index in (1, 2, 3)
        for line in four.printed(index).splitlines()
        if "Gloo" not in line and "is connected to" not in line
    ] == []


@pytest.mark.slow
def test_every_process_has_the_same_state(four):
    assert len(four.digests()) == 4 and len(set(four.digests())) == 1


@pytest.mark.parametrize(("saved", "count"), [("two", 1), ("one", 2)])
def test_a_state_is_restored_bit_by_bit(saved, count, folder, compiled_programs, request, tmp_path):
    """There is no step left, so the last state is the one that was restored."""
    before = request.getfixturevalue(saved).digests()
    again = shutil.copytree(folder / saved, tmp_path / "again")
    started = several.start(again, compiled_programs, count, *RANKS).finish()
    assert "resuming at step 8" in started.printed()
    assert len(started.digests()) == count and set(started.digests()) == set(before)


def test_every_example_is_decoded_once(folder, one, compiled_programs, quick):
    """Two processes evaluate and predict what one process trained as one does."""
    places = [f"{name}_OUTPUT_DIR={folder / 'outputs'}" for name in ("EVAL", "INFER")]
    for command in ("eval", "infer"):
        started = several.start(
            folder / "one", compiled_programs, 2, *places, *RANKS, command=command
        )
        started.finish()
    run = tiny_runs.load_run(folder / "one", *RANKS)
    expected = evaluate.evaluate_run(run)
    metrics = json.loads((folder / "outputs" / "metrics.json").read_text())
    assert (metrics["examples"], metrics["metrics"]) == (20, expected.metrics)
    assert metrics["rank"] == expected.rank
    lines = (folder / "outputs" / "predictions" / f"{run.task}.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == expected.predictions[run.task]
    found = (folder / "outputs" / "predictions.jsonl").read_text().splitlines()
    alone = Path(infer.infer_run(run).path).read_text().splitlines()
    assert len(found) == len(alone) == 20
    for first, second in zip(*(map(json.loads, each) for each in (found, alone)), strict=True):
        assert first["input"] == second["input"] and first["prediction"] == second["prediction"]
        assert first["label_scores"] == pytest.approx(second["label_scores"], abs=1e-4)


@pytest.mark.slow
def test_a_model_is_tuned_and_read_again(folder, compiled_programs, quick):
    """Two processes with half of the frozen parameters each write all of them; both read parts."""
    tunes = ["Run.trainable=['.*/mlp/.*']", "Run.prompt_length=None", "DROPOUT_RATE=0.0"]
    tunes += ["adafactor.learning_rate=0.01", "MESH={'data': 1, 'model': 2}"]
    tunes += ["TRAIN_STEPS=4", "EVAL_PERIOD=4"]
    several.start(folder / "tuned", compiled_programs, 2, *tunes).finish()
    tiny_runs.train(tiny_runs.load_run(folder / "tuned_alone", *tunes, "MESH=None"))
    ends = [checkpoint.leaves(str(folder / name / "best")) for name in ("tuned", "tuned_alone")]
    assert ends[0].keys() == ends[1].keys()
    for path, leaf in ends[0].items():
        atol = 1e-5 if "/mlp/" in path else 0
        np.testing.assert_allclose(leaf.read(), ends[1][path].read(), rtol=0, atol=atol)
    read = several.start(folder / "tuned", compiled_programs, 2, *tunes, command="eval").finish()
    trained = evaluations(folder / "tuned")[-1]["accuracy"]
    assert re.search(rf"accuracy +{trained:.2f}", read.printed())


def test_a_locked_folder_is_refused_in_every_process(tmp_path, compiled_programs):
    with lock.held(str(tmp_path / "run")):
        started = several.start(tmp_path / "run", compiled_programs, 2)
        assert started.wait() == [2, 2]
    assert started.errors().count("is locked by process ") == 2


def kill_at(started, moment, number=signal.SIGKILL, to=None):
    """Waits for the moment, sends the signal and returns the exit codes."""
    end = time.monotonic() + 120
    while not moment() and started.processes[0].poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    started.send(number, to)
    return started.wait()


def appears(folder, pattern):
    known = set(Path(folder).glob(pattern))
    return lambda: bool(set(Path(folder).glob(pattern)) - known)


@pytest.mark.slow
def test_two_processes_survive_kills(tmp_path, compiled_programs):
    """Killed in a save, then by a SIGTERM that one of them gets; ends as if they had not been."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = ["TRAIN_STEPS=400", "EVAL_PERIOD=50"]  # a signal is spread within a second or two
    several.start(whole, compiled_programs, 2, *steps).finish()
    started = several.start(killed, compiled_programs, 2, *steps)
    codes = kill_at(started, appears(killed, "state/100.orbax-checkpoint-tmp*"))
    assert codes == [-signal.SIGKILL] * 2
    started = several.start(killed, compiled_programs, 2, *steps)
    codes = kill_at(started, appears(killed, "prompts/step_*.npy"), signal.SIGTERM, to=[1])
    assert codes == [42, 42], started.errors()[-2000:]
    saved = re.search(r"SIGTERM: saved step (\d+); run the same command", started.printed())[1]
    assert (killed / "state" / saved).is_dir()
    last = several.start(killed, compiled_programs, 2, *steps).finish()
    assert f"resuming at step {saved}" in last.printed()
    for name in ("step_000400", "best"):
        assert tiny_runs.prompt_bytes(killed, name) == tiny_runs.prompt_bytes(whole, name)
    assert tiny_runs.read_metrics(killed) == tiny_runs.read_metrics(whole)
    assert not [path for path in killed.rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--process_count=2"], "--coordinator_address, --process_count and --process_index go to"),
        (["--process_index=0", "--multiprocess"], "go together, and without --multiprocess; got "),
        (
            ["--coordinator_address=a:1", "--process_count=2", "--process_index=2"],
            "--process_index must be from 0 to 1, for --process_count=2; got 2.",
        ),
    ],
)
def test_wrong_options_are_refused(given, message):
    parser = argparse.ArgumentParser()
    cli_processes.add_options(parser)
    with pytest.raises(ValueError, match=re.escape(message)):
        cli_processes.start(parser.parse_args(given))


def test_one_process_is_the_first_and_prints(capsys):
    assert processes.is_first() and processes.of_first("text") == "text"
    with processes.first_prints():
        print("printed")
    assert capsys.readouterr().out == "printed\n"
