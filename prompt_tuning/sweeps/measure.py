"""What is measured of one run of a sweep, and where its numbers come from."""

import os
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.data import evaluation
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.methods.method import added_shapes, trainable_paths
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.prompts.metadata import library_versions
from prompt_tuning.run import Run
from prompt_tuning.training import plots
from prompt_tuning.training.loop import Trained, train_run
from prompt_tuning.training.together import train_runs

Measured = dict[str, Any]


def measure(run: Run, train: bool) -> Measured:
    """Trains and evaluates, or only evaluates."""
    if train:
        return _trained(run, train_run(run))
    best = {"step": 0, **scores(evaluate.evaluate_run(run))}
    return _measured(run, best, best, [])


def scores(evaluated: evaluate.Evaluated) -> dict[str, float]:
    """All scores of an evaluation, by name."""
    found = {**evaluated.metrics, "dev_score": evaluated.score, **evaluated.rank}
    return found | evaluated.named_levels


def measure_together(runs: Sequence[Run]) -> list[Measured | FloatingPointError]:
    """Trains several runs together; of each what was measured, or why it diverged."""
    ended = zip(runs, train_runs(runs), strict=True)
    return [one if isinstance(one, Exception) else _trained(run, one) for run, one in ended]


def _trained(run: Run, trained: Trained) -> Measured:
    return _measured(run, *_measured_while_training(run, trained.best_step))


def _measured(run: Run, best: dict, last: dict, curve: list) -> Measured:
    found = {
        "best": best,
        "last": last,
        "curve": curve,
        "floor": _floor(run),
        "steps": last["step"],
        "levels": {
            name.removeprefix("level_"): x for name, x in best.items() if name.startswith("level_")
        },
    }
    return found | count_parameters(run)


def _measured_while_training(run: Run, best_step: int | None):
    """The dev metrics of the best and the last step, and (step, dev score) of all."""
    rows = [
        {name: x for name, x in record.items() if name != "split"}
        for record in plots.read_metrics(run.model_dir)
        if record["split"] == run.eval_split
    ]
    best = next((row for row in rows if row["step"] == best_step), {"step": None})
    return best, rows[-1], [(row["step"], row["dev_score"]) for row in rows]


def _floor(run: Run) -> float:
    """The dev score of a constant answer, see `majority_floor`."""
    sets = evaluate.load_eval_sets(run, loading.prepare_task(run))
    floors = [evaluation.majority_floor(examples).metrics for examples in sets]
    return float(np.mean([evaluation.dev_score(metrics) for metrics in floors]))


def count_parameters(run: Run) -> dict[str, int]:
    """Counts what trains and what is frozen; 'model_parameters' is the T5 alone."""
    model_shapes = parameter_shapes(run.model)
    added = added_shapes(run.model, run.method.hooks)
    counts = {path: int(np.prod(shape)) for path, shape in (model_shapes | added).items()}
    measures_only = not added and not run.method.trainable
    matched = [] if measures_only else trainable_paths(run.method, counts, added)
    trainable = sum(counts[path] for path in matched)
    return {
        "trainable_parameters": trainable,
        "frozen_parameters": sum(counts.values()) - trainable,
        "model_parameters": sum(counts[path] for path in model_shapes),
    }


def surroundings() -> dict[str, Any]:
    """The origin of a number: commit, hardware, versions."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else platform.machine()
    return {
        "commit": _commit(),
        "hardware": f"{jax.device_count()} {device.platform} {kind}, {os.cpu_count()} CPU cores",
        "versions": library_versions(),
    }


def _commit() -> str | None:
    """The commit of the code, with '-dirty' if code or configurations differ from it."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def git(*command: str) -> str:
        done = subprocess.run(["git", "-C", root, *command], capture_output=True, check=True)
        return done.stdout.decode().strip()

    try:
        if not os.path.samefile(git("rev-parse", "--show-toplevel"), root):
            return None  # an installed copy inside another repository
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "prompt_tuning", "gin", "configs")
    except (OSError, subprocess.CalledProcessError):  # an installed copy
        return None
    return commit + "-dirty" * bool(changed)
