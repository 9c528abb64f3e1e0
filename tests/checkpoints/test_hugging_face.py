"""Hugging Face folders: nothing missing, nothing left over; transformers' files of all kinds."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints import checkpoint, hugging_face
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config

SIZES = {
    "vocab_size": 6,
    "emb_dim": 4,
    "num_heads": 2,
    "head_dim": 3,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
    "mlp_dim": 5,
}
UNTIED = T5Config(name="untied", **SIZES)
TIED = T5Config(name="tied", **SIZES, mlp_activations=("relu",), logits_via_embedding=True)


def random_leaves(model, dtype=np.float32):
    rng = np.random.default_rng(0)
    arrays = {
        path: rng.normal(size=shape).astype(dtype)
        for path, shape in parameter_shapes(model).items()
    }
    return arrays, {name: Leaf(a.shape, a.dtype, a.copy) for name, a in arrays.items()}


@pytest.fixture
def tiny(parity, copy_of):
    """The model that transformers wrote, to be changed."""
    return copy_of(parity / "hf_tiny" / "model")


def change_tensors(folder, **changes):
    """Sets tensors of model.safetensors, or removes them (None); `__` means a dot."""
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors |= {name.replace("__", "."): array for name, array in changes.items()}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    return tensors


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_tensor_has_its_place(tiny):
    theirs = safetensors.numpy.load_file(tiny / "model.safetensors")
    loaded = checkpoint.load_model(tiny, parameter_shapes(checkpoint.hugging_face_model(tiny)))
    assert len(loaded) == len(theirs) + 1  # the logits' matrix is the table, transposed

    def same(ours, name, turned=True):
        np.testing.assert_array_equal(loaded[ours], theirs[name].T if turned else theirs[name])

    same("token_embedder/embedding", "shared.weight", turned=False)
    same("decoder/logits_dense/kernel", "shared.weight")
    same(
        "encoder/layers_1/attention/query/kernel", "encoder.block.1.layer.0.SelfAttention.q.weight"
    )
    same("encoder/layers_0/mlp/wi_1/kernel", "encoder.block.0.layer.1.DenseReluDense.wi_1.weight")
    same("decoder/layers_0/mlp/wo/kernel", "decoder.block.0.layer.2.DenseReluDense.wo.weight")
    same(
        "decoder/layers_1/encoder_decoder_attention/out/kernel",
        "decoder.block.1.layer.1.EncDecAttention.o.weight",
    )
    same(
        "decoder/relpos_bias/rel_embedding",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    )
    same(
        "decoder/layers_1/pre_cross_attention_layer_norm/scale",
        "decoder.block.1.layer.1.layer_norm.weight",
    )


@pytest.mark.parametrize("model", [UNTIED, TIED], ids=lambda model: model.name)
@pytest.mark.parametrize("shard_bytes", [10**9, 400], ids=["single", "sharded"])
def test_what_is_written_is_read_bit_for_bit(model, shard_bytes, tmp_path):
    arrays, leaves = random_leaves(model)
    hugging_face.write(tmp_path / "hf", leaves, model, shard_bytes=shard_bytes)
    files = {path.name for path in (tmp_path / "hf").iterdir()}
    assert ("model.safetensors" in files) == (shard_bytes == 10**9)
    assert ("model.safetensors.index.json" in files) == (shard_bytes == 400)
    loaded = load_parameters(model, str(tmp_path / "hf"))
    assert loaded.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(loaded[path], array, err_msg=path)


def test_shards_are_as_transformers_names_them(tmp_path):
    arrays, leaves = random_leaves(UNTIED)
    hugging_face.write(tmp_path / "hf", leaves, UNTIED, shard_bytes=400)
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert max((tmp_path / "hf" / name).stat().st_size for name in files) < 400 + 1000


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_other_floats_keep_their_type(dtype, tmp_path):
    arrays, leaves = random_leaves(UNTIED, dtype)
    hugging_face.write(tmp_path / "hf", leaves, UNTIED)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["torch_dtype"] == np.dtype(dtype).name
    for path, leaf in checkpoint.leaves(tmp_path / "hf").items():
        assert leaf.dtype == dtype
        np.testing.assert_array_equal(leaf.read(), arrays[path])


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "hf").mkdir()
    with pytest.raises(ValueError, match="hf' exists already"):
        hugging_face.write(tmp_path / "hf", random_leaves(UNTIED)[1], UNTIED)
    assert not list((tmp_path / "hf").iterdir())


def test_a_failed_write_leaves_nothing(tmp_path):
    _, leaves = random_leaves(UNTIED)
    broken = dict(leaves)
    name = "decoder/decoder_norm/scale"

    def fail():
        raise ValueError("damaged")

    broken[name] = Leaf(leaves[name].shape, leaves[name].dtype, fail)
    with pytest.raises(ValueError, match="damaged"):
        hugging_face.write(tmp_path / "hf", broken, UNTIED)
    assert not list(tmp_path.iterdir())


def test_only_the_models_own_parameters_are_written(tmp_path):
    _, leaves = random_leaves(UNTIED)
    extra = leaves["decoder/decoder_norm/scale"]
    with pytest.raises(ValueError, match=r"not the parameters of tied: missing \(3\): .*mlp/wi/k"):
        hugging_face.write(tmp_path / "hf", leaves, TIED)
    with pytest.raises(ValueError, match=r"untied: without a place \(1\): encoder/adapter/x\."):
        hugging_face.write(tmp_path / "hf", {**leaves, "encoder/adapter/x": extra}, UNTIED)
    wide = T5Config(**{**SIZES, "name": "wide", "mlp_dim": 7})
    with pytest.raises(ValueError, match=r"shape \[4, 5\], that of wide has \[4, 7\]"):
        hugging_face.write(tmp_path / "hf", leaves, wide)


def test_copies_of_the_table_must_agree(tiny):
    shared = safetensors.numpy.load_file(tiny / "model.safetensors")["shared.weight"]
    change_tensors(tiny, encoder__embed_tokens__weight=shared, decoder__embed_tokens__weight=shared)
    read = checkpoint.read_variable(tiny, "token_embedder/embedding")
    np.testing.assert_array_equal(read, shared)
    # saved under another name only
    change_tensors(tiny, shared__weight=None, encoder__embed_tokens__weight=None)
    read = checkpoint.read_variable(tiny, "token_embedder/embedding")
    np.testing.assert_array_equal(read, shared)
    change_tensors(tiny, shared__weight=shared + 1)
    with pytest.raises(ValueError, match="shared.weight and decoder.embed_tokens.weight with diff"):
        checkpoint.read_variable(tiny, "token_embedder/embedding")
    change_tensors(tiny, shared__weight=None, decoder__embed_tokens__weight=None)
    with pytest.raises(ValueError, match="holds no embedding table"):
        checkpoint.variables(tiny)


def test_a_scaled_tied_model_with_another_head_is_refused(tmp_path):
    arrays, leaves = random_leaves(TIED)
    folder = tmp_path / "hf"
    hugging_face.write(folder, leaves, TIED)
    table = arrays["token_embedder/embedding"]
    change_tensors(folder, lm_head__weight=table)
    assert load_parameters(TIED, str(folder)).keys() == arrays.keys()
    change_tensors(folder, lm_head__weight=table, shared__weight=None)
    np.testing.assert_array_equal(
        checkpoint.read_variable(folder, "token_embedder/embedding"), table
    )
    change_tensors(folder, lm_head__weight=table * 2, shared__weight=table)
    with pytest.raises(ValueError, match="shared.weight and lm_head.weight with different values"):
        load_parameters(TIED, str(folder))


def test_an_untied_model_without_its_head_is_refused(tmp_path):
    hugging_face.write(tmp_path / "hf", random_leaves(UNTIED)[1], UNTIED)
    change_tensors(tmp_path / "hf", lm_head__weight=None)
    with pytest.raises(ValueError, match="lacks lm_head.weight, although .* tie_word_embeddings F"):
        checkpoint.variables(tmp_path / "hf")


def test_nothing_is_missing_and_nothing_left_over(tiny):
    norm = safetensors.numpy.load_file(tiny / "model.safetensors")[
        "decoder.final_layer_norm.weight"
    ]
    unused = "decoder__block__0__layer__1__EncDecAttention__relative_attention_bias__weight"
    change_tensors(tiny, **{unused: np.ones((32, 4), np.float32)})
    assert checkpoint.variables(tiny)  # transformers leaves that one unread, too
    change_tensors(tiny, classifier__dense__weight=norm)
    with pytest.raises(
        ValueError,
        match=r"config.json: left over \(1\): classifier.dense.weight\.$",
    ):
        checkpoint.variables(tiny)
    missing = "decoder.final_layer_norm.weight"
    change_tensors(tiny, decoder__final_layer_norm__weight=None, classifier__dense__weight=None)
    with pytest.raises(ValueError, match=rf"config.json: missing \(1\): {missing}\.$"):
        checkpoint.variables(tiny)


def test_a_tensor_of_another_shape_than_in_the_config(tiny):
    change_config(tiny, d_ff=48)
    with pytest.raises(ValueError, match=r"wi_0.weight as \[32, 64\] .*json gives \[32, 48"):
        checkpoint.variables(tiny)


def test_the_model_that_gin_names_must_be_the_folders(tiny):
    model = T5Config(
        name="mine",
        **{**SIZES, "vocab_size": 128, "emb_dim": 32, "num_heads": 4, "head_dim": 8, "mlp_dim": 64},
        mlp_activations=("silu", "linear"),
    )
    with pytest.raises(ValueError) as error:
        load_parameters(model, str(tiny))
    assert str(error.value) == (
        f"'{tiny}/config.json' describes another model than mine: num_decoder_layers 2 here, 1 "
        "there; mlp_activations ('gelu', 'linear') here, ('silu', 'linear') there. Name the gin "
        "file of that model (gin/models/NAME.gin), or the checkpoint of mine."
    )


def test_a_setting_that_cannot_be_computed_stops_the_load(tiny):
    change_config(tiny, layer_norm_epsilon=1e-5)
    with pytest.raises(ValueError, match="has layer_norm_epsilon 1e-05; the T5 here computes only"):
        checkpoint.variables(tiny)


def test_an_unknown_setting_is_warned_of_once(tiny, caplog):
    change_config(tiny, mystery=1, use_rope=True)
    load_parameters(checkpoint.hugging_face_model(tiny), str(tiny))
    assert caplog.messages == [
        f"'{tiny}/config.json' has settings that are not known here and are taken to change "
        "nothing: mystery, use_rope."
    ]


def test_a_pickle_is_never_opened(tiny):
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(ValueError) as error:
        checkpoint.variables(tiny)
    assert str(error.value) == (
        f"'{tiny}' has no safetensors, only a pickle (pytorch_model.bin), which could run code and "
        "is not opened. Take a revision that has model.safetensors (on the Hub often @refs/pr/N, "
        "made by its conversion bot), or convert it where torch and transformers are: python -c "
        '"from transformers import AutoModelForSeq2SeqLM as M; '
        f"M.from_pretrained('{tiny}').save_pretrained('NEW_FOLDER')\"."
    )


@pytest.mark.parametrize("file", ["", "/", "/config.json", "/model.safetensors"])
def test_the_ways_to_name_a_folder(file, tiny):
    assert checkpoint.find(f"{tiny}{file}") == str(tiny)


def test_damaged_folders_are_named(tmp_path, tiny):
    folder = tmp_path / "hf"
    hugging_face.write(folder, random_leaves(UNTIED)[1], UNTIED, shard_bytes=400)
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    first, second = sorted(set(told["weight_map"].values()))[:2]
    told["weight_map"]["shared.weight"] = second
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=f"and {first} disagree on 1 tensors, first shared.weight"):
        checkpoint.variables(folder)
    (folder / first).unlink()
    with pytest.raises(
        ValueError, match=f"lacks {first}, which model.safetensors.index.json names"
    ):
        checkpoint.variables(folder)
    (tiny / "config.json").write_text('{"model_type": "t5"')
    with pytest.raises(ValueError, match="config.json' is truncated or damaged"):
        checkpoint.variables(tiny)


def test_names_and_shapes_are_those_of_our_model():
    from prompt_tuning.config import model_names, read_model

    for name in ("t5_1_0_small", "t5_1_1_small", "byt5_small", "pocket_xs"):
        assert name in model_names()
        model = read_model(name)
        assert hugging_face.shapes(model) == parameter_shapes(model)
