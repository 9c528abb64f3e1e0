"""Turning inputs into text ids: generate sequences, score given ones, rank candidate labels.

    generate   encoder -> token by token, each fed back, by a strategy
    score      encoder -> one given target per input, all its positions at once
    rank       encoder -> all candidate labels against each input

All three are compiled once per model, strategy and shape. `params` is the model's parameter
tree, nested as Flax has it; the model carries its prompt in its hooks, and nothing here knows
of it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.model.beam_search import BeamSearch
from prompt_tuning.model.sampling import Greedy, Sample
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.model.writer import Decoded, Strategy, Writer
from prompt_tuning.shapes import Array, Float, Int

__all__ = ["BeamSearch", "Decoded", "Greedy", "Sample", "Strategy", "generate", "rank", "score"]


@functools.partial(
    jax.jit,
    static_argnames=("model", "max_decode_length", "strategy", "num_decodes", "eos_id"),
)
def generate(
    model: Transformer,
    params: Any,
    encoder_input_tokens: Int[Array, "B T"],
    *,
    max_decode_length: int,
    strategy: Strategy = Greedy(),
    num_decodes: int = 1,
    rng: Array | None = None,
    eos_id: int = 1,
) -> Decoded:
    """Writes one or more sequences for every input.

    Stops when every sequence has ended, or at the length.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      encoder_input_tokens: ids, 0 is padding.
      max_decode_length: L, tokens written at most, eos included.
      strategy: `Greedy()`, `Sample(...)`, `BeamSearch(...)`, or one of your own.
      num_decodes: K, sequences returned for each input; a BeamSearch needs as many beams.
      rng: needed by `Sample`.
      eos_id: the id that ends a sequence.

    Returns:
      Tokens [B, K, L] and scores [B, K], the best sequence of each input first.

    Raises:
      ValueError: a length or a number of decodes is out of range for the strategy, or it lacks an
        rng.
    """
    if max_decode_length < 1 or num_decodes < 1:
        raise ValueError(
            "generate needs max_decode_length and num_decodes of 1 or more, got "
            f"{max_decode_length} and {num_decodes}."
        )
    writer = Writer(model, params, encoder_input_tokens)
    return strategy(
        writer,
        max_decode_length=max_decode_length,
        num_decodes=num_decodes,
        eos_id=eos_id,
        rng=rng,
    )


@functools.partial(jax.jit, static_argnames="model")
def score(
    model: Transformer,
    params: Any,
    encoder_input_tokens: Int[Array, "B T"],
    target_tokens: Int[Array, "R L"],
) -> Float[Array, " B"]:
    """Sums the log-probabilities of given targets, one per input.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      encoder_input_tokens: ids, 0 is padding.
      target_tokens: ids, eos included; 0 is padding and does not count.

    Returns:
      log p(target | input) in nats, as T5X's score_batch.

    Raises:
      ValueError: there is not one target for each input.
    """
    if encoder_input_tokens.shape[0] != target_tokens.shape[0]:
        raise ValueError(
            "score expected one target for each input, got "
            f"{encoder_input_tokens.shape[0]} inputs and {target_tokens.shape[0]} targets. "
            "`rank` scores several labels against every input."
        )
    return Writer(model, params, encoder_input_tokens).score(target_tokens)


@functools.partial(jax.jit, static_argnames="model")
def rank(
    model: Transformer,
    params: Any,
    encoder_input_tokens: Int[Array, "B T"],
    label_tokens: Int[Array, "C L"],
) -> Float[Array, "B C"]:
    """Scores each of C labels against every input; the encoder runs once.

    Args:
      model: the T5, with its hooks.
      params: its parameters.
      encoder_input_tokens: ids, 0 is padding.
      label_tokens: each label's ids, eos included, padded with 0.

    Returns:
      log p(label | input) in nats; `argmax(axis=1)` is rank classification.
    """
    batch_size, num_labels = encoder_input_tokens.shape[0], label_tokens.shape[0]
    scores = Writer(model, params, encoder_input_tokens).score(
        jnp.tile(label_tokens, (batch_size, 1))
    )
    return scores.reshape(batch_size, num_labels)
