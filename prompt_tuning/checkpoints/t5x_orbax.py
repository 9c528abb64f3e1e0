"""T5X's checkpoints in Orbax's format, as T5X has written them since 2023.

    checkpoint_1000/
      _CHECKPOINT_METADATA
      dataset/
      state/
        _METADATA         the names of all leaves, ('target', 'encoder', ...)
        manifest.ocdbt    one database that holds every leaf's zarr array

Parameters are the leaves under 'target'; the optimizer's state is not read. The earliest
ones have no _METADATA but a msgpack file `checkpoint`, whose leaves are the text
'PLACEHOLDER://target.encoder. ...', and may have a folder for each leaf in place of the
database.
"""

import ast
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from prompt_tuning import folders, paths, trees
from prompt_tuning.checkpoints import leaves as leaves_lib
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.checkpoints.t5x_native import chunk_shape

_STATE = "state"
_METADATA = "_METADATA"
_EARLY_METADATA = "checkpoint"
_DATABASE = "manifest.ocdbt"
_PLACEHOLDER = "PLACEHOLDER://"
_HANDLER = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
_DICT_KEY = 2  # Orbax's number for a key of a dict


def recognises(folder: str) -> bool:
    """Whether the folder is a T5X checkpoint that Orbax wrote."""
    state = leaves_lib.join(folder, _STATE)
    return any(leaves_lib.is_file(state, name) for name in (_METADATA, _EARLY_METADATA))


def leaves(folder: str) -> dict[str, Leaf]:
    """Lists the parameters of a checkpoint without reading them.

    Args:
      folder: .../checkpoint_1000, local or gs://.

    Raises:
      ValueError: a part is missing, damaged, or of a kind that this cannot read.
    """
    state = leaves_lib.join(folder, _STATE)
    metadata = leaves_lib.read_file(state, _METADATA)
    names = _names(state, metadata) if metadata is not None else _early_names(state)
    base = leaves_lib.store_spec(state)
    if leaves_lib.is_file(state, _DATABASE):
        base = {"driver": "ocdbt", "base": base, "path": ""}
    specs = {
        path: {**base, "path": base["path"] + name + "/"}
        for path, name in names.items()
        if name.startswith("target.")
    }
    if not specs:
        raise ValueError(f"{state!r} holds no parameters: nothing in it is named 'target'.")
    return leaves_lib.zarr_leaves(specs, folder)


def _names(state: str, content: bytes) -> dict[str, str]:
    """Reads _METADATA: {path below 'target': name in the database}."""
    path = leaves_lib.join(state, _METADATA)
    try:
        metadata = json.loads(content)
        keys = [ast.literal_eval(key) for key in metadata["tree_metadata"]]
        names = {"/".join(key[1:]): ".".join(key) for key in keys}
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path!r} ({len(content)} bytes) is truncated or damaged ({error}). Copy it again."
        ) from error
    if metadata.get("use_zarr3"):
        raise ValueError(
            f"{state!r} stores its arrays as zarr v3; T5X writes zarr v2, and only that can be "
            f"read. Save it again with use_zarr3=False."
        )
    if metadata.get("use_ocdbt") and not leaves_lib.is_file(state, _DATABASE):
        raise ValueError(
            f"{state!r} lacks its file {_DATABASE!r}. The checkpoint is incomplete; copy it again."
        )
    return names


def _early_names(state: str) -> dict[str, str]:
    """Reads the msgpack file of the earliest checkpoints, as `_names` does."""
    path = leaves_lib.join(state, _EARLY_METADATA)
    content = leaves_lib.read_file(state, _EARLY_METADATA) or b""
    try:
        flat: Mapping[str, Any] = trees.flatten(serialization.msgpack_restore(content)["target"])
    except Exception as error:  # msgpack raises a dozen kinds for damaged bytes
        raise ValueError(
            f"{path!r} ({len(content)} bytes) is truncated or damaged ({error}). Copy it again."
        ) from error
    inline = [name for name, leaf in flat.items() if not str(leaf).startswith(_PLACEHOLDER)]
    if inline:
        raise ValueError(
            f"{path!r} holds the parameter {inline[0]!r} itself instead of naming its array; such "
            f"a checkpoint cannot be read. Save it again with a newer T5X."
        )
    return {name: leaf.removeprefix(_PLACEHOLDER) for name, leaf in flat.items()}


def write(folder: str | os.PathLike, flat: Mapping[str, Any], step: int) -> str:
    """Writes parameters as T5X and Orbax do; the checkpoint appears complete or not at all.

    Orbax itself would hold them all in memory; this reads and writes one at a time. As in
    `t5x_native.write` there is no optimizer state but the step.

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
    started = time.time_ns()
    with folders.new_folder(final, "folder or step") as temporary:
        state = os.path.join(temporary, _STATE)
        os.mkdir(state)
        tree = {("state", "step"): np.asarray(step, np.int32)}
        tree |= {("target", *path.split("/")): flat[path] for path in sorted(flat)}
        described = {str(keys): _write_leaf(state, keys, value) for keys, value in tree.items()}
        metadata = {
            "tree_metadata": described,
            "use_ocdbt": True,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }
        _write_json(os.path.join(state, _METADATA), metadata)
        outer = {
            "item_handlers": {_STATE: _HANDLER},
            "metrics": {},
            "performance_metrics": {},
            "init_timestamp_nsecs": started,
            "commit_timestamp_nsecs": time.time_ns(),
            "custom_metadata": {},
        }
        _write_json(os.path.join(temporary, "_CHECKPOINT_METADATA"), outer)
    return final


def _write_leaf(state: str, keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Writes one array into the database and returns its entry in _METADATA."""
    array = np.asarray(value.read() if isinstance(value, Leaf) else value)
    base = leaves_lib.store_spec(state)
    spec = {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": {"driver": "ocdbt", "base": base, "path": ".".join(keys) + "/"},
        "metadata": {
            "chunks": chunk_shape(array.shape, array.dtype.itemsize),
            "compressor": {"id": "zstd", "level": 1},
            "shape": list(array.shape),
        },
    }
    tensorstore.open(spec, create=True).result().write(array).result()
    return {
        "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in keys],
        "value_metadata": {
            "value_type": "np.ndarray",  # otherwise Orbax asks for a sharding
            "skip_deserialize": False,
            "write_shape": list(array.shape),
        },
    }


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    folders.write_synced(path, json.dumps(content).encode())
