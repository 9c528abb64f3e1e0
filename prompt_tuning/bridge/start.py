"""The initial prompt in T5X, if not from a T5X checkpoint: from an initialiser or a file.

T5X makes new parameters inside a compiled function that sees nothing but a random key, and it
makes them before anything is restored. So the prompt is made first, from the embedding
table in INITIAL_CHECKPOINT_PATH, and goes in as a constant. The same seed gives the prompt that
`prompt-tuning train` starts from.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.data import labels
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import EMBEDDING_PATH
from prompt_tuning.prompts import files, initializers
from prompt_tuning.prompts.prompt import Initializer
from prompt_tuning.shapes import Array, Float
from prompt_tuning.training import setup


def new_prompt(
    *,
    initializer: Callable[..., Any],
    checkpoint_path: str,
    vocabulary: Any,
    seed: int = 0,
    embedding_file: str | None = None,
) -> Initializer:
    """Makes the initialiser that T5X calls.

    Args:
      initializer: see `prompts/initializers.py`.
      checkpoint_path: the frozen model; read only if the initialiser asks for embeddings.
      vocabulary: a seqio vocabulary.
      seed: of the prompt.
      embedding_file: a .npy table [V, H] to use instead of the checkpoint's.

    Raises (when it is called):
      ValueError: the checkpoint cannot be read, or the initialiser refuses.
    """

    @functools.cache  # T5X asks for the shapes first, then for the values
    def make(shape: tuple[int, int]) -> np.ndarray:
        table = np.zeros((0, shape[1]), np.float32)  # the initialiser does not use it
        if "embeddings" in inspect.signature(initializer).parameters:
            table = _table(checkpoint_path, embedding_file, shape[1])
        tokenize = labels.tokenizer(vocabulary)
        bound = initializers.bind(initializer, embeddings=table, tokenize=tokenize)
        with jax.ensure_compile_time_eval():  # T5X is tracing
            made = initializers.initialize(bound, setup.prompt_rng(seed), shape)
        return np.asarray(made)

    def initialize(rng: Any, shape: tuple[int, int]) -> Float[Array, "P H"]:
        del rng  # T5X's; RANDOM_SEED alone decides, as in our own runs
        return jax.numpy.asarray(make(tuple(shape)))

    return initialize


def given_prompt(
    *, path: str, checkpoint_path: str, config: T5Config, allow_other_model: bool = False
) -> Initializer:
    """Makes the initialiser of a prompt that was trained before, to be evaluated.

    Args:
      path: the prompt file [PROMPT_FILE].
      checkpoint_path: the frozen model that it is used with.
      config: its dimensions.
      allow_other_model: accepts other parameters of the same width.

    Raises (when it is called):
      ValueError: the file cannot be read, or the prompt was made for another model.
    """

    @functools.cache  # T5X asks twice
    def check() -> None:
        files.check_fits(
            files.read_prompt(path),
            width=config.emb_dim,
            model_name=config.name,
            fingerprint=lambda: _fingerprint(checkpoint_path),
            allow_other_model=allow_other_model,
        )

    def initialize(rng: Any, shape: tuple[int, int]) -> Float[Array, "P H"]:
        check()
        return initializers.from_file(rng, shape, path=path)

    return initialize


def _fingerprint(checkpoint_path: str) -> str:
    _, names = prompt_tuning.split_prompt(checkpoint.variables(checkpoint_path))
    return trees.fingerprint(
        {name: checkpoint.read_variable(checkpoint_path, name) for name in names}
    )


def _table(checkpoint_path: str, embedding_file: str | None, width: int) -> np.ndarray:
    if embedding_file is not None:
        return setup.read_table(embedding_file, width)
    table = checkpoint.read_variable(checkpoint_path, EMBEDDING_PATH)
    if table.shape[1] != width:
        raise ValueError(
            f"The embedding table in {checkpoint_path!r} has width {table.shape[1]}, the model "
            f"{width}. Name the part of gin/models that the checkpoint was made for."
        )
    return table
