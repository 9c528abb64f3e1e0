"""One parameter in a checkpoint: its shape is known, its values are read on demand.

Every reader turns a checkpoint into {path: Leaf}. Zarr arrays are opened through
tensorstore, in a local folder, in a bucket (gs://) or inside an OCDBT store.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np
import tensorstore

_PARALLEL_OPENS = 16
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter that has not been read yet.

    Attributes:
      shape: as stored.
      dtype: as stored.
      read: `(index=()) -> array`, reads the part at a tuple of slices, one for each axis; without
        one it reads all.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[..., np.ndarray]


@functools.cache
def _context() -> tensorstore.Context:
    # By default tensorstore retries for minutes when a bucket cannot be reached.
    retries = {"max_retries": 4, "initial_delay": "500ms", "max_delay": "4s"}
    return tensorstore.Context(
        {"file_io_concurrency": {"limit": 16}, "gcs_request_retries": retries}
    )


def store_spec(folder: str) -> dict[str, str]:
    """The tensorstore key-value spec of a local folder or of gs://bucket/folder.

    >>> store_spec('gs://t5-data/t5x/small')
    {'driver': 'gcs', 'bucket': 't5-data', 'path': 't5x/small/'}
    """
    bucket = re.fullmatch(r"gs://([^/]+)/?(.*)", folder, re.DOTALL)
    if bucket is None:
        return {"driver": "file", "path": os.path.abspath(folder).rstrip("/") + "/"}
    path = bucket[2].strip("/")
    return {"driver": "gcs", "bucket": bucket[1], "path": path + "/" if path else ""}


def open_store(spec: dict[str, object]) -> tensorstore.KvStore:
    """Opens a key-value store; tensorstore does not check whether it exists."""
    return tensorstore.KvStore.open(spec, context=_context()).result()


def read_file(folder: str, name: str) -> bytes | None:
    """The content of one file in a local or remote folder, None if there is none.

    Raises:
      ValueError: the place cannot be reached.
    """
    try:
        result = open_store(store_spec(folder)).read(name).result()
    except (ValueError, OSError) as error:
        raise ValueError(f"{join(folder, name)!r} cannot be read: {_short(error)}.") from error
    return bytes(result.value) if result.state == "value" else None


def is_file(folder: str, name: str) -> bool:
    """Whether a local or remote folder holds a file of that name."""
    if folder.startswith("gs://"):
        return read_file(folder, name) is not None
    return os.path.isfile(os.path.join(folder, name))


def join(folder: str, name: str) -> str:
    """Joins a local or gs:// folder and a name below it."""
    return folder.rstrip("/") + "/" + name.strip("/")


def subfolders(folder: str) -> set[str]:
    """The names right below a local or remote folder, files included."""
    if not folder.startswith("gs://"):
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()
    try:
        keys = open_store(store_spec(folder)).list().result()
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder!r} cannot be listed: {_short(error)}.") from error
    return {key.decode().split("/")[0] for key in keys}


def zarr_leaves(specs: dict[str, dict[str, object]], folder: str) -> dict[str, Leaf]:
    """Opens many zarr arrays in parallel, which matters in a bucket; see `zarr_leaf`."""
    wheres = [f"The parameter {path!r} of {folder!r}" for path in specs]
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_OPENS) as pool:
        opened = pool.map(zarr_leaf, specs.values(), wheres)
        return dict(zip(specs, opened, strict=True))


def zarr_leaf(spec: dict[str, object], where: str) -> Leaf:
    """Opens a zarr v2 array, reading its description only.

    Args:
      spec: the key-value store that holds `.zarray` and the chunks at its top.
      where: names the leaf in messages.

    Raises:
      ValueError: there is no array, or its description is damaged. The reading of the
        leaf raises it too, for a chunk that is missing or damaged: tensorstore alone would return
        zeros for a missing chunk.
    """
    store = open_store(spec)
    try:
        content = store.read(".zarray").result()
    except (ValueError, OSError) as error:
        raise ValueError(f"{where} cannot be read: {_short(error)}.") from error
    if content.state != "value":
        raise ValueError(
            f"{where} is named by the checkpoint, but its array is missing. The checkpoint is "
            f"incomplete; copy it again."
        )
    try:
        described = json.loads(content.value)
        shape, chunk = tuple(described["shape"]), tuple(described["chunks"])
        dtype = _zarr_dtype(described["dtype"])
        separator = described.get("dimension_separator", ".")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where} has a damaged description (.zarray): {_short(error)}. Copy it again."
        ) from error
    chunk_names = _chunk_names(shape, chunk, separator)
    return Leaf(shape, dtype, functools.partial(_read_zarr, store, spec, chunk_names, where))


def _zarr_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _chunk_names(shape: tuple[int, ...], chunk: tuple[int, ...], separator: str) -> set[str]:
    """The names of all chunk files of a zarr array.

    >>> sorted(_chunk_names((5, 4), (2, 4), '.'))
    ['0.0', '1.0', '2.0']
    >>> _chunk_names((3,), (8,), '.'), _chunk_names((), (), '.')
    ({'0'}, {'0'})
    """
    grid = [range(math.ceil(size / step)) for size, step in zip(shape, chunk, strict=True)]
    return {separator.join(map(str, index)) or "0" for index in itertools.product(*grid)}


def _read_zarr(
    store: tensorstore.KvStore,
    spec: dict[str, object],
    chunk_names: set[str],
    where: str,
    index: tuple[slice, ...] = (),
) -> np.ndarray:
    try:
        missing = chunk_names - {key.decode() for key in store.list().result()}
        if not missing:
            array = tensorstore.open(
                {"driver": "zarr", "kvstore": spec}, open=True, context=_context()
            ).result()
            return array[index].read().result()
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{where} cannot be read: {_short(error)}. Its file is damaged; copy the checkpoint "
            f"again."
        ) from error
    raise ValueError(
        f"{where} lacks {len(missing)} of its {len(chunk_names)} chunk files (first: "
        f"{min(missing)!r}). The checkpoint is incomplete; copy it again."
    )


def _short(error: Exception) -> str:
    """The first sentence of a tensorstore message, without its source locations."""
    return re.split(r" \[| \(at |\n", str(error))[0][:300].rstrip(".")


def some(names: Sequence[str]) -> str:
    """Lists names for a message, the first eight of many.

    >>> some(['a', 'b'])
    'a, b'
    >>> some(list('abcdefghijk'))
    'a, b, c, d, e, f, g, h and 3 more'
    """
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
