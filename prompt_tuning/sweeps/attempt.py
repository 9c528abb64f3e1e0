"""An attempt at a cell of a sweep: the run is made and measured; its folder is tidied later."""

import contextlib
import dataclasses
import io
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from prompt_tuning import paths
from prompt_tuning.run import Run
from prompt_tuning.sweeps import costs, elsewhere, forgetting, grid, measure, resolved
from prompt_tuning.training import lock, progress, together

KEPT = {
    "prompts": ("prompts", progress.METRICS_FILE, "config.gin"),  # small; no tuned model, no state
    "nothing": (),
    "all": None,
}
LOG = "log.txt"
Record = dict[str, Any]


def make(
    cells: Sequence[grid.Cell],
    folders: Sequence[str],
    wait_seconds: float,
    forgetting_task: str | None = None,
) -> list[Record]:
    """Makes the run of a cell, or those of several together, or resumes them.

    Args:
      cells: one, or several that `may_be_together`.
      folders: the MODEL_DIR of each; the output goes to log.txt there, of several to the first.
      wait_seconds: how long to wait for a process that still trains there.
      forgetting_task: see `forgetting.task_of`.

    Returns:
      The record of each; after a failure, of whatever kind, one with a sentence, 'error'.
    """
    records: list[Record] = [
        {"key": cell.key, "values": dict(cell.values), "seed": cell.seed} for cell in cells
    ]
    for folder in folders[1:]:
        with _log(folder) as log:
            log.write(f"trained together with {cells[0].key}; see {folders[0]}/{LOG}\n")
    with _log(folders[0]) as log:
        try:
            with contextlib.redirect_stdout(log):
                runs = [resolved.load_run(*one) for one in zip(cells, folders, strict=True)]
                others = [
                    resolved.load_evaluations(*one) for one in zip(cells, folders, strict=True)
                ]
                for evaluations in others:
                    elsewhere.check(evaluations)
                for cell, run, record, found in zip(cells, runs, records, others, strict=True):
                    record["settings"] = resolved.digest(run, cell.train, found)
                    record["frozen_model"] = resolved.fingerprint(run, reads=True)
                for folder in folders if cells[0].train else ():
                    _wait_for_lock(folder, wait_seconds)
                measured = _measured(runs, others, cells[0].train, forgetting_task)
        except Exception as error:
            traceback.print_exc(file=log)
            measured = [error] * len(cells)
    about = measure.surroundings()
    if len(cells) > 1:
        about["together"] = len(cells)
    return [
        record | (_failed(one) if isinstance(one, Exception) else one | about)
        for record, one in zip(records, measured, strict=True)
    ]


def _measured(
    runs: Sequence[Run],
    others: Sequence[Mapping[str, Run]],
    train: bool,
    forgetting_task: str | None,
) -> list[Record | FloatingPointError]:
    """Makes runs, and measures what they scored, took and forgot."""
    peaks = costs.Peaks()
    if len(runs) > 1:
        measured = measure.measure_together(runs)
    else:
        measured = [measure.measure(runs[0], train)]
    memory = peaks.read()
    for run, evaluations, one in zip(runs, others, measured, strict=True):
        if not isinstance(one, Exception):
            one |= memory | {"tuned_bytes": costs.tuned_bytes(run, train)}
            if one["best"].get("step") is not None:
                one |= forgetting.measure(run, train, forgetting_task)
                one |= elsewhere.measure(run, evaluations)
    return measured


def may_be_together(cell: grid.Cell, other: grid.Cell, loaded: resolved.Loaded) -> bool:
    """Whether the runs of two cells can be trained together: they differ in what trains only."""
    if not (cell.train and other.train):
        return False
    runs = resolved.load_runs([cell, other], loaded)
    alike = [
        dataclasses.replace(runs[each.key], model_dir=each.key, seed=each.seed)
        for each in (cell, other)
    ]
    try:
        together.check_alike(alike)
    except ValueError:
        return False
    return True


def _failed(error: Exception) -> Record:
    return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def tidy(folder: str, keep: str) -> None:
    """Removes what is not kept of a run's folder.

    Args:
      folder: of a run that was measured.
      keep: one of KEPT.
    """
    kept = KEPT[keep]
    if kept is None:
        return
    for name in paths.names(folder):
        if name not in kept:
            _remove(os.path.join(folder, name))
    if not kept:
        _remove(folder)


def _remove(path: str) -> None:
    if paths.is_remote(path):
        found = paths.at(path)
        if found.exists():  # a folder in a bucket is gone with its last file
            found.rmtree() if found.is_dir() else found.unlink()
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def _wait_for_lock(folder: str, seconds: float) -> None:
    """Waits for a process that lost the cell and still trains; training then refuses the folder."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(ValueError), lock.held(folder):
            return
        time.sleep(min(1.0, seconds / 10))


@contextlib.contextmanager
def _log(folder: str) -> Iterator[IO[str]]:
    """The log of a run, to append to; in a bucket it is written at the end."""
    path = os.path.join(folder, LOG)
    paths.make_folder(folder)
    if not paths.is_remote(folder):
        with open(path, "a", encoding="utf-8", buffering=1) as log:
            yield log
        return
    before = paths.read_bytes(path).decode() if paths.is_file(path) else ""
    log = io.StringIO()
    try:
        yield log
    finally:
        paths.write_remote(path, (before + log.getvalue()).encode())
