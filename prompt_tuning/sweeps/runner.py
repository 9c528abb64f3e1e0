"""Runs a sweep: any number of workers take its cells, one after the other.

    prompt-tuning sweep run FILE    is one worker; start as many as there are devices, on any number
                                    of hosts that see FILE's folder, or with FILE in gs://

Results and leases are beside FILE, see leases.py; what is done is not run again. A worker ends when
every cell has a result or has failed: until then it waits for the runs of the others, and takes
over those of a worker that is not heard of any more. A run taken over is resumed if both workers
see the same folder of runs, and starts anew otherwise. The seconds of a result include the attempts
before it, of a killed one until its last beat.

A run that fails is recorded with its error and the others continue. It is not run again until a
worker is started with --retry_failed, which takes what had failed by then.

Runs of the same shape share compiled programs and loaded data, so that a run takes only the time
of its steps; so a worker prefers the other seeds of what it ran last, and leaves those of another
worker to it. With --together N it trains up to N runs at once over one frozen model, if they differ
only in what trains; 'seconds' of such a result is the N-th part, and the last line says what that
saved.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from prompt_tuning import paths
from prompt_tuning.data import batches
from prompt_tuning.sweeps import (
    attempt,
    commands,
    display,
    estimates,
    grid,
    leases,
    resolved,
    results,
)
from prompt_tuning.training import progress

POLLS = 36  # per lease, while there is nothing to do but to wait
Found = TypeVar("Found")


def run_sweep(
    path: str,
    *,
    shard: str | None = None,
    only: Sequence[str] = (),
    keep: str = "prompts",
    lease_seconds: float = leases.LEASE_SECONDS,
    together: int = 1,
    retry_failed: bool = False,
) -> int:
    """Makes the runs of a sweep that have no result yet, together with other workers.

    Args:
      path: the sweep's file, see `grid.py`.
      shard, only: see `grid.select`.
      keep: what is kept of a run's folder after it was measured, one of `attempt.KEPT`.
      lease_seconds: after how long without a sign of life others take over the run of this worker.
      together: how many runs are trained at once, at most, see `training/together.py`.
      retry_failed: also run what has failed before.

    Returns:
      The number of runs made by this worker.

    Raises:
      ValueError: the sweep or a configuration cannot be read; a result was made with other
        settings or another model; or, at the end, some runs failed, here or elsewhere.
      OSError: the folder of the results cannot be written to.
    """
    if keep not in attempt.KEPT:
        raise ValueError(f"--keep is one of {', '.join(attempt.KEPT)}; got {keep!r}.")
    sweep = grid.read_sweep(path)
    chosen = grid.select(sweep, shard, only)
    loaded: resolved.Loaded = {}
    done = results.read_results(sweep, loaded)
    left = [cell for cell in chosen if cell.key not in done]
    results.check_models(sweep, done, left, loaded)
    print(f"{len(chosen):,} runs, {len(chosen) - len(left):,} of them done already")
    cells = leases.Cells(sweep.results, lease_seconds=lease_seconds)
    worker = Worker(sweep, cells, keep, done, left, loaded, together, retry_failed)
    with batches.keep_loaded():
        made = worker.work()
    if saved := estimates.compare_together(list(done.values())):
        print(saved)
    if worker.failed:
        raise ValueError(
            f"{len(worker.failed)} of {len(left)} runs failed: {', '.join(worker.failed)}. Their "
            f"output is in {sweep.runs}/RUN/{attempt.LOG}; --retry_failed runs them again."
        )
    return made


class Worker:
    """One process that works on a sweep.

    Args:
      sweep: the sweep.
      cells: who runs what.
      keep: see `run_sweep`.
      done: the records of the runs that have a result, by key; new ones are added.
      left: the cells to work on.
      loaded: configurations loaded earlier; new ones are added.
      together, retry_failed: see `run_sweep`.

    Attributes:
      failed: the error of each run that failed, by key; of those to be retried, again.
    """

    def __init__(
        self,
        sweep: grid.Sweep,
        cells: leases.Cells,
        keep: str,
        done: dict[str, results.Record],
        left: Sequence[grid.Cell],
        loaded: resolved.Loaded,
        together: int = 1,
        retry_failed: bool = False,
    ):
        self.failed: dict[str, str] = {}
        self._sweep = sweep
        self._cells = cells
        self._keep = keep
        self._done = done
        self._pending = {cell.key: cell for cell in left}
        self._total = len(left)
        self._loaded = loaded
        self._together = together
        self._workers = 1  # that are running
        self._last_values: Mapping[str, str] = {}
        self._others: dict[str, str] = {}  # who runs which cell, as printed last
        self._mine: dict[str, display.Mine] = {}
        self._busy: dict[str, str] = {}  # who runs which cell, as seen last
        self._finished: list[tuple[str, float, float]] = []  # newest first
        self._ends_at: float | None = None
        self._display = display.choose(self.snapshot, cells.worker)
        found = cells.newest(self._pending) if retry_failed else {}
        self._retried = {key: entry.number for key, entry in found.items()}

    def work(self) -> int:
        """Works until every cell has a result or has failed; returns how many were run here."""
        made = 0
        with self._display:
            while True:
                claimed = self._patiently(self._next)
                if claimed:
                    made += self._attempt(claimed)
                elif not self._pending:
                    return made
                else:
                    self._sleep()

    def snapshot(self) -> display.Snapshot:
        """What is known now, for the table; another thread asks."""
        failed = len(self.failed)
        left = None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())
        return display.Snapshot(
            total=self._total,
            done=self._total - len(self._pending) - failed,
            failed=failed,
            mine=dict(self._mine),
            others=dict(self._busy),
            finished=list(self._finished),
            score=self._sweep.score,
            seconds_left=left,
        )

    def _patiently(self, call: Callable[[], Found]) -> Found:
        """Asks a bucket again that cannot be reached for a while."""
        until = time.monotonic() + self._cells.lease_seconds
        while True:
            try:
                return call()
            except OSError:
                if not paths.is_remote(self._sweep.results) or time.monotonic() > until:
                    raise
            self._sleep()

    def _next(self) -> list[tuple[grid.Cell, leases.Lease]]:
        """Looks at what the others have done, and takes what is free, if there is something."""
        entries = self._look()
        claimed = self._claim(entries)
        if not claimed:
            self._print_others()
        return claimed

    def _sleep(self) -> None:
        time.sleep(self._cells.lease_seconds / POLLS)

    def _look(self) -> dict[str, leases.Entry]:
        """Notes what others have done; returns the newest entries of what is left."""
        done = leases.done(self._sweep.results)
        found = results.read_cells(self._sweep, [key for key in self._pending if key in done])
        results.check_settings(self._sweep, found, self._loaded)
        for key, record in found.items():
            self._note_done(key, record)
        entries = self._cells.newest(self._pending)
        for key, entry in entries.items():
            if entry.state == "failed" and entry.number > self._retried.get(key, 0):
                self._note_failed(key, entry.content["error"], entry.worker)
        self._busy = {key: entry.worker for key, entry in entries.items() if not entry.is_free}
        self._workers = len(set(self._busy.values())) + 1
        return {key: entry for key, entry in entries.items() if key in self._pending}

    def _claim(self, entries: Mapping[str, leases.Entry]) -> list[tuple[grid.Cell, leases.Lease]]:
        """Takes a cell that is free, if there is one, and others that can be trained with it."""
        busy = [self._pending[key].values for key, entry in entries.items() if not entry.is_free]
        claimed: list[tuple[grid.Cell, leases.Lease]] = []

        def rank(cell: grid.Cell) -> tuple[bool, bool]:
            return cell.values != self._last_values, cell.values in busy

        for cell in sorted(self._pending.values(), key=rank):
            entry = entries.get(cell.key)
            if entry is not None and not entry.is_free:
                continue
            if claimed and not attempt.may_be_together(claimed[0][0], cell, self._loaded):
                continue
            lease = self._cells.claim(cell.key, entry)
            if lease is not None:
                self._print_begin(cell.key, entry)
                claimed.append((cell, lease))
            if len(claimed) == self._together:
                break
        return claimed

    def _attempt(self, claimed: Sequence[tuple[grid.Cell, leases.Lease]]) -> int:
        """Runs cells; returns how many were run to their end, by this worker."""
        cells = [cell for cell, _ in claimed]
        self._last_values = cells[-1].values
        folders = [commands.folder(self._sweep, cell) for cell in cells]
        self._mine = self._begun(cells, folders)
        try:
            with contextlib.ExitStack() as stack:
                for _, lease in claimed:
                    stack.enter_context(lease.kept())
                records = attempt.make(
                    cells, folders, self._cells.lease_seconds, self._sweep.forgetting_task
                )
        except leases.LeaseLost:
            for cell, lease in claimed:
                if lease.lost or not lease.end("stopped"):
                    self._note_lost(cell.key)
            return 0
        except BaseException:  # Ctrl-C; SIGTERM, after which training has saved its state
            for _, lease in claimed:
                lease.end("stopped")
            raise
        finally:
            self._mine = {}
        ended = zip(cells, [lease for _, lease in claimed], folders, records, strict=True)
        return sum([self._end(*one) for one in ended])

    def _begun(self, cells: Sequence[grid.Cell], folders: Sequence[str]) -> dict[str, display.Mine]:
        runs, now = resolved.load_runs(cells, self._loaded), time.monotonic()
        return {
            cell.key: display.Mine(folder, runs[cell.key].train_steps * cell.train, now)
            for cell, folder in zip(cells, folders, strict=True)
        }

    def _end(self, cell: grid.Cell, lease: leases.Lease, folder: str, record: dict) -> bool:
        """Ends an attempt; returns whether the cell was still this worker's."""
        if "error" in record:
            if not lease.end("failed", error=record["error"]):
                return self._note_lost(cell.key)
            self._note_failed(cell.key, record["error"], self._cells.worker)
            return True
        seconds = lease.seconds / record.get("together", 1)
        record |= {"seconds": round(seconds, 1), "worker": self._cells.worker}
        if not lease.publish(record):
            return self._note_lost(cell.key)
        self._note_done(cell.key, record)
        attempt.tidy(folder, self._keep)
        return True

    def _print_others(self) -> None:
        running = self._busy
        if running and running != self._others:
            listed = ", ".join(f"{key} (on {worker})" for key, worker in running.items())
            self._display.say(f"waiting for {len(running):,} runs of other workers: {listed}")
            self._others = running

    def _note_done(self, key: str, record: results.Record) -> None:
        self._done[key] = record
        del self._pending[key]
        left = estimates.seconds_left(list(self._pending.values()), list(self._done.values()))
        self._ends_at = time.monotonic() + left / self._workers
        remaining = progress.human_time(left / self._workers)
        score = record["best"].get(self._sweep.score, float("nan"))
        self._finished = [(key, score, record["seconds"]), *self._finished][: display.LAST]
        self._display.say(
            f"{self._number()}  {key}  {self._sweep.score} {score:.2f}  "
            f"{record['seconds']:.0f} s on {record['worker']}  ETA {remaining}"
        )

    def _note_failed(self, key: str, error: str, worker: str) -> None:
        self.failed[key] = error
        del self._pending[key]
        self._display.say(f"{self._number()}  {key}  FAILED on {worker}: {error}")

    def _note_lost(self, key: str) -> bool:
        worker = self._cells.worker
        self._display.say(f"{key}  LOST on {worker}: not heard of for too long, another has it")
        return False

    def _number(self) -> str:
        return f"{self._total - len(self._pending)}/{self._total}"

    def _print_begin(self, key: str, entry: leases.Entry | None) -> None:
        where = f"begins on {self._cells.worker}"
        if entry is not None and entry.state == "running":
            seconds = entry.unchanged_seconds
            where += f", taken over from {entry.worker}, not heard of for {seconds:.0f} s"
        self._display.say(f"{key}  {where}")
