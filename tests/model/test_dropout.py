"""Tests of prompt_tuning/model/dropout.py: what is dropped, and what that depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5x_tiny
from flax import linen as nn

from prompt_tuning import trees
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.dropout import decoder_masks, draw, encoder_masks, fitted
from prompt_tuning.model.stacking import stack
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

HALF = dataclasses.replace(t5x_tiny.CONFIG, dropout_rate=0.5)
KEYS = jax.random.split(jax.random.key(0), 3)
TOKENS = np.array([[7, 8, 9, 1, 0, 0], [5, 1, 0, 0, 0, 0], [9, 8, 7, 6, 5, 1]], np.int32)
TARGETS = np.array([[7, 1, 0], [8, 1, 0], [9, 9, 1]], np.int32)
PROMPT = np.linspace(1, 2, 5 * HALF.emb_dim, dtype=np.float32).reshape(5, HALF.emb_dim)


@pytest.fixture(scope="module")
def params():
    return t5x_tiny.parameters() | {PROMPT_PATH: PROMPT}


def logits_of(params, tokens, targets, keys, compute=Compute(), config=HALF):
    model = Transformer(config, soft_prompt_hooks(length=5), compute)
    flat = stack(params) if compute.layers == "scan" else params
    given = {"params": trees.unflatten(flat)}
    return np.asarray(
        model.apply(given, tokens, targets, targets, dropout=masks_for(model, keys, tokens))
    )


def masks_for(model, keys, tokens):
    if keys is None:
        return None
    length = model.encoder_length(tokens.shape[1])
    return draw(keys, model.config, input_length=length, length=TARGETS.shape[1])


def test_masks_are_zero_or_two_and_shared_by_positions():
    masks = encoder_masks(KEYS, HALF, 9)
    wide, heads, hidden = HALF.emb_dim, HALF.num_heads, HALF.mlp_dim
    layers = HALF.num_encoder_layers
    assert masks.input.shape == (3, 1, wide)
    assert masks.output.shape == (3, 9, wide)  # the only one that differs between positions
    assert masks.layers.weights.shape == (layers, 3, heads, 1, 9)
    assert masks.layers.attention.shape == masks.layers.mlp.shape == (layers, 3, 1, wide)
    assert masks.layers.hidden.shape == (layers, 3, 1, hidden)
    for mask in jax.tree.leaves(masks):
        assert set(np.unique(mask).tolist()) == {0.0, 2.0}
    assert (masks.output[:, 0] != masks.output[:, 1]).any()


def test_the_share_that_is_dropped():
    config = dataclasses.replace(HALF, dropout_rate=0.1)
    output = np.asarray(encoder_masks(KEYS, config, 400).output)
    assert (output == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert output.max() == pytest.approx(1 / 0.9, rel=1e-6)


def test_layers_sublayers_rows_and_keys_draw_apart():
    masks = encoder_masks(KEYS, HALF, 9).layers
    assert (masks.attention[0] != masks.attention[1]).any()
    assert (masks.attention != masks.mlp).any()
    assert (masks.attention[:, 0] != masks.attention[:, 1]).any()
    others = encoder_masks(jax.random.split(jax.random.key(1), 3), HALF, 9).layers
    assert (masks.hidden != others.hidden).any()


def test_a_longer_draw_begins_as_a_shorter_one():
    short, long = (encoder_masks(KEYS, HALF, n) for n in (9, 14))
    np.testing.assert_array_equal(short.output, long.output[:, :9])
    np.testing.assert_array_equal(short.layers.weights, long.layers.weights[..., :9])
    np.testing.assert_array_equal(short.layers.hidden, long.layers.hidden)
    short, long = (decoder_masks(KEYS, HALF, n, n + 4) for n in (3, 5))
    np.testing.assert_array_equal(short.layers.weights, long.layers.weights[..., :3])
    np.testing.assert_array_equal(short.layers.cross_weights, long.layers.cross_weights[..., :7])


def test_the_part_of_a_longer_draw_that_fits_is_the_shorter_draw():
    short, long = (encoder_masks(KEYS, HALF, n) for n in (9, 14))
    jax.tree.map(np.testing.assert_array_equal, fitted(long, 9), short)
    short, long = (decoder_masks(KEYS, HALF, n, n + 4) for n in (3, 5))
    jax.tree.map(np.testing.assert_array_equal, fitted(long, 3, 7), short)


def test_several_targets_of_an_input_draw_apart():
    masks = decoder_masks(KEYS, HALF, 3, 7, rows=2)
    assert masks.layers.cross_weights.shape[1] == 3  # folded into the query axis
    assert masks.layers.attention.shape[1] == 6
    assert (masks.layers.attention[:, 0] != masks.layers.attention[:, 1]).any()
    one = decoder_masks(KEYS, HALF, 3, 7)
    np.testing.assert_array_equal(masks.layers.attention[:, ::2], one.layers.attention)


def test_dropout_needs_to_be_asked_for(params):
    still = logits_of(params, TOKENS, TARGETS, None)
    dropped = logits_of(params, TOKENS, TARGETS, KEYS)
    assert np.abs(still - dropped).max() > 0.01
    without = logits_of(
        params, TOKENS, TARGETS, KEYS, config=dataclasses.replace(HALF, dropout_rate=0.0)
    )
    np.testing.assert_array_equal(without, still)


@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_a_row_is_dropped_alike_alone_padded_and_scanned(params, layers):
    whole = logits_of(params, TOKENS, TARGETS, KEYS)
    for row in range(3):
        padded = np.pad(TOKENS[row : row + 1], ((0, 0), (0, 3)))
        alone = logits_of(
            params, padded, TARGETS[row : row + 1], KEYS[row : row + 1], Compute(layers)
        )
        real = TARGETS[row] > 0
        np.testing.assert_allclose(alone[0, real], whole[row, real], atol=2e-5)


def test_a_prompt_gets_dropout_as_the_tokens_do(params):
    """Layer 0 sees P + T positions, with the same units dropped in vectors and tokens."""
    seen = []

    def record(call, args, kwargs, context):
        if (
            "/".join(context.module.path) == "encoder/layers_0"
            and context.method_name == "__call__"
        ):
            seen.append(np.asarray(args[0]))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        logits_of(params, TOKENS, TARGETS, KEYS)
    (x,) = seen
    assert x.shape == (3, 5 + 6, HALF.emb_dim)
    for row in range(3):
        kept = (x[row] != 0).any(axis=0)
        assert kept.any() and not kept.all()
        np.testing.assert_allclose(x[row, :5], 2 * PROMPT * kept[None])


def test_the_gradient_of_the_prompt_is_that_of_a_batch_cut_in_two(params):
    def gradient(rows):
        def loss(prompt):
            flat = params | {PROMPT_PATH: prompt}
            model = Transformer(HALF, soft_prompt_hooks(length=5))
            given = {"params": trees.unflatten(flat)}
            masks = masks_for(model, KEYS[rows], TOKENS)
            out = model.apply(given, TOKENS[rows], TARGETS[rows], TARGETS[rows], dropout=masks)
            return jnp.sum(jax.nn.log_softmax(out)[..., 3] * (TARGETS[rows] > 0))

        return jax.grad(loss)(PROMPT)

    whole = gradient(np.array([0, 1, 2]))
    parts = gradient(np.array([2])) + gradient(np.array([0, 1]))
    np.testing.assert_allclose(parts, whole, atol=1e-5 * float(jnp.abs(whole).max()))
