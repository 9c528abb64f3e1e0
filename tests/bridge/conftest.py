"""What the tests of the bridge share: T5X's tiny T5 with a prompt, and real T5X around it."""

import dataclasses

import jax
import numpy as np
import pytest
import t5x_tiny

P = 5


@pytest.fixture(autouse=True)
def _as_t5x_runs():
    """T5X's layers broadcast ranks, which the project's own tests forbid."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="session")
def config():
    """The dimensions of the stored trajectory; no dropout."""
    return dataclasses.replace(t5x_tiny.CONFIG, dropout_rate=0.0)


@pytest.fixture(scope="session")
def vectors(parity):
    """Twelve steps of prompt tuning as real T5X made them."""
    return dict(np.load(parity / "t5x_prompt_trajectory.npz"))


@pytest.fixture(scope="session")
def frozen(vectors):
    """The frozen parameters of that trajectory, by path."""
    return {k.removeprefix("frozen:"): v for k, v in vectors.items() if k.startswith("frozen:")}


@pytest.fixture(scope="session")
def prompt(vectors):
    """Its first prompt, [5, 32]."""
    return vectors["prompt_init:prompt/prompt"]


@pytest.fixture(scope="session")
def batches(vectors):
    """Its twelve batches."""
    return [
        {k.split(":")[1]: v for k, v in vectors.items() if k.startswith(f"batch{i}:")}
        for i in range(12)
    ]


@pytest.fixture
def make_model(config):
    """Makes T5X's EncoderDecoderModel around the bridge's network."""
    import seqio
    from t5x import adafactor, models

    from prompt_tuning.bridge import network, optimizer

    def make(**settings):
        vocabulary = seqio.PassThroughVocabulary(size=config.vocab_size, eos_id=1)
        inner = adafactor.Adafactor(
            decay_rate=0.8,
            step_offset=0,
            multiply_by_parameter_scale=False,
            weight_decay_rate=1e-5,
        )
        module = {"prompt_length": P, **settings.pop("network", {})}
        return models.EncoderDecoderModel(
            module=network.transformer(config=config, **module),
            input_vocabulary=vocabulary,
            output_vocabulary=vocabulary,
            optimizer_def=optimizer.prompt_only(optimizer=inner),
            z_loss=1e-4,
            **settings,
        )

    return make


@pytest.fixture
def partitioner():
    """One device, with the rules that gin/t5x/model.gin sets."""
    from t5x import partitioning

    from prompt_tuning.bridge import network

    rules = partitioning.standard_logical_axis_rules(additional_rules=network.axis_rules())
    return partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules)


@pytest.fixture
def make_initializer(partitioner, batches):
    """Makes T5X's TrainStateInitializer of a model."""
    from t5x import utils

    def make(model, optimizer=True):
        return utils.TrainStateInitializer(
            optimizer_def=model.optimizer_def if optimizer else None,
            init_fn=model.get_initial_variables,
            input_shapes={name: array.shape for name, array in batches[0].items()},
            input_types={name: array.dtype for name, array in batches[0].items()},
            partitioner=partitioner,
        )

    return make
