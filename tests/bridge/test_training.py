"""The same steps through T5X's Trainer and through our own: the same losses, the same prompts."""

import flax
import jax
import numpy as np
import pytest

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

from t5x import trainer, utils

from prompt_tuning import trees
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

STEPS = 10


@pytest.fixture
def through_t5x(make_model, make_initializer, partitioner, frozen, prompt, batches):
    """Runs ten steps of t5x.trainer.Trainer; returns losses, prompts and the last state.

    With `before`, a list of ten prompts, each step starts from the prompt of that list.
    """

    def run(start_step, before=None):
        model = make_model()
        initializer = make_initializer(model)
        state = initializer.from_scratch(jax.random.PRNGKey(0))
        params = trees.unflatten(
            {k: jax.numpy.array(v) for k, v in {**frozen, PROMPT_PATH: prompt}.items()}
        )
        state = state.replace_params(flax.core.freeze(params)).replace_step(start_step)
        training = trainer.Trainer(
            model=model,
            train_state=state,
            partitioner=partitioner,
            eval_names=[],
            summary_dir=None,
            train_state_axes=initializer.train_state_axes,
            rng=jax.random.PRNGKey(1),
            learning_rate_fn=utils.create_learning_rate_scheduler(
                factors="constant", base_learning_rate=0.3
            ),
            num_microbatches=None,
        )
        losses, prompts, state = [], [], training.train_state
        for i, batch in enumerate(batches[:STEPS]):
            if before is not None:
                state = state.replace_params(with_prompt(state, before[i]))
            state, metrics = training._partitioned_train_step(state, batch)
            losses.append(float(metrics["loss"].compute()))
            prompts.append(np.array(flat(state)[PROMPT_PATH]))
        training.close()
        return losses, prompts, state

    return run


def with_prompt(state, prompt):
    params = {**flat(state), PROMPT_PATH: jax.numpy.array(prompt)}
    return flax.core.freeze(trees.unflatten(params))


def flat(state):
    return trees.flatten(flax.core.unfreeze(state.params))


def through_our_loop(config, frozen, before, batches, start_step):
    """Runs ten of our steps, each from a prompt of the list `before`."""
    optimizer = adafactor(learning_rate=0.3, start_step=start_step)
    model = Transformer(config, soft_prompt_hooks(length=5))
    step = make_train_step(model, optimizer, weight_decay_rate=1e-5, z_loss=1e-4)
    state = TrainState(0, None, optimizer.init({PROMPT_PATH: before[0]}))
    losses, prompts = [], []
    for prompt, batch in zip(before, batches[:STEPS], strict=True):
        trainable = {PROMPT_PATH: jax.numpy.array(prompt)}
        state, metrics = step(state._replace(trainable=trainable), frozen, batch)
        losses.append(float(metrics.loss * metrics.target_tokens))  # T5X reports the sum
        prompts.append(np.array(state.trainable[PROMPT_PATH]))
    return losses, prompts


@pytest.mark.parametrize("start_step", [0, 1_100_000])
def test_every_step_is_the_same_in_t5x_and_in_our_loop(
    through_t5x, config, frozen, prompt, batches, start_step
):
    """T5X runs on its own; a free run of ours would drift away, see test_trajectory.py."""
    losses, prompts, state = through_t5x(start_step)
    before = [prompt, *prompts[:-1]]
    our_losses, our_prompts = through_our_loop(config, frozen, before, batches, start_step)
    np.testing.assert_allclose(our_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(our_prompts, prompts, atol=2e-5)
    assert int(state.step) == start_step + STEPS

    assert np.abs(prompts[-1] - prompt).min() > 0
    after = flat(state)
    del after[PROMPT_PATH]
    assert trees.diff(after, frozen).is_empty


@pytest.mark.parametrize("start_step", [0, 1_100_000])
def test_every_step_of_t5x_is_as_stored(through_t5x, prompt, vectors, start_step):
    """Step by step: on another CPU a free run drifts away, since its steps are chaotic."""
    stored = [vectors[f"start{start_step}:prompt_after{i}"] for i in range(1, STEPS + 1)]
    losses, prompts, _ = through_t5x(start_step, before=[prompt, *stored[:-1]])
    np.testing.assert_allclose(prompts, stored, atol=2e-5)
    loss_sums = [vectors[f"start{start_step}:loss_sum{i}"] for i in range(1, STEPS + 1)]
    np.testing.assert_allclose(losses, loss_sums, rtol=1e-5)


def test_the_frozen_parameters_have_no_second_moment(make_model, make_initializer, frozen):
    """A zero each, so that T5X can restore what it saved."""
    shapes = make_initializer(make_model()).global_train_state_shape
    states = trees.flatten(shapes.state_dict()["state"]["param_states"])
    sizes = {path: leaf.shape for path, leaf in states.items()}
    moments = {name: (5, 32) if name == "v" else (1,) for name in ("m", "v", "v_col", "v_row")}
    expected = {f"{PROMPT_PATH}/{name}": shape for name, shape in moments.items()}
    assert sizes == expected | {path: (1,) for path in frozen}


def test_every_device_holds_the_whole_prompt(make_model, make_initializer):
    axes = flat(make_initializer(make_model()).train_state_axes)
    assert axes[PROMPT_PATH] == jax.sharding.PartitionSpec(None, None)
    assert axes["encoder/layers_0/mlp/wo/kernel"] == jax.sharding.PartitionSpec("model", None)


@pytest.mark.parametrize("length", [100, 150])
def test_long_prompts_train_the_same_too(length):
    """From 128 vectors of width 128 on, both keep row and column means of the second moment.

    So does the official code: T5X ignores its rules for parameters of two dimensions.
    """
    from t5x.adafactor import Adafactor

    from prompt_tuning.bridge.optimizer import prompt_only
    from prompt_tuning.training.optimizers import decay_and_apply

    rng = np.random.default_rng(0)
    theirs = ours = rng.normal(size=(length, 160)).astype(np.float32)
    inner = Adafactor(decay_rate=0.8, multiply_by_parameter_scale=False, weight_decay_rate=1e-5)
    t5x_optimizer = prompt_only(optimizer=inner).create(trees.unflatten({PROMPT_PATH: theirs}))
    optax_optimizer = adafactor(0.3)
    state = optax_optimizer.init(ours)
    for _ in range(3):
        gradient = rng.normal(size=ours.shape).astype(np.float32) * rng.normal(size=(length, 1))
        gradient = gradient.astype(np.float32)
        t5x_optimizer = t5x_optimizer.apply_gradient(
            trees.unflatten({PROMPT_PATH: gradient}), learning_rate=0.3
        )
        updates, state = optax_optimizer.update(gradient, state, ours)
        ours = decay_and_apply(ours, updates, 1e-5)
    theirs = trees.flatten(flax.core.unfreeze(t5x_optimizer.target))[PROMPT_PATH]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
