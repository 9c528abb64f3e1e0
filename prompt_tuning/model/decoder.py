"""The decoder of T5, over whole targets or a position at a time with a cache.

Several decoder sequences may share one encoded input (beams, candidate labels).
Their rows are adjacent, [B * K, L], and cross-attention folds them into the query
axis, so that the encoder's keys and values are never copied.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.model import masks, matmul
from prompt_tuning.model.attention import Biases
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.dropout import LayerMasks, StackMasks, fitted, scale
from prompt_tuning.model.encoder import Encoded
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs, distances
from prompt_tuning.model.layers import Attention, Dense, FeedForward, RelativePositionBias, RMSNorm
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.stack import run_layers, scan
from prompt_tuning.shapes import Array, Float, Int


class LayerCache(NamedTuple):
    """The keys and values of one decoder layer: of the decoded tokens, and of the input.

    Those that a hook adds are prepended to both: Y is E + L, Z is E + S. Those of the input are
    None where attention reads the encoder's output itself, see `Attention.absorbed`.
    """

    self_keys: Float[Array, "*A R Y N D"]
    self_values: Float[Array, "*A R Y N D"]
    cross_keys: Float[Array, "*A B Z N D"] | None = None
    cross_values: Float[Array, "*A B Z N D"] | None = None


class Cache(NamedTuple):
    """What the decoder keeps between steps.

    Attributes:
      layers: of each layer; or of all, stacked [layers, ...], where layers are scanned.
      positions: of the tokens to decode.
      encoded: the encoder's output.
    """

    layers: tuple[LayerCache, ...] | LayerCache
    positions: Int[Array, "1 L"]
    encoded: Encoded

    def take(self, rows: Int[Array, " R"]) -> "Cache":
        """Continues from other rows of the same input, as beam search does after each token."""
        if isinstance(self.layers, LayerCache):
            return self._replace(layers=_take(self.layers, rows, axis=1))
        return self._replace(layers=tuple(_take(layer, rows, axis=0) for layer in self.layers))


def _take(cache: LayerCache, rows: Int[Array, " R"], axis: int) -> LayerCache:
    keys, values = (jnp.take(x, rows, axis) for x in (cache.self_keys, cache.self_values))
    return cache._replace(self_keys=keys, self_values=values)


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, over whole targets or by step.

    Attributes:
      layer: number from 0, or None under `nn.scan`; only hooks read it.
    """

    config: T5Config
    hooks: Hooks = Hooks()
    compute: Compute = Compute()
    layer: int | None = None

    def setup(self):
        cfg = self.config

        def attention(kind):
            return Attention(cfg, self.hooks, ("decoder", self.layer, kind), self.compute)

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

    def cross_keys_values(self, encoded: Encoded, queries: int):
        """Projects the encoder's output for this layer; (None, None) if that is not worth it.

        Args:
          encoded: the encoder's output.
          queries: how many positions of each input will attend to it.
        """
        attention = self.encoder_decoder_attention
        if attention.absorbs(queries, encoded.values.shape[1]):
            return None, None
        return attention.with_extra(*attention.keys_values(encoded.values), encoded.inputs)

    def start(self, empty: Float[Array, "R L N D"], encoded: Encoded) -> LayerCache:
        """Makes the cache of this layer, `empty` for the L tokens to decode."""
        own = self.self_attention.with_extra(empty, empty, encoded.inputs)
        queries = empty.shape[0] // encoded.values.shape[0] * empty.shape[1]
        return LayerCache(*own, *self.cross_keys_values(encoded, queries))

    def __call__(
        self,
        x: Float[Array, "R L H"],
        inputs: Inputs,
        encoded: Encoded,
        self_biases: Biases,
        cross_biases: Biases,
        masks: LayerMasks | None = None,
    ) -> Float[Array, "R L H"]:
        """Runs whole target sequences, R = B * K of them."""
        drop = masks or LayerMasks(*[None] * 4)
        queries = x.shape[0] // encoded.values.shape[0] * x.shape[1]
        cross = self.cross_keys_values(encoded, queries)
        x = x if self.change_input is None else self.change_input(x, inputs)
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        own = self.self_attention.keys_values(y)
        own = self.self_attention.with_extra(*own, encoded.inputs)
        y = self.self_attention(queries, *own, self_biases, drop.weights)
        x = self._add(x, y, self.after_self_attention, drop.attention)
        return self._cross_and_mlp(x, encoded, cross, cross_biases, drop)

    def step(
        self,
        x: Float[Array, "R 1 H"],
        inputs: Inputs,
        encoded: Encoded,
        cache: LayerCache,
        index: Int[Array, ""],
        self_biases: Biases,
        cross_biases: Biases,
    ) -> tuple[Float[Array, "R 1 H"], LayerCache]:
        """Runs one position and puts its keys and values into the cache."""
        x = x if self.change_input is None else self.change_input(x, inputs)
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        key, value = self.self_attention.keys_values(y)
        index += cache.self_keys.shape[1] - self_biases[0].shape[-1]  # after those of a hook
        put = jax.lax.dynamic_update_slice_in_dim
        cache = cache._replace(
            self_keys=put(cache.self_keys, key, index, axis=1),
            self_values=put(cache.self_values, value, index, axis=1),
        )
        y = self.self_attention(queries, cache.self_keys, cache.self_values, self_biases)
        x = self._add(x, y, self.after_self_attention)
        cross = (cache.cross_keys, cache.cross_values)
        drop = LayerMasks(*[None] * 4)
        return self._cross_and_mlp(x, encoded, cross, cross_biases, drop), cache

    def _cross_and_mlp(self, x, encoded, cross_keys_values, cross_biases, drop):
        attention = self.encoder_decoder_attention
        y = self.pre_cross_attention_layer_norm(x)
        folded = y.reshape(encoded.values.shape[0], -1, y.shape[-1])
        if cross_keys_values[0] is None:
            read = attention.absorbed(folded, encoded.values, cross_biases, drop.cross_weights)
        else:
            queries = attention.queries(folded)
            read = attention(queries, *cross_keys_values, cross_biases, drop.cross_weights)
        x = self._add(x, read.reshape(y.shape), self.after_cross_attention, drop.cross)
        y = self.mlp(self.pre_mlp_layer_norm(x), drop.hidden)
        return self._add(x, y, self.after_mlp, drop.mlp)

    def _add(self, x, y, after, mask=None):
        y = scale(y, mask)
        return x + (y if after is None else after(y, x))


