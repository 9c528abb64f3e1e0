"""Runs a sweep: one cell after the other in one process, one line of results for each.

Runs of the same shape share compiled programs and loaded data, so that a run takes only the time
of its steps. A finished run is a line of results.jsonl next to the sweep's file and is not run
again: a sweep that was killed resumes, and `--shard 0/2` and `--shard 1/2` may run at the same
time. A run that fails is recorded, the others continue, and the next `prompt-tuning sweep run`
retries it.

A result counts for a cell as long as the cell's resolved configuration and the fingerprint of the
frozen model are those that it was made with. Its seconds include the attempts that were killed.
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

from prompt_tuning import folders
from prompt_tuning.data import batches, evaluation
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.methods.method import added_shapes, trainable_paths
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.prompts.metadata import library_versions
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid, resolved
from prompt_tuning.training import plots, progress
from prompt_tuning.training.loop import train_run

KEPT = {
    "prompts": ("prompts", progress.METRICS_FILE, "config.gin"),  # small; no tuned model, no state
    "nothing": (),
    "all": None,
}
SECONDS = "seconds.json"  # of earlier attempts, and when the present one began


def run_sweep(
    path: str, *, shard: str | None = None, only: Sequence[str] = (), keep: str = "prompts"
) -> int:
    """Makes the runs of a sweep that have no result yet.

    Args:
      path: the sweep's file, see `grid.py`.
      shard, only: see `grid.select`.
      keep: what is kept of a run's folder after it was measured, one of KEPT.

    Returns:
      The number of runs made.

    Raises:
      ValueError: the sweep or a configuration cannot be read; a result was made with other
        settings or another model; or, at the end, some runs failed.
    """
    if keep not in KEPT:
        raise ValueError(f"--keep is one of {', '.join(KEPT)}; got {keep!r}.")
    sweep = grid.read_sweep(path)
    chosen = grid.select(sweep, shard, only)
    loaded: resolved.Loaded = {}
    done = read_results(sweep, loaded)
    left = [cell for cell in chosen if cell.key not in done]
    _check_models(sweep, done, left, loaded)
    print(f"{len(chosen):,} runs, {len(chosen) - len(left):,} of them done already")
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
            f"{len(failed)} of {len(left)} runs failed: {', '.join(failed)}. Their output is in "
            f"{sweep.runs}/RUN/log.txt; the same command retries them."
        )
    return len(left)


def read_results(
    sweep: grid.Sweep, loaded: resolved.Loaded | None = None
) -> dict[str, dict[str, Any]]:
    """Reads the finished runs of a sweep, by key; truncated lines are ignored.

    Args:
      sweep: the sweep.
      loaded: configurations loaded earlier; new ones are added.

    Raises:
      ValueError: a run was made with other settings than the sweep has now, or its frozen model
        has another fingerprint now, as far as that is known without reading it.
    """
    cells = {cell.key: cell for cell in sweep.cells}
    records = [r for r in _read_lines(sweep.results) if r["key"] in cells and "error" not in r]
    runs = resolved.load_runs(
        (cells[record["key"]] for record in records), {} if loaded is None else loaded
    )
    for record in records:
        key = record["key"]
        if record["settings"] != resolved.digest(runs[key], cells[key].train):
            raise ValueError(
                f"{sweep.results} holds a result of {key} that was made with other settings than "
                f"{sweep.path} describes now. Remove that line to run it again."
            )
        _check_model(sweep, record, runs[key], resolved.fingerprint(runs[key], reads=False))
    return {record["key"]: record for record in records}


def _check_models(
    sweep: grid.Sweep,
    done: Mapping[str, Mapping[str, Any]],
    left: Sequence[grid.Cell],
    loaded: resolved.Loaded,
) -> None:
    """Refuses to add to results that were made with another model; reads each model once."""
    cells = [cell for cell in sweep.cells if cell.key in done]
    runs = resolved.load_runs([*cells, *left], loaded)
    models = {(runs[cell.key].model, runs[cell.key].initial_checkpoint_path) for cell in left}
    for cell in cells:
        run = runs[cell.key]
        if (run.model, run.initial_checkpoint_path) in models:
            found = resolved.fingerprint(run, reads=True)
            _check_model(sweep, done[cell.key], run, found)


def _check_model(
    sweep: grid.Sweep, record: Mapping[str, Any], run: Run, fingerprint: str | None
) -> None:
    made_with = record.get("frozen_model")
    if fingerprint not in (None, made_with):
        raise ValueError(
            f"{sweep.results} holds a result of {record['key']} that was made with another "
            f"{run.initial_checkpoint_path} (fingerprint {made_with}) than there is now "
            f"({fingerprint}). Remove that line to run it again."
        )


def seconds_left(cells: Sequence[grid.Cell], done: Sequence[Mapping[str, Any]]) -> float:
    """Estimates how long runs will take: each as long as the most similar ones that are done."""
    total = 0.0
    for cell in cells:
        alike = [sum(cell.values[a] == r["values"].get(a) for a in cell.values) for r in done]
        nearest = [r["seconds"] for r, n in zip(done, alike, strict=True) if n == max(alike)]
        total += float(np.mean(nearest)) if nearest else 0.0
    return total


def _attempt(cell: grid.Cell, sweep: grid.Sweep, keep: str) -> dict[str, Any]:
    """Makes one run and returns its record; its output goes to its log."""
    folder = os.path.join(sweep.runs, cell.key)
    os.makedirs(folder, exist_ok=True)
    about: dict[str, Any] = {"key": cell.key, "values": dict(cell.values), "seed": cell.seed}
    earlier = _earlier_seconds(folder)
    began = time.time()
    _write_seconds(folder, earlier, began)
    with open(os.path.join(folder, "log.txt"), "a", encoding="utf-8", buffering=1) as log:
        try:
            with contextlib.redirect_stdout(log):
                run = resolved.load_run(cell, folder)
                about["settings"] = resolved.digest(run, cell.train)
                about["frozen_model"] = resolved.fingerprint(run, reads=True)
                measured = _run(run, cell.train)
        except Exception as error:
            traceback.print_exc(file=log)
            return about | {"error": f"{type(error).__name__}: {error}"}
    seconds = earlier + time.time() - began
    _write_seconds(folder, seconds, time.time())
    _tidy(folder, KEPT[keep])
    return about | measured | {"seconds": round(seconds, 1)} | surroundings()


def _earlier_seconds(folder: str) -> float:
    """How long earlier attempts took; one that was killed counts until its last output."""
    try:
        with open(os.path.join(folder, SECONDS), encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0.0
    outputs = [os.path.join(folder, name) for name in ("log.txt", progress.METRICS_FILE)]
    last = max((os.path.getmtime(path) for path in outputs if os.path.exists(path)), default=0.0)
    return found["seconds"] + max(0.0, last - found["began"])


def _write_seconds(folder: str, seconds: float, began: float) -> None:
    content = json.dumps({"seconds": seconds, "began": began})
    folders.replace_file(os.path.join(folder, SECONDS), content.encode())


def _run(run: Run, train: bool) -> dict[str, Any]:
    """Trains and evaluates, or only evaluates."""
    if train:
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
    }
    return measured | count_parameters(run)


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
    """Adds a line in one write, so that the lines of two processes never interleave."""
    line = json.dumps(record, default=float) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.path.getsize(path) and not _ends_in_newline(path):
            line = "\n" + line  # after a truncated line
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def _ends_in_newline(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read_lines(path: str) -> list[dict[str, Any]]:
    """Reads JSON lines and ignores truncated ones; without a file there are none."""
    if not os.path.exists(path):
        return []
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
    return records
