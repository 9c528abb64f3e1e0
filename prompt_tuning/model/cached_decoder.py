"""Autoregressive decoding with a cache: the interface between the model and decoding strategies.

A strategy that keeps K rows per input has them together, input by input:

    row       0  1  2    3  4  5
    input     0  0  0    1  1  1        B = 2, K = 3, R = B * K rows

The inputs are encoded once; their cross-attention keys and values are computed once and shared by
the K rows of an input.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from prompt_tuning.model.inputs import Inputs
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.shapes import Array, Float, Int


class Decoded(NamedTuple):
    """K sequences for each input, the best first.

    Attributes:
      tokens: ids up to and including EOS, 0 after it.
      scores: log-probabilities in nats, see the strategy.
    """

    tokens: Int[Array, "B K L"]
    scores: Float[Array, "B K"]


class CachedDecoder:
    """The model and one batch of encoded inputs; made and used within one jit."""

    def __init__(self, model: Transformer, params: Any, inputs: Inputs | Int[Array, "B T"]):
        self._apply = functools.partial(model.apply, {"params": params})
        self._encoded = self._apply(inputs, method="encode")
        self.batch_size = self._encoded.values.shape[0]

    def start(self, rows_per_input: int, length: int) -> Any:
        """Makes an empty cache for `rows_per_input` sequences of up to `length` tokens each."""
        rows = self.batch_size * rows_per_input
        return self._apply(self._encoded, rows=rows, length=length, method="start_decoding")

    def step(
        self, tokens: Int[Array, " R"], cache: Any, index: Int[Array, ""]
    ) -> tuple[Float[Array, "R V"], Any]:
        """Feeds the token at position `index` (0 at position 0) and scores the next one.

        Returns:
          Logits, and the cache with this position in it.
        """
        return self._apply(tokens[:, None], cache, index, method="decode_step")

    def take(self, cache: Any, rows: Int[Array, " R"]) -> Any:
        """Reorders the cache: row r continues the sequence of row `rows[r]`, of the same input."""
        return cache.take(rows)

    def score(self, target_tokens: Int[Array, "R L"]) -> Float[Array, " R"]:
        """Sums the log-probabilities of whole targets; padding (id 0) does not count.

        Raises:
          ValueError: the inputs are packed.
        """
        if self._encoded.inputs.segment_ids is not None:
            raise ValueError(
                "Scoring expected one example per row, got packed inputs (segment_ids). Give each "
                "example a row of its own."
            )
        hidden = self._apply(
            self._encoded, shift_right(target_tokens), target_tokens, method="decode_hidden"
        )

        def add(total, position):
            # Logits of one position at a time: [R, V] instead of [R, L, V].
            hidden, tokens = position
            logits = self._apply(hidden, method="logits")
            return total + log_probability(logits, tokens) * (tokens > 0), None

        positions = jnp.moveaxis(hidden, 1, 0), target_tokens.T
        return jax.lax.scan(add, jnp.zeros(len(target_tokens)), positions)[0]


@runtime_checkable
class Strategy(Protocol):
    """What `generate` accepts: a hashable callable, usually a small frozen dataclass.

    `Greedy`, `Sample` and `BeamSearch` are strategies; your own plugs in by a gin reference.
    """

    def __call__(
        self,
        decoder: CachedDecoder,
        *,
        max_decode_length: int,
        num_decodes: int,
        eos_id: int,
        rng: Array | None,
    ) -> Decoded: ...


def log_probability(logits: Float[Array, "*B V"], tokens: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The log-probability of each token under its logits.

    >>> log_probability(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([1])).round(4)
    Array([-0.2877], dtype=float32)
    """
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def shift_right(target_tokens: Int[Array, "R L"]) -> Int[Array, "R L"]:
    """Shifts targets into decoder inputs: 0, then all but the last.

    >>> shift_right(jnp.array([[7, 8, 1]]))
    Array([[0, 7, 8]], dtype=int32)
    """
    return jnp.pad(target_tokens, ((0, 0), (1, 0)))[:, :-1]
