"""Tests of prompt_tuning/training/step.py: what changes, what does not, and what is measured."""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.data import microbatches, packing
from prompt_tuning.inference.frozen import load_parameters, transformer
from prompt_tuning.methods.prompt_tuning import hooks
from prompt_tuning.model import dropout
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.losses import cross_entropy_loss, loss_parts
from prompt_tuning.model.stacking import stack
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.training import step as step_module
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

pytestmark = pytest.mark.usefixtures("quick")

ROWS, INPUTS, TARGETS, P, H = 8, 48, 8, 4, 16  # as in tiny_runs: one compiled program for all


@pytest.fixture(scope="module")
def t5(quick):
    return load_parameters(tiny_runs.MODEL, "random")


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    targets = random.integers(3, 200, (ROWS, TARGETS)).astype(np.int32)
    targets[1:, -1] = 0  # seven rows are padded: 64 - 7 = 57 target tokens
    return {
        "encoder_input_tokens": random.integers(3, 200, (ROWS, INPUTS)).astype(np.int32),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.float32),
    }


def new_prompt():
    return jax.random.uniform(jax.random.key(5), (P, H), jnp.float32, -0.5, 0.5)


def begin(t5, patterns, optimizer):
    """The state before the first step, and the frozen rest; the state's arrays are its own."""
    params = trees.merge(t5, {PROMPT_PATH: new_prompt()})
    trainable, frozen = trees.split(params, patterns)
    trainable = {path: leaf.copy() for path, leaf in trainable.items()}
    bound = jax.tree.map(  # to its device, as the loop does it
        lambda leaf: jax.device_put(leaf, leaf.sharding), (trainable, optimizer.init(trainable))
    )
    return TrainState(0, *bound), frozen


def copied(tree):
    return {path: np.array(leaf) for path, leaf in tree.items()}


@pytest.fixture(scope="module")
def gradients():
    """The shapes of every gradient that the optimizer of `prompt_step` was handed."""
    return []


@pytest.fixture(scope="module")
def prompt_step(quick, gradients):
    """One step of prompt tuning, for all tests that need no other."""
    optimizer = adafactor(learning_rate=0.3)

    def update(gradient, state, params):
        gradients.append({path: leaf.shape for path, leaf in gradient.items()})
        return optimizer.update(gradient, state, params)

    spy = optax.GradientTransformation(optimizer.init, update)
    model = transformer(tiny_runs.MODEL, hooks(P, "prefix"))
    return make_train_step(model, spy, weight_decay_rate=1e-5)


def test_the_prompt_moves_and_the_frozen_tree_does_not(t5, batch, prompt_step):
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    before, fingerprint = copied(frozen), trees.fingerprint(frozen)
    prompt = np.array(state.trainable[PROMPT_PATH])
    for number in (1, 2, 3):
        state, _ = prompt_step(state, frozen, batch, jax.random.key(0))
        moved = np.array(state.trainable[PROMPT_PATH])
        assert state.step == number
        assert (moved != prompt).any(axis=1).all(), "every vector of the prompt trains"
        prompt = moved
    assert trees.fingerprint(frozen) == fingerprint
    assert trees.diff(frozen, before).is_empty
    assert state.trainable.keys() == {PROMPT_PATH}


def test_neither_gradient_nor_optimizer_state_has_a_frozen_leaf(t5, batch, prompt_step, gradients):
    """The gradient's paths are those the optimizer is handed; its state is counted."""
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    state, _ = prompt_step(state, frozen, batch, jax.random.key(0))
    assert gradients
    assert all(gradient == {PROMPT_PATH: (P, H)} for gradient in gradients)
    # Adafactor below 128 x 128 keeps v [4, 16], an unused number for its rows and columns each,
    # and the count of steps.
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    assert sorted(leaf.size for _, leaf in leaves) == [1, 1, 1, P * H]
    names = {str(getattr(key, "key", "")) for path, _ in leaves for key in path}
    assert names & {*t5, PROMPT_PATH} == {PROMPT_PATH}


def test_patterns_train_exactly_what_they_match(t5, batch):
    patterns = [r"decoder/layers_\d+/mlp/.*", PROMPT_PATH]
    state, frozen = begin(t5, patterns, optax.sgd(0.1))
    before, frozen_before = copied(state.trainable), copied(frozen)
    step = make_train_step(transformer(tiny_runs.MODEL, hooks(P, "prefix")), optax.sgd(0.1))
    state, _ = step(state, frozen, batch)
    expected = {f"decoder/layers_0/mlp/{name}/kernel" for name in ("wi_0", "wi_1", "wo")}
    expected.add(PROMPT_PATH)
    assert set(trees.diff(before, state.trainable).value) == expected
    assert trees.diff(frozen, frozen_before).is_empty
    assert trees.count(frozen) + trees.count(before) == trees.count(t5) + P * H


