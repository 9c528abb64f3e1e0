"""One process at a time trains in a folder.

    MODEL_DIR/train.lock     {"host": "node7", "process": 4242, "since": "2026-01-31 12:00:00 UTC"}

The lock is the kernel's (`flock`): it is released when the process ends, also by SIGKILL, and a
file left behind by a killed process does not block. The content of the file is used only in the
error message.

With several processes, process 0 holds the lock for all.

On NFS the lock works between hosts if the mount supports locks (the default on Linux; `nolock`
does not). Where locks are not supported, and on gs://, training runs without one, and a second
process is not detected. A child process forked without exec shares the lock and keeps it until it
ends.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator

from prompt_tuning import paths
from prompt_tuning.parallel import processes

FILE = "train.lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it does not exist.

    It is not re-entrant: two runs in one folder would overwrite each other's files within one
    process, too.

    Raises:
      ValueError: another process, or this one, holds the lock; names it and since when.
      OSError: the file cannot be written.
    """
    if paths.is_remote(folder):
        yield
        return
    if not processes.is_first():
        _refuse(processes.of_first(""))
        yield
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, FILE)
    handle = _acquire_or_refuse(folder, path)
    try:
        _write_holder(handle, path)
        yield
    finally:
        if _is_file(path, handle):  # else someone removed or replaced the folder
            os.unlink(path)
        os.close(handle)


def _acquire_or_refuse(folder: str, path: str) -> int:
    """Locks the file; a refusal is raised in every process of the run."""
    handle, refusal = None, ""
    try:
        handle = _acquire(folder, path)
    except ValueError as error:
        refusal = str(error)
    _refuse(processes.of_first(refusal))
    return handle


def _refuse(refusal: str) -> None:
    if refusal:
        raise ValueError(refusal)


def _acquire(folder: str, path: str) -> int:
    """Opens and locks the file.

    The previous holder may unlink the file between our open and our lock. A lock on an unlinked
    file protects nothing, so the file is opened again.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(folder, handle)
            if _is_file(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(folder: str, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(_refusal(folder, os.pread(handle, 1000, 0))) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        print(
            f"{folder} is on a file system without locks: a second process that trains in it will "
            "not be detected."
        )


def _is_file(path: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _write_holder(handle: int, path: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    holder = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
    except OSError as error:  # a full disk
        error.filename = path
        raise


def _refusal(folder: str, content: bytes) -> str:
    try:
        holder = json.loads(content)
        who = f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, TypeError, KeyError):  # being written
        who = "another process"
    return (
        f"{folder} is locked by {who}, which trains in it. Wait for it to end, stop it, or choose "
        "another MODEL_DIR."
    )
