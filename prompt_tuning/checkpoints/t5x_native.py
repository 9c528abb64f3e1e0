"""T5X's own checkpoints, as T5X wrote them until it adopted Orbax, read and written.

    checkpoint_1100000/
      checkpoint                                     msgpack: the tree, version 3
      target.encoder.layers_0.mlp.wo.kernel/.zarray  one zarr array for each parameter
      target.encoder.layers_0.mlp.wo.kernel/0.0
      state.param_states. ...                        the optimizer's, see `accumulators`

A leaf of the tree is either the array itself or the description of a zarr array, whose
path is relative to the checkpoint. The description also records where it was first written
(driver 'file', 'gfile' or 'gcs' and a bucket); the checkpoint may since have moved, so
only its path counts. No TensorFlow is needed.
"""

import functools
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore
from flax import serialization

from prompt_tuning import folders, paths, trees
from prompt_tuning.checkpoints import leaves as leaves_lib
from prompt_tuning.checkpoints.leaves import Leaf

INDEX_FILE = "checkpoint"

_VERSION = 3
_READABLE_VERSIONS = (2, 3)
_CHUNK_BYTES = 64 * 2**20


def recognises(folder: str) -> bool:
    """Whether the folder is a T5X-native checkpoint; TensorFlow's have an index file too."""
    if not leaves_lib.is_file(folder, INDEX_FILE):
        return False
    return not leaves_lib.read_file(folder, INDEX_FILE).startswith(b"model_checkpoint_path")


def leaves(folder: str) -> dict[str, Leaf]:
    """Lists the parameters of a checkpoint without reading them.

    Args:
      folder: .../checkpoint_1100000, local or gs://.

    Raises:
      ValueError: the index or a leaf is missing or damaged, or of a version that this
        cannot read.
    """
    return _leaves(folder, _flatten(_index(folder)["target"]))


class Accumulators(NamedTuple):
    """The second moments of Adafactor.

    Attributes:
      step: the steps that were done.
      of: for each parameter v, v_row and v_col, of which those that its shape does not need are
        one zero.
    """

    step: int
    of: dict[str, dict[str, Leaf]]
    names: tuple[str, ...] = ("v", "v_row", "v_col")


def accumulators(folder: str) -> Accumulators | None:
    """Lists the optimizer's second moments without reading them.

    Returns:
      None if the checkpoint has none, or another optimizer's.

    Raises:
      ValueError: see `leaves`.
    """
    state = _index(folder).get("state", {})
    states = _flatten(state.get("param_states") or {})
    names = Accumulators._field_defaults["names"]
    kept = {path: value for path, value in states.items() if path.rpartition("/")[2] in names}
    of: dict[str, dict[str, Leaf]] = {}
    for path, leaf in _leaves(folder, kept).items():
        parameter, _, name = path.rpartition("/")
        of.setdefault(parameter, {})[name] = leaf
    if not of or any(found.keys() != set(names) for found in of.values()):
        return None
    return Accumulators(int(np.asarray(state["step"])), of)


