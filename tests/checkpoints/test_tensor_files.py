"""Safetensors files: what the library writes is read, what is written the library reads."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints import tensor_files
from prompt_tuning.checkpoints.leaves import Leaf


def leaf(array):
    return Leaf(array.shape, array.dtype, lambda: array)


def test_the_library_reads_what_is_written(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"b.turned": matrix.T, "a": np.array([1.5, -2], np.float16)}
    path = str(tmp_path / "x.safetensors")
    tensor_files.write(path, {name: leaf(a) for name, a in arrays.items()}, {"format": "pt"})
    read = safetensors.numpy.load_file(path)
    assert read.keys() == arrays.keys()
    np.testing.assert_array_equal(read["b.turned"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(read["a"], [1.5, -2])
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_the_library_writes_is_read(tmp_path):
    arrays = {"x": np.ones((2, 2), np.float32), "y": np.full(3, 7, np.float16)}
    path = str(tmp_path / "x.safetensors")
    safetensors.numpy.save_file(arrays, path)
    found = tensor_files.leaves(path)
    assert {name: (f.shape, f.dtype) for name, f in found.items()} == {
        "x": ((2, 2), np.float32),
        "y": ((3,), np.float16),
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].read(), array)


def test_bfloat16_goes_both_ways(tmp_path):
    array = np.array([[1.0, -0.5, 3.140625]], ml_dtypes.bfloat16)
    path = str(tmp_path / "x.safetensors")
    tensor_files.write(path, {"x": leaf(array)}, {})
    found = tensor_files.leaves(path)["x"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.read().astype(np.float32), [[1.0, -0.5, 3.140625]])


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": np.ones(4, np.float32)}, path)
    found = tensor_files.leaves(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="x.safetensors' ended early while it was read"):
        found["x"].read()


def test_damage_and_other_types_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": np.ones(4, np.int8)}, path)
    with pytest.raises(ValueError, match="x.safetensors' holds I8; F16, BF16, F32 are read"):
        tensor_files.leaves(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="x.safetensors' is damaged or incomplete"):
        tensor_files.leaves(str(path))
    with pytest.raises(ValueError, match="x is float64; float16, bfloat16, float32 are written"):
        tensor_files.write(str(path), {"x": leaf(np.ones(1))}, {})
