"""What a run needs before its first step: the task, the frozen model, the prompt.

Everything that can be wrong is found here, in the order of what it costs: the task's
data first, then the parameters, and only then does anything compile.
"""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning import trees
from prompt_tuning.data import tasks, vocabularies
from prompt_tuning.model.transformer import EMBEDDING_PATH, Transformer
from prompt_tuning.prompts import files, initializers
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.training.frozen import FrozenT5, load_parameters, transformer
from prompt_tuning.training.run import Run


class Parameters(NamedTuple):
    """A run's parameters, parted into what trains and what does not."""

    model: Transformer
    trainable: trees.FlatTree
    frozen: trees.FlatTree


def prepare_task(run: Run) -> Any:
    """Makes a run's task available: its module, its vocabulary, its data folder.

    Returns:
      The seqio task or mixture.

    Raises:
      ValueError: the module cannot be imported, or there is no such task.
    """
    if run.task_module is not None:
        tasks.import_task_module(run.task_module)
    tasks.set_data_dir(run.data_dir)
    task = tasks.get(run.task)
    vocabularies.use_file(task.output_features["inputs"].vocabulary, run.vocabulary_file)
    return task


def load_t5(run: Run, task: Any) -> FrozenT5:
    """Loads a run's frozen model, with the vocabulary of its task.

    Raises:
      ValueError: see `load_parameters`; or the vocabulary is another model's.
    """
    params = load_parameters(run.model, run.initial_checkpoint_path, dtype=run.param_dtype)
    return FrozenT5(run.model, params, task.output_features["inputs"].vocabulary)


def initial_prompt(run: Run, t5: FrozenT5) -> jax.Array:
    """Draws a run's prompt [P, H], the same for the same seed.

    Raises:
      ValueError: the initialiser refuses, or makes another shape.
    """
    table = t5.params[EMBEDDING_PATH]
    if run.embedding_file is not None:
        table = read_table(run.embedding_file, run.model.emb_dim)
    make = initializers.bind(
        run.prompt_initializer, embeddings=table, tokenize=t5.vocabulary.encode
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


def find_prompt(run: Run, t5: FrozenT5) -> files.PromptFile | None:
    """Loads the prompt that a run evaluates: PROMPT_FILE, or the best of its model_dir.

    Returns:
      The prompt, or None for a run without one.

    Raises:
      ValueError: there is none, it cannot be read, or it does not fit the model.
    """
    if run.prompt_length is None:
        return None
    path = run.prompt_file
    if path is None:
        path = f"{run.model_dir}/prompts/best"
        if not any(os.path.isfile(path + suffix) for suffix in files.SUFFIXES):
            raise ValueError(
                f"There is no trained prompt in {run.model_dir}. Train first, or name a prompt "
                "with --gin.PROMPT_FILE=..."
            )
    prompt = files.load(path)
    t5.check_fits(prompt, run.allow_other_model)
    return prompt


def read_table(path: str, width: int) -> np.ndarray:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"The embedding table {path} cannot be read: {error}") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(
            f"The embedding table {path} must have shape (V, {width}) for this model; got "
            f"{table.shape}."
        )
    return table
