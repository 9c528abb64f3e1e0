"""Scores, softmax and the weighted sum of values: the part of attention without parameters.

    scores = queries . keys + biases        weights = softmax(scores)        out = weights . values

T5 does not divide scores by sqrt(D) and adds a position bias. Scores and softmax are float32
whatever the activations are.
"""

import functools

import jax
import jax.numpy as jnp

from prompt_tuning.model import matmul
from prompt_tuning.model.compute import Compute
from prompt_tuning.shapes import Array, Float

Biases = tuple[Float[Array, "_ _ _ _"], ...]
"""What is added to scores, each [#B, #N, #Q, S]: several small ones instead of their sum, which
is [B, N, Q, S]."""

BLOCK = 128  # queries


def attend(
    queries: Float[Array, "B Q N I"],
    keys: Float[Array, "B Z N I"] | Float[Array, "B Z I"],
    values: Float[Array, "B Z N O"] | Float[Array, "B Z O"],
    biases: Biases,
    weights_mask: Float[Array, "B N 1 Z"] | None = None,
    *,
    compute: Compute = Compute(),
) -> Float[Array, "B Q N O"]:
    """Attends from each of Q positions to Z.

    Args:
      queries: of N heads.
      keys, values: of each head, or the same ones for all heads.
      biases: see `Biases`.
      weights_mask: dropout of the weights, see `dropout.py`; None drops nothing.
      compute: `attention` and `remat` apply.
    """
    if compute.attention == "cudnn" and weights_mask is None and keys.ndim == 4:
        bias = functools.reduce(jnp.add, biases).astype(queries.dtype)
        return jax.nn.dot_product_attention(
            queries, keys, values, bias, scale=1.0, implementation="cudnn"
        )
    if compute.attention == "blockwise" and queries.shape[1] > BLOCK:
        return _blockwise(queries, keys, values, biases, weights_mask)
    plain = _plain if compute.remat == "none" else jax.checkpoint(_plain)
    return plain(queries, keys, values, biases, weights_mask)


def _plain(queries, keys, values, biases, weights_mask):
    # Heads first: on a CPU the products of [S, D] matrices are the fastest.
    queries = jnp.swapaxes(queries, 1, 2)
    each = "n" if keys.ndim == 4 else ""
    if each:
        keys, values = jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)
    scores_BxNxQxZ = matmul.einsum(f"bnqd,b{each}zd->bnqz", queries, keys, jnp.float32)
    scores_BxNxQxZ += functools.reduce(jnp.add, biases)
    weights = jax.nn.softmax(scores_BxNxQxZ).astype(values.dtype)
    if weights_mask is not None:
        weights *= weights_mask
    out = matmul.einsum(f"bnqz,b{each}zd->bnqd", weights, values, values.dtype)
    return jnp.swapaxes(out, 1, 2)


def _blockwise(queries, keys, values, biases, weights_mask):
    """Runs blocks of queries one after the other; each is computed again in the backward pass.

    Scores of one block at a time are in memory, [B, N, 128, Z].
    """
    length = queries.shape[1]
    blocks = -(-length // BLOCK)
    padding = blocks * BLOCK - length

    def split(x, axis):
        width = [(0, 0)] * x.ndim
        width[axis] = (0, padding)
        shape = (*x.shape[:axis], blocks, BLOCK, *x.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(x, width).reshape(shape), axis, 0)

    by_query = [bias.shape[2] > 1 for bias in biases]
    blocked = tuple(split(bias, 2) for bias, own in zip(biases, by_query, strict=True) if own)
    shared = tuple(bias for bias, own in zip(biases, by_query, strict=True) if not own)

    @jax.checkpoint
    def of_block(block):
        some_queries, some_biases = block
        return _plain(some_queries, keys, values, (*some_biases, *shared), weights_mask)

    out = jax.lax.map(of_block, (split(queries, 1), blocked))
    out = jnp.moveaxis(out, 0, 1).reshape(queries.shape[0], blocks * BLOCK, *out.shape[3:])
    return out[:, :length]