def _leaves(folder: str, flat: Mapping[str, Any]) -> dict[str, Leaf]:
    """The arrays of a flattened part of the index."""
    inline = {
        path: np.asarray(value)
        for path, value in flat.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    described = {path: value for path, value in flat.items() if path not in inline}
    specs = {}
    for path, value in described.items():
        name = _zarr_folder(value, f"The parameter {path!r} of {folder!r}")
        specs[path] = leaves_lib.store_spec(leaves_lib.join(folder, name))
    found = leaves_lib.zarr_leaves(specs, folder)
    for path, leaf in found.items():
        _check_leaf(leaf, described[path], f"The parameter {path!r} of {folder!r}")
    return found | {
        path: Leaf(array.shape, array.dtype, functools.partial(_copy, array))
        for path, array in inline.items()
    }


def _copy(array: np.ndarray, index: tuple[slice, ...] = ()) -> np.ndarray:
    return array[index].copy()


def _index(folder: str) -> dict[str, Any]:
    """Reads the index: 'target' and 'state', trees of arrays and descriptions."""
    index_path = leaves_lib.join(folder, INDEX_FILE)
    content = leaves_lib.read_file(folder, INDEX_FILE)
    if content is None:
        raise ValueError(f"There is no T5X index file {index_path!r}.")
    try:
        index = serialization.msgpack_restore(content)
        version, optimizer = index["version"], index["optimizer"]
        _flatten(optimizer["target"])
    except Exception as error:  # msgpack raises a dozen kinds for damaged bytes
        raise ValueError(
            f"{index_path!r} ({len(content)} bytes) is not the index of a T5X checkpoint, or is "
            f"truncated or damaged ({type(error).__name__}: {error}). Copy it again."
        ) from error
    if version not in _READABLE_VERSIONS:
        raise ValueError(
            f"{index_path!r} is of version {version!r}; versions {_READABLE_VERSIONS} can be read. "
            f"Load and save it with T5X to convert it."
        )
    return optimizer


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens the index down to arrays and zarr descriptions, which are dicts themselves."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and "kvstore" not in value:
            flat.update(_flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def _zarr_folder(value: Any, where: str) -> str:
    """The folder of a zarr leaf, relative to the checkpoint."""
    value = value if isinstance(value, Mapping) else {"kvstore": {"driver": repr(value)[:80]}}
    driver, store = value.get("driver"), value["kvstore"]
    path = store.get("path") or value.get("path")
    if driver != "zarr" or store.get("driver") not in ("file", "gfile", "gcs") or not path:
        raise ValueError(
            f"{where} is stored as {driver!r} through {store.get('driver')!r}, path {path!r}; "
            f"expected 'zarr' through 'file', 'gfile' or 'gcs', and a path."
        )
    name = path.strip("/")
    if path.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{where} is at {path!r}, outside of its checkpoint.")
    return name


def _check_leaf(leaf: Leaf, described: Mapping[str, Any], where: str) -> None:
    shape = tuple(described.get("metadata", {}).get("shape", leaf.shape))
    if shape != leaf.shape:
        raise ValueError(
            f"{where} has shape {list(leaf.shape)}, but the checkpoint's index gives "
            f"{list(shape)}. The checkpoint mixes two; copy it again."
        )
    if leaf.dtype == np.uint16:
        raise ValueError(
            f"{where} is stored as uint16, as T5X wrote bfloat16 before June 2021. Load and save "
            f"it with T5X to convert it."
        )


def write(folder: str | os.PathLike, flat: Mapping[str, Any], step: int) -> str:
    """Writes parameters as a T5X-native checkpoint, which appears complete or not at all.

    Every parameter becomes a zarr array, as in T5X. There is no optimizer state but the
    step: T5X evaluates, infers and exports from it, and trains on from it with
    `fallback_to_scratch`.

    Args:
      folder: the local folder to make checkpoint_STEP in.
      flat: {path: array, or a `Leaf` that is read when it is written}, T5X names.
      step: the number in the name.

    Returns:
      The checkpoint's path.

    Raises:
      ValueError: the checkpoint exists already, or there is nothing to write.
    """
    folder = paths.absolute(paths.local(folder, "A checkpoint"))
    final = os.path.join(folder, f"checkpoint_{step}")
    if not flat:
        raise ValueError(f"There are no parameters to write to {final!r}.")
    with folders.new_folder(final, "folder or step") as temporary:
        target = {path: _write_leaf(temporary, path, flat[path]) for path in sorted(flat)}
        index = {
            "version": _VERSION,
            "optimizer": {
                "state": {"step": np.asarray(step, np.int32)},
                "target": trees.unflatten(target),
            },
        }
        content = serialization.msgpack_serialize(index)
        folders.write_synced(os.path.join(temporary, INDEX_FILE), content)
    return final


def _write_leaf(folder: str, path: str, value: Any) -> dict[str, Any]:
    """Writes one zarr array and returns its description for the index."""
    array = np.asarray(value.read() if isinstance(value, Leaf) else value)
    name = "target." + path.replace("/", ".")
    description = {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": {"driver": "file", "path": name + "/"},
        "metadata": {
            "chunks": chunk_shape(array.shape, array.dtype.itemsize),
            "compressor": {"id": "gzip", "level": 1},
            "shape": list(array.shape),
        },
    }
    store = leaves_lib.store_spec(os.path.join(folder, name))
    tensorstore.open({**description, "kvstore": store}, create=True).result().write(array).result()
    return description


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """Halves, thirds, ... the largest dimension until a chunk is at most 64 MiB.

    >>> chunk_shape((32128, 512), 4)
    [32128, 512]
    >>> chunk_shape((32128, 4096), 4)
    [4016, 4096]
    """
    chunk = list(shape)
    while math.prod(chunk) * itemsize > _CHUNK_BYTES:
        largest = max(range(len(chunk)), key=lambda axis: chunk[axis])
        size = chunk[largest]
        chunk[largest] = next(size // by for by in range(2, size + 1) if size % by == 0)
    return chunk
