"""Tests of prompt_tuning/prompts/prompt.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import trees
from prompt_tuning.model.inputs import as_inputs, reserve_prompt
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import (
    PROMPT_PATH,
    JoinPrompt,
    Prompt,
    fill_places,
    soft_prompt_hooks,
)

CONFIG = T5Config(
    name="test",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
TOKENS = np.array([[5, 6, 1], [7, 1, 0]], np.int32)
PROMPT = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
EMBEDDED = np.array([[[5.0, 5.0], [6.0, 6.0]]], np.float32)
INPUTS = as_inputs(np.array([[5, 0]], np.int32))


def joined(position, embedded=EMBEDDED):
    """What `JoinPrompt` makes of two tokens, the second padding; reserved positions hold 9."""
    inputs = reserve_prompt(INPUTS, length=2, position=position)
    room = [(2, 0) if position == "prefix" else (0, 2)]
    longer = jnp.pad(embedded, [(0, 0), *room, (0, 0)], constant_values=9)
    params = {"params": {"prompt": {"prompt": PROMPT}}}
    return JoinPrompt(length=2).apply(params, longer, inputs), inputs


def test_prefix_comes_first():
    rows, inputs = joined("prefix")
    np.testing.assert_array_equal(rows, [[[1, 2], [3, 4], [5, 5], [6, 6]]])
    np.testing.assert_array_equal(inputs.valid, [[True, True, True, False]])
    np.testing.assert_array_equal(inputs.tokens, [[0, 0, 5, 0]])
    np.testing.assert_array_equal(inputs.positions, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(inputs.prompt_places, [[0, 1, -1, -1]])


def test_suffix_comes_after_the_padding():
    rows, inputs = joined("suffix")
    np.testing.assert_array_equal(rows, [[[5, 5], [6, 6], [1, 2], [3, 4]]])
    np.testing.assert_array_equal(inputs.valid, [[True, False, True, True]])
    np.testing.assert_array_equal(inputs.positions, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(inputs.prompt_places, [[-1, -1, 0, 1]])


def test_prompt_is_cast_to_the_activations():
    rows, _ = joined("prefix", EMBEDDED.astype(jnp.bfloat16))
    assert rows.dtype == jnp.bfloat16


PLACES = np.array([[0, 1, -1, 0, 1, -1], [-1, 0, 1, -1, -1, -1]])


def test_places_differ_by_row_and_repeat():
    """The places of two packed examples in one row, and of one example in the other."""
    embedded = jnp.full((2, 6, 2), 9.0)
    found = fill_places(embedded, jnp.asarray(PLACES), PROMPT)
    assert found[0].tolist() == [[1, 2], [3, 4], [9, 9], [1, 2], [3, 4], [9, 9]]
    assert found[1].tolist() == [[9, 9], [1, 2], [3, 4], [9, 9], [9, 9], [9, 9]]
    prompts = np.stack([PROMPT, 10 * PROMPT])  # one for each row
    found = fill_places(embedded, jnp.asarray(PLACES), prompts)
    assert found[1].tolist() == [[9, 9], [10, 20], [30, 40], [9, 9], [9, 9], [9, 9]]


def test_places_known_while_tracing_fill_the_same_without_a_gather():
    embedded = jnp.full((2, 6, 2), 9.0)
    known = fill_places(embedded, PLACES[:1], PROMPT)
    np.testing.assert_array_equal(known, fill_places(embedded, jnp.asarray(PLACES[:1]), PROMPT))
    assert "gather" not in str(
        jax.make_jaxpr(lambda x: fill_places(x, PLACES[:1], PROMPT))(embedded)
    )


def test_a_place_beyond_the_prompt_is_not_a_number():
    found = fill_places(jnp.zeros((1, 2, 2)), jnp.array([[2, -1]]), PROMPT)
    assert np.isnan(found[0, 0]).all() and found[0, 1].tolist() == [0, 0]


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_places_reserved_in_the_data_give_the_same_logits(position):
    """Reserved before the model is called, as arrays of each row, against reserved by `encode`."""
    model = Transformer(CONFIG, soft_prompt_hooks(length=2, position=position))
    params = model.init(jax.random.key(0), TOKENS, TOKENS, TOKENS)
    by_model = model.apply(params, TOKENS, TOKENS, TOKENS)
    inputs = reserve_prompt(as_inputs(TOKENS), length=2, position=position)
    assert inputs.tokens.shape == (2, 5)
    inputs = inputs._replace(prompt_places=jnp.tile(inputs.prompt_places, (2, 1)))
    by_data = jax.jit(model.apply)(params, inputs, TOKENS, TOKENS)
    np.testing.assert_allclose(by_data, by_model, atol=1e-5)


def test_places_without_a_prompt_are_refused():
    inputs = reserve_prompt(as_inputs(TOKENS), length=2)
    with pytest.raises(ValueError, match="nothing at Hooks.encoder_input fills them. Use a model"):
        Transformer(CONFIG).init(jax.random.key(0), inputs, TOKENS, TOKENS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (reserve_prompt(INPUTS, length=1), "without places for a prompt, got some that have them"),
        (INPUTS._replace(segment_ids=INPUTS.tokens), "pack several into a row. Reserve the places"),
    ],
)
def test_what_cannot_be_reserved(inputs, message):
    with pytest.raises(ValueError, match=message):
        reserve_prompt(inputs, length=2)
    with pytest.raises(ValueError, match="one of .'prefix', 'suffix'.; got 'infix'"):
        reserve_prompt(INPUTS, length=2, position="infix")


def test_the_parameter_is_at_its_path_as_float32():
    model = Transformer(CONFIG, soft_prompt_hooks(length=3))
    flat = trees.flatten(model.init(jax.random.key(0), TOKENS, TOKENS, TOKENS)["params"])
    bare = trees.flatten(Transformer(CONFIG).init(jax.random.key(0), *[TOKENS] * 3)["params"])
    assert set(flat) - set(bare) == {PROMPT_PATH}
    assert flat[PROMPT_PATH].shape == (3, 8)
    assert flat[PROMPT_PATH].dtype == jnp.float32


def test_embedded_tokens_as_prompt_are_the_tokens():
    """A prompt made of the embeddings of [9, 4] is equal to those two tokens before the input."""
    model = Transformer(CONFIG, soft_prompt_hooks(length=2))
    params = model.init(jax.random.key(0), TOKENS, TOKENS, TOKENS)["params"]
    table = params["token_embedder"]["embedding"]
    flat = trees.flatten(params) | {PROMPT_PATH: table[jnp.array([9, 4])]}
    with_prompt = model.apply({"params": trees.unflatten(flat)}, TOKENS, TOKENS, TOKENS)
    del flat[PROMPT_PATH]
    longer = np.concatenate([np.tile([[9, 4]], (2, 1)), TOKENS], axis=1).astype(np.int32)
    without = Transformer(CONFIG).apply({"params": trees.unflatten(flat)}, longer, TOKENS, TOKENS)
    np.testing.assert_allclose(with_prompt, without, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "whole number, 1 or more; got 0"),
        ({"length": 5, "position": "middle"}, "one of .'prefix', 'suffix'.; got 'middle'"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_prompt_hooks(**arguments)


# A prompt of its own for each row


def reserved(position, inputs=INPUTS, lengths=(2, 1)):
    """Two rows, with room for two vectors."""
    rows = as_inputs(np.array([[5, 6, 1], [7, 1, 0]], np.int32)) if inputs is INPUTS else inputs
    rows = rows._replace(prompt_lengths=np.array(lengths, np.int32))
    return reserve_prompt(rows, length=2, position=position)


def test_the_padding_of_a_shorter_prefix_is_behind_the_row():
    inputs = reserved("prefix")
    np.testing.assert_array_equal(inputs.tokens, [[0, 0, 5, 6, 1], [0, 7, 1, 0, 0]])
    np.testing.assert_array_equal(inputs.valid, [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(inputs.prompt_places, [[0, 1, -1, -1, -1], [0, -1, -1, -1, -1]])
    np.testing.assert_array_equal(inputs.positions, [[0, 1, 2, 3, 4]])


def test_the_padding_of_a_shorter_suffix_is_behind_the_row():
    inputs = reserved("suffix")
    np.testing.assert_array_equal(inputs.tokens, [[5, 6, 1, 0, 0], [7, 1, 0, 0, 0]])
    np.testing.assert_array_equal(inputs.valid, [[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(inputs.prompt_places, [[-1, -1, -1, 0, 1], [-1, -1, -1, 0, -1]])
    np.testing.assert_array_equal(inputs.positions, [[0, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("prefix", [[0, 1, 2, 11, 4], [0, 6, 9, 10, 1]]),
        ("suffix", [[0, 9, 2, 3, 4], [5, 8, 9, 3, 0]]),
    ],
)
def test_positions_of_each_row_move_with_its_tokens(position, expected):
    """Positions that are not 0, 1, 2; those of the padding behind a row do not matter."""
    tokens = as_inputs(np.array([[5, 6, 1], [7, 1, 0]], np.int32))
    positions = np.array([[0, 9, 2], [5, 8, 9]], np.int32)
    inputs = reserved(position, tokens._replace(positions=positions))
    np.testing.assert_array_equal(inputs.positions, expected)


def test_each_row_takes_its_own_prompt_as_long_as_it_is():
    """Two rows of the second prompt, as long as two vectors and one; embedded tokens hold 9."""
    inputs = reserved("prefix")._replace(prompt_ids=np.array([1, 1]))
    stack = np.stack([PROMPT, 10 * PROMPT])
    params = {"params": {"prompt": {"prompt": stack}}}
    module = JoinPrompt(length=2, vectors=functools.partial(Prompt, 2, count=2))
    rows = module.apply(params, jnp.full((2, 5, 2), 9.0), inputs)
    np.testing.assert_array_equal(rows[0], [[10, 20], [30, 40], [9, 9], [9, 9], [9, 9]])
    np.testing.assert_array_equal(rows[1], [[10, 20], [9, 9], [9, 9], [9, 9], [9, 9]])
