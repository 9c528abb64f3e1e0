"""Tests of prompt_tuning/training/together.py: each run comes out as if it was trained alone."""

import dataclasses
import functools
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_runs

from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.prompts import files
from prompt_tuning.prompts.initializers import from_random_uniform
from prompt_tuning.training import loop, together
from prompt_tuning.training.optimizers import adafactor, adamw

pytestmark = pytest.mark.usefixtures("quick")
SLOW = pytest.mark.slow

TOLERANCE = 1e-5
SETTINGS = [
    {"seed": 0},
    {"seed": 1, "optimizer": functools.partial(adafactor, learning_rate=0.03)},
    {"seed": 1, "prompt_length": 7, "prompt_initializer": from_random_uniform},
    {"optimizer": functools.partial(adamw, learning_rate=0.1), "weight_decay_rate": 0.01},
    {"task": "generated_sentiment_true_false", "seed": 5},
]


def make_runs(folder, settings=SETTINGS, **changes):
    return [
        dataclasses.replace(tiny_runs.make_run(folder / str(number)), **(changes | own))
        for number, own in enumerate(settings)
    ]


def prompts(run):
    """The prompt of every evaluated step, and the best."""
    folder = Path(run.model_dir) / "prompts"
    return {path.stem: files.read_prompt(path).prompt for path in folder.glob("*.safetensors")}


def measured(run):
    """The numbers of metrics.jsonl, by step and split; a last step has more than others."""
    lines = tiny_runs.read_metrics(run.model_dir)
    return {(line.pop("step"), line.pop("split")): line for line in lines}


def state_steps(run):
    return StateStore(Path(run.model_dir) / "state", read_only=True).steps()


def assert_alike(run, other, tolerance=TOLERANCE):
    expected = prompts(other)
    found = prompts(run)
    assert found.keys() == expected.keys()
    for name, prompt in found.items():
        np.testing.assert_allclose(prompt, expected[name], rtol=0, atol=tolerance)
    mine, theirs = measured(run), measured(other)
    assert mine.keys() >= theirs.keys()
    for key, values in theirs.items():
        assert mine[key] == pytest.approx(values, rel=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, compiled_programs):
    """Each run trained by itself."""
    runs = make_runs(tmp_path_factory.mktemp("alone"))
    with tiny_runs.quick(compiled_programs):
        return [tiny_runs.train(run) for run in runs]


@pytest.fixture(scope="module")
def joint(tmp_path_factory, compiled_programs):
    """The same runs trained together."""
    runs = make_runs(tmp_path_factory.mktemp("joint"))
    with tiny_runs.quick(compiled_programs):
        return runs, together.train_runs(runs)


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_each_run_comes_out_as_if_it_was_trained_alone(alone, joint, number):
    """Seed, data, dropout, initialiser, length, optimizer and task are its own."""
    runs, outcomes = joint
    assert alone[number].run.model.dropout_rate > 0
    assert_alike(runs[number], alone[number].run)
    expected = alone[number].trained
    assert outcomes[number][:2] == expected[:2]
    assert outcomes[number].best_score == pytest.approx(expected.best_score)
    assert outcomes[number].path == f"{runs[number].model_dir}/prompts/best.safetensors"


def test_the_prompts_are_not_the_same(joint):
    best = [prompts(run)["step_000006"] for run in joint[0]]
    for prompt in best[1:]:
        assert prompt.shape != best[0].shape or np.abs(prompt - best[0]).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "factor",
    [
        "NUM_REAL_TARGET_TOKENS",
        pytest.param("AVERAGE_PER_SEQUENCE", marks=SLOW),
        pytest.param(233472, marks=SLOW),
    ],
)
def test_each_loss_is_normalised_by_its_own_batch(factor, tmp_path):
    changes = {"loss_normalizing_factor": factor, "train_steps": 2, "microbatch_rows": 4}
    alone = make_runs(tmp_path / "alone", SETTINGS[:2], **changes)
    runs = make_runs(tmp_path / "joint", SETTINGS[:2], **changes)
    together.train_runs(runs)
    for run, other in zip(runs, alone, strict=True):
        loop.train_run(other)
        assert_alike(run, other)


def test_a_run_can_be_resumed_alone(alone, tmp_path):
    runs = make_runs(tmp_path, SETTINGS[:2])
    together.train_runs([dataclasses.replace(run, train_steps=4) for run in runs])
    loop.train_run(runs[1])
    assert_alike(runs[1], alone[1].run)


def test_runs_that_are_behind_catch_up(alone, tmp_path, capsys):
    runs = make_runs(tmp_path, SETTINGS[:3])
    loop.train_run(dataclasses.replace(runs[1], train_steps=4))
    together.train_runs(runs)
    assert "run 1: resuming at step 4" in capsys.readouterr().out
    for run, other in zip(runs, alone[:3], strict=True):
        assert_alike(run, other.run)


class Killed(BaseException):
    """Stands for SIGKILL."""


def kill():
    raise Killed


