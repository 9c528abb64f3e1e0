"""The encoder of T5: layers of self-attention and feed-forward, over the input and its prompt."""

from typing import NamedTuple

from flax import linen as nn

from prompt_tuning.model import masks
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs
from prompt_tuning.model.layers import (
    Attention,
    FeedForward,
    RelativePositionBias,
    RMSNorm,
    dropout,
)
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.shapes import Array, Float


class Encoded(NamedTuple):
    """The encoder's output, and its inputs with the reserved places of a prompt."""

    values: Float[Array, "B S H"]
    inputs: Inputs


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its norm and residual connection.

    Attributes:
      layer: number from 0, or None under `nn.scan`; only hooks read it.
    """

    config: T5Config
    hooks: Hooks = Hooks()
    layer: int | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S H"],
        inputs: Inputs,
        bias: Float[Array, "B N S S"],
        deterministic: bool = True,
    ) -> Float[Array, "B S H"]:
        cfg = self.config
        drop = dropout(cfg.dropout_rate)

        def add(x, y, sublayer):
            y = drop(y, deterministic=deterministic)
            after = self.hooks.make("after_sublayer", "encoder", self.layer, sublayer)
            return x + (y if after is None else after(y, x))

        change = self.hooks.make("layer_input", "encoder", self.layer)
        x = x if change is None else change(x, inputs)
        y = RMSNorm(cfg.activation_dtype, name="pre_attention_layer_norm")(x)
        place = ("encoder", self.layer, "self_attention")
        attention = Attention(cfg, self.hooks, place, name="attention")
        queries = attention.queries(y)
        keys_values = attention.with_extra(*attention.keys_values(y), inputs)
        y = attention(queries, *keys_values, bias, deterministic=deterministic)
        x = add(x, y, "self_attention")
        y = RMSNorm(cfg.activation_dtype, name="pre_mlp_layer_norm")(x)
        y = FeedForward(cfg, self.hooks, name="mlp")(y, deterministic=deterministic)
        return add(x, y, "mlp")


class Encoder(nn.Module):
    """The stack that reads the input, with the prompt in its reserved places."""

    config: T5Config
    hooks: Hooks = Hooks()

    @nn.compact
    def __call__(
        self, embedded: Float[Array, "B S H"], inputs: Inputs, deterministic: bool = True
    ) -> Encoded:
        cfg = self.config
        change = self.hooks.make("encoder_input")
        x = embedded if change is None else change(embedded, inputs)
        x = dropout(cfg.dropout_rate)(x, deterministic=deterministic)
        position_bias = RelativePositionBias(cfg, bidirectional=True, name="relpos_bias")
        bias = position_bias(inputs.positions, inputs.positions)
        bias = bias + masks.to_bias(masks.self_mask(inputs))
        for i in range(cfg.num_encoder_layers):
            layer = EncoderLayer(cfg, self.hooks, i, name=f"layers_{i}")
            x = layer(x, inputs, bias, deterministic)
        x = RMSNorm(cfg.activation_dtype, name="encoder_norm")(x)
        # T5X broadcasts this one over no axis.
        x = dropout(cfg.dropout_rate, axes=())(x, deterministic=deterministic)
        return Encoded(x, inputs)
