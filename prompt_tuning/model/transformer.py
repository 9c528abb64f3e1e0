"""The T5 encoder-decoder: embedding, two stacks of layers, logits.

Parameters have the paths and shapes of T5X's `examples/t5`:

    token_embedder/embedding                                  [V, H]
    encoder/relpos_bias/rel_embedding                         [N, 32]
    encoder/layers_0/pre_attention_layer_norm/scale           [H]
    encoder/layers_0/attention/{query,key,value,out}/kernel   [H, N*D] ([N*D, H] for out)
    encoder/layers_0/pre_mlp_layer_norm/scale                 [H]
    encoder/layers_0/mlp/{wi_0,wi_1,wo}/kernel                [H, F] ([F, H] for wo)
    encoder/encoder_norm/scale                                [H]
    decoder/...                                               the same, with cross-attention
    decoder/logits_dense/kernel                               [H, V], untied models only
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.model.compute import Compute
from prompt_tuning.model.decoder import Cache, Decoder
from prompt_tuning.model.dropout import Dropout
from prompt_tuning.model.encoder import Encoded, Encoder
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs, as_decoder_inputs, as_inputs
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.shapes import Array, Float, Int

EMBEDDING_PATH = "token_embedder/embedding"


class TokenEmbedder(nn.Module):
    """The embedding table of both stacks."""

    config: T5Config

    def setup(self):
        shape = (self.config.vocab_size, self.config.emb_dim)
        self.embedding = self.param("embedding", nn.initializers.normal(stddev=1.0), shape)

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T H"]:
        rows, scale = jnp.asarray(self.embedding)[tokens], self.scale()
        if scale is not None:
            rows = rows * jnp.asarray(scale)[tokens][..., None]
        return rows.astype(self.config.activation_dtype)

    def scale(self) -> Float[Array, " V"] | None:
        """The scale of each row of an int8 table; None for other types."""
        return self.get_variable("params", "embedding_scale")


class Transformer(nn.Module):
    """A T5, with whatever `hooks` attach to it, computed as `compute` says.

    With scanned layers the parameters of a stack's layers are stacked, see `stacking.py`.

    Inputs are ids, one example per row with 0 as padding, or an `Inputs` with more information.

    >>> import jax
    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> tokens = jnp.ones((1, 3), jnp.int32)
    >>> logits, _ = Transformer(config).init_with_output(jax.random.key(0), tokens, tokens, tokens)
    >>> logits.shape
    (1, 3, 16)
    """

    config: T5Config
    hooks: Hooks = Hooks()
    compute: Compute = Compute()

    def setup(self):
        self.token_embedder = TokenEmbedder(self.config)
        self.encoder = Encoder(self.config, self.hooks, self.compute)
        self.decoder = Decoder(self.config, self.hooks, self.compute)

    def __call__(
        self,
        encoder_inputs: Inputs | Int[Array, "B T"],
        decoder_inputs: Inputs | Int[Array, "R L"],
        decoder_target_tokens: Int[Array, "R L"] | None = None,
        *,
        dropout: Dropout | None = None,
    ) -> Float[Array, "R L V"]:
        """Computes the logits of every target position.

        Args:
          encoder_inputs: see `encode`.
          decoder_inputs, decoder_target_tokens: see `decode`.
          dropout: see `dropout.draw`; None does not drop.

        Returns:
          Logits, float32.

        Raises:
          ValueError: see `encode` and `decode`.
        """
        encoded = self.encode(encoder_inputs, dropout=dropout)
        return self.decode(encoded, decoder_inputs, decoder_target_tokens, dropout=dropout)

    def encode(
        self, inputs: Inputs | Int[Array, "B T"], *, dropout: Dropout | None = None
    ) -> Encoded:
        """Runs the encoder; a prompt's places are reserved first if the inputs have none.

        Raises:
          ValueError: the inputs have places for a prompt, and the model has no prompt.
        """
        inputs = as_inputs(inputs)
        if inputs.prompt_places is None and self.hooks.reserve is not None:
            inputs = self.hooks.reserve(inputs)
        elif inputs.prompt_places is not None and self.hooks.encoder_input is None:
            raise ValueError(
                "The inputs have places for a prompt, and nothing at Hooks.encoder_input fills "
                "them. Use a model with a prompt, or inputs without prompt_places."
            )
        return self.encoder(self.token_embedder(inputs.tokens), inputs, dropout and dropout.encoder)

    @nn.nowrap
    def encoder_length(self, tokens: int) -> int:
        """S, the positions of the encoder for inputs of T tokens; needs no parameters."""
        return tokens if self.hooks.reserve is None else _reserved_length(self.hooks, tokens)

    def decode(
        self,
        encoded: Encoded,
        decoder_inputs: Inputs | Int[Array, "R L"],
        decoder_target_tokens: Int[Array, "R L"] | None = None,
        *,
        dropout: Dropout | None = None,
    ) -> Float[Array, "R L V"]:
        """Runs the decoder over whole targets, R = B * K rows, the K of one input adjacent.

        Args:
          encoded: of B inputs.
          decoder_inputs: the targets shifted right by one, 0 first; or an `Inputs`.
          decoder_target_tokens: ids, 0 is padding; only marks the real positions. Left out
            with an `Inputs`, whose `valid` marks them.
          dropout: see `dropout.draw`; None does not drop.

        Raises:
          ValueError: the target tokens are missing, or given together with an `Inputs`; either
            inputs or targets are packed, and the other not.
        """
        return self.logits(
            self.decode_hidden(encoded, decoder_inputs, decoder_target_tokens, dropout=dropout)
        )

    def decode_hidden(
        self,
        encoded: Encoded,
        decoder_inputs: Inputs | Int[Array, "R L"],
        decoder_target_tokens: Int[Array, "R L"] | None = None,
        *,
        dropout: Dropout | None = None,
    ) -> Float[Array, "R L H"]:
        """What `decode` computes logits from."""
        inputs = as_decoder_inputs(decoder_inputs, decoder_target_tokens)
        inputs = _with_prompt_ids(inputs, encoded.inputs)
        embedded = self.token_embedder(inputs.tokens)
        return self.decoder(embedded, inputs, encoded, dropout and dropout.decoder)

    def logits(self, hidden: Float[Array, "*B H"]) -> Float[Array, "*B V"]:
        """Scores of every vocabulary id, float32."""
        embedder = self.token_embedder
        return self.decoder.logits(hidden, embedder.embedding, embedder.scale())

    def start_decoding(self, encoded: Encoded, *, rows: int, length: int) -> Cache:
        """Makes an empty cache for `rows` = B * K sequences of up to `length` tokens.

        Raises:
          ValueError: the inputs are packed.
        """
        if encoded.inputs.segment_ids is not None:
            raise ValueError(
                "Decoding expected one example per row, got packed inputs (segment_ids). Give each "
                "example a row of its own."
            )
        return self.decoder.start(encoded, rows, length)

    def decode_step(
        self, tokens: Int[Array, "R 1"], cache: Cache, index: Int[Array, ""]
    ) -> tuple[Float[Array, "R V"], Cache]:
        """Feeds the token at position `index` and scores the next one.

        Args:
          tokens: of R = B * K rows.
          cache: from `start_decoding` or the step before.
          index: the same for all rows, 0 first.

        Returns:
          Logits, float32, and the cache with this position in it.
        """
        fed = Inputs(tokens, jnp.ones_like(tokens, bool), jnp.reshape(index, (1, 1)))
        fed = _with_prompt_ids(fed, cache.encoded.inputs)
        hidden, cache = self.decoder.step(self.token_embedder(tokens), fed, cache, index)
        return self.logits(hidden)[:, 0], cache


def _with_prompt_ids(decoder: Inputs, encoder: Inputs) -> Inputs:
    """Gives each of the K rows of an input the input's prompt id, unless they have one."""
    if encoder.prompt_ids is None or decoder.prompt_ids is not None:
        return decoder
    each = decoder.tokens.shape[0] // encoder.tokens.shape[0]
    return decoder._replace(prompt_ids=jnp.repeat(encoder.prompt_ids, each))


@functools.lru_cache(maxsize=4096)
def _reserved_length(hooks: Hooks, tokens: int) -> int:
    row = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    return jax.eval_shape(lambda x: hooks.reserve(as_inputs(x)), row).tokens.shape[1]
