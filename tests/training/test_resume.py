"""Tests of stopping and resuming: the end is the same, bit for bit, as without a stop."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches
from prompt_tuning.data.tables import TableTask
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model import decoding
from prompt_tuning.prompts import files
from prompt_tuning.training import lock, loop, step

pytestmark = pytest.mark.usefixtures("quick")


def assert_ends_as(model_dir, done):
    """The prompt after the last step, and the numbers of every step, each once."""
    last = f"step_{done.run.train_steps:06d}"
    expected = tiny_runs.prompt_bytes(done.run.model_dir, last)
    assert tiny_runs.prompt_bytes(model_dir, last) == expected
    assert tiny_runs.prompt_bytes(model_dir, "best") == tiny_runs.prompt_bytes(
        done.run.model_dir, "best"
    )
    assert tiny_runs.read_metrics(model_dir) == tiny_runs.read_metrics(done.run.model_dir)


def test_more_steps_continue_from_where_the_run_ended(tmp_path, prompted, caplog, capsys):
    """TRAIN_STEPS and EVAL_PERIOD may change; an evaluation more changes nothing.

    The second process compiles the very program of the first, and nothing twice.
    """
    decoding.generate.clear_cache()
    programs = []
    for bindings in (["TRAIN_STEPS=3", "EVAL_PERIOD=3"], []):
        step.make_train_step.cache_clear()  # as in another process
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            trained = loop.train_run(tiny_runs.load_run(tmp_path, *bindings))
        programs.append([text for text in caplog.messages if "Compiling jit(" in text])
        caplog.clear()
    assert re.findall("resuming at step .*", capsys.readouterr().out) == ["resuming at step 3"]
    assert trained.step == 6
    last = tiny_runs.prompt_bytes(prompted.run.model_dir, "step_000006")
    assert tiny_runs.prompt_bytes(tmp_path, "step_000006") == last
    assert [(line["step"], line["split"]) for line in tiny_runs.read_metrics(tmp_path)] == [
        (3, "train"), (3, "validation"), (4, "validation"), (6, "train"), (6, "validation"),
    ]  # fmt: skip

    updates = [[text for text in texts if "jit(update)" in text] for texts in programs]
    assert len(updates[0]) == 1
    assert updates[0] == updates[1]
    generates = [sum("jit(generate)" in text for text in texts) for texts in programs]
    assert generates == [1, 0]


def test_a_finished_run_is_not_trained_again(tmp_path, prompted):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    trained = loop.train_run(tiny_runs.load_run(folder))
    assert trained[:3] == prompted.trained[:3]
    assert_ends_as(folder, prompted)


def break_at(monkeypatch, step):
    """Ends the process, as far as can be done from inside, just before a step's state is saved."""
    save = StateStore.save

    def broken(self, now, tree, dev_score=None):
        if now == step:
            raise KeyboardInterrupt
        return save(self, now, tree, dev_score)

    monkeypatch.setattr(StateStore, "save", broken)


def test_stops_of_two_kinds_leave_no_trace(tmp_path, prompted, monkeypatch, capsys):
    """SIGTERM arrives during step 3, which has no evaluation: that step is saved.

    Then the process ends when the prompt of step 4 is written and its state is not: step 4
    is made again.
    """
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        tiny_runs.at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train_run(tiny_runs.load_run(tmp_path))
    assert stop.value.code == 42
    assert "SIGTERM: saved step 3; run the same command to resume" in capsys.readouterr().out
    assert files.read_prompt(tmp_path / "prompts" / "step_000003").metadata.dev_metrics == {}
    store = StateStore(tmp_path / "state", read_only=True)
    assert (store.newest_step, store.best_step) == (3, 2)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, 4)
        loop.train_run(tiny_runs.load_run(tmp_path))
    assert (tmp_path / "prompts/step_000004.npy").exists()
    cut_short = tiny_runs.leftover(tmp_path / "prompts/best.npy")
    cut_short.write_bytes(b"cut")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "spl')

    loop.train_run(tiny_runs.load_run(tmp_path))
    assert_ends_as(tmp_path, prompted)
    assert not cut_short.exists()


@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_micro_batches_resume_bit_for_bit(tmp_path, monkeypatch, layers):
    def run(name):
        return tiny_runs.make_run(tmp_path / name, microbatch_rows=2, layers=layers)

    whole = tiny_runs.train(run("a"))
    assert "4 micro-batches of 2 rows" in whole.printed
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, 4)
        loop.train_run(run("b"))
    loop.train_run(run("b"))
    assert_ends_as(tmp_path / "b", whole)


