"""Where a sweep stands, as any process can see it: results, leases, and metrics of running cells.

12 of 40 runs done, 1 running, 1 failed, 26 left; ETA 0:41:07 with 1 worker
running  boolq-m-prompt-1  on node7:4242  for 0:01:30  step 200 of 300
failed   cb-xl-model-0  on node3:77  FloatingPointError: the loss is nan
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_tuning import paths
from prompt_tuning.sweeps import commands, estimates, grid, leases, resolved, results
from prompt_tuning.training import progress

TAIL_BYTES = 4096


class Running(NamedTuple):
    """A cell that a worker has.

    Attributes:
      seconds: of its attempts, until the last sign of life.
      step, steps: how far it is, and how far it goes; step None if its folder is not seen here.
      is_dead: its worker was on this host and has ended; another takes the cell over.
    """

    key: str
    worker: str
    seconds: float
    step: int | None
    steps: int
    is_dead: bool

    def __str__(self) -> str:
        far = "" if self.step is None else f"  step {self.step:,} of {self.steps:,}"
        dead = "  (its process has ended; `sweep run` takes it over)" if self.is_dead else ""
        return f"{self.key}  on {self.worker}  for {progress.human_time(self.seconds)}{far}{dead}"


class Status(NamedTuple):
    """Where a sweep stands.

    Attributes:
      total, done: how many cells there are, and how many have a result.
      running: cells that workers have.
      failed: worker and error of the cells that failed, by key.
      seconds_left: of all that is neither done nor failed, one after the other; None without a
        result to go by.
    """

    total: int
    done: int
    running: Sequence[Running]
    failed: Mapping[str, tuple[str, str]]
    seconds_left: float | None

    @property
    def left(self) -> int:
        """How many no worker has taken, or has given back."""
        return self.total - self.done - len(self.running) - len(self.failed)

    def __str__(self) -> str:
        lines = [
            f"{self.done:,} of {self.total:,} runs done, {len(self.running):,} running, "
            f"{len(self.failed):,} failed, {self.left:,} left{self._eta()}"
        ]
        lines += [f"running  {one}" for one in self.running]
        lines += [f"failed   {key}  on {w}  {error}" for key, (w, error) in self.failed.items()]
        if self.failed:
            lines.append("`sweep run --retry_failed` runs what failed again.")
        return "\n".join(lines)

    def _eta(self) -> str:
        workers = len({one.worker for one in self.running if not one.is_dead})
        if not self.left + len(self.running):
            return ""
        if self.seconds_left is None:
            return "; ETA unknown, nothing is done yet"
        eta = progress.human_time(self.seconds_left / max(workers, 1))
        return f"; ETA {eta} with {max(workers, 1)} worker{'s' if workers > 1 else ''}"


def read(path: str, shard: str | None = None, only: Sequence[str] = ()) -> Status:
    """Reads where a sweep stands; nothing is written.

    Args:
      path: the sweep's file, or its folder.
      shard, only: see `grid.select`.

    Raises:
      ValueError: the sweep or a result cannot be read, see `results.read_results`.
    """
    sweep = grid.read_sweep(path)
    cells = {cell.key: cell for cell in grid.select(sweep, shard, only)}
    loaded: resolved.Loaded = {}
    done = results.read_results(sweep, loaded)
    left = {key: cell for key, cell in cells.items() if key not in done}
    entries = leases.look(sweep.results, left)
    failed = {
        key: (entry.worker, entry.content["error"])
        for key, entry in entries.items()
        if entry.state == "failed"
    }
    running = [
        _running(sweep, cells[key], entry, loaded)
        for key, entry in entries.items()
        if entry.state == "running"
    ]
    pending = [cell for key, cell in left.items() if key not in failed]
    seconds = estimates.seconds_left(pending, list(done.values())) if done else None
    if seconds is not None:
        seconds = max(0.0, seconds - sum(one.seconds for one in running))
    return Status(len(cells), len(cells) - len(left), running, failed, seconds)


def _running(
    sweep: grid.Sweep, cell: grid.Cell, entry: leases.Entry, loaded: resolved.Loaded
) -> Running:
    folder = commands.folder(sweep, cell)
    steps = resolved.load_runs([cell], loaded)[cell.key].train_steps if cell.train else 0
    step = step_of(folder) if cell.train else None
    is_here = entry.content["host"] == socket.gethostname()
    is_dead = is_here and not _is_alive(entry.content["process"])
    return Running(cell.key, entry.worker, entry.content["seconds"], step, steps, is_dead)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def step_of(folder: str) -> int | None:
    """The last step that a run has written metrics of; None if there is none yet."""
    path = os.path.join(folder, progress.METRICS_FILE)
    try:
        content = _tail(path)
    except (OSError, ValueError):
        return None
    for line in reversed(content.splitlines()):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):  # being written, or the first of the tail
            continue
    return None


def _tail(path: str) -> bytes:
    if paths.is_remote(path):
        return paths.read_bytes(path)
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
        return file.read()
