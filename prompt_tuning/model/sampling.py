"""Greedy decoding and sampling: at each step the likeliest token, or one drawn at random."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.model.cached_decoder import CachedDecoder, Decoded, log_probability
from prompt_tuning.shapes import Array, Bool, Float, Int

# Below it T5X takes the likeliest token: division by less overflows.
MIN_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the likeliest token at every step.

    The score is the log-probability of the sequence, EOS included.
    """

    def __call__(
        self,
        decoder: CachedDecoder,
        *,
        max_decode_length: int,
        num_decodes: int,
        eos_id: int,
        rng: Array | None = None,
    ) -> Decoded:
        if num_decodes != 1:
            raise ValueError(
                f"Greedy decoding has one result per input, got num_decodes={num_decodes}. Use "
                "Sample() or BeamSearch() for several."
            )
        return _decode(
            decoder,
            lambda logits, _: jnp.argmax(logits, axis=-1),
            max_decode_length=max_decode_length,
            num_decodes=1,
            eos_id=eos_id,
            rng=jax.random.key(0),  # not used
        )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws each token from softmax(logits / temperature), truncated to likely tokens.

    The score is the model's own log-probability of the sequence, EOS included: neither the
    temperature nor the truncation changes it. Several decodes are drawn independently.

    Attributes:
      temperature: above 1 flattens, below 1 sharpens; 0 is greedy.
      top_k: draw among the k likeliest tokens only; None for all.
      top_p: draw among the fewest tokens that sum to this probability (the nucleus, Holtzman
        et al. 2020), after top_k; None for all.

    Raises:
      ValueError: an attribute is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"Sample.temperature must be 0 or more, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"Sample.top_k must be 1 or more, got {self.top_k}. None draws from all tokens."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"Sample.top_p must be in (0, 1], got {self.top_p}. None draws from all tokens."
            )

    def __call__(
        self,
        decoder: CachedDecoder,
        *,
        max_decode_length: int,
        num_decodes: int,
        eos_id: int,
        rng: Array | None = None,
    ) -> Decoded:
        if rng is None:
            raise ValueError("Sample draws at random: pass rng=jax.random.key(seed), got None.")
        return _decode(
            decoder,
            self.draw,
            max_decode_length=max_decode_length,
            num_decodes=num_decodes,
            eos_id=eos_id,
            rng=rng,
        )

    def draw(self, logits: Float[Array, "R V"], rng: Array) -> Int[Array, " R"]:
        """Draws one token per row."""
        if self.temperature < MIN_TEMPERATURE:
            return jnp.argmax(logits, axis=-1)
        logits = logits / self.temperature
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        return jax.random.categorical(rng, logits)


def keep_top_k(logits: Float[Array, "R V"], k: int) -> Float[Array, "R V"]:
    """Sets all but the k largest logits to minus infinity; ties with the k-th stay.

    >>> keep_top_k(jnp.array([[1.0, 3.0, 2.0]]), k=2)
    Array([[-inf,   3.,   2.]], dtype=float32)
    """
    largest, _ = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.where(logits < largest[:, -1:], -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "R V"], p: float) -> Float[Array, "R V"]:
    """Sets all but the nucleus to minus infinity: the fewest tokens that sum to p.

    >>> keep_top_p(jnp.log(jnp.array([[0.5, 0.125, 0.25, 0.125]])), p=0.7).round(2)
    Array([[-0.69,  -inf, -1.39,  -inf]], dtype=float32)
    """
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    smallest_kept = jnp.min(jnp.where(before < p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits < smallest_kept, -jnp.inf, logits)


class _State(NamedTuple):
    index: Int[Array, ""]
    rng: Array
    last: Int[Array, " R"]
    tokens: Int[Array, "R L"]
    scores: Float[Array, " R"]
    done: Bool[Array, " R"]
    cache: Any


def _decode(
    decoder: CachedDecoder,
    choose: Callable[[Array, Array], Array],
    *,
    max_decode_length: int,
    num_decodes: int,
    eos_id: int,
    rng: Array,
) -> Decoded:
    """Extends every row until its EOS with tokens from `choose(logits [R, V], rng) -> [R]`."""
    rows = decoder.batch_size * num_decodes

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.index < max_decode_length) & ~jnp.all(state.done)

    def extend(state: _State) -> _State:
        rng, now = jax.random.split(state.rng)
        logits, cache = decoder.step(state.last, state.cache, state.index)
        chosen = choose(logits, now).astype(jnp.int32)
        token = jnp.where(state.done, 0, chosen)
        return _State(
            index=state.index + 1,
            rng=rng,
            last=token,
            tokens=state.tokens.at[:, state.index].set(token),
            scores=state.scores + jnp.where(state.done, 0.0, log_probability(logits, chosen)),
            done=state.done | (chosen == eos_id),
            cache=cache,
        )

    start = _State(
        index=jnp.int32(0),
        rng=rng,
        last=jnp.zeros((rows,), jnp.int32),
        tokens=jnp.zeros((rows, max_decode_length), jnp.int32),
        scores=jnp.zeros((rows,), jnp.float32),
        done=jnp.zeros((rows,), bool),
        cache=decoder.start(num_decodes, max_decode_length),
    )
    end = jax.lax.while_loop(unfinished, extend, start)
    tokens = end.tokens.reshape(decoder.batch_size, num_decodes, max_decode_length)
    scores = end.scores.reshape(decoder.batch_size, num_decodes)
    order = jnp.argsort(-scores, axis=-1)
    return Decoded(
        jnp.take_along_axis(tokens, order[:, :, None], axis=1),
        jnp.take_along_axis(scores, order, axis=1),
    )
