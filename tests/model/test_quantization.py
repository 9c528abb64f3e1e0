"""Tests of prompt_tuning/model/quantization.py and int8_matmul.py: int8 parameters in the model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5x_tiny

from prompt_tuning import trees
from prompt_tuning.model import int8_matmul, matmul
from prompt_tuning.model.compute import Compute, compiler_options
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.quantization import KINDS, quantize
from prompt_tuning.model.stacking import stack
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

CONFIG = t5x_tiny.CONFIG


def test_columns_of_a_matrix_and_rows_of_a_table_have_a_scale():
    matrix = np.array([[1.27, 0, -254], [-0.635, 0, 2]], np.float32)
    made = quantize("encoder/mlp/wo/kernel", matrix, "int8")
    np.testing.assert_array_equal(made["encoder/mlp/wo/kernel"], [[127, 0, -127], [-64, 0, 1]])
    np.testing.assert_allclose(made["encoder/mlp/wo/kernel_scale"], [0.01, 1 / 127, 2])
    assert made["encoder/mlp/wo/kernel"].dtype == np.int8
    table = quantize("token_embedder/embedding", matrix, "int8_w8a8")
    np.testing.assert_array_equal(table["token_embedder/embedding"][1], [-40, 0, 127])
    np.testing.assert_allclose(table["token_embedder/embedding_scale"], [2, 2 / 127])


def test_many_blocks_are_rounded_as_one(monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    whole = [quantize(path, matrix, "int8") for path in ("a/kernel", "a/embedding")]
    monkeypatch.setattr("prompt_tuning.model.quantization._BLOCK", 10)
    for path, expected in zip(("a/kernel", "a/embedding"), whole, strict=True):
        assert trees.diff(quantize(path, matrix, "int8"), expected).is_empty


@pytest.mark.parametrize("path", ["encoder/relpos_bias/rel_embedding", "a/encoder_norm/scale"])
def test_the_rest_stays_float32(path):
    (made,) = quantize(path, np.ones((2, 3), jnp.bfloat16), "int8").items()
    assert made[0] == path and made[1].dtype == np.float32


@pytest.mark.parametrize("rounds_x", [False, True])
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_product_and_its_gradient_are_those_of_the_dequantized_matrix(rounds_x, by_rows):
    """Rounding x is computed naively here, and counts as the identity in the gradient."""
    rng = np.random.default_rng(1)
    x, g = (rng.normal(size=(2, 3, n)).astype(np.float32) for n in (16, 8))
    kernel = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, 8).astype(np.float32)
    given = kernel.T if by_rows else kernel

    def product(x):
        return int8_matmul.multiply(
            x, given, scale, dtype=jnp.float32, rounds_x=rounds_x, by_rows=by_rows
        )

    def naive(x):
        if rounds_x:
            step = jnp.abs(x).max(axis=-1, keepdims=True) / 127
            x = x + jax.lax.stop_gradient(jnp.round(x / step) * step - x)
        return x @ (kernel * scale)

    found, pull = jax.vjp(product, x)
    expected, pull_naive = jax.vjp(naive, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(g)[0], pull_naive(g)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_large_matrix_is_converted_a_block_at_a_time(by_rows, monkeypatch):
    rng = np.random.default_rng(1)
    x, g = (rng.normal(size=(3, n)).astype(np.float32) for n in (16, 8))
    kernel = rng.integers(-127, 128, (8, 16) if by_rows else (16, 8)).astype(np.int8)
    scale = np.ones(8, np.float32)

    def outcome():
        multiply = functools.partial(
            int8_matmul.multiply, kernel=kernel, scale=scale, dtype=jnp.float32, by_rows=by_rows
        )
        y, pull = jax.vjp(multiply, x)
        return y, *pull(g)

    whole = outcome()
    monkeypatch.setattr(int8_matmul, "_BLOCK", 40)
    assert "scan" in str(jax.make_jaxpr(outcome)())
    for one, other in zip(outcome(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.fixture(scope="module")
def params():
    prompt = np.random.default_rng(1).normal(size=(5, CONFIG.emb_dim)).astype(np.float32)
    return t5x_tiny.parameters() | {PROMPT_PATH: prompt}


def rounded(params, kind):
    return trees.merge(*(quantize(path, leaf, kind) for path, leaf in params.items()))


def logits_and_prompt_gradient(params, compute=Compute()):
    rng = np.random.default_rng(0)
    tokens, targets = (rng.integers(2, CONFIG.vocab_size, shape) for shape in ((3, 9), (3, 4)))
    flat = stack(params) if compute.layers == "scan" else params
    model = Transformer(CONFIG, soft_prompt_hooks(length=5), compute)

    weights = rng.normal(size=(3, 4, CONFIG.vocab_size)).astype(np.float32)

    def loss(prompt):
        given = trees.unflatten(flat | {PROMPT_PATH: prompt})
        logits = model.apply({"params": given}, tokens, targets, targets)
        return jnp.sum(logits * weights), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params[PROMPT_PATH])
    return np.asarray(logits), np.asarray(gradient)


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("kind", "bounds"), [("int8", (0.05, 0.15)), ("int8_w8a8", (0.07, 0.2))])
def test_a_model_of_int8_is_near_that_of_float32(params, kind, bounds):
    """Bounds for the logits and the gradient; a tiny model amplifies rounding."""
    exact = logits_and_prompt_gradient(params)
    found = logits_and_prompt_gradient(rounded(params, kind))
    for one, expected, bound in zip(found, exact, bounds, strict=True):
        assert 0.001 < error(one, expected) < bound


def test_a_model_of_int8_is_that_of_its_dequantized_parameters(params):
    int8 = rounded(params, "int8")
    floats = {}
    for path, leaf in params.items():
        scale = int8.get(path + "_scale")
        if scale is None:
            floats[path] = leaf
        else:
            scale = scale[:, None] if path.endswith("embedding") else scale
            floats[path] = int8[path] * scale
    found, expected = map(logits_and_prompt_gradient, (int8, floats))
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_scanned_int8_layers_compute_the_same(params, kind):
    int8 = rounded(params, kind)
    plain = logits_and_prompt_gradient(int8)
    scanned = logits_and_prompt_gradient(int8, Compute("scan", "layer"))
    for one, other in zip(plain, scanned, strict=True):
        assert error(one, other) < 1e-5


def test_only_the_matrices_of_one_layer_are_converted_at_a_time():
    config = dataclasses.replace(
        CONFIG, num_encoder_layers=12, num_decoder_layers=1, emb_dim=128, mlp_dim=512
    )
    shapes = parameter_shapes(config)
    rng = np.random.default_rng(0)
    floats = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    flat = stack(rounded(floats, "int8"))
    compute = Compute("scan", "layer")
    model = Transformer(config, soft_prompt_hooks(length=5), compute)
    tokens = np.full((1, 4), 3, np.int32)

    def loss(prompt, flat):
        given = trees.unflatten(flat | {PROMPT_PATH: prompt})
        return model.apply({"params": given}, tokens, tokens, tokens).sum()

    step = jax.jit(jax.grad(loss), compiler_options=compiler_options(compute, "cpu"))
    memory = step.lower(np.ones((5, 128), np.float32), flat).compile().memory_analysis()
    of_layers = sum(
        leaf.nbytes for path, leaf in floats.items() if path.startswith("encoder/layers_")
    )
    assert memory.temp_size_in_bytes < 0.5 * of_layers
    assert memory.argument_size_in_bytes < 0.5 * trees.size_in_bytes(floats)


def test_tied_logits_read_the_int8_table():
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    made = quantize("embedding", table, "int8")
    found = matmul.multiply_rows(x, made["embedding"], made["embedding_scale"])
    exact = x @ (made["embedding"] * made["embedding_scale"][:, None]).T
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    assert error(found, x @ table.T) < 0.01
