"""What a stack of layers reads, as one pytree: ids, and what masks and positions are made from.

The model turns a plain array of ids into an `Inputs` with `as_inputs`, the only place where id 0
means padding. A caller that knows more, such as which of several packed examples a position belongs
to, builds the `Inputs` itself. Two packed examples and a padding position:

    tokens        [[7, 8, 1, 9, 1, 0]]
    valid         [[1, 1, 1, 1, 1, 0]]
    segment_ids   [[1, 1, 1, 2, 2, 0]]     a position sees its own segment only
    positions     [[0, 1, 2, 0, 1, 0]]     relative positions are differences of these

The places of a prompt are reserved before the embedding, so the batch has its full length from the
start; the hook at `encoder_input` fills them. Two vectors before three tokens:

    tokens        [[0, 0, 7, 8, 1]]
    prompt_places [[0, 1, -1, -1, -1]]

Rows may have prompts of different lengths. What the prompt of a row does not need of the longest
is padding at the end of the row, so that the row looks as it does alone. Two vectors and one:

    prompt_lengths [2, 1]
    tokens         [[0, 0, 7, 8, 1], [0, 9, 4, 1, 0]]
    valid          [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    prompt_places  [[0, 1, -1, -1, -1], [0, -1, -1, -1, -1]]
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.shapes import Array, Bool, Int

POSITIONS = ("prefix", "suffix")
"""Where `reserve_prompt` puts a prompt."""


class Inputs(NamedTuple):
    """What the encoder or the decoder reads.

    Optional fields are None when unused. None is part of the pytree's structure, so the simple
    case compiles to a program without them.

    Attributes:
      tokens: ids that are embedded; in the decoder, the targets shifted right.
      valid: False at padding. In the decoder, whether the position predicts a real target.
      positions: position of each token within its example, for relative positions and causality.
        [1, S] if the same in all rows.
      segment_ids: which example of a packed row each position belongs to, 1 and up, 0 at padding;
        the positions of an example are adjacent. None: a row is one example.
      prompt_ids: which of M prompts each row uses, 0 to M - 1. None: there is one prompt.
      prompt_lengths: vectors of each row's prompt, 0 to P. None: P in all rows.
      prompt_places: number of the prompt vector at each position, 0 to P - 1, and -1
        at tokens; [1, S] if the same in all rows. None: no place is reserved yet.
    """

    tokens: Int[Array, "B S"]
    valid: Bool[Array, "B S"]
    positions: Int[Array, "#B S"]
    segment_ids: Int[Array, "B S"] | None = None
    prompt_ids: Int[Array, " B"] | None = None
    prompt_places: Int[Array, "#B S"] | None = None
    prompt_lengths: Int[Array, " B"] | None = None


def as_inputs(tokens: Inputs | Int[Array, "B T"]) -> Inputs:
    """Makes the encoder's inputs from ids, one example per row; an `Inputs` is returned as it is.

    >>> as_inputs(jnp.array([[7, 1, 0]])).valid
    Array([[ True,  True, False]], dtype=bool)
    """
    if isinstance(tokens, Inputs):
        return tokens
    return Inputs(tokens, tokens > 0, _count(tokens.shape[1]))


def as_decoder_inputs(
    input_tokens: Inputs | Int[Array, "R L"], target_tokens: Int[Array, "R L"] | None
) -> Inputs:
    """Makes the decoder's inputs from ids, one target per row; an `Inputs` is returned as it is.

    Args:
      input_tokens: the targets shifted right, or an `Inputs` that is complete.
      target_tokens: ids, 0 is padding; only marks the real positions. None with an `Inputs`.

    Raises:
      ValueError: the targets are missing, or given together with an `Inputs`.
    """
    if isinstance(input_tokens, Inputs):
        if target_tokens is not None:
            raise ValueError(
                "The decoder expected an Inputs alone, got target tokens as well. Its `valid` "
                "marks the positions that predict a target; leave the target tokens out."
            )
        return input_tokens
    if target_tokens is None:
        raise ValueError(
            "The decoder expected target tokens with its input tokens, got none. Pass them, or "
            "an Inputs in place of both."
        )
    return Inputs(input_tokens, target_tokens > 0, _count(target_tokens.shape[1]))


def reserve_prompt(inputs: Inputs, *, length: int, position: str = "prefix") -> Inputs:
    """Reserves the places of a prompt before each row ('prefix') or after it ('suffix').

    A suffix is after the padding. Reserved positions are valid and their token is 0. With
    `prompt_lengths` each row has as many as it needs, and the rest of P is padding at its end.

    Args:
      inputs: one example per row, without places. With `prompt_lengths`, positions [1, T] count
        from 0; others are given for each row, [B, T].
      length: P, in vectors.
      position: 'prefix' or 'suffix'.

    Returns:
      Inputs of S = P + T positions.

    Raises:
      ValueError: the position is unknown, the inputs are packed, or have places already.

    >>> reserve_prompt(as_inputs(jnp.array([[7, 1]])), length=2).prompt_places
    array([[ 0,  1, -1, -1]], dtype=int32)
    """
    if position not in POSITIONS:
        raise ValueError(f"The prompt's position must be one of {POSITIONS}; got {position!r}.")
    if inputs.prompt_places is not None:
        raise ValueError(
            "reserve_prompt expected inputs without places for a prompt, got some that have them. "
            "Reserve them once, in the data or in the model."
        )
    if inputs.segment_ids is not None:
        raise ValueError(
            "A prompt belongs to one example, and these inputs pack several into a row. Reserve "
            "the places of each when packing, and set prompt_places."
        )
    if inputs.prompt_lengths is not None:
        return _reserve_own(inputs, length, position)
    tokens = inputs.tokens.shape[1]

    def joined(reserved, own, xp=jnp):
        reserved = xp.broadcast_to(reserved, (own.shape[0], length))
        return xp.concatenate([reserved, own] if position == "prefix" else [own, reserved], axis=1)

    shift, start = (length, 0) if position == "prefix" else (0, tokens)
    vectors, none = np.arange(length, dtype=np.int32)[None], np.full((1, tokens), -1, np.int32)
    return inputs._replace(
        tokens=joined(jnp.zeros((1, 1), jnp.int32), inputs.tokens),
        valid=joined(jnp.ones((1, 1), bool), inputs.valid),
        positions=joined(vectors + start, inputs.positions + shift),
        prompt_places=joined(vectors, none, np),  # NumPy: known while tracing
    )


def _reserve_own(inputs: Inputs, length: int, position: str) -> Inputs:
    """`reserve_prompt` of as many places as each row needs."""
    rows, tokens = inputs.tokens.shape
    index = _count(length + tokens)
    own = inputs.prompt_lengths.astype(jnp.int32)[:, None]
    place = index if position == "prefix" else index - tokens
    is_reserved = (place >= 0) & (place < own)
    source = index - own if position == "prefix" else jnp.broadcast_to(index, (rows, len(index[0])))
    is_token = (source >= 0) & (source < tokens)

    def moved(x):
        at = jnp.clip(source, 0, tokens - 1)
        taken = jnp.take_along_axis(jnp.broadcast_to(x, (rows, tokens)), at, axis=1)
        return jnp.where(is_token, taken, jnp.zeros((), x.dtype))

    positions = index
    if len(inputs.positions) == rows:  # else [1, T], which counts: so does the longer row
        shift, start = (own, 0) if position == "prefix" else (0, tokens)
        positions = jnp.where(is_reserved, place + start, moved(inputs.positions) + shift)
    return inputs._replace(
        tokens=moved(inputs.tokens),
        valid=moved(inputs.valid) | is_reserved,
        positions=positions,
        prompt_places=jnp.where(is_reserved, place, -1),
    )


def width_matters(reserve: Callable[[Inputs], Inputs] | None) -> bool:
    """Whether the positions of a row depend on how far it is padded, as with a suffix.

    Args:
      reserve: see `Hooks.reserve`.

    >>> import functools
    >>> prefix, suffix = (functools.partial(reserve_prompt, length=2, position=position)
    ...                   for position in POSITIONS)
    >>> width_matters(prefix), width_matters(suffix), width_matters(None)
    (False, True, False)
    """
    if reserve is None:
        return False

    @jax.jit
    def reserved(tokens):
        inputs = reserve(as_inputs(tokens))
        return inputs.positions, inputs.valid

    narrow, wide = (np.array([tokens], np.int32) for tokens in ([1], [1, 0]))
    real = [np.asarray(x)[np.asarray(valid)] for x, valid in map(reserved, (narrow, wide))]
    return not np.array_equal(*real)


def distances(inputs: Inputs) -> Int[Array, "#B S"]:
    """Positions whose differences within a segment are those of `inputs.positions`.

    Of packed rows they are the same for all rows, [1, S], and so is what is computed from them.
    """
    return inputs.positions if inputs.segment_ids is None else _count(inputs.tokens.shape[1])


def _count(length: int) -> Int[Array, "1 L"]:
    return jnp.arange(length, dtype=jnp.int32)[None]
