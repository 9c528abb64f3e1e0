"""Decoding: generate sequences, score given targets, rank candidate labels.

    generate   encoder -> one token at a time, each fed back, by a strategy
    score      encoder -> one given target per input, all its positions at once
    rank       encoder -> all candidate labels for each input

All three are compiled once per model, strategy and shape. `params` is the model's nested
parameter tree. Inputs are ids, one example per row with 0 as padding, or an `Inputs` that is not
packed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.model.beam_search import BeamSearch
from prompt_tuning.model.cached_decoder import CachedDecoder, Decoded, Strategy
from prompt_tuning.model.inputs import Inputs
from prompt_tuning.model.sampling import Greedy, Sample
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.shapes import Array, Float, Int

__all__ = ["BeamSearch", "Decoded", "Greedy", "Sample", "Strategy", "generate", "rank", "score"]


@functools.partial(
    jax.jit,
    static_argnames=("model", "max_decode_length", "strategy", "num_decodes", "eos_id"),
)
def generate(
    model: Transformer,
    params: Any,
    inputs: Inputs | Int[Array, "B T"],
    *,
    max_decode_length: int,
    strategy: Strategy = Greedy(),
    num_decodes: int = 1,
    rng: Array | None = None,
    eos_id: int = 1,
) -> Decoded:
    """Decodes one or more sequences for every input.

    Stops when every sequence has ended, or at the maximum length.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      inputs: ids, 0 is padding; or an `Inputs`.
      max_decode_length: L, tokens of a sequence at most, EOS included.
      strategy: `Greedy()`, `Sample(...)`, `BeamSearch(...)`, or your own.
      num_decodes: K, sequences returned for each input; a BeamSearch needs as many beams.
      rng: needed by `Sample`.
      eos_id: id of the vocabulary's EOS, which ends a sequence.

    Returns:
      Tokens [B, K, L] and scores [B, K], the best sequence of each input first.

    Raises:
      ValueError: a length or a number of decodes is out of range for the strategy, it lacks an
        rng, or the inputs are packed.
    """
    if max_decode_length < 1 or num_decodes < 1:
        raise ValueError(
            "generate needs max_decode_length and num_decodes of 1 or more, got "
            f"{max_decode_length} and {num_decodes}."
        )
    return strategy(
        CachedDecoder(model, params, inputs),
        max_decode_length=max_decode_length,
        num_decodes=num_decodes,
        eos_id=eos_id,
        rng=rng,
    )


@functools.partial(jax.jit, static_argnames="model")
def score(
    model: Transformer,
    params: Any,
    inputs: Inputs | Int[Array, "B T"],
    target_tokens: Int[Array, "R L"],
) -> Float[Array, " B"]:
    """Sums the log-probabilities of given targets, one per input.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      inputs: ids, 0 is padding; or an `Inputs`.
      target_tokens: ids, EOS included; 0 is padding and does not count.

    Returns:
      log p(target | input) in nats, as T5X's score_batch.

    Raises:
      ValueError: there is not one target for each input, or the inputs are packed.
    """
    decoder = CachedDecoder(model, params, inputs)
    if decoder.batch_size != target_tokens.shape[0]:
        raise ValueError(
            f"score expected one target for each input, got {decoder.batch_size} inputs and "
            f"{target_tokens.shape[0]} targets. `rank` scores several labels for every input."
        )
    return decoder.score(target_tokens)


@functools.partial(jax.jit, static_argnames="model")
def rank(
    model: Transformer,
    params: Any,
    inputs: Inputs | Int[Array, "B T"],
    label_tokens: Int[Array, "C L"],
) -> Float[Array, "B C"]:
    """Scores each of C labels for every input; the encoder runs once.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      inputs: ids, 0 is padding; or an `Inputs`.
      label_tokens: each label's ids, EOS included, padded with 0.

    Returns:
      log p(label | input) in nats; `argmax(axis=1)` is rank classification.

    Raises:
      ValueError: the inputs are packed.
    """
    decoder = CachedDecoder(model, params, inputs)
    scores = decoder.score(jnp.tile(label_tokens, (decoder.batch_size, 1)))
    return scores.reshape(decoder.batch_size, len(label_tokens))
