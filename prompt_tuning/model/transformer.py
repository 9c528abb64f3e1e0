"""The T5 encoder-decoder: embedding, two stacks of layers, logits.

Parameters lie as T5X's `examples/t5` writes them:

    token_embedder/embedding                                  [V, H]
    encoder/relpos_bias/rel_embedding                         [N, 32]
    encoder/layers_0/pre_attention_layer_norm/scale           [H]
    encoder/layers_0/attention/{query,key,value,out}/kernel   [H, N*D] ([N*D, H] for out)
    encoder/layers_0/pre_mlp_layer_norm/scale                 [H]
    encoder/layers_0/mlp/{wi_0,wi_1,wo}/kernel                [H, F] ([F, H] for wo)
    encoder/encoder_norm/scale                                [H]
    decoder/...                                               the same, with cross-attention
    decoder/logits_dense/kernel                               [H, V], untied models only

Several decoder sequences may share one encoded input (beams, candidate labels).
Their rows lie together, [B * K, L], and cross-attention folds them into the query
axis, so that the encoder's keys and values are never copied.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.model import masks
from prompt_tuning.model.hooks import Hooks
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

EMBEDDING_PATH = "token_embedder/embedding"


class Encoded(NamedTuple):
    """What the encoder made of an input: S is T, or longer where a hook joined something."""

    values: Float[Array, "B S H"]
    valid: Bool[Array, "B S"]


class LayerCache(NamedTuple):
    """What one decoder layer keeps: of the tokens written so far, and of the input."""

    self_keys: Float[Array, "R L N D"]
    self_values: Float[Array, "R L N D"]
    cross_keys: Float[Array, "B S N D"]
    cross_values: Float[Array, "B S N D"]

    def take(self, rows: Int[Array, " R"]) -> "LayerCache":
        """Continues from other rows of the same input, as beam search does after each token."""
        return self._replace(self_keys=self.self_keys[rows], self_values=self.self_values[rows])


class EncoderLayer(nn.Module):
    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "B S H"], bias: Float[Array, "B N S S"], deterministic):
        cfg = self.config
        drop = dropout(cfg.dropout_rate)
        y = RMSNorm(cfg.activation_dtype, name="pre_attention_layer_norm")(x)
        attention = Attention(cfg, name="attention")
        queries = attention.queries(y)
        y = attention(queries, *attention.keys_values(y), bias, deterministic=deterministic)
        x = x + drop(y, deterministic=deterministic)
        y = RMSNorm(cfg.activation_dtype, name="pre_mlp_layer_norm")(x)
        y = FeedForward(cfg, name="mlp")(y, deterministic=deterministic)
        return x + drop(y, deterministic=deterministic)


class DecoderLayer(nn.Module):
    config: T5Config

    def setup(self):
        cfg = self.config
        self.pre_self_attention_layer_norm = RMSNorm(cfg.activation_dtype)
        self.self_attention = Attention(cfg)
        self.pre_cross_attention_layer_norm = RMSNorm(cfg.activation_dtype)
        self.encoder_decoder_attention = Attention(cfg)
        self.pre_mlp_layer_norm = RMSNorm(cfg.activation_dtype)
        self.mlp = FeedForward(cfg)
        self.drop = dropout(cfg.dropout_rate)

    def cross_keys_values(self, encoded: Float[Array, "B S H"]):
        """Projects the encoder's output for this layer."""
        return self.encoder_decoder_attention.keys_values(encoded)

    def __call__(
        self,
        x: Float[Array, "R L H"],
        cross_keys_values,
        self_bias: Float[Array, "#R N L L"],
        cross_bias: Float[Array, "B 1 Q S"],
        deterministic: bool = True,
    ) -> Float[Array, "R L H"]:
        """Runs whole target sequences, R = B * K of them."""
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        own = self.self_attention.keys_values(y)
        y = self.self_attention(queries, *own, self_bias, deterministic=deterministic)
        x = x + self.drop(y, deterministic=deterministic)
        return self._cross_and_mlp(x, cross_keys_values, cross_bias, deterministic)

    def step(
        self,
        x: Float[Array, "R 1 H"],
        cache: LayerCache,
        index: Int[Array, ""],
        self_bias: Float[Array, "1 N 1 L"],
        cross_bias: Float[Array, "B 1 1 S"],
    ) -> tuple[Float[Array, "R 1 H"], LayerCache]:
        """Runs one position and writes its keys and values into the cache."""
        y = self.pre_self_attention_layer_norm(x)
        queries = self.self_attention.queries(y)
        key, value = self.self_attention.keys_values(y)
        put = jax.lax.dynamic_update_slice_in_dim
        cache = cache._replace(
            self_keys=put(cache.self_keys, key, index, axis=1),
            self_values=put(cache.self_values, value, index, axis=1),
        )
        x = x + self.self_attention(queries, cache.self_keys, cache.self_values, self_bias)
        keys_values = (cache.cross_keys, cache.cross_values)
        return self._cross_and_mlp(x, keys_values, cross_bias, deterministic=True), cache

    def _cross_and_mlp(self, x, cross_keys_values, cross_bias, deterministic):
        y = self.pre_cross_attention_layer_norm(x)
        folded = y.reshape(cross_keys_values[0].shape[0], -1, y.shape[-1])
        queries = self.encoder_decoder_attention.queries(folded)
        y = self.encoder_decoder_attention(
            queries, *cross_keys_values, cross_bias, deterministic=deterministic
        ).reshape(y.shape)
        x = x + self.drop(y, deterministic=deterministic)
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        return x + self.drop(y, deterministic=deterministic)


