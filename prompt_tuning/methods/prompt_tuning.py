"""Prompt tuning: P vectors prepended to the embedded input are trained, the model is frozen.

Lester et al. 2021, section 2. With patterns in `trainable` parts of the model train as well.

The prompt is one parameter, at the path where the official code has it. This is the only module
that knows the path; the others ask here.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from prompt_tuning import trees
from prompt_tuning.methods.method import Frozen, Method
from prompt_tuning.methods.model_tuning import model_tuning
from prompt_tuning.prompts import initializers, metadata
from prompt_tuning.prompts.initializers import from_class_labels
from prompt_tuning.prompts.prompt import PROMPT_PATH, Prompt, soft_prompt_hooks
from prompt_tuning.shapes import Array, Float

KIND = metadata.PLAIN


def prompt_tuning(
    length: int | None = 100,
    initializer: Callable[..., Any] = from_class_labels,
    position: str = "prefix",
    trainable: tuple[str, ...] = (),
) -> Method:
    """Makes the method of plain prompt tuning.

    Args:
      length: P [PROMPT_LENGTH]; None means no prompt, that is, model tuning.
      initializer: where the prompt starts, see `prompts/initializers.py` [PROMPT_INITIALIZER].
      position: 'prefix' or 'suffix'.
      trainable: patterns of what trains, see `Method`; () is the prompt alone.

    Raises:
      ValueError: the length is not positive, or the position unknown.
    """
    if length is None:
        return model_tuning(trainable)
    alone = tuple(trainable) == (PROMPT_PATH,)  # as written in configurations
    return Method(
        kind=KIND,
        hooks=hooks(length, position),
        trainable=() if alone else tuple(trainable),
        start=functools.partial(_start, length=length, initializer=initializer),
        settings={"length": length, "initializer": initializer, "position": position},
    )


@functools.lru_cache(maxsize=64)
def hooks(length: int, position: str):
    """The hooks of a prompt; equal arguments give the same ones, and so the same compiled steps."""
    return soft_prompt_hooks(length=length, position=position)


@functools.lru_cache(maxsize=64)
def hooks_of_several(count: int, length: int, position: str):
    """The hooks of M = `count` prompts in one stack, [M, P, H], that `as_params` takes as well.

    Each row has the prompt that `Inputs.prompt_ids` names, as long as `Inputs.prompt_lengths` says.
    """
    vectors = functools.partial(Prompt, length, count=count)
    return soft_prompt_hooks(length=length, position=position, vectors=vectors)


def _start(
    rng: jax.Array, frozen: Frozen, *, length: int, initializer: Callable[..., Any]
) -> trees.FlatTree:
    make = initializers.bind(initializer, embeddings=frozen.embeddings, tokenize=frozen.tokenize)
    return as_params(initializers.initialize(make, rng, (length, frozen.config.emb_dim)))


def as_params(prompt: Float[Array, "*M P H"]) -> trees.FlatTree:
    """The prompt as the parameters that it adds.

    >>> as_params(jax.numpy.zeros((2, 3))).keys()
    dict_keys(['encoder/prompt/prompt/prompt'])
    """
    return {PROMPT_PATH: prompt}


def split_prompt(params: Mapping[str, Any]) -> tuple[Any | None, trees.FlatTree]:
    """Takes the prompt out of parameters.

    Returns:
      The prompt [P, H], None if there is none; and the other parameters.

    >>> split_prompt({'encoder/prompt/prompt/prompt': 1, 'encoder/scale': 2})
    (1, {'encoder/scale': 2})
    """
    rest = {path: params[path] for path in params if path != PROMPT_PATH}
    return (params[PROMPT_PATH] if PROMPT_PATH in params else None), rest


def numbered_path(path: str, number: int) -> str:
    """Where a parameter that makes a prompt is, if that prompt is number m of several.

    >>> numbered_path('encoder/prompt/prompt/prompt', 3)
    'encoder/prompt/prompt/prompt_3/prompt'
    """
    scope = PROMPT_PATH.rpartition("/")[0]
    return f"{scope}/prompt_{number}/{path.removeprefix(scope + '/')}"


def is_prompt(path: str) -> bool:
    """Whether this is the path of the prompt, in whatever notation of T5X.

    >>> is_prompt('encoder/prompt/prompt/prompt'), is_prompt('encoder/scale')
    (True, False)
    """
    return path.strip("/") == PROMPT_PATH


def official_name() -> str:
    """The name of the official code's file of a prompt.

    >>> official_name()
    'encoder.prompt.prompt.prompt'
    """
    return PROMPT_PATH.replace("/", ".")
