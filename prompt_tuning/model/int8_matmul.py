"""Products of activations and int8 matrices, see `quantization.py`.

    int8        y = (x . float(kernel)) * scale
    int8_w8a8   y = (round(x / s) . kernel) * s * scale       s of each row: its magnitude / 127

Both have the gradient of y = x . (kernel * scale) with respect to x: rounding x counts as the
identity (straight-through). int8 values are exact in bfloat16, and a scale is multiplied after the
sum, in float32. Nothing but the int8 matrix is kept for the backward pass.
"""

import functools

import jax
import jax.numpy as jnp

from prompt_tuning.model.quantization import LARGEST
from prompt_tuning.shapes import Array, Float, Int

_BLOCK = 2**25  # values of a matrix that are converted at a time


def multiply(
    x: Float[Array, "*B I"],
    kernel: Int[Array, "_ _"],
    scale: Float[Array, " O"],
    *,
    dtype: jnp.dtype,
    rounds_x: bool = False,
    by_rows: bool = False,
) -> Float[Array, "*B O"]:
    """Multiplies x by an int8 matrix.

    Args:
      x: bfloat16, or converted to float32.
      kernel: the matrix [I, O]; or its transpose [O, I], if `by_rows`.
      scale: of each output.
      dtype: of the result.
      rounds_x: round x to int8, too.
      by_rows: the matrix is a table whose rows are the outputs.
    """
    factors = jnp.dtype("bfloat16" if x.dtype == jnp.bfloat16 else "float32")
    rows = x.reshape(-1, x.shape[-1]).astype(factors)
    y = _multiply(int(by_rows), rounds_x, jnp.dtype(dtype), factors, rows, kernel, scale[None])
    return y.reshape(*x.shape[:-1], y.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _multiply(axis, rounds_x, dtype, factors, x, kernel, scale):
    """`axis` of the kernel is multiplied; `factors` is the type of x [M, I] and of its gradient."""
    if rounds_x:
        x, of_rows = round_rows(x)
        y = _dot(x, kernel, axis, jnp.int32).astype(jnp.float32) * of_rows * scale
    else:
        y = _dot_of_floats(x, kernel, axis) * scale
    return y.astype(dtype)


def _forward(axis, rounds_x, dtype, factors, x, kernel, scale):
    return _multiply(axis, rounds_x, dtype, factors, x, kernel, scale), (kernel, scale)


def _backward(axis, rounds_x, dtype, factors, kept, gradient):
    kernel, scale = kept
    gradient = (gradient.astype(jnp.float32) * scale).astype(factors)
    return _dot_of_floats(gradient, kernel, 1 - axis).astype(factors), None, None


_multiply.defvjp(_forward, _backward)


def round_rows(x: Float[Array, "M I"]) -> tuple[Int[Array, "M I"], Float[Array, "M 1"]]:
    """Rounds each row to int8 by its own scale; returns both."""
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1) / LARGEST
    return jnp.rint(x / scale).astype(jnp.int8), scale


def _dot_of_floats(x, matrix, axis):
    """The product with a matrix that is converted to the type of x, the rows of a block at a time.

    A large matrix, such as that of the logits, would take several times its memory otherwise.
    """
    rows = len(matrix)
    count = next(n for n in range(1, rows + 1) if rows % n == 0 and matrix.size <= n * _BLOCK)
    if count == 1:
        return _dot(x, matrix.astype(x.dtype), axis, jnp.float32)
    blocks = matrix.reshape(count, rows // count, -1)
    if axis == 1:
        parts = jax.lax.map(lambda block: _dot(x, block.astype(x.dtype), 1, jnp.float32), blocks)
        return jnp.moveaxis(parts, 0, 1).reshape(len(x), rows)

    def add(total, parts):
        x, block = parts
        return total + _dot(x, block.astype(x.dtype), 0, jnp.float32), None

    parts = jnp.moveaxis(x.reshape(len(x), count, -1), 1, 0)
    empty = jnp.zeros((len(x), matrix.shape[1]), jnp.float32)
    return jax.lax.scan(add, empty, (parts, blocks))[0]


def _dot(x, matrix, axis, dtype):
    return jax.lax.dot_general(x, matrix, (((1,), (axis,)), ((), ())), preferred_element_type=dtype)
