"""Beam search: keep the K likeliest live sequences and the K best finished ones.

As T5X does it. Each step extends all K live sequences by all V tokens and looks at the
best 2K: those that end in EOS compete for the K finished places by

    score = log p(sequence) / ((5 + length) / 6) ** alpha

(the brevity penalty of Wu et al. 2016), and the best K of the others stay live. The search
stops when no live sequence, whatever follows, can beat the worst finished one. The best is
first everywhere (T5X: last).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.model.cached_decoder import CachedDecoder, Decoded
from prompt_tuning.shapes import Array, Bool, Float, Int

# The score of an empty place: T5X's value, also in the result.
EMPTY = -1.0e7


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Searches for the likeliest sequences.

    The score is the log-probability divided by the brevity penalty. If no sequence of an input
    ended within the maximum length, the live ones are returned with plain log-probabilities. If
    fewer than num_decodes ended, the rest are all padding with score -1e7.

    Attributes:
      num_beams: live sequences, K; at least num_decodes.
      alpha: 0 means no brevity penalty; larger favours longer sequences.

    Raises:
      ValueError: an attribute is out of its range.
    """

    num_beams: int = 4
    alpha: float = 0.6

    def __post_init__(self):
        if self.num_beams < 1:
            raise ValueError(f"BeamSearch.num_beams must be 1 or more, got {self.num_beams}.")
        if self.alpha < 0:
            raise ValueError(f"BeamSearch.alpha must be 0 or more, got {self.alpha}.")

    def __call__(
        self,
        decoder: CachedDecoder,
        *,
        max_decode_length: int,
        num_decodes: int,
        eos_id: int,
        rng: Array | None = None,
    ) -> Decoded:
        if num_decodes > self.num_beams:
            raise ValueError(
                f"BeamSearch with {self.num_beams} beams has at most {self.num_beams} results per "
                f"input, got num_decodes={num_decodes}. Raise BeamSearch.num_beams."
            )

        def improvable(state: _State) -> Bool[Array, ""]:
            # The longest sequence has the largest divisor; T5X counts its dummy first token.
            reachable = state.live_scores[:, 0] / self.penalty(max_decode_length + 1)
            worst_finished = state.finished_scores[:, -1]
            settled = state.finished[:, -1] & (worst_finished > reachable)
            return (state.index < max_decode_length) & ~jnp.all(settled)

        def extend(state: _State) -> _State:
            return self._extend(decoder, state, eos_id)

        end = jax.lax.while_loop(improvable, extend, self._start(decoder, max_decode_length))
        any_finished = jnp.any(end.finished, axis=1)
        tokens = jnp.where(any_finished[:, None, None], end.finished_tokens, end.live_tokens)
        scores = jnp.where(any_finished[:, None], end.finished_scores, end.live_scores)
        return Decoded(tokens[:, :num_decodes], scores[:, :num_decodes])

    def penalty(self, length: int | Int[Array, ""]) -> Float[Array, ""]:
        """The divisor of a log-probability; the length includes EOS.

        >>> BeamSearch(alpha=0.5).penalty(19)
        Array(2., dtype=float32, weak_type=True)
        """
        return jnp.power((5.0 + length) / 6.0, self.alpha)

    def _start(self, decoder: CachedDecoder, max_decode_length: int) -> "_State":
        shape = (decoder.batch_size, self.num_beams)
        empty = jnp.zeros((*shape, max_decode_length), jnp.int32)
        return _State(
            index=jnp.int32(0),
            live_tokens=empty,
            # All beams start equal: with more than one live, they would stay equal.
            live_scores=jnp.full(shape, EMPTY).at[:, 0].set(0.0),
            cache=decoder.start(self.num_beams, max_decode_length),
            finished_tokens=empty,
            finished_scores=jnp.full(shape, EMPTY),
            finished=jnp.zeros(shape, bool),
        )

    def _extend(self, decoder: CachedDecoder, state: "_State", eos_id: int) -> "_State":
        """Extends every beam by one token."""
        K = self.num_beams
        tokens, log_probs, origin, cache = self._candidates(decoder, state)
        ended = tokens[:, :, state.index] == eos_id

        # Of the 2K candidates at most K have ended, one per beam; K stay live.
        live_scores, chosen = jax.lax.top_k(log_probs + ended * EMPTY, K)
        from_beam = jnp.take_along_axis(origin, chosen, axis=1)
        first_row = jnp.arange(decoder.batch_size)[:, None] * K

        candidate_scores = log_probs / self.penalty(state.index + 1) + ~ended * EMPTY
        scores = jnp.concatenate([state.finished_scores, candidate_scores], axis=1)
        finished_scores, kept = jax.lax.top_k(scores, K)
        return _State(
            index=state.index + 1,
            live_tokens=_take(tokens, chosen),
            live_scores=live_scores,
            cache=decoder.take(cache, (first_row + from_beam).reshape(-1)),
            finished_tokens=_take(jnp.concatenate([state.finished_tokens, tokens], axis=1), kept),
            finished_scores=finished_scores,
            finished=_take(jnp.concatenate([state.finished, ended], axis=1), kept),
        )

    def _candidates(
        self, decoder: CachedDecoder, state: "_State"
    ) -> tuple[Int[Array, "B C L"], Float[Array, "B C"], Int[Array, "B C"], Any]:
        """Finds the best C = 2K continuations of the live beams.

        Returns:
          Their tokens, their log-probabilities, the beam each extends, and the cache in the order
          of those beams.
        """
        B, K, _ = state.live_tokens.shape
        before = jnp.maximum(state.index - 1, 0)
        last = jnp.where(state.index == 0, 0, state.live_tokens[:, :, before])
        logits, cache = decoder.step(last.reshape(B * K), state.cache, state.index)
        log_probs_BxKxV = (
            jax.nn.log_softmax(logits).reshape(B, K, -1) + state.live_scores[..., None]
        )
        V = log_probs_BxKxV.shape[-1]
        log_probs, place = jax.lax.top_k(log_probs_BxKxV.reshape(B, K * V), 2 * K)
        origin, token = place // V, place % V
        tokens = _take(state.live_tokens, origin).at[:, :, state.index].set(token)
        return tokens, log_probs, origin, cache


class _State(NamedTuple):
    index: Int[Array, ""]
    live_tokens: Int[Array, "B K L"]
    live_scores: Float[Array, "B K"]  # log-probabilities, best first
    cache: Any
    finished_tokens: Int[Array, "B K L"]
    finished_scores: Float[Array, "B K"]  # with brevity penalty, best first
    finished: Bool[Array, "B K"]  # False at empty places


def _take(x: Array, beams: Int[Array, "B C"]) -> Array:
    """Picks `beams[b]` from x[b], x being [B, K] or [B, K, L]."""
    return jax.vmap(lambda x_K, beams_C: x_K[beams_C])(x, beams)
