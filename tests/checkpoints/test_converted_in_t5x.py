"""Real T5X reads what `checkpoint convert` writes; skips where t5x is not importable."""

import json

import jax
import numpy as np
import pytest
import t5x_tiny
from flax.core import freeze
from flax.linen import partitioning as flax_partitioning

from prompt_tuning import trees
from prompt_tuning.checkpoints import convert

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

from t5x import checkpoints, partitioning, train_state

MODEL = t5x_tiny.CONFIG


@pytest.fixture(scope="module")
def expected():
    return t5x_tiny.parameters()


@pytest.fixture(scope="module")
def hugging_face(parity, tmp_path_factory):
    source = str(parity / "t5x_tiny" / "native" / "checkpoint_3")
    return convert.convert(source, str(tmp_path_factory.mktemp("hf") / "hf"), "hf", model=MODEL)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_native(hugging_face, expected, tmp_path):
    written = convert.convert(hugging_face, str(tmp_path), "t5x", step=7)
    assert_same(trees.flatten(checkpoints.load_t5x_checkpoint(written)["target"]), expected)


def test_orbax(hugging_face, expected, parity, tmp_path):
    written = convert.convert(hugging_face, str(tmp_path / "new"), "orbax", step=7)
    described = json.loads((parity / "t5x_tiny" / "params.json").read_text())
    axes = {
        f"{path}_axes": flax_partitioning.AxisMetadata(names=tuple(names))
        for path, (_, _, names) in described.items()
    }
    empty = {path: np.zeros_like(array) for path, array in expected.items()}
    state = train_state.InferenceState(
        step=jax.numpy.zeros((), np.int32),
        params=freeze(trees.unflatten(empty)),
        params_axes=freeze(trees.unflatten(axes)),
    )
    manager = checkpoints.OrbaxCheckpointManagerInterface(
        str(tmp_path / "run"),
        train_state=state,
        partitioner=partitioning.PjitPartitioner(num_partitions=1),
    )
    restored = manager.restore(path=written)
    assert int(restored.step) == 7
    assert_same(trees.flatten(jax.device_get(restored.params)), expected)
