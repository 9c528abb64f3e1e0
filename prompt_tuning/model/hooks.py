"""The places where a method may reach into the T5.

The model knows nothing of prompts. It offers places, and a method is a small
Flax module put in one of them; nothing here is ever subclassed.

    tokens -> embedding -> [encoder_input] -> encoder layers -> decoder -> logits

A hook is a function without arguments that returns a `linen` module. The model
calls it inside its own scope, so the module's parameters lie beside the model's:
a module named 'prompt' in `encoder_input` has its parameters under 'encoder/prompt'.
A new place is a new field here and one call in `transformer.py`.
"""

import dataclasses
from collections.abc import Callable

from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What is attached to a T5; the default attaches nothing.

    Attributes:
      encoder_input: makes a module that takes the embedded input and its mask,
        `(embedded [B, T, H], valid [B, T])`, and returns both, perhaps longer,
        `([B, S, H], [B, S])`. Everything after it, relative positions and
        cross-attention included, sees S positions.
    """

    encoder_input: Callable[[], nn.Module] | None = None
