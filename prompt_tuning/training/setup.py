"""What a run needs before its first step: the initial prompt, and which parameters train."""

from typing import NamedTuple

import jax
import numpy as np

from prompt_tuning import paths, trees
from prompt_tuning.data import labels
from prompt_tuning.inference.frozen import FrozenT5, transformer
from prompt_tuning.model.transformer import EMBEDDING_PATH, Transformer
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.run import Run


class Parameters(NamedTuple):
    """A run's parameters, parted into what trains and what does not."""

    model: Transformer
    trainable: trees.FlatTree
    frozen: trees.FlatTree


def initial_prompt(run: Run, t5: FrozenT5) -> jax.Array:
    """Draws a run's prompt [P, H], the same for the same seed.

    Raises:
      ValueError: the initialiser refuses, or makes another shape.
    """
    table = t5.params[EMBEDDING_PATH]
    if run.embedding_file is not None:
        table = read_table(run.embedding_file, run.model.emb_dim)
    make = initializers.bind(
        run.prompt_initializer, embeddings=table, tokenize=labels.tokenizer(t5.vocabulary)
    )
    shape = (run.prompt_length, run.model.emb_dim)
    return initializers.initialize(make, prompt_rng(run.seed), shape)


def prompt_rng(seed: int) -> jax.Array:
    """The key that a run's prompt is drawn from."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def dropout_rng(seed: int) -> jax.Array:
    """The key that a run's dropout is drawn from, see `step.py`."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def part_parameters(run: Run, t5: FrozenT5) -> Parameters:
    """Joins the prompt to the model and parts what trains from what is frozen.

    Raises:
      ValueError: a pattern of `run.trainable` matches nothing, or what trains is not
        kept in float32.
    """
    params = t5.params
    if run.prompt_length is not None:
        params = trees.merge(params, {PROMPT_PATH: initial_prompt(run, t5)})
    trainable, frozen = trees.split(params, run.trainable)
    coarse = [path for path, leaf in trainable.items() if leaf.dtype != np.float32]
    if coarse:
        raise ValueError(
            f"What trains is kept in float32, but {coarse[0]} is {trainable[coarse[0]].dtype}. "
            "Set Run.param_dtype='float32'."
        )
    model = transformer(run.model, run.prompt_length, run.prompt_position)
    return Parameters(model, trainable, frozen)


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
