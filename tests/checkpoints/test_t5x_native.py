"""T5X-native checkpoints: what T5X wrote is read bit for bit, and damage is named."""

import json
import pathlib
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
import t5x_tiny
import tensorstore
from flax import serialization

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native

PARITY = pathlib.Path(__file__).parents[1] / "data" / "parity" / "t5x_tiny"
NATIVE = PARITY / "native" / "checkpoint_3"
LEAF = "encoder/layers_0/mlp/wo/kernel"
LEAF_FOLDER = "target.encoder.layers_0.mlp.wo.kernel"


@pytest.fixture
def copy(tmp_path):
    """A checkpoint of T5X that a test may damage."""
    folder = tmp_path / "checkpoint_3"
    shutil.copytree(NATIVE, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def read_index(folder):
    return serialization.msgpack_restore((folder / "checkpoint").read_bytes())


def write_index(folder, index):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(index))


def read_all(folder):
    return {path: leaf.read() for path, leaf in t5x_native.leaves(str(folder)).items()}


def assert_same(read, expected):
    assert read.keys() == expected.keys()
    for path, array in expected.items():
        assert read[path].dtype == array.dtype, path
        np.testing.assert_array_equal(read[path], array, err_msg=path)


def test_reads_what_t5x_wrote_bit_for_bit():
    assert_same(read_all(NATIVE), t5x_tiny.parameters())


def test_shapes_and_types_are_known_without_reading():
    described = json.loads((PARITY / "params.json").read_text())
    found = t5x_native.leaves(str(NATIVE))
    assert {path: (list(leaf.shape), leaf.dtype.name) for path, leaf in found.items()} == {
        path: (shape, dtype) for path, (shape, dtype, _) in described.items()
    }


@pytest.mark.parametrize(
    "describe",
    [
        lambda name: {"driver": "zarr", "kvstore": {"driver": "gfile", "path": name}},
        lambda name: {"driver": "zarr", "kvstore": {"driver": "gfile", "path": name + "/"}},
        lambda name: {
            "driver": "zarr",
            "kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": name + "/"},
        },
        lambda name: {
            "driver": "zarr",
            "kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket"},
            "path": name,
        },
    ],
    ids=["gfile", "gfile with slash", "gcs", "path beside the store"],
)
def test_every_way_t5x_describes_an_array(copy, describe):
    index = read_index(copy)
    target = {
        path: {**describe("target." + path.replace("/", ".")), "metadata": {"shape": shape}}
        for path, (shape, _, _) in json.loads((PARITY / "params.json").read_text()).items()
    }
    index["optimizer"]["target"] = trees.unflatten(target)
    write_index(copy, index)
    assert_same(read_all(copy), t5x_tiny.parameters())


def test_chunks_larger_than_the_array(tmp_path):
    array = np.arange(5, dtype=np.float32)
    description = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": "target.a/"},
        "metadata": {"shape": [5], "chunks": [8], "compressor": {"id": "gzip", "level": 1}},
    }
    store = {"driver": "file", "path": str(tmp_path / "target.a") + "/"}
    tensorstore.open(
        {**description, "kvstore": store, "dtype": "float32"}, create=True
    ).result().write(array).result()
    write_index(tmp_path, {"version": 3, "optimizer": {"target": {"a": description}}})
    assert_same(read_all(tmp_path), {"a": array})


def test_arrays_inside_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    arrays = {
        "chunked": np.arange(20, dtype=np.float32).reshape(4, 5),
        "bfloat16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "scalar": np.array(7.0, np.float32),
    }
    index = {"version": 3, "optimizer": {"target": dict(arrays)}}
    (tmp_path / "checkpoint").write_bytes(serialization.to_bytes(index))
    assert b"__msgpack_chunked_array__" in (tmp_path / "checkpoint").read_bytes()
    assert_same(read_all(tmp_path), arrays)


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 23000])
def test_an_index_that_is_cut_short(copy, size):
    index = copy / "checkpoint"
    index.write_bytes(index.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"checkpoint' \({size} bytes\) .* truncated or damaged"):
        t5x_native.leaves(str(copy))


def test_a_missing_leaf_is_named(copy):
    shutil.rmtree(copy / LEAF_FOLDER)
    with pytest.raises(ValueError, match=f"The parameter '{LEAF}' of .* its array is missing"):
        t5x_native.leaves(str(copy))


def test_a_missing_chunk_is_not_read_as_zeros(copy):
    (copy / LEAF_FOLDER / "0.0").unlink()
    leaf = t5x_native.leaves(str(copy))[LEAF]
    with pytest.raises(ValueError, match=rf"'{LEAF}' of .* lacks 1 of its 1 chunk files .*'0\.0'"):
        leaf.read()


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_chunk_that_is_cut_short(copy, size):
    chunk = copy / LEAF_FOLDER / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"'{LEAF}' of .* cannot be read: .*damaged"):
        t5x_native.leaves(str(copy))[LEAF].read()


def test_a_damaged_description(copy):
    (copy / LEAF_FOLDER / ".zarray").write_text('{"shape": [64')
    with pytest.raises(ValueError, match=f"'{LEAF}' of .* damaged description"):
        t5x_native.leaves(str(copy))


