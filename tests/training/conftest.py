"""Fixtures of the tests that train: programs are compiled and sentences read once a session."""

import contextlib
import functools
import io
from typing import NamedTuple

import jax
import pytest
import tiny_runs
from jax.experimental.compilation_cache import compilation_cache

from prompt_tuning.data import batches
from prompt_tuning.training import evaluate, setup
from prompt_tuning.training.frozen import load_parameters
from prompt_tuning.training.loop import Trained, train_run
from prompt_tuning.training.run import Run


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory):
    """The folder that compiled programs are kept in; other processes may use it too."""
    return tmp_path_factory.mktemp("compiled_programs")


@pytest.fixture(scope="module")
def quick(compiled_programs):
    """Compiles with few optimisations; compiles, reads and draws the same thing only once."""
    with _quick(compiled_programs):
        yield


@contextlib.contextmanager
def _quick(folder):
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "load", _load_once)
            patch.setattr(setup, "load_parameters", _parameters_once)
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


_load = batches.load


def _load_once(name, split, lengths, *, limit=None, keep_raw=True):
    return _load_cached(name, split, tuple(lengths.items()), limit, keep_raw)


@functools.cache
def _load_cached(name, split, lengths, limit, keep_raw):
    return _load(name, split, dict(lengths), limit=limit, keep_raw=keep_raw)


_parameters = functools.cache(load_parameters)


def _parameters_once(config, path, *, dtype):
    if not path.startswith("random"):
        return load_parameters(config, path, dtype=dtype)
    drawn = _parameters(config, path, dtype=dtype)
    return {name: leaf.copy() for name, leaf in drawn.items()}  # model tuning uses them up


class Done(NamedTuple):
    """A run that was trained, to be looked at and not changed."""

    run: Run
    trained: Trained
    printed: str


@pytest.fixture(scope="session")
def prompted(compiled_programs, tmp_path_factory):
    """Prompt tuning without an interruption: six steps, evaluated after 2, 4 and 6."""
    with _quick(compiled_programs):
        return _train(tiny_runs.load_run(tmp_path_factory.mktemp("prompted") / "run"))


@pytest.fixture(scope="session")
def tuned(compiled_programs, tmp_path_factory):
    """Model tuning without an interruption: four steps, of which the last is the best."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    with _quick(compiled_programs), pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "measure_all", _scripted([1.0, 2.0]))
        return _train(tiny_runs.make_run(folder, train_steps=4, **tiny_runs.MODEL_TUNING))


@pytest.fixture
def scores(monkeypatch):
    """A list of dev scores that stand in for evaluations, one after the other."""
    given: list[float] = []
    monkeypatch.setattr(evaluate, "measure_all", _scripted(given))
    return given


def _scripted(scores):
    def measure_all(model, params, sets, run):
        score = scores.pop(0)
        return evaluate.Evaluated({"accuracy": score}, score, {}, {})

    return measure_all


def _train(run: Run) -> Done:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        trained = train_run(run)
    return Done(run, trained, printed.getvalue())
