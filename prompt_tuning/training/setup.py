"""What a run needs before its first step: initial values, and which parameters train."""

import os
from typing import NamedTuple

import jax
import numpy as np

from prompt_tuning import paths, trees
from prompt_tuning.inference.frozen import FrozenT5, transformer
from prompt_tuning.methods import method
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.run import Run


class Parameters(NamedTuple):
    """A run's parameters, split into what trains and what is frozen.

    Attributes:
      model: the T5 with the hooks of the method.
      trainable: what trains.
      frozen: all other parameters.
      added: the paths of those that the method added, in either of the two.
    """

    model: Transformer
    trainable: trees.FlatTree
    frozen: trees.FlatTree
    added: frozenset[str]


def initial_values(run: Run, t5: FrozenT5) -> trees.FlatTree:
    """Makes what a run's method adds to the model, the same for the same seed.

    Raises:
      ValueError: the method or its initialiser refuses, or makes other shapes.
    """
    table = None
    if run.embedding_file is not None:
        table = read_table(run.embedding_file, run.model.emb_dim)
    return method.initial_values(run.method, prompt_rng(run.seed), t5.start(table))


def unread_prompt_file(run: Run) -> str | None:
    """A sentence on a PROMPT_FILE that training does not start from; None if there is no such."""
    start = run.prompt_initializer
    values = getattr(start, "keywords", {}).values()
    if run.prompt_file is None or run.prompt_file in [
        os.path.expanduser(value) for value in values if isinstance(value, str)
    ]:
        return None
    return (
        f"PROMPT_FILE {run.prompt_file!r} is not read in training; add gin/prompts/file.gin in "
        "place of the other part of gin/prompts to start from it"
    )


def prompt_rng(seed: int) -> jax.Array:
    """The key that a run's prompt is drawn from."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def dropout_rng(seed: int) -> jax.Array:
    """The key that a run's dropout is drawn from, see `step.py`."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def split_parameters(run: Run, t5: FrozenT5) -> Parameters:
    """Adds what the method adds to the model, and splits what trains from what is frozen.

    Raises:
      ValueError: nothing trains, a pattern of `run.trainable` matches nothing, or what trains
        is not kept in float32.
    """
    added = initial_values(run, t5)
    params = trees.merge(t5.params, added)
    chosen = set(method.trainable_paths(run.method, params, added))
    trainable = {path: leaf for path, leaf in params.items() if path in chosen}
    frozen = {path: leaf for path, leaf in params.items() if path not in chosen}
    coarse = [path for path, leaf in trainable.items() if leaf.dtype != np.float32]
    if coarse:
        raise ValueError(
            f"What trains is kept in float32, but {coarse[0]} is {trainable[coarse[0]].dtype}. "
            "Set Run.param_dtype='float32'."
        )
    model = transformer(run.model, run.method.hooks)
    return Parameters(model, trainable, frozen, frozenset(added))


def read_table(path: str, width: int) -> np.ndarray:
    path = paths.expand(path)
    try:
        with paths.local_copy(path) as local:
            table = np.load(local, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"The embedding table {path} cannot be read: {error}") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(
            f"The embedding table {path} must have shape (V, {width}) for this model; got "
            f"{table.shape}."
        )
    return table