class Decoder(nn.Module):
    """The stack that predicts the targets, all at once or a position at a time."""

    config: T5Config
    hooks: Hooks = Hooks()
    compute: Compute = Compute()

    def setup(self):
        cfg = self.config
        self.relpos_bias = RelativePositionBias(cfg, bidirectional=False)
        self.change_input = self.hooks.make("decoder_input")
        layer = functools.partial(DecoderLayer, cfg, self.hooks, self.compute)
        if self.compute.layers == "scan":
            self.layers = layer(None)
        else:
            self.layers = [layer(i) for i in range(cfg.num_decoder_layers)]
        self.decoder_norm = RMSNorm(cfg.activation_dtype)
        if not cfg.logits_via_embedding:
            self.logits_dense = Dense(cfg.vocab_size, hooks=self.hooks)

    def __call__(
        self,
        embedded: Float[Array, "R L H"],
        inputs: Inputs,
        encoded: Encoded,
        dropout: StackMasks | None = None,
    ) -> Float[Array, "R L H"]:
        """Runs whole targets; returns what `logits` takes."""
        cfg = self.config
        drop = dropout and fitted(dropout, embedded.shape[1], encoded.values.shape[1])
        self_biases = (
            self.relpos_bias(distances(inputs), distances(inputs)),
            masks.to_bias(masks.causal_mask(inputs)),
        )
        cross_biases = (masks.to_bias(masks.cross_mask(inputs, encoded.inputs)),)

        def run(layer, x, layer_masks):
            return layer(x, inputs, encoded, self_biases, cross_biases, layer_masks)

        x = embedded if self.change_input is None else self.change_input(embedded, inputs)
        x = scale(x, drop and drop.input)
        x = run_layers(self._layer, run, x, drop, cfg.num_decoder_layers, self.compute)
        return scale(self.decoder_norm(x), drop and drop.output)

    def start(self, encoded: Encoded, rows: int, length: int) -> Cache:
        """Makes the cache for `rows` sequences of up to `length` tokens."""
        cfg = self.config
        empty = jnp.zeros((rows, length, cfg.num_heads, cfg.head_dim), cfg.activation_dtype)
        if self.compute.layers == "scan":

            def start(layer, carried, _):
                return carried, layer.start(empty, encoded)

            layers = scan(start, self.layers, None, None, cfg.num_decoder_layers)[1]
        else:
            layers = tuple(layer.start(empty, encoded) for layer in self.layers)
        return Cache(layers, jnp.arange(length)[None], encoded)

    def step(
        self, embedded: Float[Array, "R 1 H"], inputs: Inputs, cache: Cache, index: Int[Array, ""]
    ) -> tuple[Float[Array, "R 1 H"], Cache]:
        """Runs one position, see `Transformer.decode_step`; returns what `logits` takes."""
        decoded = masks.to_bias((cache.positions <= inputs.positions)[:, None, None, :])
        self_biases = (self.relpos_bias(inputs.positions, cache.positions), decoded)
        cross_biases = (masks.to_bias(masks.key_mask(cache.encoded.inputs.valid)),)

        def run(layer, x, kept):
            return layer.step(x, inputs, cache.encoded, kept, index, self_biases, cross_biases)

        x = embedded if self.change_input is None else self.change_input(embedded, inputs)
        if self.compute.layers == "scan":
            x, layers = scan(run, self.layers, x, cache.layers, self.config.num_decoder_layers)
        else:
            layers = []
            for layer, kept in zip(self.layers, cache.layers, strict=True):
                x, kept = run(layer, x, kept)
                layers.append(kept)
            layers = tuple(layers)
        return self.decoder_norm(x), cache._replace(layers=layers)

    def logits(
        self,
        x: Float[Array, "*B H"],
        table: Float[Array, "V H"] | Int[Array, "V H"],
        scale: Float[Array, " V"] | None,
    ) -> Float[Array, "*B V"]:
        """Scores of every vocabulary id, float32.

        Args:
          x: from the call or `step`.
          table: the embedding table, used by models that tie their logits to it.
          scale: of each row of an int8 table.
        """
        if not self.config.logits_via_embedding:
            return self.logits_dense(x)
        logits = matmul.multiply_rows(x, table, scale)
        return logits / jnp.sqrt(jnp.float32(self.config.emb_dim))

    def _layer(self, number: int | None) -> DecoderLayer:
        return self.layers if number is None else self.layers[number]
