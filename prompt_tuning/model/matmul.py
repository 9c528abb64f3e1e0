"""Products of activations and parameters, by the type of the parameter.

Products of bfloat16 are summed in float32 and rounded once, forward and backward. XLA would
convert both factors to float32 on a CPU, which takes four times as long; on TPUs and GPUs the
result is the same.
"""

import functools

import jax
import jax.numpy as jnp

from prompt_tuning.model import int8_matmul
from prompt_tuning.shapes import Array, Float, Int


def multiply(
    x: Float[Array, "..."],
    kernel: Float[Array, "I O"] | Int[Array, "I O"],
    scale: Float[Array, " O"] | None = None,
    *,
    rounds_x: bool = False,
    contracted: int = 1,
    features: tuple[int, ...],
    dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Multiplies the last `contracted` dimensions of x by a matrix.

    Args:
      x: [..., I], I in one or several dimensions.
      kernel: the matrix.
      scale: of each column of an int8 matrix.
      rounds_x: round x to int8, too, see `int8_matmul.py`.
      contracted: dimensions of x that make up I.
      features: dimensions that make up O.
      dtype: of the result.
    """
    if scale is not None:
        rows = x.reshape(*x.shape[:-contracted], kernel.shape[0])
        y = int8_matmul.multiply(rows, kernel, scale, dtype=dtype, rounds_x=rounds_x)
        return y.reshape(*x.shape[:-contracted], *features)
    # Float32 logits of a bfloat16 model: nothing is gained by converting its factors first.
    factors = jnp.bfloat16 if x.dtype == kernel.dtype == jnp.bfloat16 else dtype
    matrix = jnp.asarray(kernel, factors)
    x = x.astype(factors)
    if factors == jnp.float32:
        return jnp.tensordot(x, matrix.reshape(*x.shape[-contracted:], *features), axes=contracted)
    rows = x.reshape(-1, matrix.shape[0])
    y = einsum("mi,io->mo", rows, matrix, dtype)
    return y.reshape(*x.shape[:-contracted], *features)


def einsum(
    spec: str, a: Float[Array, "..."], b: Float[Array, "..."], dtype: jnp.dtype
) -> Float[Array, "..."]:
    """Einstein summation of two factors of one type, summed in float32.

    Args:
      spec: as `jnp.einsum` takes it, without an ellipsis; every index of a factor is in the other
        factor or in the result.
      a, b: the factors.
      dtype: of the result.
    """
    if a.dtype == b.dtype == jnp.bfloat16:
        return _bfloat16_einsum(spec, dtype, a, b)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _bfloat16_einsum(spec, dtype, a, b):
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32).astype(dtype)


def _bfloat16_einsum_forward(spec, dtype, a, b):
    return _bfloat16_einsum(spec, dtype, a, b), (a, b)


def _bfloat16_einsum_backward(spec, dtype, kept, gradient):
    a, b = kept
    factors, result = spec.split("->")
    of_a, of_b = factors.split(",")
    gradient = gradient.astype(jnp.bfloat16)
    return (
        _bfloat16_einsum(f"{result},{of_b}->{of_a}", jnp.bfloat16, gradient, b),
        _bfloat16_einsum(f"{of_a},{result}->{of_b}", jnp.bfloat16, a, gradient),
    )


_bfloat16_einsum.defvjp(_bfloat16_einsum_forward, _bfloat16_einsum_backward)


def dequantized(
    kernel: Float[Array, "I O"] | Int[Array, "I O"],
    scale: Float[Array, " O"] | None,
    dtype: jnp.dtype,
) -> Float[Array, "I O"]:
    """The matrix in the given type."""
    return jnp.asarray(kernel, dtype) if scale is None else (kernel * scale[None]).astype(dtype)


def multiply_rows(
    x: Float[Array, "*B H"],
    table: Float[Array, "V H"] | Int[Array, "V H"],
    scale: Float[Array, " V"] | None,
) -> Float[Array, "*B V"]:
    """Multiplies x by every row of an embedding table, in float32."""
    if scale is not None:
        return int8_matmul.multiply(x, table, scale, dtype=jnp.float32, by_rows=True)
    if not x.dtype == table.dtype == jnp.bfloat16:
        return jnp.matmul(x.astype(jnp.float32), jnp.asarray(table, jnp.float32).T)
    scores = einsum("mh,vh->mv", x.reshape(-1, x.shape[-1]), table, jnp.float32)
    return scores.reshape(*x.shape[:-1], len(table))
