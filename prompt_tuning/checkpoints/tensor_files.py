"""Safetensors files, read and written one tensor at a time.

The library can read one tensor, but to write it needs all of them in memory. So `write` lays out
the file itself: the length of the JSON header in 8 bytes, the header, then the values.

    {"shared.weight": {"dtype": "F32", "shape": [32128, 768], "data_offsets": [0, 98697216]},
     "__metadata__": {"format": "pt"}}
"""

import functools
import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from prompt_tuning.checkpoints.leaves import Leaf

DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
}
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


def leaves(path: str, kinds: Collection[str] = tuple(DTYPES)) -> dict[str, Leaf]:
    """Lists the tensors of a file without reading them.

    Args:
      path: the file.
      kinds: the types that are read, of DTYPES.

    Raises:
      ValueError: the file is damaged, or holds numbers of another type.
    """
    found, others = {}, set()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.offset_keys():
                tensor = file.get_slice(name)
                kind, shape = tensor.get_dtype(), tuple(tensor.get_shape())
                if kind in kinds:
                    read = functools.partial(_read, path, name)
                    found[name] = Leaf(shape, DTYPES[kind], read)
                else:
                    others.add(kind)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path!r} is damaged or incomplete ({error}). Copy it, or make it, again."
        ) from error
    if others:
        raise ValueError(
            f"{path!r} holds {', '.join(sorted(others))}; {', '.join(kinds)} are read."
        )
    return found


def _read(path: str, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.get_slice(name)[index] if index else file.get_tensor(name)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path!r} ended early while it was read. Copy it again.") from error


def write(path: str, tensors: Mapping[str, Leaf], metadata: Mapping[str, str]) -> None:
    """Writes a file, reading one tensor at a time.

    Args:
      path: is overwritten.
      tensors: by name, in the order of the file.
      metadata: text for the header; {'format': 'pt'} is what transformers looks for.

    Raises:
      ValueError: a tensor is of another type than can be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, leaf in tensors.items():
        if leaf.dtype not in names:
            raise ValueError(f"{name} is {leaf.dtype}; {', '.join(map(str, names))} are written.")
        start, end = end, end + nbytes(leaf)
        header[name] = {
            "dtype": names[leaf.dtype],
            "shape": list(leaf.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # so that the values are aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for name, leaf in tensors.items():
            array = np.ascontiguousarray(leaf.read())
            assert (array.shape, array.dtype) == (leaf.shape, leaf.dtype), name
            file.write(array.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def nbytes(leaf: Leaf) -> int:
    """Bytes that a tensor takes in a file.

    >>> nbytes(Leaf((3, 2), np.dtype(np.float16), None))
    12
    """
    return math.prod(leaf.shape) * leaf.dtype.itemsize