def test_a_killed_process_resumes_bit_for_bit(joint, tmp_path, monkeypatch):
    runs = make_runs(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        tiny_runs.at_step(patch, 4, kill)
        together.train_runs(runs)
    assert [state_steps(run) for run in runs] == [[2]] * len(runs)
    together.train_runs(runs)
    for run, undisturbed in zip(runs, joint[0], strict=True):
        assert_alike(run, undisturbed, tolerance=0)


@pytest.mark.parametrize("step", [pytest.param(2, marks=SLOW), 4])
def test_killed_between_the_saves_of_two_runs(joint, tmp_path, monkeypatch, capsys, step):
    """The first run is taken back to where the others are."""
    runs, evaluate_and_save = make_runs(tmp_path), loop.evaluate_and_save

    def killed(training, steps, state):
        if state.step == step and training.run is not runs[0]:
            training.store.wait()
            raise Killed
        return evaluate_and_save(training, steps, state)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "evaluate_and_save", killed)
        together.train_runs(runs)
    assert [step in state_steps(run) for run in runs] == [True, *[False] * (len(runs) - 1)]
    capsys.readouterr()
    together.train_runs(runs)
    resumed = re.findall(r"resuming at step (\d)", capsys.readouterr().out)
    assert resumed == [str(step - 2)] * len(runs) * (step > 2)
    for run, undisturbed in zip(runs, joint[0], strict=True):
        assert_alike(run, undisturbed, tolerance=0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 42), pytest.param(signal.SIGINT, 130, marks=SLOW)]
)
def test_a_signal_saves_all_runs(joint, tmp_path, monkeypatch, number, code):
    runs = make_runs(tmp_path)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        tiny_runs.at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        together.train_runs(runs)
    assert ended.value.code == code
    assert signal.getsignal(number) == before
    assert [max(state_steps(run)) for run in runs] == [3] * len(runs)
    together.train_runs(runs)
    for run, undisturbed in zip(runs, joint[0], strict=True):
        found, expected = (prompts(one)["step_000006"] for one in (run, undisturbed))
        np.testing.assert_array_equal(found, expected)


def test_a_run_that_diverges_leaves_the_others(alone, tmp_path, capsys):
    hot = functools.partial(adamw, learning_rate=1e38)
    runs = make_runs(tmp_path, [SETTINGS[0], {"optimizer": hot}, SETTINGS[2]])
    outcomes = together.train_runs(runs)
    assert isinstance(outcomes[1], FloatingPointError)
    assert "run 1: stopped: The loss of step" in capsys.readouterr().out
    for number in (0, 2):
        assert outcomes[number].step == 6
        assert_alike(runs[number], alone[number].run)


def test_a_run_that_stops_early_leaves_the_others(tmp_path, monkeypatch, capsys):
    """Scores of runs 0 and 1 in turns; run 0 ends after step 6."""
    scores = [50.0, 10.0, 40.0, 20.0, 30.0, 30.0, 40.0, 50.0]
    runs = make_runs(tmp_path, SETTINGS[:2], train_steps=10, early_stopping=2)
    with tiny_runs.scripted(scores):
        outcomes = together.train_runs(runs)
    assert [one[:3] for one in outcomes] == [(6, 2, 50.0), (10, 10, 50.0)]
    assert not scores
    printed = capsys.readouterr().out
    assert "run 0: stopping early: no better dev score for 2 evaluations" in printed
    assert "run 1: stopping early" not in printed


def test_finished_runs_are_finished_when_they_are_started_again(joint):
    runs, outcomes = joint
    assert together.train_runs(runs) == outcomes


def test_what_is_printed_and_written(joint, tmp_path, capsys):
    runs = make_runs(tmp_path, SETTINGS[:2], train_steps=2)
    together.train_runs(runs, ["seed_0", "seed_1"])
    printed = capsys.readouterr().out
    assert "2 runs together: seed_0, seed_1" in printed
    assert printed.count("generated_sentiment train: ") == 1  # both read the same
    assert re.search(r"^trainable +128 ", printed, re.MULTILINE)
    assert "2 runs together, computed on cpu" in printed
    assert "seed_1: step 2  validation: accuracy" in printed
    assert "seed_0: done: best dev score" in printed
    for run in runs:
        names = {path.name for path in Path(run.model_dir).iterdir()}
        assert names >= {"metrics.jsonl", "tensorboard", "prompts", "state"}
        assert "train.lock" not in names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([{"batch_size": 4}, {}], "have the same BATCH_SIZE; got 4 and 8"),
        ([{"model_dir": "a"}, {"model_dir": "a"}], "needs a MODEL_DIR of its own"),
        ([{"trainable": (".*",)}] * 2, "excludes parameters of the model train"),
        ([{"packing": True}] * 2, "excludes Run.packing"),
        ([{"prompt_position": "suffix"}, {}], "all at one position"),
    ],
)
def test_runs_that_cannot_be_trained_together_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        together.train_runs(make_runs(tmp_path, settings))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    runs = make_runs(tmp_path, SETTINGS[:2])
    from prompt_tuning.training import lock

    with lock.held(runs[1].model_dir), pytest.raises(ValueError, match="is locked by"):
        together.train_runs(runs)
