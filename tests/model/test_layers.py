"""Tests of prompt_tuning/model/layers.py and masks.py, with numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.model import masks
from prompt_tuning.model.inputs import as_inputs
from prompt_tuning.model.layers import RMSNorm, relative_position_bucket


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
