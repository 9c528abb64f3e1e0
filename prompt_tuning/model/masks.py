"""Which positions may look at which, as numbers added to attention scores.

A mask is True where attention is allowed. Two examples of three tokens, the
second padded by one; the causal mask that the decoder's self-attention uses:

    first          second
    1 0 0          1 0 0
    1 1 0          1 1 0
    1 1 1          0 0 0     a padding position neither looks nor is looked at

As in T5X, a row without a single 1 attends to all positions alike. Such rows
belong to padding, and no loss or score counts them.
"""

import jax.numpy as jnp

from prompt_tuning.shapes import Array, Bool, Float

MASKED = -1e10  # T5X's value: large in bfloat16, too, and safe to add a position bias to


def pair_mask(queries: Bool[Array, "B Q"], keys: Bool[Array, "B S"]) -> Bool[Array, "B 1 Q S"]:
    """Allows every real query to look at every real key.

    >>> pair_mask(jnp.array([[True, False]]), jnp.array([[True, True, False]]))[0, 0].astype(int)
    Array([[1, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    return queries[:, None, :, None] & keys[:, None, None, :]


def causal_mask(valid: Bool[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
    """Allows every real position to look at itself and at real positions before it.

    >>> causal_mask(jnp.array([[True, True, False]]))[0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    length = valid.shape[1]
    lower = jnp.tril(jnp.ones((1, 1, length, length), bool))
    return pair_mask(valid, valid) & lower


def to_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turns a mask into what is added to scores: 0 where allowed, -1e10 elsewhere."""
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)