def test_ctrl_c_saves_as_sigterm_does(tmp_path, prompted, monkeypatch, capsys, ctrl_c):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        tiny_runs.at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        loop.train_run(tiny_runs.load_run(tmp_path))
    assert stop.value.code == 130
    assert "Ctrl-C: saved step 3; run the same command to resume" in capsys.readouterr().out
    loop.train_run(tiny_runs.load_run(tmp_path))
    assert_ends_as(tmp_path, prompted)


def test_a_second_ctrl_c_stops_immediately(tmp_path, monkeypatch, ctrl_c):
    def interrupt_twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny_runs.at_step(patch, 1, interrupt_twice)
        loop.train_run(tiny_runs.load_run(tmp_path))
    assert StateStore(tmp_path / "state", read_only=True).newest_step is None


def test_a_run_in_a_folder_with_brackets_is_resumed(tmp_path, scores, capsys):
    """The tuned model and the state: both are found again."""
    folder = tmp_path / "run[1] *?"
    scores += [1.0, 2.0]
    tiny_runs.train(tiny_runs.make_run(folder, train_steps=2, **tiny_runs.MODEL_TUNING))
    run = tiny_runs.make_run(folder, train_steps=4, **tiny_runs.MODEL_TUNING)
    assert tiny_runs.train(run).trained == loop.Trained(4, 4, 2.0, str(folder / "best"))
    assert [path.name for path in (folder / "best").iterdir()] == ["checkpoint_4"]
    assert load_parameters(run.model, str(folder / "best")).keys()


def test_model_tuning_resumes_bit_for_bit(tmp_path, tuned, scores, monkeypatch):
    """Also when the best model of step 4 was written and the state of step 4 was not.

    Of the files beside the best model only our own leftovers are removed.
    """
    run = tiny_runs.make_run(tmp_path, train_steps=4, **tiny_runs.MODEL_TUNING)
    scores += [1.0, 2.0, 2.0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, 4)
        loop.train_run(run)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["checkpoint_4"]
    (tmp_path / "best/notes.txt").write_text("mine")
    tiny_runs.leftover(tmp_path / "best/checkpoint_9").mkdir()
    loop.train_run(run)
    assert scores == []
    assert {path.name for path in (tmp_path / "best").iterdir()} == {"checkpoint_4", "notes.txt"}
    folders = (tmp_path, tuned.run.model_dir)
    ends = [load_parameters(run.model, f"{folder}/best") for folder in folders]
    assert trees.diff(*ends).is_empty


REFUSED = {
    "RANDOM_SEED=1": "RANDOM_SEED was 0 and is 1 now",
    "BATCH_SIZE=4": "BATCH_SIZE was 8 and is 4 now",
    "PROMPT_LENGTH=5": "PROMPT_LENGTH was 4 and is 5 now",
    "MIXTURE_OR_TASK_NAME=generated_sentiment_true_false": "MIXTURE_OR_TASK_NAME was "
    "'generated_sentiment' and is 'generated_sentiment_true_false' now",
    "INITIAL_CHECKPOINT_PATH=random:1": "INITIAL_CHECKPOINT_PATH had the fingerprint ",
    "adafactor.learning_rate=0.01": "adafactor.learning_rate was 0.3 and is 0.01 now",
    "DROPOUT_RATE=0.0": "T5Config.dropout_rate was 0.1 and is 0 now",
    "Run.z_loss=0.0": "Run.z_loss was 0.0001 and is 0 now",
    "Run.prompt_position='suffix'": "Run.prompt_position was 'prefix' and is 'suffix' now",
    "CLASS_LABELS=['great','awful']": "from_class_labels.labels was ['awful', 'great'] and is "
    "['great', 'awful'] now",
    "Run.eval_examples=19": "Run.eval_examples was 20 and is 19 now",
}


@pytest.mark.parametrize(
    ("binding", "reason", "more"),
    [
        *((binding, reason, []) for binding, reason in REFUSED.items()),  # the run has finished
        ("Run.z_loss=0.0", REFUSED["Run.z_loss=0.0"], ["TRAIN_STEPS=8", "EVAL_PERIOD=3"]),
    ],
    ids=[*REFUSED, "not_finished"],
)
def test_another_run_is_refused_and_nothing_is_touched(tmp_path, prompted, binding, reason, more):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    before = contents(folder)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        loop.train_run(tiny_runs.load_run(folder, binding, *more))
    assert str(error.value).startswith(f"{folder} holds a different run: ")
    assert str(error.value).endswith("Set it back, or choose another MODEL_DIR.")
    assert contents(folder) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_does_not_make_a_run_may_change(tmp_path, prompted):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    others = ["Run.eval_batch_size=16", "Run.eval_rank=True", "Run.early_stopping=9"]
    trained = loop.train_run(tiny_runs.load_run(folder, *others))
    assert trained[:3] == prompted.trained[:3]


