"""Files and folders that are written whole or not at all, and that survive a power cut."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from typing import IO

from prompt_tuning import paths


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, choose: str = "folder") -> Iterator[str]:
    """Gives a folder to fill, which becomes `path` if nothing was raised, and else is removed.

    Args:
      path: must not exist.
      choose: what the user may choose otherwise, for the message.

    Raises:
      ValueError: the folder exists.
    """
    final = os.path.abspath(path)
    if os.path.exists(final):
        raise ValueError(f"{final!r} exists already. Choose another {choose}, or remove it first.")
    temporary = f"{final}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        yield temporary
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file that is whole at every moment: the old one, then the new one.

    In a bucket (gs://) a file appears only when it is whole.
    """
    if paths.is_remote(path):
        paths.write_remote(path, content)
        return
    temporary = f"{os.fspath(path)}.tmp-{os.getpid()}"
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


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
        raise ValueError(f"{final!r} is a folder; a file to write was expected.")
    os.makedirs(os.path.dirname(final), exist_ok=True)
    temporary = f"{final}.tmp-{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
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
