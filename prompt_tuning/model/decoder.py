"""The decoder of T5, over whole targets or a position at a time with a cache.

Several decoder sequences may share one encoded input (beams, candidate labels).
Their rows are adjacent, [B * K, L], and cross-attention folds them into the query
axis, so that the encoder's keys and values are never copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.model import masks
from prompt_tuning.model.encoder import Encoded
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs
from prompt_tuning.model.layers import (
    Attention,
    Dense,
    FeedForward,
    RelativePositionBias,
    RMSNorm,
    dropout,
)
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.shapes import Array, Bool, Float, Int


class LayerCache(NamedTuple):
    """The keys and values of one decoder layer: of the decoded tokens, and of the input.

    Those that a hook adds are prepended to both: Y is E + L, Z is E + S.
    """

    self_keys: Float[Array, "R Y N D"]
    self_values: Float[Array, "R Y N D"]
    cross_keys: Float[Array, "B Z N D"]
    cross_values: Float[Array, "B Z N D"]


class Cache(NamedTuple):
    """What the decoder keeps between steps."""

    layers: tuple[LayerCache, ...]
    positions: Int[Array, "1 L"]

    def take(self, rows: Int[Array, " R"]) -> "Cache":
        """Continues from other rows of the same input, as beam search does after each token."""
        return self._replace(
            layers=tuple(
                layer._replace(self_keys=layer.self_keys[rows], self_values=layer.self_values[rows])
                for layer in self.layers
            )
        )


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, over whole targets or by step.

    Attributes:
      layer: number from 0; only hooks read it.
    """

    config: T5Config
    hooks: Hooks = Hooks()
    layer: int | None = None

    def setup(self):
        cfg = self.config

        def attention(kind):
            return Attention(cfg, self.hooks, ("decoder", self.layer, kind))

        def after(sublayer):
            return self.hooks.make("after_sublayer", "decoder", self.layer, sublayer)

        self.change_input = self.hooks.make("layer_input", "decoder", self.layer)
        self.pre_self_attention_layer_norm = RMSNorm(cfg.activation_dtype)
        self.self_attention = attention("self_attention")
        self.after_self_attention = after("self_attention")
        self.pre_cross_attention_layer_norm = RMSNorm(cfg.activation_dtype)
        self.encoder_decoder_attention = attention("cross_attention")
        self.after_cross_attention = after("cross_attention")
        self.pre_mlp_layer_norm = RMSNorm(cfg.activation_dtype)
        self.mlp = FeedForward(cfg, self.hooks)
        self.after_mlp = after("mlp")
        self.drop = dropout(cfg.dropout_rate)

    def cross_keys_values(self, encoded: Encoded):
        """Projects the encoder's output for this layer."""
        attention = self.encoder_decoder_attention
        return attention.with_extra(*attention.keys_values(encoded.values), encoded.inputs)

    def start(self, empty: Float[Array, "R L N D"], encoded: Encoded) -> LayerCache:
        """Makes the cache of this layer, `empty` for the L tokens to decode."""
        own = self.self_attention.with_extra(empty, empty, encoded.inputs)
        return LayerCache(*own, *self.cross_keys_values(encoded))

    def __call__(
        self,
        x: Float[Array, "R L H"],
        inputs: Inputs,
        encoded: Encoded,
        self_bias: Float[Array, "#R N L L"],
        cross_bias: Float[Array, "B 1 Q S"],
        deterministic: bool = True,
    ) -> Float[Array, "R L H"]:
        """Runs whole target sequences, R = B * K of them."""
        cross_keys_values = self.cross_keys_values(encoded)
        x = x if self.change_input is None else self.change_input(x, inputs)
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        own = self.self_attention.keys_values(y)
        own = self.self_attention.with_extra(*own, encoded.inputs)
        y = self.self_attention(queries, *own, self_bias, deterministic=deterministic)
        x = self._add(x, y, self.after_self_attention, deterministic)
        return self._cross_and_mlp(x, cross_keys_values, cross_bias, deterministic)

    def step(
        self,
        x: Float[Array, "R 1 H"],
        inputs: Inputs,
        cache: LayerCache,
        index: Int[Array, ""],
        self_bias: Float[Array, "1 N 1 L"],
        cross_bias: Float[Array, "B 1 1 S"],
    ) -> tuple[Float[Array, "R 1 H"], LayerCache]:
        """Runs one position and puts its keys and values into the cache."""
        x = x if self.change_input is None else self.change_input(x, inputs)
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        key, value = self.self_attention.keys_values(y)
        index += cache.self_keys.shape[1] - self_bias.shape[-1]  # after those of a hook
        put = jax.lax.dynamic_update_slice_in_dim
        cache = cache._replace(
            self_keys=put(cache.self_keys, key, index, axis=1),
            self_values=put(cache.self_values, value, index, axis=1),
        )
        y = self.self_attention(queries, cache.self_keys, cache.self_values, self_bias)
        x = self._add(x, y, self.after_self_attention, deterministic=True)
        keys_values = (cache.cross_keys, cache.cross_values)
        return self._cross_and_mlp(x, keys_values, cross_bias, deterministic=True), cache

    def _cross_and_mlp(self, x, cross_keys_values, cross_bias, deterministic):
        y = self.pre_cross_attention_layer_norm(x)
        folded = y.reshape(cross_keys_values[0].shape[0], -1, y.shape[-1])
        queries = self.encoder_decoder_attention.queries(folded)
        y = self.encoder_decoder_attention(
            queries, *cross_keys_values, cross_bias, deterministic=deterministic
        ).reshape(y.shape)
        x = self._add(x, y, self.after_cross_attention, deterministic)
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        return self._add(x, y, self.after_mlp, deterministic)

    def _add(self, x, y, after, deterministic):
        y = self.drop(y, deterministic=deterministic)
        return x + (y if after is None else after(y, x))


