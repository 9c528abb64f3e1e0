"""Parameters of scanned layers: those of all layers of a stack in one array.

    encoder/layers_0/mlp/wo/kernel [F, H]
    encoder/layers_1/mlp/wo/kernel [F, H]    <->    encoder/layers/mlp/wo/kernel [2, F, H]
    ...

Files, fingerprints and patterns know the paths on the left, which are T5X's.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model.compute import Compute
from prompt_tuning.trees import FlatTree, unflatten

_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")
_STACKED = re.compile(r"(encoder|decoder)/layers/(.+)")

_ALIGNMENT = 64  # bytes


class Place(NamedTuple):
    """Where a layer's parameter is once it is stacked."""

    name: str  # of the stacked parameter
    stack: str  # 'encoder' or 'decoder'
    layer: int


def place(path: str) -> Place | None:
    """Where a parameter is once it is stacked; None if it is no layer's.

    >>> place('encoder/layers_3/a')
    Place(name='encoder/layers/a', stack='encoder', layer=3)
    """
    match = _LAYER.fullmatch(path)
    return match and Place(f"{match[1]}/layers/{match[3]}", match[1], int(match[2]))


def groups(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths of each stacked parameter, layer 0 first.

    >>> groups(['encoder/layers_1/a', 'encoder/layers_0/a', 'b'])
    {'encoder/layers/a': ['encoder/layers_0/a', 'encoder/layers_1/a']}
    """
    found: dict[str, dict[int, str]] = {}
    for path in paths:
        if at := place(path):
            found.setdefault(at.name, {})[at.layer] = path
    return {
        name: [layers[number] for number in sorted(layers)]
        for name, layers in found.items()
        if sorted(layers) == list(range(len(layers)))
    }


def stack(flat: Mapping[str, jax.Array | np.ndarray], keep: Iterable[str] = ()) -> FlatTree:
    """Stacks the parameters of layers; others, and stacked ones, stay as they are.

    Args:
      flat: by path. Works on NumPy and JAX arrays, and under jit.
      keep: a stack with one of these paths among its layers is left apart.

    >>> stack({'encoder/layers_0/a': np.ones(2), 'encoder/layers_1/a': np.zeros(2)})
    {'encoder/layers/a': array([[1., 1.],
           [0., 0.]])}
    """
    stacked, kept = dict(flat), set(keep)
    for name, paths in groups(flat).items():
        if not kept.intersection(paths):
            leaves = [stacked.pop(path) for path in paths]
            xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
            stacked[name] = xp.stack(leaves)
    return stacked


class Stacker:
    """Collects parameters, those of a stack's layers directly in the one array of all layers.

    `stack` of the same parameters makes equal arrays, and needs twice the memory.

    Args:
      layers: how many layers each stack has, {'encoder': 24, ...}; {} stacks nothing.
    """

    def __init__(self, layers: Mapping[str, int]):
        self._layers = layers
        self._found: FlatTree = {}
        self._partial: dict[str, np.ndarray] = {}

    def add(self, path: str, leaf: jax.Array | np.ndarray) -> None:
        """Adds a parameter; all layers of a stack have parameters of the same names and shapes."""
        at = place(path)
        if at is None or at.stack not in self._layers:
            self._found[path] = jnp.asarray(leaf)
            return
        if at.name not in self._partial:
            shape = (self._layers[at.stack], *leaf.shape)
            self._partial[at.name] = _aligned(shape, leaf.dtype)
        self._partial[at.name][at.layer] = leaf

    def finish(self) -> FlatTree:
        """Returns all parameters."""
        while self._partial:
            name, array = self._partial.popitem()
            self._found[name] = jax.device_put(array)
        return self._found


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array at an address that is a multiple of 64, which JAX uses on a CPU without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def unstack(flat: Mapping[str, jax.Array | np.ndarray]) -> FlatTree:
    """The inverse of `stack`.

    >>> unstack({'decoder/layers/a': np.array([3, 4])})
    {'decoder/layers_0/a': np.int64(3), 'decoder/layers_1/a': np.int64(4)}
    """
    apart: FlatTree = {}
    for path, leaf in flat.items():
        if match := _STACKED.fullmatch(path):
            for number in range(leaf.shape[0]):
                apart[f"{match[1]}/layers_{number}/{match[2]}"] = leaf[number]
        else:
            apart[path] = leaf
    return apart


def nested(flat: Mapping[str, jax.Array | np.ndarray], compute: Compute) -> dict[str, Any]:
    """The parameters as a model that is computed this way takes them."""
    return unflatten(stack(flat) if compute.layers == "scan" else flat)
