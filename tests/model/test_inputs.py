"""Tests of prompt_tuning/model/inputs.py: packed rows, positions, and the ways in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.model import masks
from prompt_tuning.model.decoding import generate, rank, score
from prompt_tuning.model.inputs import Inputs, as_decoder_inputs, as_inputs
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import soft_prompt_hooks

CONFIG = T5Config(
    name="test",
    vocab_size=32,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
MODEL = Transformer(CONFIG)
# Two examples, each alone in a row, and both in one.
ALONE = [
    (np.array([[5, 6, 7, 1]]), np.array([[0, 11, 12]]), np.array([[11, 12, 1]])),
    (np.array([[8, 1]]), np.array([[0, 21]]), np.array([[21, 1]])),
]
PACKED = Inputs(
    tokens=np.array([[5, 6, 7, 1, 8, 1, 0]]),
    valid=np.array([[True] * 6 + [False]]),
    positions=np.array([[0, 1, 2, 3, 0, 1, 0]]),
    segment_ids=np.array([[1, 1, 1, 1, 2, 2, 0]]),
)
PACKED_TARGETS = Inputs(
    tokens=np.array([[0, 11, 12, 0, 21, 0]]),
    valid=np.array([[True] * 5 + [False]]),
    positions=np.array([[0, 1, 2, 0, 1, 0]]),
    segment_ids=np.array([[1, 1, 1, 2, 2, 0]]),
)


@pytest.fixture(scope="module")
def params():
    return init(MODEL)


def init(model):
    """Parameters of the model's shapes, drawn with NumPy: nothing is compiled for them."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.5 * random.standard_normal(leaf.shape)).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), *ALONE[0]),
    )


def test_packed_masks_look_as_drawn():
    blocks = [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    inputs = Inputs(
        tokens=np.array([[7, 1, 1, 0]]),
        valid=np.array([[True, True, True, False]]),
        positions=np.array([[0, 1, 0, 0]]),
        segment_ids=np.array([[1, 1, 2, 0]]),
    )
    np.testing.assert_array_equal(masks.self_mask(inputs)[0, 0], blocks)
    np.testing.assert_array_equal(masks.causal_mask(inputs)[0, 0], np.tril(blocks))
    two = Inputs(*(np.array(x) for x in ([[0, 0]], [[True, True]], [[0, 0]], [[2, 1]])))
    np.testing.assert_array_equal(masks.cross_mask(two, inputs)[0, 0], [[0, 0, 1, 0], [1, 1, 0, 0]])


def test_packed_examples_equal_each_alone(params):
    packed = MODEL.apply(params, PACKED, PACKED_TARGETS)
    first, second = (MODEL.apply(params, *example) for example in ALONE)
    np.testing.assert_allclose(packed[0, :3], first[0], atol=1e-5)
    np.testing.assert_allclose(packed[0, 3:5], second[0], atol=1e-5)


def test_packed_examples_with_a_prompt_each_equal_each_alone():
    """Two places before each example; the hook fills both with the same prompt."""
    model = Transformer(CONFIG, soft_prompt_hooks(length=2))
    params = init(model)
    packed = Inputs(
        tokens=np.array([[0, 0, 5, 6, 7, 1, 0, 0, 8, 1, 0]]),
        valid=np.array([[True] * 10 + [False]]),
        positions=np.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0]]),
        segment_ids=np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0]]),
        prompt_places=jnp.array([[0, 1, -1, -1, -1, -1, 0, 1, -1, -1, -1]]),
    )
    found = model.apply(params, packed, PACKED_TARGETS)
    first, second = (model.apply(params, *example) for example in ALONE)
    np.testing.assert_allclose(found[0, :3], first[0], atol=1e-5)
    np.testing.assert_allclose(found[0, 3:5], second[0], atol=1e-5)
    assert np.abs(found[0, :3] - MODEL.apply(params, *ALONE[0])[0]).max() > 0.01


def test_without_segments_the_examples_mix(params):
    """Or the test above would prove nothing."""
    packed = MODEL.apply(
        params, PACKED._replace(segment_ids=None), PACKED_TARGETS._replace(segment_ids=None)
    )
    assert np.abs(packed[0, 3:5] - MODEL.apply(params, *ALONE[1])[0]).max() > 0.01


def test_relative_positions_and_validity_come_from_the_inputs(params):
    """Two real tokens with three ids 9 between them that are padding; the distance is still 1."""
    spread = Inputs(
        tokens=np.array([[8, 9, 9, 9, 1]]),
        valid=np.array([[True, False, False, False, True]]),
        positions=np.array([[0, 7, 7, 7, 1]]),
    )
    alone = MODEL.apply(params, ALONE[1][0], method="encode")
    found = MODEL.apply(params, spread, method="encode")
    np.testing.assert_allclose(found.values[:, [0, 4]], alone.values, atol=1e-5)
    far = spread._replace(positions=np.array([[0, 7, 7, 7, 5]]))
    found = MODEL.apply(params, far, method="encode")
    assert np.abs(found.values[:, [0, 4]] - alone.values).max() > 1e-3


def test_id_0_is_a_token_where_the_inputs_say_so(params):
    inputs = as_inputs(np.array([[5, 0, 1]]))
    real = inputs._replace(valid=np.ones((1, 3), bool))
    hidden, seen = (MODEL.apply(params, x, method="encode").values for x in (inputs, real))
    assert np.abs(hidden[:, 0] - seen[:, 0]).max() > 1e-3


def test_every_function_takes_ids_or_inputs(params):
    """The same numbers."""
    ids, fed, targets = ALONE[0]
    weights = params["params"]
    inputs, decoder = as_inputs(ids), as_decoder_inputs(fed, targets)
    np.testing.assert_array_equal(
        MODEL.apply(params, ids, fed, targets), MODEL.apply(params, inputs, decoder)
    )
    by_ids, by_inputs = (generate(MODEL, weights, x, max_decode_length=2) for x in (ids, inputs))
    np.testing.assert_array_equal(by_ids.tokens, by_inputs.tokens)
    for function in (score, rank):
        found = [function(MODEL, weights, x, targets) for x in (ids, inputs)]
        np.testing.assert_array_equal(*found)
    assert as_inputs(inputs) is inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PACKED, *ALONE[0][1:]), "got segment_ids for the inputs only. Set both or none"),
        ((ALONE[0][0], PACKED_TARGETS), "got segment_ids for the targets only. Set both or none"),
        ((ALONE[0][0], PACKED_TARGETS, ALONE[0][2]), "an Inputs alone, got target tokens as well"),
        (ALONE[0][:2], "expected target tokens with its input tokens, got none"),
    ],
)
def test_inputs_that_do_not_go_together(params, arguments, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(MODEL.apply, params, *arguments)


def test_packed_rows_are_neither_decoded_nor_scored(params):
    weights = params["params"]
    with pytest.raises(ValueError, match=r"got packed inputs \(segment_ids\). Give each example a"):
        generate(MODEL, weights, PACKED, max_decode_length=2)
    for function in (score, rank):
        with pytest.raises(ValueError, match="Scoring expected one example per row, got packed"):
            function(MODEL, weights, PACKED, ALONE[0][2])
