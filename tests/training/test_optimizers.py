"""Adafactor against numbers by hand, and against its formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.training import schedules
from prompt_tuning.training.optimizers import adafactor, adamw, decay_and_apply, sgd

T5_STEP = 1_100_000


def run(optimizer, params, gradients):
    """Applies the gradients one after another; returns the parameters after each."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    trace = []
    for gradient in gradients:
        params, state = step(params, state, gradient)
        trace.append(params)
    return trace


def reference(
    param,
    gradients,
    *,
    learning_rate=lambda step: 0.3,
    decay_rate=0.8,
    step_offset=0,
    start_step=0,
    clipping_threshold=1.0,
    scale_floor=None,
    factored=False,
    beta1=0.0,
):
    """The formulas of optimizers.py for one matrix, in float64."""
    param = np.asarray(param, np.float64)
    v = row = col = momentum = 0.0
    trace = []
    for i, gradient in enumerate(gradients):
        gradient = np.asarray(gradient, np.float64)
        step = start_step + i
        keep = 1.0 - (step + 1.0 - step_offset) ** -decay_rate
        squared = gradient**2 + 1e-30
        if factored:
            row = keep * row + (1 - keep) * squared.mean(axis=1)
            col = keep * col + (1 - keep) * squared.mean(axis=0)
            v = np.outer(row, col) / row.mean()
        else:
            v = keep * v + (1 - keep) * squared
        update = gradient / np.sqrt(v)
        if clipping_threshold is not None:
            update /= max(1.0, np.sqrt(np.mean(update**2)) / clipping_threshold)
        update = learning_rate(step) * update
        if scale_floor is not None:
            update *= max(scale_floor, np.sqrt(np.mean(param**2)))
        momentum = beta1 * momentum + (1 - beta1) * update
        param = param - momentum
        trace.append(param)
    return trace


def random_gradients(shape, n=6):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) * (i + 1) for i in range(n)]


def assert_matches(optimizer, shape, *, param_scale=1.0, **settings):
    param = np.random.default_rng(1).normal(size=shape).astype(np.float32) * param_scale
    gradients = random_gradients(shape)
    ours = run(optimizer, jnp.asarray(param), gradients)
    theirs = reference(param, gradients, **settings)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5, rtol=2e-5)


def test_first_step_by_hand():
    # From step 0 the first second moment is the squared gradient: every entry moves by 0.3.
    optimizer = adafactor(learning_rate=0.3)
    (after,) = run(optimizer, jnp.array([[2.0, -1.0]]), [jnp.array([[4.0, -0.5]])])
    np.testing.assert_allclose(after, [[1.7, -0.7]], rtol=1e-6)


def test_second_step_by_hand():
    # decay = 1 - 2 ** -0.8 = 0.425651, v = decay * 9 + 0.574349 * 1 = 4.405207,
    # and 1 / sqrt(v) = 0.476451
    optimizer = adafactor(learning_rate=0.1)
    _, after = run(optimizer, jnp.array([1.0]), [jnp.array([3.0]), jnp.array([1.0])])
    np.testing.assert_allclose(after, [1.0 - 0.1 - 0.1 * 0.476451], rtol=1e-6)


def test_weight_decay_is_not_multiplied_by_the_learning_rate():
    optimizer = adafactor(learning_rate=0.5)
    param = jnp.array([8.0])
    updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(param), param)
    np.testing.assert_allclose(decay_and_apply(param, updates, 0.25), [5.5], rtol=1e-6)


def test_clipping_bounds_the_root_mean_square_of_the_whole_parameter():
    # Step 2's gradient is 100 times step 1's: unclipped 1 / sqrt(0.574349) = 1.3195 in each entry.
    gradients = [jnp.full((2, 2), 0.01), jnp.full((2, 2), 1.0)]
    settings = {"learning_rate": 1.0}
    params = jnp.zeros((2, 2))
    clipped = run(adafactor(**settings), params, gradients)
    half = run(adafactor(**settings, clipping_threshold=0.5), params, gradients)
    free = run(adafactor(**settings, clipping_threshold=None), params, gradients)
    np.testing.assert_allclose(clipped[1] - clipped[0], -jnp.ones((2, 2)), rtol=1e-5)
    np.testing.assert_allclose(half[1] - half[0], jnp.full((2, 2), -0.5), rtol=1e-5)
    np.testing.assert_allclose(free[1] - free[0], jnp.full((2, 2), -1.3195), rtol=1e-4)


def test_start_step_makes_the_first_update_261_times_as_large():
    # 1 - decay = 1100001 ** -0.8 = 1.4724e-5 at T5X's first step, and 1 / sqrt of it is 260.6.
    settings = {"learning_rate": 1.0, "clipping_threshold": None}
    optimizer = adafactor(**settings, start_step=T5_STEP)
    (after,) = run(optimizer, jnp.array([0.0]), [jnp.array([7.0])])
    np.testing.assert_allclose(after, [-260.6], rtol=3e-3)  # float32 holds 1 - 1.5e-5 coarsely
    (clipped,) = run(adafactor(learning_rate=0.3, start_step=T5_STEP), *_one_step())
    np.testing.assert_allclose(clipped, [0.7], rtol=1e-6)


def _one_step():
    return jnp.array([1.0]), [jnp.array([7.0])]


