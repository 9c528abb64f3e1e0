"""Parameters of scanned layers: those of all layers of a stack in one array.

    encoder/layers_0/mlp/wo/kernel [F, H]
    encoder/layers_1/mlp/wo/kernel [F, H]    <->    encoder/layers/mlp/wo/kernel [2, F, H]
    ...

Files, fingerprints and patterns know the paths on the left, which are T5X's.
"""

import re
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.trees import FlatTree

_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")
_STACKED = re.compile(r"(encoder|decoder)/layers/(.+)")


def groups(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths of each stacked parameter, layer 0 first.

    >>> groups(['encoder/layers_1/a', 'encoder/layers_0/a', 'b'])
    {'encoder/layers/a': ['encoder/layers_0/a', 'encoder/layers_1/a']}
    """
    found: dict[str, dict[int, str]] = {}
    for path in paths:
        if match := _LAYER.fullmatch(path):
            found.setdefault(f"{match[1]}/layers/{match[3]}", {})[int(match[2])] = path
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
