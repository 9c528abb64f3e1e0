"""Tests of prompt_tuning/training/loop.py: what a run does, leaves behind, and stops at."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.frozen import load_parameters, load_t5
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.training import loop, setup
from prompt_tuning.training.step import StepMetrics

pytestmark = pytest.mark.usefixtures("quick")


def bytes_below(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def saved_steps(model_dir):
    return StateStore(Path(model_dir) / "state", read_only=True).steps()


def test_every_evaluation_saves_the_prompt_and_the_best_is_kept_by_name(
    tmp_path, scores, capsys, monkeypatch
):
    scores += [50.0, 75.0, 75.0, 25.0]
    hashed, fingerprint = [], trees.fingerprint
    monkeypatch.setattr(trees, "fingerprint", lambda flat: hashed.append(1) or fingerprint(flat))
    trained = loop.train_run(tiny_runs.make_run(tmp_path, train_steps=7))
    assert trained == loop.Trained(7, 4, 75.0, str(tmp_path / "prompts/best.safetensors"))
    steps = {2: 50.0, 4: 75.0, 6: 75.0, 7: 25.0}  # the last step is evaluated whatever its number
    names = [*(f"step_{step:06d}" for step in steps), "best"]
    expected = {name + suffix for name in names for suffix in (".safetensors", ".npy")}
    assert {path.name for path in (tmp_path / "prompts").iterdir()} == expected
    for step, score in steps.items():
        metadata = files.read_prompt(tmp_path / f"prompts/step_{step:06d}").metadata
        assert (metadata.step, metadata.dev_metrics) == (step, {"accuracy": score})
    best = tiny_runs.prompt_bytes(tmp_path, "step_000004")
    assert tiny_runs.prompt_bytes(tmp_path, "best") == best
    assert np.load(tmp_path / "prompts/best.npy").tobytes() == best
    assert best != tiny_runs.prompt_bytes(tmp_path, "step_000006")
    assert saved_steps(tmp_path) == [4, 6, 7]  # the newest two, and the best beside them
    assert hashed == [1], "hashing a large model takes long"
    printed = capsys.readouterr().out
    assert re.findall(r"step (\d)  validation: accuracy \S+(  \(best\))?", printed) == [
        ("2", "  (best)"), ("4", "  (best)"), ("6", ""), ("7", ""),
    ]  # fmt: skip
    assert "done: best dev score 75.00 at step 4, in" in printed


def test_the_best_prompt_records_its_origin(prompted):
    metadata = files.read_prompt(Path(prompted.run.model_dir) / "prompts/best").metadata
    assert (metadata.model, metadata.length, metadata.width) == ("tiny_byt5", 4, 16)
    t5 = load_parameters(tiny_runs.MODEL, "random")
    assert metadata.model_fingerprint == trees.fingerprint(t5)
    assert metadata.task == "generated_sentiment"
    assert metadata.step == prompted.trained.best_step
    assert metadata.dev_metrics == {"accuracy": prompted.trained.best_score}
    assert metadata.config == prompted.run.config_text
    assert "PROMPT_LENGTH = 4" in metadata.config
    assert metadata.versions["jax"] == jax.__version__


def test_the_state_on_disk_is_small_and_has_no_frozen_leaf(prompted):
    for step in saved_steps(prompted.run.model_dir):
        folder = Path(prompted.run.model_dir) / "state" / str(step)
        tree = json.loads((folder / "state/_METADATA").read_text())["tree_metadata"]
        names = {"/".join(key["key"] for key in leaf["key_metadata"]) for leaf in tree.values()}
        of_parameters = {name for name in names if "coder/" in name}
        assert {name.rpartition("encoder/")[2] for name in of_parameters} == {
            PROMPT_PATH.removeprefix("encoder/")
        }
        assert f"trainable/{PROMPT_PATH}" in names
        assert names >= {"step", "rng", "data_position", "task", "frozen_model"}
        assert bytes_below(folder) < tiny_runs.MODEL_BYTES / 4


def test_the_loss_falls_and_the_frozen_model_stays(tmp_path, scores, capsys):
    """The only dev score is not a number, so that nothing is best in the end."""
    scores += [math.nan]
    run = tiny_runs.make_run(tmp_path, train_steps=100, eval_period=100)
    training, steps, state = loop.begin(run)
    first = np.array(state.trainable[PROMPT_PATH])
    before = {path: np.array(leaf) for path, leaf in training.frozen.items()}
    state = loop.train(training, steps, state)
    steps.close()
    training.close()
    assert loop.train_run(run)[:3] == (100, None, None)
    assert "done: step 100, no evaluation with a finite dev score" in capsys.readouterr().out
    assert not list((tmp_path / "prompts").glob("best*"))
    assert trees.diff(training.frozen, before).is_empty
    assert trees.fingerprint(training.frozen) == training.fingerprint
    assert (np.array(state.trainable[PROMPT_PATH]) != first).all()
    lines = [line for line in tiny_runs.read_metrics(tmp_path) if line["split"] == "train"]
    assert [line["step"] for line in lines] == [*range(10, 101, 10)]
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


def test_training_stops_early_when_the_dev_score_does_not_rise(tmp_path, scores, capsys):
    scores += [10.0, 30.0, 30.0, 20.0, 99.0]
    run = tiny_runs.make_run(tmp_path, train_steps=100, early_stopping=2)
    trained = loop.train_run(run)
    assert (trained.step, trained.best_step, trained.best_score) == (8, 4, 30.0)
    assert scores == [99.0]
    assert "stopping early: no better dev score for 2 evaluations" in capsys.readouterr().out
    again = loop.train_run(run)  # a finished run is finished when it is started again
    assert (again, scores) == (trained, [99.0])


def test_a_dev_score_that_is_not_a_number_is_never_the_best(tmp_path, scores):
    scores += [math.nan, 5.0, math.nan]
    trained = loop.train_run(tiny_runs.make_run(tmp_path))
    assert (trained.step, trained.best_step, trained.best_score) == (6, 4, 5.0)
    best = tiny_runs.prompt_bytes(tmp_path, "best")
    assert best == tiny_runs.prompt_bytes(tmp_path, "step_000004")


def test_a_poisoned_checkpoint_stops_at_the_first_step(tmp_path):
    params = dict(load_parameters(tiny_runs.MODEL, "random"))
    name = "encoder/layers_0/mlp/wo/kernel"
    params[name] = params[name].at[0, 0].set(np.nan)
    checkpoint = t5x_native.write(tmp_path / "poisoned", params, 0)
    run = tiny_runs.make_run(tmp_path / "run", initial_checkpoint_path=checkpoint)
    with pytest.raises(FloatingPointError, match="The loss of step 1 is nan, .* nothing was saved"):
        loop.train_run(run)
    assert not (tmp_path / "run/prompts").exists()


def test_an_update_that_overflows_stops_before_it_is_saved(tmp_path, prompted, monkeypatch):
    """The loss of step 7 is finite still; what its update did to the prompt is not."""
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")

    def saved():
        paths = [path for name in ("prompts", "state") for path in (folder / name).rglob("*")]
        return {path: path.read_bytes() for path in paths if path.is_file()}

    def step(state, frozen, batch, rng):
        prompt = {PROMPT_PATH: np.full((4, 16), np.inf, np.float32)}
        return state._replace(step=state.step + 1, trainable=prompt), StepMetrics(
            loss=2.5, accuracy=0.0, gradient_norm=0.5, trainable_norm=np.inf, target_tokens=48.0
        )

    before = saved()
    with monkeypatch.context() as patch, pytest.raises(FloatingPointError) as error:
        step.programs, step.compile_seconds, step.close = 0, 0.0, lambda: None
        patch.setattr(setup, "make_train_step", lambda *args, **options: step)
        loop.train_run(tiny_runs.load_run(folder, "TRAIN_STEPS=7"))
    assert str(error.value) == (
        "The loss of step 7 is 2.5, its gradient's norm 0.5 and the norm of what trains then inf, "
        "on a batch of generated_sentiment; the state of step 6 is intact. Lower the learning "
        "rate, check the values of prompt and checkpoint, or train with T5Config.dtype='float32'."
    )
    assert saved() == before
    assert tiny_runs.read_metrics(folder) == tiny_runs.read_metrics(prompted.run.model_dir)
    assert loop.train_run(tiny_runs.load_run(folder))[:3] == prompted.trained[:3]


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_the_settings_of_a_run_reach_its_steps(tmp_path, monkeypatch, rate):
    """Without dropout a step gets no key, with it one that depends on the seed alone."""
    given, keys = [], []

    def make_train_step(model, optimizer, **options):
        given.append(options)

        def step(state, frozen, batch, rng):
            keys.append(rng)
            raise KeyboardInterrupt

        step.close = lambda: None
        return step

    monkeypatch.setattr(setup, "make_train_step", make_train_step)
    model = dataclasses.replace(tiny_runs.MODEL, dropout_rate=rate)
    options = {
        "label_smoothing": 0.25,
        "z_loss": 0.5,
        "loss_normalizing_factor": 3.0,
        "weight_decay_rate": 0.125,
    }
    with pytest.raises(KeyboardInterrupt):
        loop.train_run(tiny_runs.make_run(tmp_path, model=model, seed=3, **options))
    assert given == [options | {"mesh": None}]
    expected = jax.random.fold_in(jax.random.key(3), 1)
    assert keys == [expected if rate else None]


def test_a_pattern_that_matches_nothing_stops_the_run(tmp_path):
    run = tiny_runs.make_run(tmp_path, trainable=(PROMPT_PATH, ".*/lora/.*"))
    with pytest.raises(ValueError, match=re.escape("'.*/lora/.*' matches no parameter")):
        loop.train_run(run)
    assert not (tmp_path / "config.gin").exists()


def test_the_best_tuned_model_is_a_t5x_checkpoint(tuned):
    """Every parameter has moved, there is no prompt, and only the best is kept."""
    folder = Path(tuned.run.model_dir) / "best"
    assert tuned.trained.path == str(folder)
    assert [path.name for path in folder.iterdir()] == [f"checkpoint_{tuned.trained.best_step}"]
    assert not (Path(tuned.run.model_dir) / "prompts").exists()
    start = load_parameters(tiny_runs.MODEL, "random")
    end = load_parameters(tiny_runs.MODEL, str(folder))
    assert trees.diff(start, end) == trees.Diff([], [], [], sorted(start))


def test_a_pattern_that_is_the_prompt_alone_tunes_no_model(tmp_path, scores):
    scores += [1.0]
    run = tiny_runs.make_run(tmp_path, train_steps=2, trainable=(".*/prompt",))
    assert loop.train_run(run).path.endswith("prompts/best.safetensors")
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("kind", ["int8", "int8_w8a8"])
def test_a_run_trains_and_is_evaluated_with_a_model_of_int8(kind, tmp_path):
    """Its prompt goes with the float32 model, too: both have one fingerprint."""
    run = tiny_runs.make_run(tmp_path / "run", param_dtype=kind, layers="scan", train_steps=4)
    done = tiny_runs.train(run)
    assert done.trained.step == 4 and "layers scan, remat layer" in done.printed
    best = files.read_prompt(done.trained.path)
    exact = load_t5(tiny_runs.MODEL, "random", loading.prepare_task(run).vocabulary)
    assert best.metadata.model_fingerprint == exact.fingerprint
    start = setup.initial_values(run, exact)[PROMPT_PATH]
    assert np.abs(best.prompt - start).max() > 0.01
    scores = evaluate.evaluate_run(run)
    assert scores.score == pytest.approx(done.trained.best_score)
