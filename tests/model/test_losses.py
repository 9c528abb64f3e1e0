"""Numbers by hand: two ids with logits (0, log 3) have probabilities 1/4 and 3/4, and Z = 4."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from prompt_tuning.model.losses import cross_entropy_loss

LOG3, LOG4 = np.log(3.0), np.log(4.0)
# Two sequences of three targets; the second has one token. Id 1 costs log(4/3), id 2 costs log 4.
TARGETS = jnp.array([[1, 2, 1], [2, 0, 0]])
WEIGHTS = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
LIKELY, UNLIKELY = LOG4 - LOG3, LOG4


def logits_for(targets):
    """log 3 for id 1, 0 for id 2, and next to nothing for id 0."""
    return jnp.broadcast_to(jnp.array([-40.0, LOG3, 0.0]), (*targets.shape, 3))


def test_cross_entropy_of_known_probabilities():
    loss, sums = cross_entropy_loss(logits_for(TARGETS), TARGETS, WEIGHTS, z_loss=0.0)
    expected = 2 * LIKELY + 2 * UNLIKELY
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(sums.loss_sum, expected, rtol=1e-6)
    assert (float(sums.z_loss_sum), float(sums.n_tokens), float(sums.n_correct)) == (0.0, 4.0, 2.0)


def test_z_loss_is_the_coefficient_times_squared_log_z():
    loss, sums = cross_entropy_loss(logits_for(TARGETS), TARGETS, WEIGHTS, z_loss=0.5)
    np.testing.assert_allclose(sums.z_loss_sum, 4 * 0.5 * LOG4**2, rtol=1e-6)
    np.testing.assert_allclose(loss, 2 * LIKELY + 2 * UNLIKELY + 2 * LOG4**2, rtol=1e-6)


def test_the_default_z_loss_is_t5s():
    _, sums = cross_entropy_loss(logits_for(TARGETS), TARGETS, WEIGHTS)
    np.testing.assert_allclose(sums.z_loss_sum, 4 * 1e-4 * LOG4**2, rtol=1e-6)


def test_label_smoothing_by_hand():
    # Three ids with probabilities 1/4, 1/4, 1/2; the target, id 2, gets 0.8 and the others 0.1.
    logits = jnp.log(jnp.array([[[1.0, 1.0, 2.0]]]))
    loss, _ = cross_entropy_loss(logits, jnp.array([[2]]), label_smoothing=0.2, z_loss=0.0)
    cross_entropy = 0.8 * np.log(2.0) + 2 * 0.1 * LOG4
    entropy = -(0.8 * np.log(0.8) + 2 * 0.1 * np.log(0.1))
    np.testing.assert_allclose(loss, cross_entropy - entropy, rtol=1e-5)


def test_smoothed_loss_of_the_smoothed_target_itself_is_zero():
    logits = jnp.log(jnp.array([[[0.1, 0.1, 0.8]]]))
    loss, _ = cross_entropy_loss(logits, jnp.array([[2]]), label_smoothing=0.2, z_loss=0.0)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (None, 2 * LIKELY + 2 * UNLIKELY),
        (8, (2 * LIKELY + 2 * UNLIKELY) / 8),
        (0.5, (2 * LIKELY + 2 * UNLIKELY) / 0.5),
        ("NUM_REAL_TARGET_TOKENS", (2 * LIKELY + 2 * UNLIKELY) / 4),
        ("NUM_TOTAL_TARGET_TOKENS", (2 * LIKELY + 2 * UNLIKELY) / 6),
        ("AVERAGE_PER_SEQUENCE", ((2 * LIKELY + UNLIKELY) / 3 + UNLIKELY) / 2),
        ("average_per_sequence", ((2 * LIKELY + UNLIKELY) / 3 + UNLIKELY) / 2),
    ],
)
def test_loss_normalizing_factor(factor, expected):
    loss, sums = cross_entropy_loss(
        logits_for(TARGETS), TARGETS, WEIGHTS, z_loss=0.0, loss_normalizing_factor=factor
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(sums.loss_sum, 2 * LIKELY + 2 * UNLIKELY, rtol=1e-6)


def test_average_per_sequence_leaves_out_empty_sequences():
    targets = jnp.array([[1, 2, 1], [0, 0, 0]])
    loss, _ = cross_entropy_loss(
        logits_for(targets), targets, z_loss=0.0, loss_normalizing_factor="AVERAGE_PER_SEQUENCE"
    )
    np.testing.assert_allclose(loss, (2 * LIKELY + UNLIKELY) / 3, rtol=1e-6)


@pytest.mark.parametrize("factor", [None, "NUM_REAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"])
def test_a_batch_without_targets_has_loss_zero_and_gradient_zero(factor):
    targets = jnp.zeros((2, 3), jnp.int32)

    def loss(logits):
        return cross_entropy_loss(logits, targets, loss_normalizing_factor=factor)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3, 4)))
    assert value == 0
    assert not gradient.any()


def test_without_weights_padding_does_not_count():
    with_weights, _ = cross_entropy_loss(logits_for(TARGETS), TARGETS, WEIGHTS)
    without, _ = cross_entropy_loss(logits_for(TARGETS), TARGETS)
    assert with_weights == without


def test_positions_without_weight_get_no_gradient():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    gradient = jax.grad(lambda x: cross_entropy_loss(x, TARGETS, WEIGHTS)[0])(logits)
    assert not gradient[1, 1:].any()
    assert gradient[0].any(axis=-1).all() and gradient[1, 0].any()


def test_gradient_is_probability_minus_target():
    logits = jnp.log(jnp.array([[[1.0, 1.0, 2.0]]]))
    gradient = jax.grad(lambda x: cross_entropy_loss(x, jnp.array([[2]]), z_loss=0.0)[0])(logits)
    np.testing.assert_allclose(gradient[0, 0], [0.25, 0.25, -0.5], rtol=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 1, 1000), jnp.bfloat16)  # log 1000 = 6.9078, in bfloat16 6.90625
    loss, sums = cross_entropy_loss(logits, jnp.array([[7]]), z_loss=0.0)
    assert loss.dtype == sums.loss_sum.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(1000.0), rtol=1e-6)


def test_unknown_factor_names_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'NUM_REAL_TARGET_TOKENS'") as error:
        cross_entropy_loss(
            logits_for(TARGETS), TARGETS, loss_normalizing_factor="NUM_REAL_TARGET_TOKEN"
        )
    assert "AVERAGE_PER_SEQUENCE" in str(error.value)


def test_label_smoothing_out_of_range():
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1.0"):
        cross_entropy_loss(logits_for(TARGETS), TARGETS, label_smoothing=1.0)


def test_log_z_has_a_gradient_of_its_own():
    logits = jnp.log(jnp.array([[[1.0, 1.0, 2.0]]]))
    gradient = jax.grad(lambda x: cross_entropy_loss(x, jnp.array([[2]]))[1].z_loss_sum)(logits)
    expected = 2e-4 * LOG4 * np.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_written_gradient_is_that_of_the_loss(label_smoothing):
    logits = jax.random.normal(jax.random.key(1), (2, 3, 5)) * 2

    def loss(x):
        settings = {"label_smoothing": label_smoothing, "z_loss": 0.1}
        return cross_entropy_loss(x, TARGETS, WEIGHTS, **settings)[0]

    jax.test_util.check_grads(loss, (logits,), order=1, modes=["rev"], rtol=2e-2)
