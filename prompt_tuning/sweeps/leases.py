"""Who runs which cell: any number of workers share a sweep's cells through a folder or a bucket.

    results/boolq-s-prompt-0.json              the result; a cell that has one is done
    results/attempts/boolq-s-prompt-0.1.json   {"state": "running", "host": "node7", "beats": 8, ...
    results/attempts/boolq-s-prompt-0.2.json   {"state": "failed", "error": "FloatingPointError: ...
    results/attempts/boolq-s-prompt-0.3.json   {"state": "running", "host": "node3", "beats": 2, ...

The entry with the highest number is the state of a cell:

    running   a lease; its worker counts `beats` up twelve times per lease, every 15 s
    stopped   given back, after Ctrl-C or SIGTERM
    failed    `error` says why
    done      holds the record; it is copied to results/KEY.json, then the entries are removed

A state is left by making the entry with the next number, and only one worker can make it
(`shared_files.create`). A worker that takes a cell over and the one that ends it compete for the
same file: a worker that lost its lease can neither publish a result nor record a failure, however
late it wakes up.

Clocks of different hosts are never compared. A lease has expired for a worker that has seen it
unchanged for `lease_seconds`, by that worker's own monotonic clock; its holder stops the run
(`LeaseLost`) when it could not renew the lease for 80% of that time, before another can begin.
Only a process or host that was frozen for longer can still write to its MODEL_DIR when it wakes
up, until its next beat; a local MODEL_DIR is locked as well, see training/lock.py.

`lease_seconds` has to be longer than a reader may see an old file: on NFS up to 60 s.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from prompt_tuning import folders, paths
from prompt_tuning.checkpoints import shared_files

LEASE_SECONDS = 180.0
BEATS = 12  # per lease
STOP_AT = 0.8  # of a lease that cannot be renewed
MAX_DEATHS = 5  # workers in a row that ended without a word, until the cell counts as failed
RETRY_SECONDS = (1, 2, 4, 8, 16)  # waits, if the end of an attempt cannot be written

_ATTEMPTS = "attempts"
_ENTRY = re.compile(r"(?P<key>.+)\.(?P<number>\d+)\.json")


class LeaseLost(BaseException):
    """Raised in the run whose lease was lost; no `except Exception` may swallow it."""


class Entry(NamedTuple):
    """The newest entry of a cell.

    Attributes:
      number: from 1.
      content: of the file.
      unchanged_seconds: how long this worker has seen it as it is.
    """

    number: int
    content: Mapping[str, Any]
    unchanged_seconds: float

    @property
    def state(self) -> str:
        return self.content["state"]

    @property
    def worker(self) -> str:
        """Who wrote it, 'node7:4242'."""
        return f"{self.content['host']}:{self.content['process']}"

    @property
    def is_free(self) -> bool:
        """Whether the cell can be taken: no worker has it, or the lease has expired."""
        return self.state != "running" or self.unchanged_seconds >= self.content["lease_seconds"]


class _Seen(NamedTuple):
    """An entry, and since when this worker has seen it as it is."""

    entry: Entry
    since: float


class Cells:
    """The cells of a sweep, as one worker sees them.

    Args:
      folder: of the results, local or gs://.
      lease_seconds: how long its leases last.
      clock: seconds; only differences count.
    """

    def __init__(
        self,
        folder: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder = folder
        self.lease_seconds = lease_seconds
        self.clock = clock
        self.host, self.process = socket.gethostname(), os.getpid()
        self._seen: dict[str, _Seen] = {}
        _remove_leftovers(folder)

    @property
    def worker(self) -> str:
        return f"{self.host}:{self.process}"

    def newest(self, keys: Collection[str]) -> dict[str, Entry]:
        """The newest entry of each of these cells that has one, 'done' excepted.

        What a worker left behind between 'done' and the result is completed.

        Raises:
          ValueError: an entry cannot be read.
          OSError: the folder cannot be reached.
        """
        highest, entries = _highest(self.folder), {}
        for key in keys:
            entry = self._entry(key, highest[key]) if key in highest else None
            if entry is None:
                continue
            if entry.state == "done":
                _complete(self.folder, key, entry.number, entry.content["record"])
            else:
                entries[key] = entry
        return entries

    def claim(self, key: str, entry: Entry | None) -> "Lease | None":
        """Takes a cell.

        Args:
          key: of a cell that is free.
          entry: its newest entry, None if there is none.

        Returns:
          None if another worker was faster, or too many have died of it: then it has failed.
        """
        content: dict[str, Any] = {"seconds": 0.0, "deaths": 0}
        if entry is not None:
            content["seconds"] = entry.content["seconds"]
            content["deaths"] = entry.content["deaths"] + 1 if entry.state == "running" else 0
        number = 1 if entry is None else entry.number + 1
        lease = Lease(self, key, number, content)
        if content["deaths"] >= MAX_DEATHS:
            lease.give_up(entry)
            return None
        return lease if lease.begin() else None

    def _entry(self, key: str, number: int) -> Entry | None:
        """The entry, or None if it is gone: the cell was done in the meantime."""
        seen = self._seen.get(key)
        if seen and seen.entry.number == number and seen.entry.state != "running":
            return seen.entry  # only a lease changes
        asked_at = self.clock()
        content = _read_json(_path(self.folder, key, number))
        if content is None:
            return None
        if seen is None or (seen.entry.number, seen.entry.content) != (number, content):
            seen = _Seen(Entry(number, content, 0.0), self.clock())
            self._seen[key] = seen
        return seen.entry._replace(unchanged_seconds=max(0.0, asked_at - seen.since))


class Lease:
    """A cell that this worker has taken, see `Cells.claim`.

    Attributes:
      key: of the cell.
      lost: whether another worker has it now, or may.
    """

    def __init__(self, cells: Cells, key: str, number: int, before: Mapping[str, Any]):
        self.key = key
        self.lost = False
        self._cells = cells
        self._number = number
        self._earlier_seconds = before["seconds"]
        self._began = self._renewed = cells.clock()
        self._ended = threading.Event()
        self._content = {
            "state": "running",
            "host": cells.host,
            "process": cells.process,
            "token": secrets.token_hex(8),
            "lease_seconds": cells.lease_seconds,
            "beats": 0,
            **before,
        }

    @property
    def seconds(self) -> float:
        """The time of this attempt and of those before it, as far as it is known."""
        return self._earlier_seconds + self._cells.clock() - self._began

    def begin(self) -> bool:
        """Makes the entry; False if another worker was faster."""
        return self._make(self._path(), self._written())

    def renew(self) -> None:
        """Tells the others that its worker is alive, and notes if the lease is lost."""
        now = self._cells.clock()
        try:
            if shared_files.read(self._path(1)) is None:
                self._content["beats"] += 1
                shared_files.replace(self._path(), self._written())
                self._renewed = now
            else:
                self.lost = True
        except OSError:  # the next beat tries again
            pass
        if self._cells.clock() - self._renewed >= STOP_AT * self._cells.lease_seconds:
            self.lost = True

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renews it in the background meanwhile.

        Raises:
          LeaseLost: it was lost meanwhile. It interrupts the main thread, through SIGUSR1; another
            thread learns of it when it ends the attempt.
        """

        def interrupt(signal_number, frame):
            if self.lost and not self._ended.is_set():
                raise LeaseLost
            if callable(before):  # of another lease that this worker has
                before(signal_number, frame)

        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGUSR1) if is_main else None
        if is_main:
            signal.signal(signal.SIGUSR1, interrupt)
        thread = threading.Thread(target=self._beat, args=(is_main,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            if is_main:
                signal.signal(signal.SIGUSR1, before or signal.SIG_DFL)

    def end(self, state: str, **more: Any) -> bool:
        """Ends the attempt; False if another worker has taken the cell.

        Args:
          state: 'stopped', 'failed' or 'done'.
          **more: what else the entry says.

        Raises:
          OSError: it cannot be written, also not half a minute later.
        """
        content = json.dumps(
            self._content | {"state": state, "seconds": self.seconds} | more, default=float
        )
        make = shared_files.create if state == "done" else self._make
        for wait in RETRY_SECONDS:
            with contextlib.suppress(OSError):
                return make(self._path(1), content.encode())
            time.sleep(wait)
        return make(self._path(1), content.encode())

    def publish(self, record: Mapping[str, Any]) -> bool:
        """Ends the attempt with a result; if the lease was lost, publishes nothing: False."""
        if not self.end("done", record=record):
            return False
        return _complete(self._cells.folder, self.key, self._number + 1, record)

    def give_up(self, entry: Entry) -> None:
        """Records in place of a lease that the cell kills its workers."""
        error = (
            f"{MAX_DEATHS} workers in a row ended without a word while they ran it, the last one "
            f"was {entry.worker}. They may have been out of memory."
        )
        self._content |= {"state": "failed", "error": error}
        shared_files.create(self._path(), self._written())

    def _beat(self, is_main: bool) -> None:
        while not self._ended.wait(self._cells.lease_seconds / BEATS):
            self.renew()
            if self.lost:
                if is_main:
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                return

    def _make(self, path: str, content: bytes) -> bool:
        """Makes an entry, unless the cell was done, and its entries removed, since we looked."""
        if not shared_files.create(path, content):
            return False
        if shared_files.read(result_path(self._cells.folder, self.key)) is None:
            return True
        shared_files.remove(path)
        return False

    def _path(self, further: int = 0) -> str:
        return _path(self._cells.folder, self.key, self._number + further)

    def _written(self) -> bytes:
        return json.dumps(self._content | {"seconds": self.seconds}).encode()


def look(folder: str, keys: Collection[str]) -> dict[str, Entry]:
    """The newest entry of each of these cells that has one; nothing is written or removed.

    Raises:
      ValueError: an entry cannot be read.
      OSError: the folder cannot be reached.
    """
    found = {key: number for key, number in _highest(folder).items() if key in keys}
    contents = {key: _read_json(_path(folder, key, number)) for key, number in found.items()}
    return {
        key: Entry(found[key], content, 0.0)
        for key, content in contents.items()
        if content is not None
    }


def _highest(folder: str) -> dict[str, int]:
    """The number of the newest entry of each cell."""
    highest: dict[str, int] = {}
    for name in shared_files.names(os.path.join(folder, _ATTEMPTS)):
        if found := _ENTRY.fullmatch(name):
            highest[found["key"]] = max(highest.get(found["key"], 0), int(found["number"]))
    return highest


def done(folder: str) -> set[str]:
    """The keys of the cells that have a result.

    Raises:
      OSError: the folder cannot be read.
    """
    names = shared_files.names(folder)
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_result(folder: str, key: str) -> dict[str, Any] | None:
    """The record of a cell, None if it has no result.

    Raises:
      ValueError: the file is not JSON.
      OSError: it cannot be read.
    """
    return _read_json(result_path(folder, key))


def _read_json(path: str) -> dict[str, Any] | None:
    content = shared_files.read(path)
    try:
        return None if content is None else json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON; remove it to make the run again.") from error


def _complete(folder: str, key: str, number: int, record: Mapping[str, Any]) -> bool:
    """Copies the record of the entry 'done' into the result, and removes the entries."""
    line = json.dumps(record, default=float) + "\n"
    is_ours = shared_files.create(result_path(folder, key), line.encode())
    for each in range(1, number + 1):
        shared_files.remove(_path(folder, key, each))
    return is_ours


def result_path(folder: str, key: str) -> str:
    return os.path.join(folder, f"{key}.json")


def _path(folder: str, key: str, number: int) -> str:
    return os.path.join(folder, _ATTEMPTS, f"{key}.{number}.json")


def _remove_leftovers(folder: str) -> None:
    """Removes what processes that were killed had begun to write."""
    if paths.is_remote(folder):
        return
    for each in (folder, os.path.join(folder, _ATTEMPTS)):
        folders.remove_leftovers(os.path.join(each, name) for name in shared_files.names(each))