class Decoder(nn.Module):
    """The stack that predicts the targets, all at once or a position at a time."""

    config: T5Config
    hooks: Hooks = Hooks()

    def setup(self):
        cfg = self.config
        self.relpos_bias = RelativePositionBias(cfg, bidirectional=False)
        self.change_input = self.hooks.make("decoder_input")
        self.layers = [DecoderLayer(cfg, self.hooks, i) for i in range(cfg.num_decoder_layers)]
        self.decoder_norm = RMSNorm(cfg.activation_dtype)
        self.drop = dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            self.logits_dense = Dense(cfg.vocab_size, hooks=self.hooks)

    def __call__(
        self,
        embedded: Float[Array, "R L H"],
        inputs: Inputs,
        encoded: Encoded,
        table: Float[Array, "V H"],
        deterministic: bool = True,
    ) -> Float[Array, "R L V"]:
        self_bias = self.relpos_bias(inputs.positions, inputs.positions)
        self_bias = self_bias + masks.to_bias(masks.causal_mask(inputs))
        cross_bias = masks.to_bias(masks.cross_mask(inputs, encoded.inputs))
        x = embedded if self.change_input is None else self.change_input(embedded, inputs)
        x = self.drop(x, deterministic=deterministic)
        for layer in self.layers:
            x = layer(x, inputs, encoded, self_bias, cross_bias, deterministic)
        return self._logits(x, table, deterministic)

    def start(self, encoded: Encoded, rows: int, length: int) -> Cache:
        """Makes the cache for `rows` sequences of up to `length` tokens."""
        cfg = self.config
        empty = jnp.zeros((rows, length, cfg.num_heads, cfg.head_dim), cfg.activation_dtype)
        layers = tuple(layer.start(empty, encoded) for layer in self.layers)
        return Cache(layers, jnp.arange(length)[None])

    def step(
        self,
        embedded: Float[Array, "R 1 H"],
        inputs: Inputs,
        cache: Cache,
        index: Int[Array, ""],
        input_valid: Bool[Array, "B S"],
        table: Float[Array, "V H"],
    ) -> tuple[Float[Array, "R 1 V"], Cache]:
        """Runs one position, see `Transformer.decode_step`."""
        decoded = masks.to_bias((cache.positions <= inputs.positions)[:, None, None, :])
        self_bias = self.relpos_bias(inputs.positions, cache.positions) + decoded
        cross_bias = masks.to_bias(input_valid[:, None, None, :])
        x = embedded if self.change_input is None else self.change_input(embedded, inputs)
        updated = []
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x, kept = layer.step(x, inputs, kept, index, self_bias, cross_bias)
            updated.append(kept)
        logits = self._logits(x, table, deterministic=True)
        return logits, cache._replace(layers=tuple(updated))

    def _logits(self, x, table, deterministic):
        x = self.drop(self.decoder_norm(x), deterministic=deterministic)
        if not self.config.logits_via_embedding:
            return self.logits_dense(x)
        logits = jnp.matmul(x.astype(jnp.float32), jnp.asarray(table, jnp.float32).T)
        return logits / jnp.sqrt(jnp.float32(self.config.emb_dim))