class Encoder(nn.Module):
    config: T5Config
    hooks: Hooks

    @nn.compact
    def __call__(self, embedded: Float[Array, "B T H"], valid: Bool[Array, "B T"], deterministic):
        cfg = self.config
        if self.hooks.encoder_input is not None:
            embedded, valid = self.hooks.encoder_input()(embedded, valid)
        x = dropout(cfg.dropout_rate)(embedded, deterministic=deterministic)
        positions = jnp.arange(x.shape[1])
        position_bias = RelativePositionBias(cfg, bidirectional=True, name="relpos_bias")
        bias = position_bias(positions, positions) + masks.to_bias(masks.pair_mask(valid, valid))
        for i in range(cfg.num_encoder_layers):
            x = EncoderLayer(cfg, name=f"layers_{i}")(x, bias, deterministic)
        x = RMSNorm(cfg.activation_dtype, name="encoder_norm")(x)
        x = dropout(cfg.dropout_rate, axes=())(x, deterministic=deterministic)
        return Encoded(x, valid)


class Decoder(nn.Module):
    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = RelativePositionBias(cfg, bidirectional=False)
        self.layers = [DecoderLayer(cfg) for _ in range(cfg.num_decoder_layers)]
        self.decoder_norm = RMSNorm(cfg.activation_dtype)
        self.drop = dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            self.logits_dense = Dense(cfg.vocab_size)

    def __call__(
        self,
        embedded: Float[Array, "R L H"],
        encoded: Encoded,
        target_valid: Bool[Array, "R L"],
        table: Float[Array, "V H"],
        deterministic: bool = True,
    ) -> Float[Array, "R L V"]:
        positions = jnp.arange(embedded.shape[1])
        self_bias = self.relpos_bias(positions, positions)
        self_bias = self_bias + masks.to_bias(masks.causal_mask(target_valid))
        folded = target_valid.reshape(encoded.valid.shape[0], -1)
        cross_bias = masks.to_bias(masks.pair_mask(folded, encoded.valid))
        x = self.drop(embedded, deterministic=deterministic)
        for layer in self.layers:
            keys_values = layer.cross_keys_values(encoded.values)
            x = layer(x, keys_values, self_bias, cross_bias, deterministic)
        return self._logits(x, table, deterministic)

    def start(self, encoded: Encoded, rows: int, length: int) -> tuple[LayerCache, ...]:
        """Makes the caches of all layers for `rows` sequences of up to `length` tokens."""
        cfg = self.config
        shape = (rows, length, cfg.num_heads, cfg.head_dim)
        empty = jnp.zeros(shape, cfg.activation_dtype)
        return tuple(
            LayerCache(empty, empty, *layer.cross_keys_values(encoded.values))
            for layer in self.layers
        )

    def step(
        self,
        embedded: Float[Array, "R 1 H"],
        caches: tuple[LayerCache, ...],
        index: Int[Array, ""],
        input_valid: Bool[Array, "B S"],
        table: Float[Array, "V H"],
    ) -> tuple[Float[Array, "R 1 V"], tuple[LayerCache, ...]]:
        positions = jnp.arange(caches[0].self_keys.shape[1])
        written = masks.to_bias((positions <= index)[None, None, None, :])
        self_bias = self.relpos_bias(index[None], positions) + written
        cross_bias = masks.to_bias(input_valid[:, None, None, :])
        x = embedded
        updated = []
        for layer, cache in zip(self.layers, caches, strict=True):
            x, cache = layer.step(x, cache, index, self_bias, cross_bias)
            updated.append(cache)
        return self._logits(x, table, deterministic=True), tuple(updated)

    def _logits(self, x, table, deterministic):
        x = self.drop(self.decoder_norm(x), deterministic=deterministic)
        if not self.config.logits_via_embedding:
            return self.logits_dense(x)
        logits = jnp.matmul(x.astype(jnp.float32), jnp.asarray(table, jnp.float32).T)
        return logits / jnp.sqrt(jnp.float32(self.config.emb_dim))


