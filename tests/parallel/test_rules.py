import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from prompt_tuning import config
from prompt_tuning.model import stacking
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.parallel import memory, rules

TINY = T5Config(
    name="tiny",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
EXPECTED = {  # of every parameter of TINY
    "token_embedder/embedding": P("model", None),
    "encoder/relpos_bias/rel_embedding": P("model", None),
    "encoder/layers_0/pre_attention_layer_norm/scale": P(None),
    "encoder/layers_0/attention/query/kernel": P(None, "model"),
    "encoder/layers_0/attention/key/kernel": P(None, "model"),
    "encoder/layers_0/attention/value/kernel": P(None, "model"),
    "encoder/layers_0/attention/out/kernel": P("model", None),
    "encoder/layers_0/pre_mlp_layer_norm/scale": P(None),
    "encoder/layers_0/mlp/wi_0/kernel": P(None, "model"),
    "encoder/layers_0/mlp/wi_1/kernel": P(None, "model"),
    "encoder/layers_0/mlp/wo/kernel": P("model", None),
    "encoder/encoder_norm/scale": P(None),
    "decoder/relpos_bias/rel_embedding": P("model", None),
    "decoder/layers_0/pre_self_attention_layer_norm/scale": P(None),
    "decoder/layers_0/self_attention/query/kernel": P(None, "model"),
    "decoder/layers_0/self_attention/key/kernel": P(None, "model"),
    "decoder/layers_0/self_attention/value/kernel": P(None, "model"),
    "decoder/layers_0/self_attention/out/kernel": P("model", None),
    "decoder/layers_0/pre_cross_attention_layer_norm/scale": P(None),
    "decoder/layers_0/encoder_decoder_attention/query/kernel": P(None, "model"),
    "decoder/layers_0/encoder_decoder_attention/key/kernel": P(None, "model"),
    "decoder/layers_0/encoder_decoder_attention/value/kernel": P(None, "model"),
    "decoder/layers_0/encoder_decoder_attention/out/kernel": P("model", None),
    "decoder/layers_0/pre_mlp_layer_norm/scale": P(None),
    "decoder/layers_0/mlp/wi_0/kernel": P(None, "model"),
    "decoder/layers_0/mlp/wi_1/kernel": P(None, "model"),
    "decoder/layers_0/mlp/wo/kernel": P("model", None),
    "decoder/decoder_norm/scale": P(None),
    "decoder/logits_dense/kernel": P(None, "model"),
}
MESH = AbstractMesh((4, 2), rules.AXES, axis_types=(AxisType.Auto,) * 2)


def test_every_parameter_is_split_as_in_t5x():
    shapes = memory.frozen_arrays(TINY, "float32")
    assert {path: rules.spec(path) for path in shapes} == EXPECTED


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("token_embedder/embedding_scale", P("model")),
        ("decoder/layers_7/mlp/wi_0/kernel_scale", P("model")),
        ("decoder/layers_7/self_attention/query/kernel_scale_w8a8", P("model")),
        ("encoder/layers_11/attention/out/kernel_scale", P(None)),
        ("encoder/layers_0/mlp/wo/kernel_scale_w8a8", P(None)),
        ("encoder/layers_0/mlp/wi/kernel", P(None, "model")),
        ("decoder/logits_dense/kernel_scale", P("model")),
    ],
)
def test_scales_are_split_as_their_columns(path, expected):
    assert rules.spec(path) == expected


def test_the_first_axis_of_stacked_layers_is_not_split():
    arrays = {
        path: np.zeros(leaf.shape) for path, leaf in memory.frozen_arrays(TINY, "int8").items()
    }
    stacked = {path for path in stacking.stack(arrays) if "/layers/" in path}
    apart = {path.replace("/layers/", "/layers_0/") for path in stacked}
    assert len(stacked) == 23 + 18  # parameters of both layers, and scales of their matrices
    assert {rules.spec(path.replace("/layers_0/", "/layers/")) for path in apart} == {
        P(None, None),
        P(None, "model"),
        P(None, None, "model"),
        P(None, "model", None),
    }
    assert all(
        rules.spec(path.replace("/layers_0/", "/layers/")) == P(None, *rules.spec(path))
        for path in apart
    )


@pytest.mark.parametrize("dtype", ["float32", "int8", "int8_w8a8"])
@pytest.mark.parametrize("name", config.model_names())
def test_every_size_is_covered_and_divisible(name, dtype):
    model = config.read_model(name)
    for path, leaf in memory.frozen_arrays(model, dtype).items():
        spec = rules.spec(path)
        assert len(spec) == len(leaf.shape), path
        assert all(size % 2 == 0 for size, axis in zip(leaf.shape, spec, strict=True) if axis)


def test_a_path_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"^No rule says how the parameter 'encoder/layers_0/new"):
        rules.spec("encoder/layers_0/new/kernel")
    with pytest.raises(ValueError, match="No rule"):  # a whole path, not a part of one
        rules.spec("x/token_embedder/embedding")


def test_what_is_added_or_trains_is_whole():
    found = rules.shardings(
        MESH, ["token_embedder/embedding", "encoder/prompt"], whole=["encoder/prompt"]
    )
    assert found["token_embedder/embedding"].spec == P("model", None)
    assert found["encoder/prompt"].spec == P()
