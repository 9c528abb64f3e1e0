"""Parameters on a mesh: each process reads the slices of its devices, from every format."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint, hugging_face, t5x_native, t5x_orbax, tensor_files
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.inference import weights
from prompt_tuning.model import stacking
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.parallel import mesh, placing

MODEL = T5Config(
    name="tiny",
    vocab_size=384,
    emb_dim=8,
    num_heads=4,
    head_dim=2,
    num_encoder_layers=2,
    num_decoder_layers=1,
    mlp_dim=16,
    mlp_activations=("relu",),
    logits_via_embedding=True,
)
ONE = mesh.make({"data": 1, "model": 1}, jax.devices()[:1])


@pytest.fixture(scope="module")
def drawn():
    loaded = weights.load(MODEL, "random:1")
    return {path: np.asarray(leaf) for path, leaf in loaded.params.items()}


@pytest.fixture(scope="module")
def folders(drawn, tmp_path_factory):
    """The same parameters in every format that is read."""
    folder = tmp_path_factory.mktemp("formats")
    leaves = {path: Leaf(a.shape, a.dtype, a.copy) for path, a in drawn.items()}
    tensors = folder / "t5x.safetensors"
    tensor_files.write(str(tensors), leaves, {})
    return {
        "t5x": t5x_native.write(folder / "t5x", drawn, 1),
        "orbax": t5x_orbax.write(folder / "orbax", drawn, 1),
        "hf": hugging_face.write(folder / "hf", leaves, MODEL),
        "safetensors": str(tensors),
    }


FORMATS = ["t5x", "orbax", "hf", "safetensors"]


@pytest.mark.parametrize("kind", FORMATS)
def test_slices_of_every_format(kind, drawn, folders):
    for path, leaf in checkpoint.leaves(folders[kind]).items():
        index = tuple(slice(1, size // 2) for size in leaf.shape)
        np.testing.assert_array_equal(leaf.read(index), drawn[path][index], err_msg=path)
        columns = tuple(slice(None) for _ in leaf.shape[1:])
        np.testing.assert_array_equal(
            leaf.read((slice(0, 3), *columns)), drawn[path][:3], err_msg=path
        )
        np.testing.assert_array_equal(leaf.read(), drawn[path], err_msg=path)


def test_a_leaf_inside_the_index_file_is_sliced(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(t5x_native._copy(array, (slice(1, 2), slice(0, 2))), [[3, 4]])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stacks", [False, True])
def test_parts_become_the_parameters(kind, stacks, drawn, folders, monkeypatch):
    """As in a process that is not the first: every parameter is read by parts alone."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    loaded = weights.load(MODEL, folders[kind], stacks=stacks, mesh=ONE)
    expected = stacking.stack(drawn) if stacks else drawn
    assert trees.diff(loaded.params, expected).is_empty
    assert all(placing.mesh_of(leaf) == ONE for leaf in loaded.params.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_fingerprint_is_that_without_a_mesh(dtype, drawn, folders):
    loaded = weights.load(MODEL, folders["t5x"], dtype=dtype, stacks=True, mesh=ONE)
    assert loaded.fingerprint == trees.fingerprint(drawn)


EIGHT = """
import json, sys
import jax, numpy as np
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.parallel import mesh, placing, rules
from jax.sharding import NamedSharding
made = mesh.make({"data": 2, "model": 4})
path = "encoder/layers_1/mlp/wi/kernel"
leaf = checkpoint.leaves(sys.argv[1])[path]
read = placing.read_parts(made, path, leaf)
whole = leaf.read()
array = placing.parameters(made, {path: whole})[path]
stacked = placing.Placer(made, {"encoder": 2})
for layer in (0, 1):
    stacked.add(f"encoder/layers_{layer}/mlp/wi/kernel", read)
both = stacked.finish()["encoder/layers/mlp/wi/kernel"]
rows = placing.rows(made, {"a": np.arange(8).reshape(4, 2), "b": np.arange(2)})
print(json.dumps({
    "keys": sorted(map(str, read.parts)),
    "parts": {str(key): np.asarray(part).tolist() for key, part in read.parts.items()},
    "whole": whole.tolist(),
    "shard": array.addressable_shards[5].data.shape,
    "stack": [both.shape, both.addressable_shards[1].data.shape],
    "equal": bool((np.asarray(both) == whole).all()),
    "rows": [rows["a"].addressable_shards[7].data.tolist(), rows["b"].sharding.spec[0]],
    "filled": [placing.fill(made, rows) for rows in (1, 2, 3)],
    "key": bool((jax.random.key_data(placing.key(made, jax.random.key(3)))
                 == jax.random.key_data(jax.random.key(3))).all()),
}))
"""


def test_each_device_holds_its_part(folders):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, folders["hf"]],
        capture_output=True,
        text=True,
        env=os.environ | flags,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole = np.array(found["whole"])  # [8, 16], its columns split over four devices
    everything = "(None, None)"
    assert found["keys"] == [f"({everything}, ({start}, {start + 4}))" for start in (0, 12, 4, 8)]
    for start in (0, 4, 8, 12):
        part = found["parts"][f"({everything}, ({start}, {start + 4}))"]
        np.testing.assert_array_equal(part, whole[:, start : start + 4])
    assert found["shard"] == [8, 4]
    assert found["stack"] == [[2, 8, 16], [2, 8, 4]]
    assert found["equal"] and found["key"]
    assert found["rows"] == [[[4, 5], [6, 7]], "data"]
    assert found["filled"] == [2, 2, 4]


def test_parts_are_read_and_no_more(folders):
    asked = []

    def read(index=()):
        asked.append(index)
        return np.zeros((384, 8))[index]

    leaf = Leaf((384, 8), np.dtype(np.float32), read)
    placing.read_parts(ONE, "token_embedder/embedding", leaf)
    assert asked == [(slice(None), slice(None))]


def test_without_a_mesh_everything_stays_as_it_is():
    array = np.zeros((3, 2))
    for put in (placing.whole, placing.rows, placing.gathered):
        assert put(None, {"a": array})["a"] is array
    assert placing.fill(None, 3) == 3
    assert placing.mesh_of({"a": array}) is None
    assert placing.mesh_of({"a": jax.numpy.zeros(2)}) is None


def test_parts_change_their_type():
    whole = np.arange(4, dtype=np.float32)
    parts = placing.Parts((4,), whole.dtype, {((0, 2),): whole[:2]})
    half = parts.astype(jax.numpy.bfloat16)
    assert half.dtype == half[(slice(0, 2),)].dtype == jax.numpy.bfloat16
    assert dataclasses.replace(half, shape=(2,)).shape == (2,)
