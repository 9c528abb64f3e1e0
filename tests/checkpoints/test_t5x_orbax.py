"""T5X's Orbax checkpoints: what T5X wrote is read bit for bit, and damage is named."""

import json
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import t5x_tiny
from etils import epath
from flax import serialization

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_orbax
from prompt_tuning.checkpoints.leaves import Leaf

PARITY = pathlib.Path(__file__).parents[1] / "data" / "parity" / "t5x_tiny"
ORBAX = PARITY / "orbax" / "checkpoint_3"


@pytest.fixture
def copy(tmp_path):
    """A checkpoint of T5X that a test may damage."""
    folder = tmp_path / "checkpoint_3"
    shutil.copytree(ORBAX, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def make_early(folder):
    """Turns a checkpoint into one of the earliest: a msgpack file in place of _METADATA."""
    (folder / "state" / "_METADATA").unlink()
    placeholders = {
        "target/" + path: "PLACEHOLDER://target." + path.replace("/", ".")
        for path in t5x_tiny.parameters()
    }
    index = serialization.msgpack_serialize(trees.unflatten(placeholders))
    (folder / "state" / "checkpoint").write_bytes(index)


def assert_reads_the_vector(folder):
    found, expected = t5x_orbax.leaves(str(folder)), t5x_tiny.parameters()
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].shape == array.shape
        read = found[path].read()
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array, err_msg=path)


def test_reads_what_t5x_wrote_bit_for_bit():
    assert_reads_the_vector(ORBAX)


def test_the_earliest_layout(copy):
    make_early(copy)
    # Orbax still reads it: this is the layout, not our idea of it.
    theirs = ocp.PyTreeCheckpointHandler().restore(epath.Path(copy / "state"))
    assert trees.flatten(theirs["target"]).keys() == t5x_tiny.parameters().keys()
    assert_reads_the_vector(copy)


def test_the_earliest_layout_cut_short(copy):
    make_early(copy)
    index = copy / "state" / "checkpoint"
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"state/checkpoint' \(200 bytes\) is truncated"):
        t5x_orbax.leaves(str(copy))


def test_metadata_cut_short(copy):
    metadata = copy / "state" / "_METADATA"
    metadata.write_bytes(metadata.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"_METADATA' \(300 bytes\) is truncated or damaged"):
        t5x_orbax.leaves(str(copy))


def test_a_missing_database_is_named(copy):
    (copy / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(ValueError, match="state' lacks its file 'manifest.ocdbt'"):
        t5x_orbax.leaves(str(copy))


def test_a_missing_part_of_the_database_is_named(copy):
    shutil.rmtree(copy / "state" / "ocdbt.process_0")
    with pytest.raises(ValueError, match="The parameter '.*' of .* cannot be read: "):
        for leaf in t5x_orbax.leaves(str(copy)).values():
            leaf.read()


def test_a_leaf_that_is_only_named(copy):
    metadata = copy / "state" / "_METADATA"
    described = json.loads(metadata.read_text())
    described["tree_metadata"]["('target', 'decoder', 'extra')"] = {}
    metadata.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="'decoder/extra' of .* its array is missing"):
        t5x_orbax.leaves(str(copy))


def test_zarr3_is_refused(copy):
    metadata = copy / "state" / "_METADATA"
    metadata.write_text(metadata.read_text().replace('"use_zarr3": false', '"use_zarr3": true'))
    with pytest.raises(ValueError, match="as zarr v3; T5X writes zarr v2"):
        t5x_orbax.leaves(str(copy))


def test_a_state_without_parameters(copy):
    (copy / "state" / "_METADATA").write_text('{"tree_metadata": {"(\'step\',)": {}}}')
    with pytest.raises(ValueError, match="nothing in it is named 'target'"):
        t5x_orbax.leaves(str(copy))


def test_orbax_reads_what_is_written(tmp_path):
    arrays = t5x_tiny.parameters()
    leaves = {path: Leaf(a.shape, a.dtype, a.copy) for path, a in arrays.items()}
    folder = t5x_orbax.write(tmp_path, leaves, 1200)
    assert folder == str(tmp_path / "checkpoint_1200")
    assert_reads_the_vector(folder)
    theirs = ocp.PyTreeCheckpointHandler().restore(epath.Path(folder) / "state")
    assert int(theirs["state"]["step"]) == 1200
    read = trees.flatten(theirs["target"])
    assert read.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(read[path], array, err_msg=path)


def test_orbax_reads_it_as_t5x_asks(tmp_path):
    """With the abstract tree, as jax.Arrays, through the composite handler."""
    arrays = t5x_tiny.parameters()
    folder = t5x_orbax.write(tmp_path, arrays, 5)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        "state": {"step": jax.ShapeDtypeStruct((), np.int32, sharding=here)},
        "target": trees.unflatten(
            {
                path: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here)
                for path, array in arrays.items()
            }
        ),
    }
    arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler("state")) as checkpointer:
        theirs = checkpointer.restore(
            folder,
            ocp.args.Composite(state=ocp.args.PyTreeRestore(abstract, restore_args=arguments)),
        )["state"]
    for path, array in trees.flatten(theirs["target"]).items():
        assert isinstance(array, jax.Array)
        np.testing.assert_array_equal(array, arrays[path], err_msg=path)


def test_a_write_appears_whole_or_not_at_all(tmp_path):
    t5x_orbax.write(tmp_path, {"a": np.ones(2)}, 1)
    with pytest.raises(ValueError, match="checkpoint_1' exists already"):
        t5x_orbax.write(tmp_path, {"a": np.ones(2)}, 1)
    with pytest.raises(ValueError, match="no parameters to write"):
        t5x_orbax.write(tmp_path, {}, 2)

    def fail():
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        t5x_orbax.write(tmp_path, {"a": np.ones(2), "b": Leaf((1,), np.float32, fail)}, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1"]
