"""Parameter trees seen as one flat dict from path to array.

    {'token_embedder/embedding': [V, H], 'encoder/layers_0/attention/query/kernel': [H, N*D], ...}

The paths are T5X's. Checkpoints, prompt files, the choice of what trains and all messages use them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

FlatTree = dict[str, Any]


def flatten(tree: Mapping[str, Any]) -> FlatTree:
    """Flattens a nested dict.

    >>> flatten({'a': {'b': 1, 'c': 2}})
    {'a/b': 1, 'a/c': 2}
    """
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nests a flat dict, the inverse of `flatten`.

    >>> unflatten({'a/b': 1, 'a/c': 2})
    {'a': {'b': 1, 'c': 2}}
    """
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def match(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Returns the paths that some pattern matches, in their own order.

    Args:
      paths: the paths of a tree.
      patterns: regular expressions; each must match a whole path.

    Raises:
      ValueError: a pattern is not a regular expression, or matches no path.

    >>> match(['a/b', 'a/c', 'd'], ['a/.*'])
    ['a/b', 'a/c']
    """
    paths = list(paths)
    chosen = set()
    for pattern in patterns:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from error
        hits = {path for path in paths if regex.fullmatch(path)}
        if not hits:
            raise ValueError(
                f"The pattern {pattern!r} matches no parameter. A pattern must match a whole path, "
                f"as '.*/mlp/.*' does; the {len(paths)} paths begin with "
                f"{', '.join(sorted(paths)[:4])} ... (`prompt-tuning checkpoint show` lists all)."
            )
        chosen |= hits
    return [path for path in paths if path in chosen]


def split(flat: Mapping[str, Any], patterns: Iterable[str]) -> tuple[FlatTree, FlatTree]:
    """Splits a tree into what the patterns match and the rest.

    Raises:
      ValueError: see `match`.

    >>> split({'a/b': 1, 'a/c': 2, 'd': 3}, ['a/.*'])
    ({'a/b': 1, 'a/c': 2}, {'d': 3})
    """
    chosen = set(match(flat, patterns))
    return (
        {path: leaf for path, leaf in flat.items() if path in chosen},
        {path: leaf for path, leaf in flat.items() if path not in chosen},
    )


def merge(*trees: Mapping[str, Any]) -> FlatTree:
    """Joins trees that share no path.

    Raises:
      ValueError: a path is in two of them.

    >>> merge({'a/b': 1}, {'d': 3})
    {'a/b': 1, 'd': 3}
    """
    merged: FlatTree = {}
    for tree in trees:
        twice = sorted(merged.keys() & tree.keys())
        if twice:
            raise ValueError(f"The trees to merge share {len(twice)} paths, first {twice[0]!r}.")
        merged.update(tree)
    return merged


class Diff(NamedTuple):
    """How tree B differs from tree A; each field lists paths, sorted."""

    only_in_a: list[str]
    only_in_b: list[str]
    shape: list[str]
    value: list[str]

    @property
    def is_empty(self) -> bool:
        return not any(self)


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> Diff:
    """Compares two trees, values bit for bit; reads one leaf at a time.

    >>> diff({'x': np.zeros(2), 'y': np.ones(1)}, {'x': np.zeros(2), 'z': np.ones(1)})
    Diff(only_in_a=['y'], only_in_b=['z'], shape=[], value=[])
    """
    both = sorted(a.keys() & b.keys())
    shape = [path for path in both if np.shape(a[path]) != np.shape(b[path])]
    value = [
        path
        for path in both
        if path not in shape and not np.array_equal(np.asarray(a[path]), np.asarray(b[path]))
    ]
    return Diff(sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys()), shape, value)


def fingerprint(flat: Mapping[str, Any]) -> str:
    """Names a set of parameters by a hash of their paths, shapes and values.

    The values are rounded to bfloat16 first, so that a model has one fingerprint
    whether it was loaded as float32 or as bfloat16.

    Returns:
      16 hexadecimal digits.

    >>> fingerprint({'x': np.zeros(2)}) == fingerprint({'x': np.zeros(2, np.float32)})
    True
    >>> fingerprint({'x': np.zeros(2)}) == fingerprint({'x': np.ones(2)})
    False
    """
    made = Fingerprint()
    for path in sorted(flat):
        made.add(path, flat[path])
    return made.text()


class Fingerprint:
    """Makes a fingerprint from one parameter after the other, in the order of their paths."""

    def __init__(self):
        self._digest = hashlib.sha256()

    def add(self, path: str, leaf: Any) -> None:
        """Adds the next parameter."""
        leaf = np.asarray(jax.device_get(leaf)).astype(jnp.bfloat16, copy=False)
        self._digest.update(f"{path}:{leaf.shape}".encode())
        self._digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)

    def text(self) -> str:
        """What `fingerprint` returns."""
        return self._digest.hexdigest()[:16]


def count(flat: Mapping[str, Any]) -> int:
    """Number of scalars in a tree of arrays or of `jax.ShapeDtypeStruct`.

    >>> count({'x': np.zeros((2, 3)), 'y': np.zeros(4)})
    10
    """
    return sum(int(np.prod(leaf.shape)) for leaf in flat.values())


def size_in_bytes(flat: Mapping[str, Any]) -> int:
    """Bytes that a tree takes in memory.

    >>> size_in_bytes({'x': np.zeros((2, 3), np.float32)})
    24
    """
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in flat.values())
