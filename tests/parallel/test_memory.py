import dataclasses

import pytest

from prompt_tuning import config
from prompt_tuning.inference import weights
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.parallel import memory

TINY = T5Config(
    name="tiny",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
    mlp_activations=("relu",),
    logits_via_embedding=True,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int8_w8a8"])
@pytest.mark.parametrize("via_embedding", [True, False])
def test_the_arrays_are_those_that_are_loaded(dtype, via_embedding):
    model = dataclasses.replace(TINY, logits_via_embedding=via_embedding)
    loaded = weights.load(model, "random", dtype=dtype).params
    expected = {path: (leaf.shape, leaf.dtype) for path, leaf in loaded.items()}
    found = memory.frozen_arrays(model, dtype)
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in found.items()} == expected


def test_bytes_of_a_device():
    # embedding 16*8, 3 attentions of 4*8*8, 2 feed-forwards of 2*8*16, 2 biases of 2*32: split;
    # norms 2+3 of 8 in the layers, 2 of 8 after them: whole
    split, whole = 128 + 768 + 512 + 128, 40 + 16
    assert memory.device_bytes(TINY, "float32", 1) == 4 * (split + whole)
    assert memory.device_bytes(TINY, "bfloat16", 2) == 2 * (split // 2 + whole)


def test_bytes_of_int8():
    # int8: embedding 128, matrices 1280; float32: biases 128, scales of rows of the embedding 16,
    # of q, k, v 9*8, of wi 2*16; whole: norms 56, scales of out 3*8, of wo 2*8
    split = 128 + 1280 + 4 * (128 + 16 + 72 + 32)
    assert memory.device_bytes(TINY, "int8", 1) == split + 4 * (56 + 24 + 16)
    assert memory.device_bytes(TINY, "int8", 2) == split // 2 + 4 * (56 + 24 + 16)


def test_the_bytes_of_xxl():
    model = config.read_model("t5_1_1_xxl")
    assert memory.device_bytes(model, "bfloat16", 1) == 2 * 11_135_332_352
