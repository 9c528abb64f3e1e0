"""Runs a sweep: one cell after the other in one process, one line of results for each.

Programs are compiled and data is read once for all runs of the same shape, so that the
time of a run is that of its steps. A finished run is a line of results.jsonl beside the
sweep's file; what stands there is not run again, so a sweep that was killed goes on where
it stopped, and `--shard 0/2` and `--shard 1/2` may work on it at the same time. A run that
fails is noted, the others go on, and the next `prompt-tuning sweep run` tries it again.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning import config
from prompt_tuning.data import batches, evaluation
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.frozen import parameter_shapes
from prompt_tuning.methods.method import added_shapes, trainable_paths
from prompt_tuning.pocket import models
from prompt_tuning.prompts import files
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid
from prompt_tuning.training import plots, progress
from prompt_tuning.training.loop import train_run

KEPT = {
    "prompts": ("prompts", "metrics.jsonl", "config.gin"),  # small; no tuned model, no state
    "nothing": (),
    "all": None,
}


def run_sweep(
    path: str, *, shard: str | None = None, only: Sequence[str] = (), keep: str = "prompts"
) -> int:
    """Runs what a sweep's results do not hold yet.

    Args:
      path: the sweep's file, see `grid.py`.
      shard, only: see `grid.select`.
      keep: what stays of a run's folder when it is measured, one of KEPT.

    Returns:
      How many runs were made.

    Raises:
      ValueError: the sweep cannot be read; results of other settings are in the way; or, after
        all others were made, some runs failed.
    """
    if keep not in KEPT:
        raise ValueError(f"--keep is one of {', '.join(KEPT)}; got {keep!r}.")
    sweep = grid.load(path)
    chosen = grid.select(sweep, shard, only)
    done = read_results(sweep)
    left = [cell for cell in chosen if cell.key not in done]
    print(f"{len(chosen):,} runs, {len(chosen) - len(left):,} of them done before")
    failed = []
    with batches.keep_loaded():
        for number, cell in enumerate(left, 1):
            record = _attempt(cell, sweep, keep)
            _append(sweep.results, record)
            if "error" in record:
                failed.append(cell.key)
                print(f"{number}/{len(left)}  {cell.key}  FAILED: {record['error']}", flush=True)
                continue
            done[cell.key] = record
            remaining = progress.human_time(seconds_left(left[number:], list(done.values())))
            score = record["best"].get(sweep.report["score"], float("nan"))
            print(
                f"{number}/{len(left)}  {cell.key}  {sweep.report['score']} {score:.2f}  "
                f"{record['seconds']:.0f} s  ETA {remaining}",
                flush=True,
            )
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(left)} runs failed: {', '.join(failed)}. What each printed is "
            f"in {sweep.runs}/RUN/log.txt; the same command tries them again."
        )
    return len(left)


def read_results(sweep: grid.Sweep) -> dict[str, dict[str, Any]]:
    """Reads the finished runs of a sweep, by key; a line that was cut short counts as none.

    Raises:
      ValueError: a run was made with other settings than the sweep has now.
    """
    cells = {cell.key: cell for cell in sweep.cells}
    done: dict[str, dict[str, Any]] = {}
    for record in _read_lines(sweep.results):
        cell = cells.get(record["key"])
        if cell is None or "error" in record:
            continue
        if record["settings"] != cell.settings:
            raise ValueError(
                f"{sweep.results} holds a result of {cell.key} that was made with other gin files "
                f"or bindings than {sweep.path} names now. Move that line away to run it again."
            )
        made_with, now = record.get("pocket_model"), _pocket_model(cell)
        if now is not None and now != made_with:
            raise ValueError(
                f"{sweep.results} holds a result of {cell.key} that was made with another "
                f"{cell.pocket_model} (fingerprint {made_with}) than there is now ({now}). Move "
                "that line away to run it again."
            )
        done[cell.key] = record
    return done


def _pocket_model(cell: grid.Cell) -> str | None:
    """The fingerprint of the pocket model that a run starts from, if it is on this machine."""
    return models.fingerprint(cell.pocket_model) if cell.pocket_model else None


def seconds_left(cells: Sequence[grid.Cell], done: Sequence[Mapping[str, Any]]) -> float:
    """Guesses how long runs will take: each as long as those done that are most like it."""
    total = 0.0
    for cell in cells:
        alike = [sum(cell.values[a] == r["values"].get(a) for a in cell.values) for r in done]
        nearest = [r["seconds"] for r, n in zip(done, alike, strict=True) if n == max(alike)]
        total += float(np.mean(nearest)) if nearest else 0.0
    return total


def _attempt(cell: grid.Cell, sweep: grid.Sweep, keep: str) -> dict[str, Any]:
    """Makes one run, and says what came of it; what it prints goes to its log."""
    folder = os.path.join(sweep.runs, cell.key)
    os.makedirs(folder, exist_ok=True)
    about = {"key": cell.key, "values": dict(cell.values), "seed": cell.seed}
    about |= {"settings": cell.settings, "pocket_model": _pocket_model(cell)}
    with open(os.path.join(folder, "log.txt"), "a", encoding="utf-8", buffering=1) as log:
        try:
            with contextlib.redirect_stdout(log):
                measured = _run(cell, folder)
        except Exception as error:
            traceback.print_exc(file=log)
            return about | {"error": f"{type(error).__name__}: {error}"}
    _tidy(folder, KEPT[keep])
    return about | measured | surroundings()


def _run(cell: grid.Cell, folder: str) -> dict[str, Any]:
    bindings = [
        *cell.bindings,
        f"RANDOM_SEED = {cell.seed}",
        f"MODEL_DIR = {folder!r}",
        "Run.eval_rank = True",
    ]
    began = time.monotonic()
    run = config.load(cell.gin_files, bindings)
    if cell.train:
        trained = train_run(run)
        best, last, curve = _measured_while_training(run, trained.best_step)
    else:
        evaluated = evaluate.evaluate_run(run)
        best = {"step": 0, **evaluated.metrics, "dev_score": evaluated.score, **evaluated.rank}
        last, curve = best, []
    measured = {
        "best": best,
        "last": last,
        "curve": curve,
        "floor": _floor(run),
        "steps": last["step"],
        "seconds": round(time.monotonic() - began, 1),
    }
    return measured | count_parameters(run)


def _measured_while_training(run: Run, best_step: int | None):
    """The dev metrics of the best step and of the last, and (step, dev score) of all."""
    rows = [
        {name: x for name, x in record.items() if name != "split"}
        for record in plots.read_metrics(run.model_dir)
        if record["split"] == run.eval_split
    ]
    best = next((row for row in rows if row["step"] == best_step), {"step": None})
    return best, rows[-1], [(row["step"], row["dev_score"]) for row in rows]


def _floor(run: Run) -> float:
    """The dev score of one and the same answer to every row, see `majority_floor`."""
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
    """Where a number comes from: commit, hardware, versions."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else platform.machine()
    return {
        "commit": _commit(),
        "hardware": f"{jax.device_count()} {device.platform} {kind}, {os.cpu_count()} CPU cores",
        "versions": files.library_versions(),
    }


def _commit() -> str | None:
    """The commit of the code, '-dirty' if code or configurations were changed since."""
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


def _tidy(folder: str, kept: tuple[str, ...] | None) -> None:
    if kept is None:
        return
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name in kept:
            continue
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    if not kept:
        os.rmdir(folder)


def _append(path: str, record: Mapping[str, Any]) -> None:
    """Adds a line in one write, so that two processes never mix theirs."""
    line = json.dumps(record, default=float) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.path.getsize(path) and not _ends_in_newline(path):
            line = "\n" + line  # after a line that a kill cut short
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def _ends_in_newline(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read_lines(path: str) -> list[dict[str, Any]]:
    """Reads JSON lines, leaving out those that were cut short; none without a file."""
    if not os.path.exists(path):
        return []
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
    return records