class TokenEmbedder(nn.Module):
    """The table that both stacks read their tokens from."""

    config: T5Config

    def setup(self):
        shape = (self.config.vocab_size, self.config.emb_dim)
        self.embedding = self.param("embedding", nn.initializers.normal(stddev=1.0), shape)

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T H"]:
        return jnp.asarray(self.embedding, self.config.activation_dtype)[tokens]


class Transformer(nn.Module):
    """A T5, with whatever `hooks` attach to it.

    >>> from prompt_tuning.model.sizes import T5Config
    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> tokens = jnp.ones((1, 3), jnp.int32)
    >>> logits, _ = Transformer(config).init_with_output(jax.random.key(0), tokens, tokens, tokens)
    >>> logits.shape
    (1, 3, 16)
    """

    config: T5Config
    hooks: Hooks = Hooks()

    def setup(self):
        self.token_embedder = TokenEmbedder(self.config)
        self.encoder = Encoder(self.config, self.hooks)
        self.decoder = Decoder(self.config)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "B T"],
        decoder_input_tokens: Int[Array, "R L"],
        decoder_target_tokens: Int[Array, "R L"],
        *,
        enable_dropout: bool = False,
    ) -> Float[Array, "R L V"]:
        """Scores every next token of given targets.

        Args:
          encoder_input_tokens: ids, 0 is padding.
          decoder_input_tokens: the targets shifted right by one, 0 in front.
          decoder_target_tokens: ids, 0 is padding; only says which positions are real.
          enable_dropout: needs an rng named 'dropout'.

        Returns:
          Logits, float32.
        """
        encoded = self.encode(encoder_input_tokens, enable_dropout=enable_dropout)
        return self.decode(
            encoded, decoder_input_tokens, decoder_target_tokens, enable_dropout=enable_dropout
        )

    def encode(
        self, encoder_input_tokens: Int[Array, "B T"], *, enable_dropout: bool = False
    ) -> Encoded:
        """Runs the encoder."""
        embedded = self.token_embedder(encoder_input_tokens)
        return self.encoder(embedded, encoder_input_tokens > 0, not enable_dropout)

    def decode(
        self,
        encoded: Encoded,
        decoder_input_tokens: Int[Array, "R L"],
        decoder_target_tokens: Int[Array, "R L"],
        *,
        enable_dropout: bool = False,
    ) -> Float[Array, "R L V"]:
        """Runs the decoder over whole targets, R = B * K rows, the K of one input together."""
        return self.decoder(
            self.token_embedder(decoder_input_tokens),
            encoded,
            decoder_target_tokens > 0,
            self.token_embedder.embedding,
            not enable_dropout,
        )

    def start_decoding(self, encoded: Encoded, *, rows: int, length: int) -> Any:
        """Makes an empty cache for `rows` = B * K sequences of up to `length` tokens."""
        return self.decoder.start(encoded, rows, length)

    def decode_step(
        self,
        tokens: Int[Array, "R 1"],
        cache: Any,
        index: Int[Array, ""],
        input_valid: Bool[Array, "B S"],
    ) -> tuple[Float[Array, "R V"], Any]:
        """Feeds the token at position `index` and scores the next one.

        Returns:
          Logits, float32, and the cache with this position written.
        """
        logits, cache = self.decoder.step(
            self.token_embedder(tokens),
            cache,
            index,
            input_valid,
            self.token_embedder.embedding,
        )
        return logits[:, 0], cache