def test_the_metrics_of_a_uniform_model(t5, batch, prompt_step):
    """Logits of zero: the loss is log V and its z-loss, nothing is right, no gradient."""
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    frozen["decoder/logits_dense/kernel"] = jnp.zeros_like(frozen["decoder/logits_dense/kernel"])
    prompt = np.array(state.trainable[PROMPT_PATH])
    state, metrics = prompt_step(state, frozen, batch, jax.random.key(0))
    log_v = math.log(384)
    assert float(metrics.loss) == pytest.approx(log_v + 1e-4 * log_v**2, rel=1e-5)
    assert float(metrics.accuracy) == 0.0
    assert float(metrics.target_tokens) == 57.0
    assert float(metrics.gradient_norm) == 0.0
    # No gradient, but the weight decay of 1e-5.
    moved = np.array(state.trainable[PROMPT_PATH])
    np.testing.assert_allclose(moved, prompt * (1 - 1e-5), rtol=1e-6)
    assert float(metrics.trainable_norm) == pytest.approx(np.linalg.norm(moved), rel=1e-5)


def test_accuracy_counts_target_tokens_only(t5, batch, prompt_step):
    """Logits of zero rank id 0 first; of the two tokens that count, one is id 0."""
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    frozen["decoder/logits_dense/kernel"] = jnp.zeros_like(frozen["decoder/logits_dense/kernel"])
    targets, weights = np.zeros((2, ROWS, TARGETS), np.float32)
    targets[0, :2] = 7, 0
    weights[0, :2] = 1
    targets = {"decoder_target_tokens": targets.astype(np.int32), "decoder_loss_weights": weights}
    _, metrics = prompt_step(state, frozen, batch | targets, jax.random.key(0))
    assert (float(metrics.accuracy), float(metrics.target_tokens)) == (0.5, 2.0)


class Noise:
    """Replaces the model: its logits are the first dropout mask that it is given."""

    config, compute = dataclasses.replace(tiny_runs.MODEL, dropout_rate=0.5), Compute()

    def encoder_length(self, tokens):
        return tokens

    def apply(self, variables, inputs, decoder_inputs, targets, *, dropout, rngs):
        return dropout.encoder.output[:, :TARGETS] + variables["params"]["scale"]


def test_dropout_is_drawn_from_the_key_and_the_number_of_the_step(batch):
    """Each row's key is fold_in(fold_in(rng, steps done), row)."""
    rng = jax.random.key(9)
    batch = {**batch, "decoder_target_tokens": batch["decoder_target_tokens"] % 16}

    def loss_of(steps, rng):
        step = make_train_step(Noise(), optax.sgd(0.0))
        trainable = {"scale": jnp.zeros(())}
        state = TrainState(steps, trainable, optax.sgd(0.0).init(trainable))
        return float(step(state, {}, batch, rng)[1].loss)

    keys = [jax.random.fold_in(jax.random.fold_in(rng, 3), row) for row in range(ROWS)]
    logits = dropout.draw(jnp.stack(keys), Noise.config, input_length=INPUTS, length=TARGETS)
    logits = logits.encoder.output[:, :TARGETS]
    _, sums = cross_entropy_loss(
        logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    )
    assert loss_of(3, rng) == pytest.approx(float(sums.loss_sum / sums.n_tokens), rel=1e-5)
    assert len({loss_of(3, rng), loss_of(4, rng), loss_of(3, jax.random.key(8))}) == 3


def test_without_a_key_nothing_is_dropped(t5, batch, prompt_step):
    losses = []
    for step, rng in ((0, None), (1, None), (0, jax.random.key(0))):
        state, frozen = begin(t5, [PROMPT_PATH], adafactor())
        _, metrics = prompt_step(state._replace(step=step), frozen, batch, rng)
        losses.append(float(metrics.loss))
    assert losses[0] == losses[1] != losses[2]


