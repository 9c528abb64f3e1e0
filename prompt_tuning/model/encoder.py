"""The encoder of T5: layers of self-attention and feed-forward, over the input and its prompt."""

from typing import NamedTuple

from flax import linen as nn

from prompt_tuning.model import masks
from prompt_tuning.model.attention import Biases
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.dropout import LayerMasks, StackMasks, fitted, scale
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs, distances
from prompt_tuning.model.layers import Attention, FeedForward, RelativePositionBias, RMSNorm
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.stack import run_layers
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
    compute: Compute = Compute()
    layer: int | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S H"],
        inputs: Inputs,
        biases: Biases,
        masks: LayerMasks | None = None,
    ) -> Float[Array, "B S H"]:
        cfg = self.config
        drop = masks or LayerMasks(*[None] * 4)

        def add(x, y, mask, sublayer):
            y = scale(y, mask)
            after = self.hooks.make("after_sublayer", "encoder", self.layer, sublayer)
            return x + (y if after is None else after(y, x))

        change = self.hooks.make("layer_input", "encoder", self.layer)
        x = x if change is None else change(x, inputs)
        y = RMSNorm(cfg.activation_dtype, name="pre_attention_layer_norm")(x)
        place = ("encoder", self.layer, "self_attention")
        attention = Attention(cfg, self.hooks, place, self.compute, name="attention")
        queries = attention.queries(y)
        keys_values = attention.with_extra(*attention.keys_values(y), inputs)
        y = attention(queries, *keys_values, biases, drop.weights)
        x = add(x, y, drop.attention, "self_attention")
        y = RMSNorm(cfg.activation_dtype, name="pre_mlp_layer_norm")(x)
        y = FeedForward(cfg, self.hooks, name="mlp")(y, drop.hidden)
        return add(x, y, drop.mlp, "mlp")


class Encoder(nn.Module):
    """The stack that reads the input, with the prompt in its reserved places."""

    config: T5Config
    hooks: Hooks = Hooks()
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "B S H"],
        inputs: Inputs,
        dropout: StackMasks | None = None,
    ) -> Encoded:
        cfg = self.config
        drop = dropout and fitted(dropout, embedded.shape[1])
        change = self.hooks.make("encoder_input")
        x = embedded if change is None else change(embedded, inputs)
        x = scale(x, drop and drop.input)
        position_bias = RelativePositionBias(cfg, bidirectional=True, name="relpos_bias")
        biases = (
            position_bias(distances(inputs), distances(inputs)),
            masks.to_bias(masks.encoder_mask(inputs)),
        )

        def run(layer, x, layer_masks):
            return layer(x, inputs, biases, layer_masks)

        x = run_layers(self._layer, run, x, drop, cfg.num_encoder_layers, self.compute)
        x = RMSNorm(cfg.activation_dtype, name="encoder_norm")(x)
        return Encoded(scale(x, drop and drop.output), inputs)

    def _layer(self, number: int | None) -> EncoderLayer:
        name = "layers" if number is None else f"layers_{number}"
        return EncoderLayer(self.config, self.hooks, self.compute, number, name=name)