def test_an_index_that_contradicts_its_arrays(copy):
    index = read_index(copy)
    index["optimizer"]["target"]["token_embedder"]["embedding"]["metadata"]["shape"] = [128, 64]
    write_index(copy, index)
    with pytest.raises(
        ValueError,
        match=re.escape("has shape [128, 32], but the checkpoint's index gives [128, 64]"),
    ):
        t5x_native.leaves(str(copy))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("PLACEHOLDER://target.a", "PLACEHOLDER"),
        (None, "None"),
        ({"driver": "n5", "kvstore": {"driver": "file", "path": "a"}}, "stored as 'n5'"),
        ({"driver": "zarr", "kvstore": {"driver": "s3", "path": "a"}}, "through 's3'"),
        ({"driver": "zarr", "kvstore": {"driver": "file"}}, "and a path"),
        ({"driver": "zarr", "kvstore": {"driver": "file", "path": "/etc"}}, "outside of its"),
        ({"driver": "zarr", "kvstore": {"driver": "file", "path": "a/../../b"}}, "outside of its"),
    ],
)
def test_a_leaf_of_an_unknown_kind(tmp_path, value, message):
    write_index(tmp_path, {"version": 3, "optimizer": {"target": {"a": value}}})
    with pytest.raises(ValueError, match=f"The parameter 'a' of .*{message}"):
        t5x_native.leaves(str(tmp_path))


def test_bfloat16_of_old_is_refused(tmp_path):
    folder = t5x_native.write(tmp_path, {"a": np.ones(3, np.uint16)}, 1)
    with pytest.raises(ValueError, match="'a' of .* stored as uint16"):
        t5x_native.leaves(folder)


def test_an_old_version_is_refused(tmp_path):
    write_index(tmp_path, {"version": 1, "optimizer": {"target": {"a": np.ones(1)}}})
    with pytest.raises(ValueError, match=r"is of version 1; versions \(2, 3\) can be read"):
        t5x_native.leaves(str(tmp_path))


def test_what_is_written_is_read_back(tmp_path):
    arrays = {
        "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a/scale": np.array([1.5, -0.0], ml_dtypes.bfloat16),
        "zeros": np.zeros((3, 2), np.float32),
        "scalar": np.array(4.0, np.float32),
    }
    folder = t5x_native.write(tmp_path, arrays, 12)
    assert folder == str(tmp_path / "checkpoint_12")
    assert_same(read_all(folder), arrays)


def test_written_in_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(t5x_native, "_CHUNK_BYTES", 100)
    arrays = {"a": np.arange(90, dtype=np.float32).reshape(15, 6)}
    folder = t5x_native.write(tmp_path, arrays, 1)
    # 360 bytes: 15 rows in thirds are 5 rows of 6, 120 bytes; then 6 columns in halves.
    names = sorted(path.name for path in pathlib.Path(folder, "target.a").iterdir())
    assert names == [".zarray", "0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert_same(read_all(folder), arrays)


def test_written_as_t5x_writes(tmp_path):
    folder = pathlib.Path(t5x_native.write(tmp_path, t5x_tiny.parameters(), 3))
    ours, theirs = read_index(folder), read_index(NATIVE)
    assert ours["version"] == theirs["version"] == 3
    assert ours["optimizer"]["target"] == theirs["optimizer"]["target"]
    np.testing.assert_array_equal(ours["optimizer"]["state"]["step"], 3)
    assert ours["optimizer"]["state"]["step"].dtype == theirs["optimizer"]["state"]["step"].dtype
    their_files = {path.relative_to(NATIVE) for path in NATIVE.glob("target.*/*")}
    assert {path.relative_to(folder) for path in folder.glob("target.*/*")} == their_files
    for name in their_files:
        if name.name == ".zarray":
            assert json.loads((folder / name).read_text()) == json.loads(
                (NATIVE / name).read_text()
            )


def test_no_empty_branch_is_written(tmp_path):
    # T5X's load_t5x_checkpoint fails on an empty dict in the tree.
    index = read_index(pathlib.Path(t5x_native.write(tmp_path, {"a": np.ones(1)}, 3)))
    assert set(index["optimizer"]["state"]) == {"step"}


def test_nothing_is_overwritten(tmp_path):
    folder = t5x_native.write(tmp_path, {"a": np.ones(1)}, 3)
    with pytest.raises(ValueError, match="checkpoint_3' exists already"):
        t5x_native.write(tmp_path, {"a": np.zeros(1)}, 3)
    assert_same(read_all(folder), {"a": np.ones(1)})


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail():
        raise OSError("disk full")

    leaf = t5x_native.Leaf((1,), np.dtype(np.float32), fail)
    with pytest.raises(OSError, match="disk full"):
        t5x_native.write(tmp_path, {"a": np.ones(1), "b": leaf}, 3)
    assert list(tmp_path.iterdir()) == []


def test_adafactors_accumulators_are_listed():
    """The T5X of this checkpoint has no dimension of 128, so every second moment is whole."""
    found = t5x_native.accumulators(str(NATIVE))
    shapes = {path: leaf.shape for path, leaf in t5x_native.leaves(str(NATIVE)).items()}
    assert found.step == 3
    assert {path: one["v"].shape for path, one in found.of.items()} == shapes
    assert {one["v_row"].shape for one in found.of.values()} == {(1,)}
    moment = found.of[LEAF]["v"].read()
    assert moment.dtype == np.float32
    assert (moment > 0).all()


def test_a_checkpoint_of_parameters_alone_has_no_accumulators(tmp_path):
    assert t5x_native.accumulators(t5x_native.write(tmp_path, {"a": np.ones(1)}, 3)) is None


def test_another_optimizers_state_is_not_adafactors(copy):
    index = read_index(copy)
    index["optimizer"]["state"]["param_states"] = {"a": {"grad_ema": np.ones(2)}}
    write_index(copy, index)
    assert t5x_native.accumulators(str(copy)) is None