def test_other_data_under_the_same_names_are_refused(tmp_path, capsys):
    """A table that was edited between two processes, its columns and labels the same."""
    rows = ["text,label", "a good film,great", "a bad film,awful", "a fine film,great"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "dev.csv").write_text("\n".join(rows[:3]))

    def train(**settings):
        table = TableTask("two_words", str(tmp_path / "train.csv"), str(tmp_path / "dev.csv"),
                          "label", vocabulary="byt5")  # fmt: skip
        options = {"task": "two_words", "train_steps": 1, "eval_examples": None}
        options["local_tasks"] = (table,)
        loop.train_run(tiny_runs.make_run(tmp_path / "run", **(options | settings)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            batches, "load_examples", tiny_runs._load
        )  # `quick` would read the table only once
        train()
        before = contents(tmp_path / "run")
        (tmp_path / "train.csv").write_text("\n".join([*rows, "a poor film,awful"]))
        with pytest.raises(ValueError, match=re.escape(
            "different run: the data of two_words train have changed since the run started (3 rows "
            "then, 4 now). Set it back, or choose another MODEL_DIR."
        )):  # fmt: skip
            train(train_steps=2)
        assert contents(tmp_path / "run") == before
        (tmp_path / "train.csv").write_text("\n".join(rows))
        (tmp_path / "dev.csv").write_text("\n".join(rows[:2]))
        with pytest.raises(ValueError, match="the data of two_words validation have changed"):
            train()
        (tmp_path / "dev.csv").write_text("\n".join(rows[:3]))
        train(train_steps=2)


OF_THE_STATES = {
    "RANDOM_SEED=1": "another RANDOM_SEED",
    "BATCH_SIZE=4": "another BATCH_SIZE",
    "PROMPT_LENGTH=5": "saved float32 [4, 16], this run has float32 [5, 16]",
    "MIXTURE_OR_TASK_NAME=generated_sentiment_true_false": "another MIXTURE_OR_TASK_NAME",
    "INITIAL_CHECKPOINT_PATH=random:1": "another INITIAL_CHECKPOINT_PATH",
}


@pytest.mark.parametrize(("binding", "reason"), OF_THE_STATES.items(), ids=OF_THE_STATES)
def test_states_without_an_identity_are_compared_as_far_as_they_tell(
    tmp_path, prompted, binding, reason
):
    """They were saved by an earlier version."""
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    (folder / "state/identity.json").unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        loop.train_run(tiny_runs.load_run(folder, binding, "TRAIN_STEPS=8"))
    assert "another MODEL_DIR" in str(error.value)
    assert contents(folder) == before


def test_states_without_an_identity_get_one(tmp_path, prompted, capsys):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    written = (folder / "state/identity.json").read_text()
    (folder / "state/identity.json").unlink()
    loop.train_run(tiny_runs.load_run(folder))
    assert "only task, model, batch size and seed are compared" in capsys.readouterr().out
    assert (folder / "state/identity.json").read_text() == written
    with pytest.raises(ValueError, match="Run.z_loss was 0.0001 and is 0 now"):
        loop.train_run(tiny_runs.load_run(folder, "Run.z_loss=0.0"))


def test_a_run_that_saved_no_state_does_not_restrict_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_at(patch, 2)
        loop.train_run(tiny_runs.load_run(tmp_path, "TRAIN_STEPS=2"))
    assert (tmp_path / "state/identity.json").exists()
    loop.train_run(tiny_runs.load_run(tmp_path, "Run.z_loss=0.0", "TRAIN_STEPS=2"))
    assert "Run.z_loss = 0.0" in (tmp_path / "config.gin").read_text()
    with pytest.raises(ValueError, match="Run.z_loss was 0 and is 0.0001 now"):
        loop.train_run(tiny_runs.load_run(tmp_path))


def test_other_library_versions_are_reported(tmp_path, prompted, capsys):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    path = folder / "state/identity.json"
    written = json.loads(path.read_text())
    written["versions"]["numpy"] = "1.0"
    path.write_text(json.dumps(written))
    for _ in range(2):  # the versions of the beginning are kept
        loop.train_run(tiny_runs.load_run(folder))
        assert (
            f"this run started with numpy 1.0; now numpy {np.__version__}: "
            in capsys.readouterr().out
        )


def test_a_locked_folder_is_refused_before_anything_is_loaded(tmp_path, prompted, monkeypatch):
    folder = shutil.copytree(prompted.run.model_dir, tmp_path / "run")
    before = contents(folder)
    monkeypatch.setattr(batches, "train_batches", lambda *_: pytest.fail("the data were read"))
    with lock.held(str(folder)):
        with pytest.raises(ValueError, match=f"{folder} is locked by process "):
            loop.train_run(tiny_runs.load_run(folder))
    assert contents(folder) == before


# The rest kills real processes, as a shell or a scheduler would.

KILLED_RUN = ["TRAIN_STEPS=120", "EVAL_PERIOD=20"]


def start(model_dir, compiled_programs, *bindings):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    bindings = [*tiny_runs.BINDINGS, f"MODEL_DIR={model_dir}", *KILLED_RUN, *bindings]
    arguments = [f"--gin_file={part}" for part in tiny_runs.PARTS]
    arguments += [f"--gin.{binding}" for binding in bindings]
    with open(f"{model_dir}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prompt_tuning.train", *arguments],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=log,
            stderr=log,
        )


