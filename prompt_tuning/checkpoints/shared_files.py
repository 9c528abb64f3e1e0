"""Small files that several processes share, each made by exactly one of them.

`create` is what everything else rests on: of any number of processes on any number of hosts that
create one file, one succeeds, and a reader sees the whole content or no file.

    local folder    a hard link to a finished temporary file: link(2) is atomic, also on NFS
    gs://           an upload on condition that there is no object (ifGenerationMatch=0); Cloud
                    Storage is strongly consistent, also for lists

On gs:// nothing is cached: tensorstore asks the server each time.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorstore

from prompt_tuning import folders, paths
from prompt_tuning.checkpoints import leaves

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def create(path: str, content: bytes) -> bool:
    """Makes a file, and the folders above it, if there is none of that name.

    Args:
      path: local, or gs://.
      content: differs from what every other process would write, such as by a random token.

    Returns:
      Whether the file is ours: it was made now, or earlier by a call whose answer got lost.

    Raises:
      OSError: it cannot be written; the file system has no hard links.
    """
    made = _create_remote(path, content) if paths.is_remote(path) else _create(path, content)
    return made or read(path) == content


def read(path: str) -> bytes | None:
    """The content of a file, None if there is none.

    Raises:
      OSError: it cannot be read.
    """
    if paths.is_remote(path):
        with _named_errors(path):
            store, name = _opened(path)
            found = store.read(name).result()
        return bytes(found.value) if found.state == "value" else None
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def replace(path: str, content: bytes) -> None:
    """Writes a file, whether there is one or not; readers see the old content or the new one.

    Raises:
      OSError: it cannot be written.
    """
    if paths.is_remote(path):
        _write_remote(path, content)
    else:
        folders.replace_file(path, content)


def remove(path: str) -> None:
    """Removes a file, if there is one.

    Raises:
      OSError: it cannot be removed.
    """
    if paths.is_remote(path):
        _write_remote(path, None)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def names(folder: str) -> list[str]:
    """The names of the files right in a folder, sorted; without a folder there are none.

    Raises:
      OSError: it cannot be read.
    """
    if not paths.is_remote(folder):
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
    with _named_errors(folder):
        found = leaves.open_store(leaves.store_spec(folder)).list().result()
    return sorted(key.decode() for key in found if b"/" not in key)


def _create(path: str, content: bytes) -> bool:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = folders.temporary_name(path)
    try:
        folders.write_synced(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise OSError(
            f"{path!r} cannot be made: its file system has no hard links, by which processes "
            "agree on who makes a file. Choose a folder on another file system, or gs://."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
    return True


def _create_remote(path: str, content: bytes) -> bool:
    with _named_errors(path):
        store, name = _opened(path)
        found = store.read(name).result()
        if found.state != "missing":
            return False
        written = store.write(name, content, if_equal=found.stamp.generation).result()
    return bool(written.generation)  # empty where the condition did not hold


def _write_remote(path: str, content: bytes | None) -> None:
    """Writes an object; None removes it."""
    with _named_errors(path):
        store, name = _opened(path)
        store.write(name, content).result()


def _opened(path: str) -> tuple[tensorstore.KvStore, str]:
    """The folder of an object as a store, and its name there."""
    folder, name = os.path.split(path)
    return leaves.open_store(leaves.store_spec(folder)), name


@contextlib.contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Turns tensorstore's errors into one that names the path."""
    try:
        yield
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0].split(" [")[0][:300]
        raise OSError(f"{path!r} cannot be reached: {reason}") from error
