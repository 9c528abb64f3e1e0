"""T5X's own T5 with a soft prompt: a subclass of its network with unchanged layers.

`encode` passes T5X's `encode` tokens with P reserved places, so that T5X's masks and relative
positions cover them. Where the embedder is called, an interceptor fills the places:

    tokens   1  1  1  I  love  it  </s>  <pad>      reserved with id 1, which is not padding
    encoder  p0 p1 p2 I  love  it  </s>  <pad>      S = P + T positions

The prompt is the module of our own T5, at the same path, encoder/prompt/prompt/prompt, as in the
checkpoints and prompts of the official code.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.partitioning import AxisMetadata
from t5x.examples.t5 import layers, network

from prompt_tuning.model.inputs import POSITIONS, Inputs, as_inputs, reserve_prompt
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts.prompt import Initializer, JoinPrompt, Prompt, uniform
from prompt_tuning.shapes import Array, Float, Int

PROMPT_AXES = ("prompt", "prompt_embed")
"""T5X's logical axes of the prompt, as the official code names them."""

AXIS_RULES = tuple((name, None) for name in PROMPT_AXES)
"""For the partitioner: every device holds the whole prompt."""


def axis_rules() -> tuple[tuple[str, None], ...]:
    """What a configuration adds to T5X's rules, see `AXIS_RULES`."""
    return AXIS_RULES


class PromptTransformer(network.Transformer):
    """T5X's `network.Transformer` with a prompt; made by `transformer`."""

    prompt_length: int = 100
    initializer: Initializer = uniform
    position: str = "prefix"

    def encode(
        self,
        encoder_input_tokens: Int[Array, "B T"],
        encoder_segment_ids: Any = None,
        enable_dropout: bool = True,
    ) -> Float[Array, "B S H"]:
        """Runs the encoder over the prompt and the input.

        Raises:
          ValueError: the batch is packed; its examples would have to share a prompt.
        """
        if encoder_segment_ids is not None:
            raise ValueError(
                "A soft prompt expects one example per row; got a packed batch. Set "
                "DatasetConfig.pack=False."
            )

        def join_prompt(next_fun, args, kwargs, context):
            if isinstance(context.module, layers.Embed) and context.method_name == "__call__":
                join = JoinPrompt(
                    self.prompt_length, self.initializer, name="prompt", parent=self.encoder
                )
                return join(next_fun(*args, **kwargs), inputs)
            made = next_fun(*args, **kwargs)
            if isinstance(context.module, Prompt):
                context.module.sow(
                    "params_axes",
                    "prompt_axes",
                    AxisMetadata(PROMPT_AXES),
                    reduce_fn=lambda _, axes: axes,
                )
            return made

        inputs = self._reserve(encoder_input_tokens)
        with nn.intercept_methods(join_prompt):
            return super().encode(_stand_ins(inputs), enable_dropout=enable_dropout)

    def decode(self, encoded: Float[Array, "B S H"], encoder_input_tokens: Any, *args, **kwargs):
        """Runs the decoder; the tokens only mark which of the S positions are padding."""
        longer = _stand_ins(self._reserve(encoder_input_tokens))
        return super().decode(encoded, longer, *args, **kwargs)

    def _reserve(self, tokens: Int[Array, "B T"]) -> Inputs:
        return reserve_prompt(as_inputs(tokens), length=self.prompt_length, position=self.position)


def transformer(
    *,
    config: T5Config,
    prompt_length: int,
    initializer: Initializer = uniform,
    position: str = "prefix",
) -> PromptTransformer:
    """Makes T5X's network from our dimensions, so that both read one file of gin/models.

    Args:
      config: the T5's dimensions.
      prompt_length: P.
      initializer: `(rng, (P, H)) -> [P, H]`, see `start.py`.
      position: 'prefix' or 'suffix'.

    Raises:
      ValueError: the length is not positive, or the position unknown.
    """
    if not isinstance(prompt_length, int) or prompt_length < 1:
        raise ValueError(
            f"The prompt length must be a whole number, 1 or more; got {prompt_length!r}."
        )
    if position not in POSITIONS:
        raise ValueError(f"The prompt's position must be one of {POSITIONS}; got {position!r}.")
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    del fields["name"]  # T5X's has none
    fields["dtype"] = config.activation_dtype
    return PromptTransformer(
        config=network.T5Config(**fields),
        prompt_length=prompt_length,
        initializer=initializer,
        position=position,
    )


def _stand_ins(inputs: Inputs) -> Int[Array, "B S"]:
    """Puts id 1 into the reserved places, because T5X takes id 0 for padding."""
    return jnp.where(inputs.prompt_places >= 0, 1, inputs.tokens)