def kill(process, when, signal_number=signal.SIGKILL):
    """Waits for the moment, sends the signal and returns how the process ended."""
    end = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    process.send_signal(signal_number)
    return process.wait(timeout=60)


def appears(folder, pattern):
    """The moment at which a new file of the name appears."""
    known = set(Path(folder).glob(pattern))
    return lambda: bool(set(Path(folder).glob(pattern)) - known)


def after(seconds, moment):
    """That long after a moment."""
    began = []

    def when():
        if not began and moment():
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] > seconds

    return when


def finish(process):
    assert process.wait(timeout=120) == 0
    return process


@pytest.mark.slow
def test_a_prompt_survives_kills(tmp_path, compiled_programs):
    """Killed in a save, some steps later, and by SIGTERM; ends as if it had not been."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = start(whole, compiled_programs)
    process = start(killed, compiled_programs)
    assert kill(process, appears(killed, "state/*.orbax-checkpoint-tmp*")) == -signal.SIGKILL
    finish(reference)
    delay = np.random.default_rng().uniform(0.0, 0.5)
    process = start(killed, compiled_programs)
    moment = after(delay, appears(killed, "prompts/step_0000[46]0.safetensors"))
    assert kill(process, moment) == -signal.SIGKILL, f"after {delay} s"
    process = start(killed, compiled_programs)
    moment = appears(killed, "prompts/step_*.safetensors")
    assert kill(process, moment, signal.SIGTERM) == 42
    finish(start(killed, compiled_programs))
    for name in ("step_000120", "best"):
        expected = tiny_runs.prompt_bytes(whole, name)
        assert tiny_runs.prompt_bytes(killed, name) == expected, f"after {delay} s"
    assert tiny_runs.read_metrics(killed) == tiny_runs.read_metrics(whole)
    log = Path(f"{killed}.log").read_text()
    assert "resuming at step" in log
    assert re.search(r"SIGTERM: saved step \d+; run the same command to resume", log)
    names = {path.name for path in killed.rglob("*")}
    assert not [name for name in names if "tmp" in name]


@pytest.mark.slow
def test_a_tuned_model_survives_kills(tmp_path, compiled_programs):
    """Killed while the best model is written, and while a state of everything is."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    everything = ["Run.trainable=['.*']", "adafactor.learning_rate=0.01"]
    reference = start(whole, compiled_programs, *everything)
    process = start(killed, compiled_programs, *everything)
    assert kill(process, appears(killed, "best/*.tmp-*")) == -signal.SIGKILL
    assert not list(killed.glob("best/checkpoint_?")), "killed too late"
    finish(reference)
    process = start(killed, compiled_programs, *everything)
    moment = appears(killed, "state/[46]0.orbax-checkpoint-tmp*")
    assert kill(process, moment) == -signal.SIGKILL
    finish(start(killed, compiled_programs, *everything))
    assert tiny_runs.read_metrics(killed) == tiny_runs.read_metrics(whole)
    ends = [load_parameters(tiny_runs.MODEL, f"{folder}/best") for folder in (whole, killed)]
    assert trees.diff(*ends).is_empty
    assert tiny_runs.prompt_bytes(killed, "step_000120") == tiny_runs.prompt_bytes(
        whole, "step_000120"
    )
    assert not list(killed.glob("best/*.tmp-*"))
