"""The soft prompt: P trainable vectors in the embedded input of a frozen T5.

Lester et al. 2021, section 2: the prompt is a parameter of its own, [P, H], prepended to the
embedded tokens; the encoder then runs over P + T positions, masks and relative positions included.

    prefix:  p0 p1 ... pP  the input text </s>
    suffix:  the input text </s> <pad> p0 p1 ... pP

Its places are reserved in the batch before the embedding (`reserve_prompt`), and `JoinPrompt`
fills them. Of several prompts, one stack [M, P, H] padded to the longest, each row has the one that
`Inputs.prompt_ids` names, as long as `Inputs.prompt_lengths` says.

Usage: `Transformer(config, soft_prompt_hooks(length=100))`.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import POSITIONS, Inputs, reserve_prompt
from prompt_tuning.shapes import Array, Float, Int

PROMPT_PATH = "encoder/prompt/prompt/prompt"
"""Path of the prompt in the parameter tree, the same as in the official code."""

Initializer = Callable[[jax.Array, tuple[int, int]], Float[Array, "P H"]]


def uniform(rng: jax.Array, shape: tuple[int, ...]) -> Float[Array, "*M P H"]:
    """Draws from [-0.5, 0.5), the paper's random uniform (section 3.2)."""
    return jax.random.uniform(rng, shape, jnp.float32, -0.5, 0.5)


def fill_places(
    embedded: Float[Array, "B S H"],
    places: Int[Array, "#B S"],
    prompt: Float[Array, "P H"] | Float[Array, "B P H"],
) -> Float[Array, "B S H"]:
    """Writes vector `places[b, s]` of the prompt at each position where that is not -1.

    Places of one row that are known while tracing (a NumPy array, as `reserve_prompt` makes it)
    need no gather: the result is concatenated from slices.

    Args:
      embedded: the input, embedded.
      places: see `Inputs.prompt_places`; a number of P or more gives NaN, never another vector.
      prompt: of all rows, or of each.

    >>> fill_places(jnp.zeros((1, 3, 1)), jnp.array([[1, 0, -1]]), jnp.array([[5.0], [6.0]]))
    Array([[[6.],
            [5.],
            [0.]]], dtype=float32)
    """
    prompt = prompt.astype(embedded.dtype)
    if prompt.ndim == 2:
        prompt = jnp.broadcast_to(prompt[None], (embedded.shape[0], *prompt.shape))
    if isinstance(places, np.ndarray) and places.shape[0] == 1:
        return jnp.concatenate(
            [
                embedded[:, start:end] if first < 0 else prompt[:, first : first + end - start]
                for start, end, first in _runs(places[0])
            ],
            axis=1,
        )
    number = jnp.broadcast_to(places, embedded.shape[:2])[..., None]
    vectors = jnp.take_along_axis(prompt, jnp.maximum(number, 0), axis=1, mode="fill")
    return jnp.where(number >= 0, vectors, embedded)


def choose_prompts(
    prompts: Float[Array, "M P H"], prompt_ids: Int[Array, " B"]
) -> Float[Array, "B P H"]:
    """Takes the prompt of each row; a number that there is not gives NaN, never another prompt.

    >>> choose_prompts(jnp.array([[[5.0]], [[6.0]]]), jnp.array([1, 0, 2]))[:, 0, 0]
    Array([ 6.,  5., nan], dtype=float32)
    """
    known = jnp.where(prompt_ids < 0, len(prompts), prompt_ids)  # -1 would be the last one
    return jnp.asarray(prompts).at[known].get(mode="fill", fill_value=jnp.nan)


def _runs(places: Int[np.ndarray, " S"]) -> list[tuple[int, int, int]]:
    """Splits a row into runs of tokens or of consecutive vectors: start, end, first number.

    >>> _runs(np.array([-1, -1, 0, 1, 2]))
    [(0, 2, -1), (2, 5, 0)]
    """
    expected = np.where(places < 0, -1, places + 1)[:-1]
    breaks = np.flatnonzero(places[1:] != expected) + 1
    edges = [0, *breaks.tolist(), len(places)]
    return [(start, end, int(places[start])) for start, end in itertools.pairwise(edges)]


class Prompt(nn.Module):
    """Holds the parameter, float32 whatever the activations are; `count` is M, None for one."""

    length: int
    initializer: Initializer = uniform
    count: int | None = None

    @nn.compact
    def __call__(self, width: int) -> Float[Array, "*M P H"]:
        several = () if self.count is None else (self.count,)
        return self.param("prompt", self.initializer, (*several, self.length, width))


class JoinPrompt(nn.Module):
    """Fills the reserved places of every example with the same prompt, or with its own of M."""

    length: int
    initializer: Initializer = uniform
    vectors: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, embedded: Float[Array, "B S H"], inputs: Inputs) -> Float[Array, "B S H"]:
        vectors = self.vectors or functools.partial(Prompt, self.length, self.initializer)
        prompt = vectors(name="prompt")(embedded.shape[-1])
        if prompt.ndim == 3:
            prompt = choose_prompts(prompt, self._prompt_ids(inputs, len(prompt)))
        return fill_places(embedded, inputs.prompt_places, prompt)

    def _prompt_ids(self, inputs: Inputs, count: int) -> Int[Array, " B"]:
        if inputs.prompt_ids is not None:
            return inputs.prompt_ids
        if self.is_initializing():  # which passes ids of tokens only
            return jnp.zeros(inputs.tokens.shape[0], jnp.int32)
        raise ValueError(
            f"The model has {count} prompts, and the inputs do not say which row uses which. Set "
            "Inputs.prompt_ids, or 'prompt_ids' in the batch of a training step."
        )


def soft_prompt_hooks(
    *,
    length: int,
    initializer: Initializer = uniform,
    position: str = "prefix",
    vectors: Callable[..., nn.Module] | None = None,
) -> Hooks:
    """Makes the hooks that put a soft prompt, or one of several, into a T5's encoder.

    Args:
      length: P, in vectors; 100 in the paper.
      initializer: `(rng, (P, H)) -> [P, H]`, used only where the prompt is not given.
      position: 'prefix' (the paper) or 'suffix'.
      vectors: `(name) -> module` that makes the prompt, `module(width) -> [P, H]`, or M of them,
        [M, P, H]; None is a parameter [P, H].

    Raises:
      ValueError: the length is not positive, or the position unknown.

    >>> soft_prompt_hooks(length=0)
    Traceback (most recent call last):
    ...
    ValueError: The prompt length must be a whole number, 1 or more; got 0.
    """
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"The prompt length must be a whole number, 1 or more; got {length!r}.")
    if position not in POSITIONS:
        raise ValueError(f"The prompt's position must be one of {POSITIONS}; got {position!r}.")
    return Hooks(
        reserve=functools.partial(reserve_prompt, length=length, position=position),
        encoder_input=functools.partial(
            JoinPrompt, length=length, initializer=initializer, vectors=vectors, name="prompt"
        ),
    )
