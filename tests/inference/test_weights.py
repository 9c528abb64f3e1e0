"""Tests of prompt_tuning/inference/weights.py: parameters are loaded one at a time."""

import dataclasses

import numpy as np
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.data import vocabularies
from prompt_tuning.inference import weights
from prompt_tuning.inference.frozen import load_parameters, load_t5
from prompt_tuning.model import parameters, quantization
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.stacking import stack
from prompt_tuning.model.transformer import EMBEDDING_PATH
from prompt_tuning.run_checks import PARAM_DTYPES

CONFIG = dataclasses.replace(tiny_runs.MODEL, num_encoder_layers=3, num_decoder_layers=2)
BYTES = vocabularies.family("byt5").vocabulary


@pytest.fixture(scope="module")
def floats():
    return load_parameters(CONFIG, "random:1")


@pytest.fixture(scope="module")
def path(floats, tmp_path_factory):
    return t5x_native.write(tmp_path_factory.mktemp("model"), floats, 1)


def rounded(floats, dtype):
    if dtype in quantization.KINDS:
        made = [quantization.quantize(p, np.asarray(leaf), dtype) for p, leaf in floats.items()]
        return trees.merge(*made)
    return {name: leaf.astype(dtype) for name, leaf in floats.items()}


@pytest.mark.parametrize("dtype", PARAM_DTYPES)
@pytest.mark.parametrize("stacks", [False, True])
def test_what_is_loaded_is_what_rounding_and_stacking_make(dtype, stacks, floats, path):
    loaded = weights.load(CONFIG, path, dtype=dtype, stacks=stacks)
    expected = rounded(floats, dtype)
    expected = stack(expected) if stacks else expected
    assert trees.diff(loaded.params, expected).is_empty
    assert {name: x.dtype for name, x in loaded.params.items()} == {
        name: x.dtype for name, x in expected.items()
    }
    if stacks:
        name = "encoder/layers/attention/query/kernel"
        assert loaded.params[name].shape == (3, 16, 16)


@pytest.mark.parametrize("compute", [Compute(), Compute("scan")], ids=["unroll", "scan"])
@pytest.mark.parametrize("source", ["checkpoint", "random:1"])
@pytest.mark.parametrize("dtype", PARAM_DTYPES)
def test_the_fingerprint_is_that_of_the_float32_parameters(dtype, source, compute, floats, path):
    source = path if source == "checkpoint" else source
    t5 = load_t5(CONFIG, source, BYTES, dtype=dtype, compute=compute)
    assert t5.fingerprint == trees.fingerprint(floats)


def test_initialisers_get_a_table_of_floats(floats, path):
    t5 = load_t5(CONFIG, path, BYTES, dtype="int8")
    assert t5.params[EMBEDDING_PATH].dtype == np.int8
    table, exact = (np.asarray(x) for x in (t5.start().embeddings, floats[EMBEDDING_PATH]))
    assert table.dtype == np.float32
    coarsest = np.abs(exact).max(axis=1, keepdims=True) / 127
    assert (np.abs(table - exact) <= 0.501 * coarsest).all()
    assert (table != exact).any()


def test_a_large_model_is_drawn_a_layer_at_a_time(floats, monkeypatch):
    """And is the same as one that is drawn at once."""
    seen = []
    draw = parameters.draw

    def note(model, rng, paths=None):
        seen.append(paths)
        return draw(model, rng, paths)

    monkeypatch.setattr(weights, "_DRAWN_AT_ONCE", 0)
    monkeypatch.setattr(parameters, "draw", note)
    assert trees.diff(weights.load(CONFIG, "random:1").params, floats).is_empty
    assert seen[1][0].startswith("decoder/layers_0/") and len(seen[1]) == 14
    assert len(seen) == 3 + 2 + 6  # layers; norms and position biases, logits and embedding


def test_at_most_four_parameters_are_read_ahead(path, monkeypatch):
    """Each is rounded before the fifth after it is read."""
    from prompt_tuning.checkpoints import leaves

    read, rounded_names = [], []
    open_zarr, quantize = leaves._read_zarr, quantization.quantize

    def note(*args):
        read.append(args[-1])
        return open_zarr(*args)

    def check(name, leaf, kind):
        rounded_names.append(name)
        assert len(read) <= len(rounded_names) + 3
        return quantize(name, leaf, kind)

    monkeypatch.setattr(leaves, "_read_zarr", note)
    monkeypatch.setattr(quantization, "quantize", check)
    weights.load(CONFIG, path, dtype="int8")
    assert len(read) == len(rounded_names) == len(parameters.parameter_shapes(CONFIG))


def test_stacked_parameters_are_used_where_they_were_collected(floats):
    """JAX does not copy an array of NumPy on a CPU if its address is a multiple of 64."""
    from prompt_tuning.model import stacking

    array = stacking._aligned((3, 5, 7), np.dtype(np.int8))
    assert array.ctypes.data % 64 == 0
    stacker = stacking.Stacker({"encoder": 3})
    for number in range(3):
        stacker.add(f"encoder/layers_{number}/a", np.ones((64, 64), np.int8))
    address = stacker._partial["encoder/layers/a"].ctypes.data
    assert stacker.finish()["encoder/layers/a"].unsafe_buffer_pointer() == address


def test_an_unknown_type_is_refused(path):
    with pytest.raises(ValueError, match="must be one of 'float32', .*'int8_w8a8', got 'int4'"):
        weights.load(CONFIG, path, dtype="int4")
