"""Model tuning continues with Adafactor's accumulators of a checkpoint in T5X's layout."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import optax
import pytest
import tiny_runs
from flax import serialization

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.training import accumulators, resume
from prompt_tuning.training.optimizers import adafactor, sgd

MODEL = T5Config(
    name="tiny_byt5", vocab_size=384, emb_dim=128, num_heads=2, head_dim=64, num_encoder_layers=1,
    num_decoder_layers=1, mlp_dim=256, dropout_rate=0.0,
)  # fmt: skip
STEP = 7
NORM = "encoder/encoder_norm/scale"  # [128], whole
WI = "encoder/layers_0/mlp/wi_0/kernel"  # [128, 256], as row means [128] and column means [256]
OUT = "encoder/layers_0/attention/out/kernel"  # [128, 128], rows by the first dimension


def t5x_states(params):
    """What T5X keeps of each parameter: v of NORM is 4; row i of a factored one has mean i + 1."""
    states = {}
    for path, array in params.items():
        one = {name: np.zeros(1, np.float32) for name in ("m", "v", "v_row", "v_col")}
        if array.ndim == 2 and min(array.shape) >= 128:
            small, large = sorted(array.shape)
            one["v_row"] = np.arange(small, dtype=np.float32) + 1
            one["v_col"] = np.full(large, (small + 1) / 2, np.float32)
        else:
            one["v"] = np.full(array.shape, 4.0, np.float32)
        states |= {f"{path}/{name}": value for name, value in one.items()}
    return trees.unflatten(states)


def write(folder, change=lambda states: None):
    """A checkpoint of MODEL as T5X writes it, small arrays in the index itself."""
    params = {path: np.asarray(x) for path, x in load_parameters(MODEL, "random:1").items()}
    written = pathlib.Path(t5x_native.write(folder, params, STEP))
    index = serialization.msgpack_restore((written / "checkpoint").read_bytes())
    states = t5x_states(params)
    change(states)
    index["optimizer"]["state"]["param_states"] = states
    (written / "checkpoint").write_bytes(serialization.msgpack_serialize(index))
    return str(written)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("t5x"))


def make_run(folder, checkpoint, **changes):
    return tiny_runs.make_run(
        folder,
        **{
            **tiny_runs.MODEL_TUNING,
            "model": MODEL,
            "initial_checkpoint_path": checkpoint,
            "optimizer": functools.partial(
                adafactor, learning_rate=0.001, multiply_by_parameter_scale=True
            ),
            **changes,
        },
    )


def fresh_of(run):
    params = {path: jax.numpy.asarray(x) for path, x in load_parameters(MODEL, "random:1").items()}
    return resume.fresh_state(params, run.optimizer())


def factored(state):
    (found,) = (one for one in state.opt_state if isinstance(one, optax.FactoredState))
    return found


def restored(run, fresh=None):
    return accumulators.restore(run, fresh or fresh_of(run), frozenset())


def test_every_second_moment_and_the_step_are_restored(tmp_path, checkpoint):
    run = make_run(tmp_path, checkpoint)
    fresh = fresh_of(run)
    state, line = restored(run, fresh)
    found = factored(state)
    assert found.count == STEP
    np.testing.assert_array_equal(found.v[NORM], np.full(128, 4.0))
    np.testing.assert_array_equal(found.v_row[WI], np.arange(1, 129))
    np.testing.assert_array_equal(found.v_col[WI], np.full(256, 64.5))
    np.testing.assert_array_equal(found.v_row[OUT], np.arange(1, 129))
    count = len(fresh.trainable)
    continues = f"Adafactor continues with the accumulators of {count} parameters at step 7 of "
    assert line == continues + checkpoint
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    assert state.trainable is fresh.trainable


def test_the_next_update_by_hand(tmp_path, checkpoint):
    """decay = 1 - 8**-0.8 = 0.81054, v = 0.81054 x 4 + 0.18946 x 1 = 3.43162; 1 / sqrt(v) is
    0.539822, times a learning rate of 0.001 and a parameter scale of 1.
    """
    run = make_run(tmp_path, checkpoint)
    state, _ = restored(run)
    gradients = jax.tree.map(jax.numpy.ones_like, state.trainable)
    updates, after = run.optimizer().update(gradients, state.opt_state, state.trainable)
    np.testing.assert_allclose(updates[NORM], np.full(128, -0.000539822), rtol=1e-5)
    (found,) = (one for one in after if isinstance(one, optax.FactoredState))
    assert found.count == STEP + 1
    np.testing.assert_allclose(found.v_row[WI], 0.81054 * np.arange(1, 129) + 0.18946, rtol=1e-4)


def test_a_schedule_continues_at_that_step(tmp_path, checkpoint):
    seen = functools.partial(adafactor, learning_rate=lambda step: 0.1 * step)
    run = make_run(tmp_path, checkpoint, optimizer=seen)
    state, _ = restored(run)
    counts = [one.count for one in state.opt_state if "count" in one._fields]
    assert [int(count) for count in counts] == [STEP, STEP]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"restore_accumulators": False}, None),
        ({"optimizer": functools.partial(sgd, 0.1)}, None),
        ({"initial_checkpoint_path": "random:1"}, "without accumulators: random:1 has none"),
    ],
)
def test_where_nothing_is_restored(tmp_path, checkpoint, changes, line):
    run = dataclasses.replace(make_run(tmp_path, checkpoint), **changes)
    fresh = fresh_of(run)
    state, printed = restored(run, fresh)
    assert state is fresh
    assert printed is None if line is None else line in printed


def test_a_checkpoint_without_accumulators_says_so(tmp_path):
    params = load_parameters(MODEL, "random:1")
    bare = t5x_native.write(tmp_path / "t5x", params, STEP)
    assert restored(make_run(tmp_path, bare)).line == (
        f"Adafactor starts without accumulators: {bare} has none"
    )


def test_a_prompt_has_nothing_to_restore(tmp_path, checkpoint):
    run = tiny_runs.make_run(tmp_path, model=MODEL, initial_checkpoint_path=checkpoint)
    prompt = {"encoder/prompt/prompt/prompt": jax.numpy.ones((4, 128))}
    fresh = resume.fresh_state(prompt, run.optimizer())
    assert accumulators.restore(run, fresh, frozenset(prompt)) == (fresh, None)


def test_what_does_not_fit_is_refused(tmp_path, checkpoint):
    start = functools.partial(adafactor, start_step=5)
    with pytest.raises(ValueError, match="accumulators are of step 7; remove adafactor.start_step"):
        restored(make_run(tmp_path, checkpoint, optimizer=start))
    whole = functools.partial(adafactor, min_dim_size_to_factor=1000)
    with pytest.raises(
        ValueError, match=r"has shape \[1\] in the checkpoint and \[128, 128\] here"
    ):
        restored(make_run(tmp_path, checkpoint, optimizer=whole))

    def without_norm(states):
        del states["encoder"]["encoder_norm"]

    partial = write(tmp_path / "partial", without_norm)
    expected = f"not of 1 of the .* parameters that train, such as {NORM}. Set Run.restore_acc"
    with pytest.raises(ValueError, match=expected):
        restored(make_run(tmp_path, partial))


def test_a_run_begins_with_them_and_resumes_with_its_own(tmp_path, checkpoint, quick):
    run = make_run(tmp_path / "run", checkpoint, train_steps=2, eval_examples=4)
    first = tiny_runs.train(run).printed
    assert first.count("Adafactor continues with the accumulators of ") == 1
    again = tiny_runs.train(run).printed
    assert "resuming at step 2" in again
    assert "Adafactor" not in again
