"""Runs small enough to train in a test: a ByT5 of one layer on the generated sentences."""

import contextlib
import dataclasses
import functools
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from config_parts import PARTS
from jax.experimental.compilation_cache import compilation_cache

from prompt_tuning import config
from prompt_tuning.data import batches
from prompt_tuning.inference import evaluate, weights
from prompt_tuning.model import parameters
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files
from prompt_tuning.prompts.initializers import from_sampled_vocabulary
from prompt_tuning.run import Run
from prompt_tuning.training import progress
from prompt_tuning.training.loop import Trained, train_run
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainStep, make_train_step

DIMENSIONS = {
    "emb_dim": 16,
    "num_heads": 2,
    "head_dim": 8,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "mlp_dim": 32,
}
MODEL = T5Config(name="tiny_byt5", vocab_size=384, **DIMENSIONS)
MODEL_BYTES = 74_688  # of MODEL in float32

BINDINGS = [
    *(f"T5Config.{name}={value}" for name, value in DIMENSIONS.items()),
    "INITIAL_CHECKPOINT_PATH=random",
    "PROMPT_LENGTH=4",
    "BATCH_SIZE=8",
    "Run.eval_batch_size=16",
    "Run.eval_examples=20",
]
MODEL_TUNING = {
    "model": dataclasses.replace(MODEL, dropout_rate=0.0),
    "prompt_length": None,
    "trainable": (".*",),
    "weight_decay_rate": 0.0,
    "optimizer": functools.partial(adafactor, learning_rate=0.01, multiply_by_parameter_scale=True),
}


def load_run(model_dir: Path | str, *bindings: str) -> Run:
    """A run from gin: six steps, evaluated every second one on twenty examples."""
    own = [f"MODEL_DIR={model_dir}", "TRAIN_STEPS=6", "EVAL_PERIOD=2"]
    return config.load(PARTS, [*BINDINGS, *own, *bindings])


def make_run(model_dir: Path | str, **changes: object) -> Run:
    """The same, made in Python, with any field changed."""
    settings: dict[str, Any] = {
        "model": MODEL,
        "initial_checkpoint_path": "random",
        "task": "generated_sentiment",
        "task_feature_lengths": {"inputs": 48, "targets": 8},
        "model_dir": str(model_dir),
        "prompt_length": 4,
        "prompt_initializer": from_sampled_vocabulary,
        "optimizer": adafactor,
        "weight_decay_rate": 1e-5,
        "train_steps": 6,
        "batch_size": 8,
        "eval_period": 2,
        "eval_examples": 20,
        "eval_batch_size": 16,
    }
    return Run(**(settings | changes))


def leftover(path: Path) -> Path:
    """Where a process of this host that was killed had begun to write a file or folder."""
    return path.with_name(f"{path.name}.tmp-{socket.gethostname()}-{2**22 + 1}-0123abcd")


def read_metrics(model_dir: Path | str, *, speed: bool = False) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; without speed, those that are the same in every process."""
    lines = (Path(model_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if speed or line["split"] != progress.SPEED]


def at_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Calls a function at the beginning of a training step."""
    call = TrainStep.__call__

    def acted(self, state, *arguments):
        if state.step + 1 == number:
            act()
        return call(self, state, *arguments)

    patch.setattr(TrainStep, "__call__", acted)


def prompt_bytes(model_dir: Path | str, name: str) -> bytes:
    """The values of a saved prompt, to be compared bit for bit."""
    return files.read_prompt(Path(model_dir) / "prompts" / name).prompt.tobytes()


class Done(NamedTuple):
    """A run that was trained, to be looked at and not changed."""

    run: Run
    trained: Trained
    printed: str


def train(run: Run) -> Done:
    """Trains, and keeps what is printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        trained = train_run(run)
    return Done(run, trained, printed.getvalue())


@contextlib.contextmanager
def scripted(scores: list[float]) -> Iterator[None]:
    """Takes each dev score off the list instead of evaluating."""

    def measure_all(model, params, sets, run):
        score = scores.pop(0)
        return evaluate.Evaluated({"accuracy": score}, score, {}, {}, {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "measure_all", measure_all)
        yield


@contextlib.contextmanager
def quick(compiled_programs: Path) -> Iterator[None]:
    """Compiles with few optimisations; compiles, reads and draws the same thing only once."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(compiled_programs),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    _forget_compiled()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "load_examples", _load_once)
            patch.setattr(weights, "load", _weights_once)
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        _forget_compiled()


def _forget_compiled() -> None:
    """Has everything compiled anew: programs of other optimisations round otherwise."""
    compilation_cache.reset_cache()
    make_train_step.cache_clear()
    parameters.draw.clear_cache()


_load = batches.load_examples


def _load_once(task, split, lengths, *, limit=None, keep_raw=True):
    return _load_cached(task, split, tuple(lengths.items()), limit, keep_raw)


@functools.cache
def _load_cached(task, split, lengths, limit, keep_raw):
    return _load(task, split, dict(lengths), limit=limit, keep_raw=keep_raw)


_load_weights = weights.load
_draw_once = functools.cache(weights.load)


def _weights_once(config, path, **options):
    if not path.startswith("random"):
        return _load_weights(config, path, **options)
    defaults = {"dtype": "float32", "stacks": False, "mesh": None}
    drawn = _draw_once(config, path, **defaults | options)
    copies = {name: leaf.copy() for name, leaf in drawn.params.items()}
    return drawn._replace(params=copies)  # model tuning uses them up
