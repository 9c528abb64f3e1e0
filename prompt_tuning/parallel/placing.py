"""Puts arrays on the devices of a mesh, and gets them back.

Every function takes a mesh, or None where there is one device: then arrays stay as they are. With
several processes each puts what its own devices hold, and all call them in the same order.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding

from prompt_tuning.model import stacking
from prompt_tuning.parallel import rules
from prompt_tuning.trees import FlatTree

Index = tuple[slice, ...]


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that the arrays of a tree are on; None for one device."""
    leaves = jax.tree.leaves(tree)
    sharding = getattr(leaves[0], "sharding", None) if leaves else None
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def whole(mesh: Mesh | None, tree: Any) -> Any:
    """Gives each device the whole of every array."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: _put(leaf, rules.replicated(mesh)), tree)


def rows(mesh: Mesh | None, tree: Any) -> Any:
    """Splits the rows of the arrays of a batch, [B, ...], over `data`.

    The devices divide B; see `fill`.
    """
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: _put(leaf, rules.by_rows(mesh)), tree)


def parameters(mesh: Mesh | None, flat: Mapping[str, Any], kept: Iterable[str] = ()) -> FlatTree:
    """Puts parameters where `rules.py` says; those of the paths `kept` are whole on each device."""
    if mesh is None:
        return dict(flat)
    where = rules.shardings(mesh, flat, kept)
    return {path: _put(leaf, where[path]) for path, leaf in flat.items()}


def key(mesh: Mesh | None, rng: jax.Array) -> jax.Array:
    """Gives each device a PRNG key that every process has."""
    if mesh is None:
        return rng
    return jax.random.wrap_key_data(whole(mesh, np.asarray(jax.random.key_data(rng))))


def gathered(mesh: Mesh | None, tree: Any) -> Any:
    """Gives each device the whole of what was computed; `np.asarray` reads it in every process."""
    return tree if mesh is None else _gather(mesh)(tree)


def on_one_device(array: jax.Array) -> jax.Array:
    """Copies an array from a mesh to the first device of this process; another one stays."""
    return array if mesh_of(array) is None else jnp.asarray(on_host(array))


def on_host(array: Any) -> np.ndarray:
    """The whole of an array, wherever it is; all processes call this."""
    return np.asarray(gathered(mesh_of(array), array))


def fill(mesh: Mesh | None, batch_size: int) -> int:
    """The smallest number of rows, `batch_size` or more, that can be split over `data`."""
    size = 1 if mesh is None else mesh.shape[rules.DATA]
    return -(-batch_size // size) * size


@functools.lru_cache(maxsize=8)
def _gather(mesh: Mesh):
    return jax.jit(lambda tree: tree, out_shardings=rules.replicated(mesh))


def _put(leaf: Any, where: Sharding) -> jax.Array:
    """Puts an array that is on the mesh already, or one that every process has."""
    if isinstance(leaf, jax.Array) and (where.is_fully_addressable or mesh_of(leaf) is not None):
        return jax.device_put(leaf, where)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, where, array.__getitem__)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a parameter that the devices of this process hold.

    Attributes:
      shape, dtype: of the whole.
      parts: by `_key` of their index.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: dict[tuple, np.ndarray]

    def __getitem__(self, index: Index) -> np.ndarray:
        return self.parts[_key(index)]

    def astype(self, dtype: np.dtype) -> "Parts":
        """The same in another type."""
        parts = {key: part.astype(dtype) for key, part in self.parts.items()}
        return Parts(self.shape, np.dtype(dtype), parts)


def read_parts(mesh: Mesh, path: str, leaf: Any) -> Parts:
    """Reads what the devices of this process hold of a parameter, and no more.

    Args:
      mesh: the mesh.
      path: of the parameter.
      leaf: see `checkpoints/leaves.py`.
    """
    where = NamedSharding(mesh, rules.spec(path))
    parts = {key: leaf.read(index) for key, index in _held(where, leaf.shape).items()}
    return Parts(leaf.shape, leaf.dtype, parts)


class Placer:
    """Collects the parameters of a model on the devices, as `stacking.Stacker` does on one.

    Args:
      mesh: the mesh.
      layers: how many layers each stack has, {'encoder': 24, ...}; {} stacks nothing.
    """

    def __init__(self, mesh: Mesh, layers: Mapping[str, int]):
        self._mesh, self._layers = mesh, layers
        self._found: FlatTree = {}
        self._partial: dict[str, Parts] = {}

    def add(self, path: str, leaf: jax.Array | np.ndarray | Parts) -> None:
        """Adds a parameter, whole or the parts of this process."""
        leaf = leaf if isinstance(leaf, Parts) else np.asarray(leaf)
        where = NamedSharding(self._mesh, rules.spec(path))
        place = stacking.place(path)
        if place is None or place.stack not in self._layers:
            self._found[path] = jax.make_array_from_callback(leaf.shape, where, leaf.__getitem__)
            return
        held = _held(where, leaf.shape)
        if place.name not in self._partial:
            layers = self._layers[place.stack]
            parts = {
                key: np.empty((layers, *leaf[index].shape), leaf.dtype)
                for key, index in held.items()
            }
            self._partial[place.name] = Parts((layers, *leaf.shape), leaf.dtype, parts)
        for key, index in held.items():
            self._partial[place.name].parts[key][place.layer] = leaf[index]

    def finish(self) -> FlatTree:
        """Returns all parameters."""
        while self._partial:
            name, stack = self._partial.popitem()
            where = NamedSharding(self._mesh, rules.spec(name))
            self._found[name] = jax.make_array_from_callback(
                stack.shape, where, lambda index, stack=stack: stack[index[1:]]
            )
        return self._found


def _held(where: Sharding, shape: tuple[int, ...]) -> dict[tuple, Index]:
    """The indices of the parts that the devices of this process hold, each once."""
    return {_key(index): index for index in where.addressable_devices_indices_map(shape).values()}


def _key(index: Index) -> tuple:
    return tuple((part.start, part.stop) for part in index)  # a slice is not hashable
