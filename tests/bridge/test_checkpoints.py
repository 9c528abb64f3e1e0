"""A checkpoint that T5X wrote is read by us, and one of ours by T5X; so is the official code's."""

import os
from pathlib import Path

import flax
import jax
import numpy as np
import pytest
import seqio
import t5x_tiny

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

from t5x import adafactor, models, utils
from t5x.examples.t5 import layers

from prompt_tuning import trees
from prompt_tuning.bridge import network, optimizer, restoring
from prompt_tuning.checkpoints import checkpoint, t5x_native
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH

NEW_PROMPT = {
    "assignment_map": ((r"^.*prompt.*$", None), (r"^state/param_states/.*$", None)),
    "fallback_to_scratch": True,
    "state_transformation_fns": [restoring.all_but_the_prompt],
}


@pytest.fixture
def restore(make_model, make_initializer, partitioner):
    """Restores a path the way T5X's programs do, and returns parameters by path and the step."""

    def run(path, with_optimizer=True, **settings):
        module = settings.pop("network", {})
        initializer = make_initializer(make_model(network=module), with_optimizer)
        settings = utils.RestoreCheckpointConfig(
            path=str(path), mode="specific", dtype="float32", strict=with_optimizer, **settings
        )
        state, manager = utils.create_checkpoint_manager_and_restore(
            initializer, partitioner, settings, str(path), jax.random.PRNGKey(0), use_orbax=True
        )
        manager.close()
        return trees.flatten(flax.core.unfreeze(state.params)), int(state.step)

    return run


@pytest.fixture
def write(make_model, make_initializer, partitioner, frozen, prompt):
    """Writes the frozen parameters and the prompt as T5X writes them."""

    def run(folder, use_orbax):
        initializer = make_initializer(make_model())
        state = initializer.from_scratch(jax.random.PRNGKey(0))
        params = trees.unflatten(trees.merge(frozen, {PROMPT_PATH: prompt}))
        state = state.replace_params(flax.core.freeze(params)).replace_step(jax.numpy.int32(12))
        _, manager = utils.create_checkpoint_manager_and_restore(
            initializer, partitioner, None, None, None, use_orbax=use_orbax,
            save_checkpoint_cfg=utils.SaveCheckpointConfig(period=1), model_dir=str(folder),
        )  # fmt: skip
        manager.save(state)
        manager.close()
        return folder / "checkpoint_12"

    return run


@pytest.mark.parametrize("use_orbax", [True, False], ids=["orbax", "native"])
def test_what_t5x_wrote_is_read_by_us_and_by_t5x_itself(
    tmp_path, write, restore, config, frozen, prompt, use_orbax
):
    path = write(tmp_path, use_orbax)
    expected = trees.merge(frozen, {PROMPT_PATH: prompt})
    found = checkpoint.load_model(path, {name: leaf.shape for name, leaf in expected.items()})
    assert trees.diff(found, expected).is_empty
    again, step = restore(path)  # with the optimizer's state, as a resumed run
    assert trees.diff(again, expected).is_empty
    assert step == 12


def test_what_we_wrote_is_read_by_t5x(tmp_path, restore, frozen, prompt):
    alone = t5x_native.write(tmp_path / "alone", frozen, 3)
    both = checkpoint.recreate(alone, prompt, tmp_path / "both", 3)
    found, step = restore(both, with_optimizer=False)  # as t5x.eval and t5x.infer restore
    assert trees.diff(found, trees.merge(frozen, {PROMPT_PATH: prompt})).is_empty
    assert step == 3


@pytest.mark.parametrize("kind", ["native", "orbax"])
def test_a_model_without_a_prompt_gets_a_new_one(restore, parity, kind):
    """T5X's own checkpoints, as in the parity vectors: the optimizer's state is another one."""
    start = np.arange(5 * 32, dtype=np.float32).reshape(5, 32)
    found, step = restore(
        parity / "t5x_tiny" / kind / "checkpoint_3",
        network={"initializer": lambda rng, shape: jax.numpy.asarray(start)},
        **NEW_PROMPT,
    )
    np.testing.assert_array_equal(found.pop(PROMPT_PATH), start)
    assert trees.diff(found, t5x_tiny.parameters()).is_empty
    assert step == 3


def test_a_checkpoint_that_lacks_a_parameter_is_refused(tmp_path, restore, frozen):
    """T5X alone would initialise one at random."""
    lacking = {k: v for k, v in frozen.items() if k != "decoder/decoder_norm/scale"}
    path = t5x_native.write(tmp_path, lacking | {"encoder/odd": np.zeros(2, np.float32)}, 3)
    with pytest.raises(ValueError) as error:
        restore(path, **NEW_PROMPT)
    assert str(error.value) == (
        "The checkpoint does not fit the model. Missing in the checkpoint (1): "
        "decoder/decoder_norm/scale. In the checkpoint but not in the model (1): encoder/odd. "
        "Name the part of gin/models that the checkpoint was made for."
    )


@pytest.fixture(scope="module")
def official():
    """The test data of a checkout of google-research/prompt-tuning."""
    folder = os.environ.get("PROMPT_TUNING_OFFICIAL_CODE")
    if not folder:
        pytest.skip("PROMPT_TUNING_OFFICIAL_CODE names no checkout of the official code")
    return Path(folder) / "prompt_tuning" / "test_data"


def test_the_official_codes_tiny_checkpoint_loads(
    official, monkeypatch, make_initializer, partitioner
):
    """Its T5 has 4 relative buckets in place of 32, which T5X's network writes out by name."""
    path = official / "test_t5_1_1_tiny" / "checkpoint_3"
    biases = layers.RelativePositionBiases
    four = {"num_buckets": 4, "max_distance": 8}
    monkeypatch.setattr(layers, "RelativePositionBiases", lambda **kw: biases(**{**kw, **four}))
    sizes = {"emb_dim": 4, "num_heads": 2, "head_dim": 2, "mlp_dim": 8, "vocab_size": 32128}
    config = T5Config(name="tiny", num_encoder_layers=2, num_decoder_layers=2, **sizes)
    module = network.transformer(
        config=config, prompt_length=5, initializer=lambda rng, shape: jax.numpy.full(shape, 0.5)
    )
    vocabulary = seqio.PassThroughVocabulary(size=32128, eos_id=1)
    inner = adafactor.Adafactor(factored=False)
    model = models.EncoderDecoderModel(
        module=module, input_vocabulary=vocabulary, output_vocabulary=vocabulary,
        optimizer_def=optimizer.prompt_only(optimizer=inner),
    )  # fmt: skip
    settings = utils.RestoreCheckpointConfig(
        path=str(path), mode="specific", dtype="float32", **NEW_PROMPT
    )
    state, manager = utils.create_checkpoint_manager_and_restore(
        make_initializer(model), partitioner, settings, str(path), jax.random.PRNGKey(0),
        use_orbax=True,
    )  # fmt: skip
    manager.close()
    found = trees.flatten(flax.core.unfreeze(state.params))
    np.testing.assert_array_equal(found.pop(PROMPT_PATH), np.full((5, 4), 0.5))
    shapes = {name: leaf.shape for name, leaf in found.items()}
    assert trees.diff(found, checkpoint.load_model(path, shapes)).is_empty  # ours reads it, too
    assert len(found) == 52
    assert int(state.step) == 3


def test_the_official_codes_prompt_loads(official):
    assert files.read_prompt(official / "prompt_5x256.npy").prompt.shape == (5, 256)
