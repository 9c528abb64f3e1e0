"""The soft prompt: P trainable vectors joined to the embedded input of a frozen T5.

Lester et al. 2021, section 2: the prompt is a parameter of its own, [P, H], put in
front of the embedded tokens; the encoder then runs over P + T positions, masks and
relative positions included.

    prefix:  p0 p1 ... pP  the input text </s>
    suffix:  the input text </s> <pad> p0 p1 ... pP

Usage: `Transformer(config, soft_prompt_hooks(length=100))`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.model.hooks import Hooks
from prompt_tuning.shapes import Array, Bool, Float

PROMPT_PATH = "encoder/prompt/prompt/prompt"
"""Where the prompt lies in the parameter tree; the paths of the official code agree."""

Initializer = Callable[[jax.Array, tuple[int, int]], Float[Array, "P H"]]
POSITIONS = ("prefix", "suffix")


def uniform(rng: jax.Array, shape: tuple[int, ...]) -> Float[Array, "P H"]:
    """Draws from [-0.5, 0.5), the paper's random uniform (section 3.2)."""
    return jax.random.uniform(rng, shape, jnp.float32, -0.5, 0.5)


class Prompt(nn.Module):
    """Holds the parameter, float32 whatever the activations are."""

    length: int
    initializer: Initializer = uniform

    @nn.compact
    def __call__(self, width: int) -> Float[Array, "P H"]:
        return self.param("prompt", self.initializer, (self.length, width))


class JoinPrompt(nn.Module):
    """Puts the same prompt in front of, or behind, every example of a batch."""

    length: int
    initializer: Initializer = uniform
    position: str = "prefix"

    @nn.compact
    def __call__(
        self, embedded: Float[Array, "B T H"], valid: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B S H"], Bool[Array, "B S"]]:
        batch, _, width = embedded.shape
        prompt = Prompt(self.length, self.initializer, name="prompt")(width)
        rows = jnp.broadcast_to(prompt.astype(embedded.dtype)[None], (batch, self.length, width))
        seen = jnp.ones((batch, self.length), bool)
        order = 1 if self.position == "prefix" else -1
        return (
            jnp.concatenate([rows, embedded][::order], axis=1),
            jnp.concatenate([seen, valid][::order], axis=1),
        )


def soft_prompt_hooks(
    *, length: int, initializer: Initializer = uniform, position: str = "prefix"
) -> Hooks:
    """Makes the hooks that join a soft prompt to a T5's encoder.

    Args:
      length: P, in vectors; 100 in the paper.
      initializer: `(rng, (P, H)) -> [P, H]`, used only where the prompt is not given.
      position: 'prefix' (the paper) or 'suffix'.

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
        encoder_input=functools.partial(
            JoinPrompt, length=length, initializer=initializer, position=position, name="prompt"
        )
    )
