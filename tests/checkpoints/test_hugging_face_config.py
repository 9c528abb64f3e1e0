"""config.json: what changes the function is honoured or refused by name."""

import dataclasses

import pytest

from prompt_tuning.checkpoints import hugging_face_config
from prompt_tuning.config import read_model

# As the models on the Hub have it, transformers 4.
T5_BASE = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 3072,
    "d_kv": 64,
    "d_model": 768,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 12,
    "num_layers": 12,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"num_beams": 4}},
    "vocab_size": 32128,
}
LM_ADAPTED = {
    **T5_BASE,
    "d_ff": 2048,
    "feed_forward_proj": "gated-gelu",
    "num_decoder_layers": 12,
    "tie_word_embeddings": False,
    "transformers_version": "4.10.0.dev0",
    "use_cache": True,
}
MT5_SMALL = {
    **LM_ADAPTED,
    "model_type": "mt5",
    "d_model": 512,
    "d_ff": 1024,
    "num_heads": 6,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "tokenizer_class": "T5Tokenizer",
    "vocab_size": 250112,
}
BYT5_SMALL = {
    **LM_ADAPTED,
    "d_model": 1472,
    "d_ff": 3584,
    "num_heads": 6,
    "num_layers": 12,
    "num_decoder_layers": 4,
    "gradient_checkpointing": False,
    "tokenizer_class": "ByT5Tokenizer",
    "vocab_size": 384,
}


def read(config, **changes):
    return hugging_face_config.read({**config, **changes}, "config.json")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (T5_BASE, "t5_1_0_base"),
        (LM_ADAPTED, "t5_1_1_base"),
        (MT5_SMALL, "mt5_small"),
        (BYT5_SMALL, "byt5_small"),
    ],
)
def test_the_published_models_are_our_parts(config, name):
    described = read(config)
    assert described.shares_table == (name == "t5_1_0_base")
    part = read_model(name)
    hugging_face_config.check_same(described.model, part, "config.json")
    assert dataclasses.replace(described.model, name=name, dtype=part.dtype) == part
    assert not described.unknown


@pytest.mark.parametrize("name", ["t5_1_0_base", "t5_1_1_base", "mt5_small", "byt5_small"])
def test_what_is_written_is_read_as_the_same_model(name):
    part = read_model(name)
    config = hugging_face_config.write(part, "float32")
    assert config["model_type"] == ("mt5" if name == "mt5_small" else "t5")
    assert config["torch_dtype"] == "float32"
    hugging_face_config.check_same(read(config).model, part, "config.json")
    assert not read(config).unknown


def test_the_config_of_transformers_five():
    five = {**LM_ADAPTED, "tie_word_embeddings": True, "transformers_version": "5.23.0"}
    unscaled = read(five, scale_decoder_outputs=False)
    assert not unscaled.model.logits_via_embedding
    assert unscaled.shares_table
    scaled = read(five, scale_decoder_outputs=True)
    assert scaled.model.logits_via_embedding
    mt5 = read({**MT5_SMALL, "tie_word_embeddings": True, "transformers_version": "5.23.0"})
    assert not mt5.model.logits_via_embedding
    assert mt5.shares_table


@pytest.mark.parametrize(
    ("changes", "activations"),
    [
        ({}, ("relu",)),
        ({"feed_forward_proj": "relu"}, ("relu",)),
        ({"feed_forward_proj": "gated-gelu"}, ("gelu", "linear")),
        ({"feed_forward_proj": "gated-silu"}, ("silu", "linear")),
        ({"feed_forward_proj": "gelu_new"}, ("gelu",)),
        # what transformers derived and saved decides
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu"}, ("relu", "linear")),
        ({"feed_forward_proj": "relu", "is_gated_act": True}, ("relu", "linear")),
    ],
)
def test_activations(changes, activations):
    model = read(T5_BASE, **changes).model
    assert model.mlp_activations == activations
    written = hugging_face_config.write(model, "float32")
    assert read(written).model.mlp_activations == activations


def test_an_mt5_is_gated_by_default():
    config = {name: value for name, value in MT5_SMALL.items() if name != "feed_forward_proj"}
    assert read(config).model.mlp_activations == ("gelu", "linear")


def test_decoder_layers():
    assert read(T5_BASE).model.num_decoder_layers == 12
    assert read(T5_BASE, num_decoder_layers=None).model.num_decoder_layers == 12
    assert read(T5_BASE, num_decoder_layers=3).model.num_decoder_layers == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "umt5"}, "model_type 'umt5'; 't5' and 'mt5' are read"),
        ({"model_type": "longt5"}, "model_type 'longt5'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder False; the T5 here computes only with"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"relative_attention_num_buckets": 64}, "num_buckets 64; .* only with 32"),
        ({"relative_attention_max_distance": 256}, "max_distance 256; .* only with 128"),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon 1e-05; .* only with 1e-06"),
        ({"decoder_start_token_id": 2}, "decoder_start_token_id 2; .* only with 0"),
        ({"pad_token_id": 3}, "pad_token_id 3"),
        ({"eos_token_id": [1, 2]}, r"eos_token_id \[1, 2\]"),
        ({"quantization_config": {"bits": 4}}, "quantization_config .* only without it"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder True"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj 'gelu' and so the activation 'gelu'"),
        ({"feed_forward_proj": "gated-mish"}, "activation 'mish'; the T5 here has relu, gelu_new"),
        ({"feed_forward_proj": "double-relu"}, "feed_forward_proj 'double-relu'"),
        ({"d_kv": None}, "lacks d_kv, which must be whole numbers"),
        ({"model_type": "mt5", "tie_word_embeddings": True}, "tie_word_embeddings True for an mT5"),
        ({"model_type": "mt5", "scale_decoder_outputs": True}, "scale_decoder_outputs True for an"),
    ],
)
def test_what_changes_the_function_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^config.json .*{message}"):
        read(T5_BASE, **changes)


def test_one_eos_in_a_list_is_one_eos():
    assert read(T5_BASE, eos_token_id=[1])


def test_unknown_settings_are_reported():
    assert read(T5_BASE, use_rope=True, mystery=1).unknown == ("mystery", "use_rope")


def test_another_model_than_gin_names_is_one_sentence():
    with pytest.raises(ValueError) as error:
        hugging_face_config.check_same(
            read(T5_BASE).model, read_model("t5_1_1_base"), "'base/config.json'"
        )
    assert str(error.value) == (
        "'base/config.json' describes another model than t5_1_1_base: mlp_dim 3072 here, 2048 "
        "there; mlp_activations ('relu',) here, ('gelu', 'linear') there; logits_via_embedding "
        "True here, False there. Name the gin file of that model (gin/models/NAME.gin), or the "
        "checkpoint of t5_1_1_base."
    )


def test_a_feed_forward_layer_that_transformers_lacks():
    model = dataclasses.replace(read(T5_BASE).model, mlp_activations=("gelu", "relu"))
    with pytest.raises(ValueError, match=r"transformers has no T5 with mlp_activations \('gelu'"):
        hugging_face_config.write(model, "float32")
