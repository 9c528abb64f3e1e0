"""Int8 parameters: which ones are rounded, how, and where their scales are.

    mlp/wo/kernel             [I, O]   float32  ->  int8, and mlp/wo/kernel_scale [O] float32
    token_embedder/embedding  [V, H]   float32  ->  int8, and token_embedder/embedding_scale [V]

A value is int8 times the scale of its output channel: a column of a matrix, a row of the embedding
table. The scale is the channel's largest magnitude / 127, so that zero stays zero (symmetric).
Norm scales, position biases and what a method adds stay float32.

    int8        matrices alone; activations are floats
    int8_w8a8   activations are rounded too, for each product by itself, and the name of a matrix's
                scale is kernel_scale_w8a8, by which the model knows
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.shapes import Array, Float, Int
from prompt_tuning.trees import FlatTree

WEIGHTS, WEIGHTS_AND_ACTIVATIONS = "int8", "int8_w8a8"
KINDS = (WEIGHTS, WEIGHTS_AND_ACTIVATIONS)
LARGEST = 127
_KERNEL, _TABLE = "kernel", "embedding"
_BLOCK = 2**24  # values that are rounded at a time


def quantize(path: str, leaf: np.ndarray, kind: str) -> FlatTree:
    """Rounds one parameter of a model, or leaves it in float32.

    Args:
      path: of the parameter.
      leaf: its values, in any type.
      kind: one of `KINDS`.

    Returns:
      The arrays that take its place, by path.

    >>> made = quantize('a/kernel', np.array([[1.0, 0.0], [-4.0, 254.0]]), 'int8')
    >>> made['a/kernel'], made['a/kernel_scale'] * 127
    (array([[  32,    0],
           [-127,  127]], dtype=int8), array([  4., 254.], dtype=float32))
    """
    name = path.rpartition("/")[2]
    if name == _KERNEL:
        suffix = "_scale" if kind == WEIGHTS else "_scale_w8a8"
        values, scale = _quantize_columns(leaf)
        return {path: values, path + suffix: scale}
    if name == _TABLE:
        values, scale = _quantize_rows(leaf)
        return {path: values, path + "_scale": scale}
    return {path: leaf.astype(np.float32)}


def _quantize_columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = np.zeros(matrix.shape[1], np.float32)
    for rows in _blocks(matrix):
        np.maximum(largest, np.abs(matrix[rows].astype(np.float32)).max(axis=0), out=largest)
    scale = _scale(largest)
    values = np.empty(matrix.shape, np.int8)
    for rows in _blocks(matrix):
        values[rows] = np.rint(matrix[rows].astype(np.float32) / scale)
    return values, scale


def _quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, scale = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for rows in _blocks(table):
        block = table[rows].astype(np.float32)
        scale[rows] = _scale(np.abs(block).max(axis=1))
        values[rows] = np.rint(block / scale[rows, None])
    return values, scale


def _blocks(matrix: np.ndarray) -> list[slice]:
    step = max(1, _BLOCK // matrix.shape[1])
    return [slice(start, start + step) for start in range(0, len(matrix), step)]


def _scale(largest: np.ndarray) -> np.ndarray:
    return np.where(largest > 0, largest, 1) / np.float32(LARGEST)


@jax.jit
def dequantized_table(table: Int[Array, "V H"], scale: Float[Array, " V"]) -> Float[Array, "V H"]:
    """An int8 embedding table in float32."""
    return table * scale[:, None]


def is_quantized(params: Mapping[str, jax.Array]) -> bool:
    """Whether some of the parameters are int8."""
    return any(leaf.dtype == jnp.int8 for leaf in params.values())
