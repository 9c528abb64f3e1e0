"""Tests of prompt_tuning/model/layers.py and masks.py, with numbers computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import t5x_tiny

from prompt_tuning.model import masks
from prompt_tuning.model.inputs import as_inputs
from prompt_tuning.model.layers import (
    RelativePositionBias,
    RMSNorm,
    relative_position_bucket,
)


def test_norm_divides_by_the_root_mean_square():
    # mean square of (3, 4) is 12.5, its root 3.5355
    y = RMSNorm().apply({"params": {"scale": jnp.array([1.0, 2.0])}}, jnp.array([[3.0, 4.0]]))
    np.testing.assert_allclose(y, [[0.848528, 2.262742]], rtol=1e-5)


def test_buckets_to_the_left_of_the_encoder():
    """Distances 0 to 7 have a bucket each; 8 to 127 share eight; all beyond share the last."""
    back = -np.array([0, 1, 7, 8, 11, 12, 16, 23, 32, 64, 90, 91, 127, 128, 5000])
    expected = [0, 1, 7, 8, 8, 9, 10, 11, 12, 14, 14, 15, 15, 15, 15]
    assert relative_position_bucket(back, bidirectional=True).tolist() == expected


def test_buckets_to_the_right_come_after_the_left_ones():
    ahead = np.array([1, 7, 8, 128])
    assert relative_position_bucket(ahead, bidirectional=True).tolist() == [17, 23, 24, 31]


def test_causal_buckets_use_all_32_for_the_past():
    distance = np.array([5, 0, -1, -15, -16, -17, -32, -64, -113, -5000])
    expected = [0, 0, 1, 15, 16, 16, 21, 26, 31, 31]
    assert relative_position_bucket(distance, bidirectional=False).tolist() == expected


def test_the_position_bias_has_the_activations_precision_in_float32():
    """T5X rounds the table to the dtype of the activations: 0.1 is 0.10009765625 in bfloat16."""
    config = dataclasses.replace(t5x_tiny.CONFIG, dtype="bfloat16")
    table = {"params": {"rel_embedding": np.full((4, 32), 0.1, np.float32)}}
    positions = np.arange(3)[None]
    bias = RelativePositionBias(config, bidirectional=True).apply(table, positions, positions)
    assert bias.dtype == jnp.float32 and bias.shape == (1, 4, 3, 3)
    assert (np.asarray(bias) == 0.10009765625).all()


def test_the_position_bias_follows_the_positions_of_each_row():
    """The table holds the number of its bucket: 0, 1, 2 to the left, 17, 18 to the right."""
    table = {"params": {"rel_embedding": np.tile(np.arange(32, dtype=np.float32), (4, 1))}}
    positions = np.array([[0, 1, 2], [0, 1, 0]])
    module = RelativePositionBias(t5x_tiny.CONFIG, bidirectional=True)
    bias = module.apply(table, positions, positions)
    assert bias.shape == (2, 4, 3, 3)
    assert bias[0, 3].tolist() == [[0, 17, 18], [1, 0, 17], [2, 1, 0]]
    assert bias[1, 3].tolist() == [[0, 17, 0], [1, 0, 1], [0, 17, 0]]


def test_masks_look_as_drawn():
    inputs = as_inputs(jnp.array([[7, 8, 1], [7, 1, 0]]))
    expected = [
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
    ]
    np.testing.assert_array_equal(masks.causal_mask(inputs)[:, 0], expected)


def test_masked_scores_get_no_weight():
    bias = masks.to_bias(jnp.array([[[[True, False, True]]]]))
    weights = jax.nn.softmax(jnp.array([[[[1.0, 50.0, 1.0]]]]) + bias)
    np.testing.assert_allclose(weights[0, 0, 0], [0.5, 0.0, 0.5])
