"""Tests of prompt_tuning/model/matmul.py."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.model import matmul

BFLOAT16 = jnp.dtype("bfloat16")


def draw(seed, *shape, dtype=BFLOAT16):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("spec", "a", "b"),
    [
        ("mi,io->mo", (6, 64), (64, 5)),
        ("bnqd,bnzd->bnqz", (2, 3, 4, 64), (2, 3, 5, 64)),
        ("bnqz,bzd->bnqd", (2, 3, 4, 64), (2, 64, 5)),
    ],
)
def test_bfloat16_products_and_their_gradients_are_rounded_once(spec, a, b):
    a, b = draw(0, *a), draw(1, *b)

    def of(einsum, dtype):
        y, pull = jax.vjp(lambda a, b: einsum(spec, a, b), a.astype(dtype), b.astype(dtype))
        return y, *pull(jnp.ones_like(y))

    found = of(lambda spec, a, b: matmul.einsum(spec, a, b, BFLOAT16), BFLOAT16)
    exact = of(lambda spec, a, b: jnp.einsum(spec, a, b, precision="highest"), jnp.float32)
    for one, expected in zip(found, exact, strict=True):
        assert one.dtype == BFLOAT16
        half_a_unit = 2.0 ** (np.floor(np.log2(np.abs(expected))) - 8)
        # a sum within rounding of the middle may go either way
        assert np.all(np.abs(one.astype(np.float32) - expected) <= half_a_unit * (1 + 1e-4))


def test_no_bfloat16_factor_is_converted():
    """Neither forward nor backward: XLA multiplies float32 at a fraction of the speed."""

    def loss(x, kernel):
        y = matmul.multiply(x, kernel, features=(4,), dtype=BFLOAT16)
        return jnp.sum(y.astype(jnp.float32))

    step = jax.jit(jax.grad(loss, (0, 1))).lower(draw(0, 2, 3, 8), draw(1, 8, 4))
    types = re.findall(r"dot_general .* : \((\S+), (\S+)\) -> (\S+)", step.as_text())
    assert len(types) == 2  # the forward product is not needed
    for a, b, y in types:
        assert a.endswith("bf16>") and b.endswith("bf16>") and y.endswith("f32>")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_float32(dtype):
    x, table = draw(0, 2, 3, 8, dtype=dtype), draw(1, 5, 8, dtype=dtype)
    exact = np.asarray(x, np.float64) @ np.asarray(table, np.float64).T
    for logits in (
        matmul.multiply_rows(x, table, None),
        matmul.multiply(x, table.T, features=(5,), dtype=jnp.dtype("float32")),
    ):
        assert logits.dtype == jnp.float32 and logits.shape == (2, 3, 5)
        np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)
