"""Atomic writes of files and folders that survive a power cut.

They are written under a temporary name beside the final one and then renamed:

    best.npy.tmp-node7-4242-9f3a61c0      host, process, 8 random digits

so no two processes share a temporary name, even on different hosts, and the name records which
process wrote it.
"""

import contextlib
import io
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from typing import IO

from prompt_tuning import paths

_TEMPORARY = re.compile(r"\.tmp-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{8}$")
_OLD_SECONDS = 24 * 60 * 60  # of a file from another host, whose processes we cannot look up


def temporary_name(path: str | os.PathLike) -> str:
    """A unique name beside `path`."""
    return f"{os.fspath(path)}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, choose: str = "folder") -> Iterator[str]:
    """Yields a folder to fill; it is renamed to `path` at the end, or removed after an error.

    Args:
      path: must not exist.
      choose: what the user can change, for the message.

    Raises:
      ValueError: the folder exists.
    """
    final = os.path.abspath(path)
    if os.path.exists(final):
        raise ValueError(f"{final!r} exists already. Choose another {choose}, or remove it first.")
    temporary = temporary_name(final)
    os.makedirs(temporary)
    try:
        yield temporary
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder so that it is never seen incomplete: it is renamed first."""
    temporary = temporary_name(os.path.abspath(path))
    os.rename(path, temporary)
    shutil.rmtree(temporary)


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file atomically: a reader sees the old content or the new one.

    Args:
      path: local, or gs://, where an object becomes visible when the upload is complete.
      content: the whole file.
    """
    if paths.is_remote(path):
        paths.write_remote(path, content)
        return
    with _replacement(path) as temporary:
        write_synced(temporary, content)


@contextlib.contextmanager
def new_file(path: str | os.PathLike) -> Iterator[IO[str]]:
    """Gives a text file to write, which takes the place of `path` if nothing was raised.

    The folder is made if need be. Until then, and after an error, an earlier `path` stays.

    Raises:
      ValueError: `path` is a folder.
      OSError: it cannot be written.
    """
    if paths.is_remote(path):
        with io.StringIO() as file:
            yield file
            paths.write_remote(path, file.getvalue().encode())
        return
    final = os.path.abspath(path)
    if os.path.isdir(final):
        raise ValueError(f"{final!r} is a folder; expected a file to write.")
    os.makedirs(os.path.dirname(final), exist_ok=True)
    with _replacement(final) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replacement(path: str | os.PathLike) -> Iterator[str]:
    """Gives the name of a file to write, which replaces `path`, or is removed after an error."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def write_synced(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file and waits until it is on the disk.

    Raises:
      OSError: it cannot be written; its `filename` is set also where the disk was full.
    """
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = os.fspath(path)
        raise


def remove_leftovers(candidates: Iterable[str | os.PathLike]) -> None:
    """Removes the temporary files and folders among the candidates whose writer has ended.

    These are the ones written on this host by a process that does not run any more, and those
    written on another host and not modified for a day. Other names are left alone.
    """
    for path in map(os.fspath, candidates):
        if not _is_leftover(path):
            continue
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def _is_leftover(path: str) -> bool:
    named = _TEMPORARY.search(path)
    if named is None:
        return False
    if named["host"] == socket.gethostname():
        return not _runs(int(named["process"]))
    return time.time() - os.path.getmtime(path) > _OLD_SECONDS


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True
