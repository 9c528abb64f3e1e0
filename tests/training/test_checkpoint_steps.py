"""Tests of Run.checkpoint_steps: the whole model at chosen steps, whatever interrupts the run."""

import shutil

import numpy as np
import pytest
import tiny_runs

from prompt_tuning.checkpoints import checkpoint, t5x_native
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.training import loop

pytestmark = pytest.mark.usefixtures("quick")
SHAPES = parameter_shapes(tiny_runs.MODEL)


def make_run(folder, **changes):
    settings = tiny_runs.MODEL_TUNING | {"train_steps": 4, "checkpoint_steps": (0, 3, 4)}
    return tiny_runs.make_run(folder, **(settings | changes))


def read(folder, step):
    return checkpoint.load_model(folder / f"checkpoint_{step}", SHAPES)


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_model_of_the_steps_asked_for_is_written(tmp_path, scores):
    scores += [1.0, 2.0]
    run = make_run(tmp_path)
    tiny_runs.train(run)
    names = {path.name for path in tmp_path.glob("checkpoint_*")}
    assert names == {"checkpoint_0", "checkpoint_3", "checkpoint_4"}
    start = {k: np.asarray(v) for k, v in load_parameters(run.model, "random").items()}
    assert same(read(tmp_path, 0), start)
    assert not same(read(tmp_path, 3), start)
    best = checkpoint.load_model(tmp_path / "best", SHAPES)  # of step 4, an evaluation
    assert same(read(tmp_path, 4), best) and not same(read(tmp_path, 3), best)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_checkpoints(tmp_path, scores, monkeypatch):
    """Killed twice: after checkpoint 3, and before the state of step 4 is saved."""
    scores += [1.0, 2.0]
    tiny_runs.train(make_run(tmp_path / "whole"))

    write, save = t5x_native.write, StateStore.save

    def killed_after(folder, flat, step):
        written = write(folder, flat, step)
        if step == 3:
            raise KeyboardInterrupt
        return written

    def killed_before(self, step, *arguments):
        if step == 4:
            raise KeyboardInterrupt
        return save(self, step, *arguments)

    run = make_run(tmp_path / "killed")
    scores += [1.0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(t5x_native, "write", killed_after)
        tiny_runs.train(run)
    tiny_runs.leftover(tmp_path / "killed/checkpoint_4").mkdir()
    (tmp_path / "killed/checkpoint_3/checkpoint").write_bytes(b"other")  # is written again
    scores += [2.0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StateStore, "save", killed_before)
        tiny_runs.train(run)
    scores += [2.0]
    tiny_runs.train(run)
    for step in (0, 3, 4):
        assert same(read(tmp_path / "killed", step), read(tmp_path / "whole", step))
    assert not list((tmp_path / "killed").glob("*.tmp-*"))


def test_a_step_that_was_missed_is_an_error(tmp_path, tuned):
    folder = shutil.copytree(tuned.run.model_dir, tmp_path / "run")
    with pytest.raises(ValueError, match="asks for the model of step 3, .*is at step 4 already"):
        loop.train_run(make_run(folder, checkpoint_steps=(3, 4)))


@pytest.mark.parametrize("steps", [(5,), (-1,), (True,), 3, ("1",)])
def test_only_steps_of_the_run_may_be_named(tmp_path, steps):
    with pytest.raises(ValueError, match="checkpoint_steps must be a list of steps from 0 to .*4"):
        make_run(tmp_path, checkpoint_steps=steps)


def test_a_run_that_trains_a_prompt_alone_has_no_model_to_write(tmp_path):
    with pytest.raises(ValueError, match="only a prompt trains; prompts are written at every"):
        tiny_runs.make_run(tmp_path, checkpoint_steps=(2,))


def test_a_model_of_int8_is_not_written():
    with pytest.raises(ValueError, match="which Run.param_dtype='int8' keeps rounded. Leave it"):
        tiny_runs.make_run("/nowhere", param_dtype="int8", trainable=(".*",), checkpoint_steps=(2,))
