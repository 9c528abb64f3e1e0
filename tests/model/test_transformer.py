"""Tests of prompt_tuning/model/transformer.py against T5X, and of its general properties."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5x_tiny

from prompt_tuning import trees
from prompt_tuning.model.inputs import as_decoder_inputs
from prompt_tuning.model.transformer import Transformer

TINY = t5x_tiny.CONFIG
INPUT_NAMES = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")


@pytest.fixture(scope="module")
def vector(parity):
    return np.load(parity / "t5x_tiny" / "vector.npz")


@pytest.fixture(scope="module")
def params():
    return {"params": trees.unflatten(t5x_tiny.parameters())}


@pytest.fixture(scope="module")
def inputs(vector):
    return [vector[f"input:{name}"] for name in INPUT_NAMES]


def shapes_of(config):
    tokens = np.ones((1, 1), np.int32)
    made = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens, tokens, tokens)
    return {path: list(leaf.shape) for path, leaf in trees.flatten(made["params"]).items()}


def test_names_and_shapes_are_t5xs(parity):
    stored = json.loads((parity / "t5x_tiny" / "params.json").read_text())
    assert shapes_of(TINY) == {path: shape for path, (shape, _, _) in stored.items()}


def test_logits_equal_t5xs(params, inputs, vector):
    """At padding they are never read, and masked otherwise than T5X's."""
    logits = Transformer(TINY).apply(params, *inputs)
    expected, real = vector["output:logits"], inputs[2] > 0
    assert np.abs(logits - expected)[real].max() <= 1e-5 * np.abs(expected).max()


def test_encoder_output_equals_t5xs(params, inputs, vector):
    encoded = Transformer(TINY).apply(params, inputs[0], method="encode")
    real = inputs[0] > 0
    np.testing.assert_allclose(encoded.values[real], vector["output:encoded"][real], atol=1e-5)


def test_t5_1_0_ties_and_scales_its_logits(params, inputs):
    """The table is the logits matrix, with a factor of 1/sqrt(32)."""
    tied = dataclasses.replace(TINY, mlp_activations=("relu",), logits_via_embedding=True)
    untied = dataclasses.replace(tied, logits_via_embedding=False)
    made = Transformer(tied).init(jax.random.key(0), *inputs)["params"]
    assert "logits_dense" not in made["decoder"]
    assert set(made["decoder"]["layers_0"]["mlp"]) == {"wi", "wo"}
    table = made["token_embedder"]["embedding"]
    same = {**made, "decoder": {**made["decoder"], "logits_dense": {"kernel": table.T}}}
    scaled = Transformer(tied).apply({"params": made}, *inputs)
    plain = Transformer(untied).apply({"params": same}, *inputs)
    np.testing.assert_allclose(scaled * np.sqrt(32), plain, rtol=1e-4, atol=1e-4)


def test_decoder_is_causal(params, inputs):
    """The gradient of position 3's logits to a later decoder input is exactly zero."""
    model = Transformer(TINY)
    encoded = model.apply(params, inputs[0], method="encode")
    embedded = jax.random.normal(jax.random.key(0), (4, 7, 32))
    fed = as_decoder_inputs(inputs[1], jnp.ones((4, 7), jnp.int32))

    def position_3(embedded):
        logits = model.apply(params, method=lambda m: m.logits(m.decoder(embedded, fed, encoded)))
        return logits[:, 3].sum()

    reach = np.abs(jax.grad(position_3)(embedded)).sum((0, 2))
    assert (reach[4:] == 0).all()
    assert (reach[:4] > 0).all()


def test_padding_changes_nothing(params, inputs):
    """Two more padding tokens after the input leave the logits of real targets unchanged."""
    longer = np.pad(inputs[0], ((0, 0), (0, 2)))
    model = Transformer(TINY)
    real = inputs[2] > 0
    before, after = model.apply(params, *inputs), model.apply(params, longer, *inputs[1:])
    np.testing.assert_allclose(before[real], after[real], atol=1e-5)


def test_one_step_at_a_time_gives_the_same_logits(params, inputs):
    model = Transformer(TINY)
    whole = model.apply(params, *inputs)
    encoded = model.apply(params, inputs[0], method="encode")
    cache = model.apply(params, encoded, rows=4, length=7, method="start_decoding")
    for i in range(7):
        tokens = inputs[1][:, i : i + 1]
        logits, cache = model.apply(params, tokens, cache, jnp.int32(i), method="decode_step")
        real = inputs[2][:, i] > 0
        np.testing.assert_allclose(logits[real], whole[real, i], atol=1e-5)


def test_bfloat16_activations_stay_near_float32(params, inputs, vector):
    config = dataclasses.replace(TINY, dtype="bfloat16")
    logits = Transformer(config).apply(params, *inputs)
    assert logits.dtype == jnp.float32
    expected, real = vector["output:logits"], inputs[2] > 0
    assert np.abs(logits - expected)[real].max() < 0.05 * np.abs(expected).max()
