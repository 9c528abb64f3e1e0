"""Products of activations and parameters, by the type of the parameter."""

import jax.numpy as jnp

from prompt_tuning.shapes import Array, Float


def multiply(
    x: Float[Array, "..."],
    kernel: Float[Array, "I O"],
    scale: Float[Array, " O"] | None = None,
    *,
    contracted: int = 1,
    features: tuple[int, ...],
    dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Multiplies the last `contracted` dimensions of x by a matrix.

    Args:
      x: [..., I], I in one or several dimensions.
      kernel: the matrix.
      scale: of each column of an int8 matrix.
      contracted: dimensions of x that make up I.
      features: dimensions that make up O.
      dtype: of the result.
    """
    matrix = dequantized(kernel, scale, dtype)
    matrix = matrix.reshape(*x.shape[-contracted:], *features)
    return jnp.tensordot(x.astype(dtype), matrix, axes=contracted)


def dequantized(
    kernel: Float[Array, "I O"], scale: Float[Array, " O"] | None, dtype: jnp.dtype
) -> Float[Array, "I O"]:
    """The matrix in the given type."""
    return jnp.asarray(kernel, dtype)


def multiply_rows(
    x: Float[Array, "*B H"], table: Float[Array, "V H"], scale: Float[Array, " V"] | None
) -> Float[Array, "*B V"]:
    """Multiplies x by every row of an embedding table, in float32."""
    return jnp.matmul(x.astype(jnp.float32), jnp.asarray(table, jnp.float32).T)