def test_late_steps_sum_gradients_where_early_steps_average_them():
    gradients = [jnp.array([[1.0, 0.0]])] * 20 + [jnp.array([[0.0, 1.0]])]
    params = jnp.zeros((1, 2))
    settings = {"learning_rate": 1.0, "clipping_threshold": None}
    late = run(adafactor(**settings, start_step=T5_STEP), params, gradients)
    np.testing.assert_allclose(late[-2][0, 0] - late[-3][0, 0], -260.6 / np.sqrt(20), rtol=3e-3)
    early = run(adafactor(**settings), params, gradients)
    np.testing.assert_allclose(early[-2][0, 0] - early[-3][0, 0], -1.0, rtol=1e-5)


def test_step_offset_undoes_start_step_in_the_decay():
    gradients = random_gradients((4, 3))
    params = jnp.ones((4, 3))
    plain = run(adafactor(), params, gradients)
    offset = run(adafactor(start_step=T5_STEP, step_offset=T5_STEP), params, gradients)
    np.testing.assert_array_equal(plain[-1], offset[-1])


@pytest.mark.parametrize("start_step", [0, 500, T5_STEP])
def test_prompt_of_100_keeps_its_full_second_moment(start_step):
    optimizer = adafactor(start_step=start_step)
    assert_matches(optimizer, (100, 256), start_step=start_step)


@pytest.mark.parametrize("shape", [(128, 256), (256, 128), (150, 150)])
def test_both_dimensions_of_128_are_factored(shape):
    assert_matches(adafactor(), shape, factored=True)


@pytest.mark.parametrize(
    ("shape", "row", "column", "full"),
    [((100, 512), 1, 1, (100, 512)), ((128, 512), 128, 512, (1,)), ((512,), 1, 1, (512,))],
)
def test_the_state_is_as_small_as_the_shape_allows(shape, row, column, full):
    second_moment = adafactor().init(jnp.zeros(shape))[0]
    assert second_moment.v.shape == full
    assert (second_moment.v_row.size, second_moment.v_col.size) == (row, column)


def test_min_dim_size_to_factor():
    assert_matches(adafactor(min_dim_size_to_factor=4), (4, 5), factored=True)


def test_momentum_and_parameter_scale():
    optimizer = adafactor(0.1, beta1=0.9, multiply_by_parameter_scale=True)
    assert_matches(optimizer, (5, 4), learning_rate=lambda step: 0.1, beta1=0.9, scale_floor=1e-3)


def test_parameter_scale_has_a_floor():
    optimizer = adafactor(0.1, multiply_by_parameter_scale=True, epsilon2=0.5)
    assert_matches(
        optimizer, (5, 4), learning_rate=lambda step: 0.1, scale_floor=0.5, param_scale=1e-6
    )


def test_a_schedule_sees_t5xs_step():
    optimizer = adafactor(schedules.rsqrt_decay(), start_step=T5_STEP)
    (after,) = run(optimizer, jnp.array([0.0]), [jnp.array([1.0])])
    np.testing.assert_allclose(after, [-1 / np.sqrt(T5_STEP)], rtol=1e-5)


def test_a_schedule_sees_the_step_before_the_update():
    seen = adafactor(lambda step: step + 1.0)
    trace = run(seen, jnp.array([0.0]), [jnp.array([1.0])] * 3)
    np.testing.assert_allclose(jnp.concatenate(trace), [-1.0, -3.0, -6.0], rtol=1e-5)


def test_bfloat16_parameters_have_float32_state():
    optimizer = adafactor(start_step=T5_STEP)
    params = {"prompt": jnp.ones((3, 2), jnp.bfloat16)}
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype for leaf in moments} == {jnp.dtype("float32")}
    assert optax.apply_updates(params, updates)["prompt"].dtype == jnp.bfloat16


def test_a_zero_gradient_moves_nothing():
    (after,) = run(adafactor(), jnp.array([[1.0, 2.0]]), [jnp.zeros((1, 2))])
    np.testing.assert_array_equal(after, [[1.0, 2.0]])


def test_start_before_offset_is_refused():
    with pytest.raises(ValueError, match="got start_step=0 and step_offset=1100000"):
        adafactor(step_offset=T5_STEP)


def test_update_needs_the_parameters():
    optimizer = adafactor()
    params = jnp.ones(2)
    with pytest.raises(ValueError, match=r"Call update\(gradients, state, params\)"):
        optimizer.update(params, optimizer.init(params))


def test_sgd_and_adamw_by_hand():
    param, gradient = jnp.array([2.0]), jnp.array([0.5])
    (after,) = run(sgd(learning_rate=0.1), param, [gradient])
    np.testing.assert_allclose(after, [1.95], rtol=1e-6)
    (after,) = run(adamw(learning_rate=0.1, weight_decay=0.01), param, [gradient])
    np.testing.assert_allclose(after, [2.0 - 0.1 * (1.0 + 0.02)], rtol=1e-6)


def test_optimizers_take_schedules():
    schedule = schedules.linear_decay(0.2, total_steps=2)
    trace = run(sgd(learning_rate=schedule), jnp.array([1.0]), [jnp.array([1.0])] * 3)
    np.testing.assert_allclose(jnp.concatenate(trace), [0.8, 0.7, 0.7], rtol=1e-6)
