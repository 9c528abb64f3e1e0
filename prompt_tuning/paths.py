"""Paths as users write them: `~` is the home folder, gs://BUCKET/FOLDER a place in Google Storage.

    expand('~/run')            '/home/me/run'
    expand('gs://bucket/run')  as it is
    expand('s3://bucket/run')  ValueError

The functions below do the same in a local folder and in a bucket; etils.epath (through
TensorFlow's file system) reaches the bucket. Every failure is an `OSError` that names the path.
"""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

REMOTE = "gs"


def expand(path: str | os.PathLike, *, also: tuple[str, ...] = ()) -> str:
    """Makes `~` the home folder, and refuses a place that cannot be reached.

    Args:
      path: a local path or gs://BUCKET/FOLDER.
      also: more schemes that the caller reads, such as 'hf'.

    Raises:
      ValueError: another scheme, or one without a place after it.

    >>> expand('runs/a'), expand('gs://bucket/run')
    ('runs/a', 'gs://bucket/run')
    """
    text = os.fspath(path)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", text, re.DOTALL)
    if scheme is None:
        lost = re.match(r"(gs|hf|s3|https?):/(?!/)", text)  # what pathlib makes of a double slash
        if lost:
            raise ValueError(
                f"{text!r} is written with one slash; {lost[1]}:// has two. Pass it as text, not "
                "as a pathlib.Path."
            )
        return os.path.expanduser(text)
    known = (REMOTE, *also)
    if scheme[1] not in known:
        allowed = " or ".join(f"{name}://" for name in known)
        raise ValueError(
            f"{text!r} cannot be opened: a path is local or starts with {allowed}. Copy it to a "
            "local folder first."
        )
    if not scheme[2].strip("/"):
        raise ValueError(f"{text!r} is incomplete: expected a name after {scheme[1]}://.")
    return text


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(f"{REMOTE}://")


def absolute(path: str | os.PathLike) -> str:
    """The same place whatever the working directory.

    >>> absolute('gs://bucket/run/')
    'gs://bucket/run'
    """
    text = expand(path)
    return text.rstrip("/") if is_remote(text) else os.path.abspath(text)


def local(path: str | os.PathLike, what: str) -> str:
    """Makes `~` the home folder and refuses gs://, where only a local path can be used.

    Args:
      path: see `expand`.
      what: what is read or written, 'An adapter', for the message.

    Raises:
      ValueError: the path is in a bucket.
    """
    text = expand(path)
    if is_remote(text):
        raise ValueError(
            f"{what} has to be in a local folder, got {text!r}. Copy it with `gcloud "
            "storage cp -r`."
        )
    return text


def check_folder(path: str, setting: str) -> None:
    """Refuses a folder that cannot be made or written to; makes nothing itself.

    What is in a bucket is not looked at.

    Args:
      path: see `expand`.
      setting: what sets it, 'MODEL_DIR', for the message.

    Raises:
      ValueError: a file is in the way, there is no permission, the disk is read-only, or a name
        is too long.
    """
    text = absolute(path)
    if is_remote(text):
        return
    found = pathlib.Path(text)
    try:
        while not found.exists():
            found = found.parent
    except OSError as error:  # a name that is too long, a parent that may not be looked into
        raise ValueError(f"{setting} {path!r} cannot be used: {error.strerror}.") from error
    if not found.is_dir():
        raise ValueError(
            f"{setting} {path!r} cannot be made: {str(found)!r} is a file, and a folder was "
            f"expected. Choose another {setting}."
        )
    if not os.access(found, os.W_OK | os.X_OK):
        raise ValueError(
            f"{setting} {path!r} cannot be written to: {str(found)!r} is read-only or belongs to "
            f"someone else. Choose another {setting}."
        )


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is a file."""
    with _named_errors(path):
        found = at(path)
        return found.exists() and not found.is_dir() if is_remote(path) else found.is_file()


def is_folder(path: str | os.PathLike) -> bool:
    """Whether there is a folder."""
    with _named_errors(path):
        return at(path).is_dir()


def names(path: str | os.PathLike) -> list[str]:
    """The names in a folder, sorted."""
    with _named_errors(path):
        return sorted(entry.name for entry in at(path).iterdir())


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a whole file."""
    with _named_errors(path):
        return at(path).read_bytes()


@contextlib.contextmanager
def local_copy(path: str | os.PathLike) -> Iterator[str]:
    """Gives a local file with the same content: the file itself, or a temporary download."""
    if not is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(os.fspath(path)))
        pathlib.Path(local).write_bytes(read_bytes(path))
        yield local


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder and those above it, if need be."""
    with _named_errors(path):
        at(path).mkdir(parents=True, exist_ok=True)


def write_remote(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file in a bucket, where it appears whole or not at all."""
    with _named_errors(path):
        at(path).write_bytes(content)


def at(path: str | os.PathLike) -> Any:
    """The path as a `pathlib.Path`, or as etils' that acts like one in a bucket."""
    if not is_remote(path):
        return pathlib.Path(path)
    from etils import epath  # imports TensorFlow when it is used

    return epath.Path(path)


@contextlib.contextmanager
def _named_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns TensorFlow's errors, which are no OSError, into one that names the path."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or not is_remote(path):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"{os.fspath(path)!r} cannot be reached: {first[:300]}") from error
