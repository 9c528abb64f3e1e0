"""Which positions attend to which, as numbers added to attention scores.

A mask is True where attention is allowed. Two examples of three tokens, the
second padded by one; the causal mask of the decoder's self-attention:

    first          second
    1 0 0          1 0 0
    1 1 0          1 1 0
    1 1 1          0 0 0     a padding position neither attends nor is attended to

Packed rows (`Inputs.segment_ids`) are block-diagonal. A row without a single 1
attends to all positions equally. Nothing reads the output of a padding position, so
masks of unpacked rows hold the keys only.
"""

import jax.numpy as jnp

from prompt_tuning.model.inputs import Inputs
from prompt_tuning.shapes import Array, Bool, Float, Int

MASKED = -1e10  # T5X's value: large in bfloat16, too, and safe to add a position bias to


def pair_mask(queries: Bool[Array, "B Q"], keys: Bool[Array, "B S"]) -> Bool[Array, "B 1 Q S"]:
    """Allows every real query to attend to every real key.

    >>> pair_mask(jnp.array([[True, False]]), jnp.array([[True, True, False]]))[0, 0].astype(int)
    Array([[1, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    return queries[:, None, :, None] & keys[:, None, None, :]


def key_mask(valid: Bool[Array, "B S"]) -> Bool[Array, "B 1 1 S"]:
    """Allows every position, padding included, to attend to the real ones.

    Nothing reads the output of a padding position, so for one example per row this is all that a
    mask needs to hold.
    """
    return valid[:, None, None, :]


def encoder_mask(inputs: Inputs) -> Bool[Array, "B 1 #S S"]:
    """What the encoder attends to: `self_mask` for packed rows, else `key_mask`."""
    return key_mask(inputs.valid) if inputs.segment_ids is None else self_mask(inputs)


def self_mask(inputs: Inputs) -> Bool[Array, "B 1 S S"]:
    """Allows every real position to attend to the real positions of its segment."""
    mask = pair_mask(inputs.valid, inputs.valid)
    if inputs.segment_ids is not None:
        mask &= _same_segment(inputs.segment_ids, inputs.segment_ids)
    return mask


def causal_mask(inputs: Inputs) -> Bool[Array, "B 1 L L"]:
    """Allows every real position to attend to itself and to those before it in its segment.

    >>> from prompt_tuning.model.inputs import as_inputs
    >>> causal_mask(as_inputs(jnp.array([[7, 1, 0]])))[0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    at = inputs.positions
    return self_mask(inputs) & (at[:, None, :, None] >= at[:, None, None, :])


def cross_mask(decoder: Inputs, encoder: Inputs) -> Bool[Array, "B 1 #Q S"]:
    """Allows every target position to attend to the real input positions of its segment.

    Args:
      decoder: R = B * K rows, the K of one input adjacent; their positions are folded into one
        query axis, Q = K * L.
      encoder: B rows.

    Raises:
      ValueError: one of the two is packed and the other is not.
    """
    packed = [stack.segment_ids is not None for stack in (encoder, decoder)]
    if all(packed):
        rows = encoder.tokens.shape[0]
        mask = pair_mask(decoder.valid.reshape(rows, -1), encoder.valid)
        return mask & _same_segment(decoder.segment_ids.reshape(rows, -1), encoder.segment_ids)
    if any(packed):
        raise ValueError(
            "Inputs and targets must both be packed or neither; got segment_ids for the "
            f"{'inputs' if packed[0] else 'targets'} only. Set both or none."
        )
    return key_mask(encoder.valid)


def _same_segment(queries: Int[Array, "B Q"], keys: Int[Array, "B S"]) -> Bool[Array, "B 1 Q S"]:
    return queries[:, None, :, None] == keys[:, None, None, :]


def to_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turns a mask into what is added to scores: 0 where allowed, -1e10 elsewhere."""
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)