def test_a_suffix_trains_too(t5, batch, prompt_step):
    """Its loss differs from that of a prefix."""
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    _, in_front = prompt_step(state, frozen, batch)
    optimizer = optax.sgd(1.0)
    state, frozen = begin(t5, [PROMPT_PATH], optimizer)
    prompt = np.array(state.trainable[PROMPT_PATH])
    step = make_train_step(transformer(tiny_runs.MODEL, hooks(P, "suffix")), optimizer)
    state, behind = step(state, frozen, batch)
    assert (np.array(state.trainable[PROMPT_PATH]) != prompt).any(axis=1).all()
    assert float(behind.loss) != float(in_front.loss)


def test_the_loss_options_reach_the_loss(t5, batch, monkeypatch):
    given = []

    def loss(*arrays, **options):
        given.append(options)
        return loss_parts(*arrays, **options)

    monkeypatch.setattr(step_module, "loss_parts", loss)
    options = {"label_smoothing": 0.25, "z_loss": 0.5, "loss_normalizing_factor": 3.0}
    state, frozen = begin(t5, [PROMPT_PATH], adafactor())
    step = make_train_step(transformer(tiny_runs.MODEL, hooks(P, "prefix")), adafactor(), **options)
    jax.eval_shape(step, state, frozen, batch)
    assert given == [options | {"add_up": jnp.sum}]


@pytest.mark.parametrize("rows", [2, 8])
@pytest.mark.parametrize("factor", [None, "NUM_REAL_TARGET_TOKENS"])
def test_a_packed_batch_trains_as_the_unpacked_one_does(t5, batch, factor, rows):
    """Without dropout, loss and gradient are the same to 1e-5."""
    tokens = batch["encoder_input_tokens"].copy()
    for row in range(ROWS):
        tokens[row, 5 * (row + 1) :] = 0
    batch = batch | {"encoder_input_tokens": tokens}
    method = hooks(P, "prefix")
    step = make_train_step(
        transformer(tiny_runs.MODEL, method), optax.sgd(1.0), loss_normalizing_factor=factor
    )
    packed = packing.pack(batch, packing.Plan(rows, 56, 24), method.reserve)
    assert sum(part.batch["encoder_input_tokens"].segment_ids.max() > 1 for part in packed)
    assert len(packed) == (2 if rows == 2 else 1)
    results = []
    for given in (batch, packed):
        state, frozen = begin(t5, [PROMPT_PATH], optax.sgd(1.0))
        before = np.array(state.trainable[PROMPT_PATH])
        state, metrics = step(state, frozen, given)
        results.append((before - state.trainable[PROMPT_PATH], metrics))
    (gradient, whole), (summed, parts) = results
    np.testing.assert_allclose(summed, gradient, atol=1e-5 * np.abs(gradient).max(), rtol=0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts)


@pytest.mark.parametrize("factor", [None, "AVERAGE_PER_SEQUENCE", "NUM_REAL_TARGET_TOKENS"])
@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_micro_batches_train_as_the_whole_batch_does(t5, batch, factor, layers):
    """With dropout: the gradient, here the change of plain SGD, is the same to 1e-5."""
    model = transformer(tiny_runs.MODEL, hooks(P, "prefix"), Compute(layers))
    step = make_train_step(model, optax.sgd(1.0), loss_normalizing_factor=factor)
    tokens = batch["encoder_input_tokens"].copy()
    for row in range(ROWS):
        tokens[row, 5 * (row + 1) :] = 0
    batch = batch | {"encoder_input_tokens": tokens}
    plan = microbatches.Plan(2, (16, 24, 48))
    results = []
    for given in (batch, microbatches.cut(batch, plan)):
        state, frozen = begin(t5, [PROMPT_PATH], optax.sgd(1.0))
        frozen = stack(frozen) if layers == "scan" else frozen
        before = np.array(state.trainable[PROMPT_PATH])
        state, metrics = step(state, frozen, given, jax.random.key(0))
        results.append((before - state.trainable[PROMPT_PATH], metrics))
    (gradient, whole), (summed, cut) = results
    np.testing.assert_allclose(summed, gradient, atol=1e-5 * np.abs(gradient).max(), rtol=0)
    assert np.abs(gradient).max() > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, cut)
    assert step.programs == 1 + 3 and step.compile_seconds > 0


def test_a_step_donates_its_state_and_compiles_once(t5, batch, prompt_step, caplog):
    first, frozen = begin(t5, [PROMPT_PATH], adafactor())
    second, _ = prompt_step(first, frozen, batch, jax.random.key(0))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        prompt_step(second, frozen, batch, jax.random.key(1))
    assert first.trainable[PROMPT_PATH].is_deleted()
    assert not any(leaf.is_deleted() for leaf in frozen.values())
    assert [message for message in caplog.messages if "jit(update)" in message] == []
