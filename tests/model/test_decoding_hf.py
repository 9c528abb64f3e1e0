"""Greedy decoding equals what transformers and peft stored for their tiny T5 and two prompts."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning import trees
from prompt_tuning.model.decoding import generate
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks
from tests.hf_names import to_t5x

CONFIG = T5Config(
    name="hf_tiny",
    vocab_size=128,
    emb_dim=32,
    num_heads=4,
    head_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=64,
)
PROMPT_LENGTH = 6
PROMPTED = Transformer(CONFIG, soft_prompt_hooks(length=PROMPT_LENGTH))
NEW_TOKENS = 8


@pytest.fixture(scope="module")
def folder(parity):
    return parity / "hf_tiny"


@pytest.fixture(scope="module")
def vectors(folder):
    return dict(np.load(folder / "vectors.npz"))


@pytest.fixture(scope="module")
def flat_params(folder):
    params = to_t5x(load_file(folder / "model/model.safetensors"))
    # The logits share the embedding table but, unlike T5 1.0's, are not divided by sqrt(H).
    config = json.loads((folder / "model/config.json").read_text())
    assert config["tie_word_embeddings"] and not config["scale_decoder_outputs"]
    return {**params, "decoder/logits_dense/kernel": params["token_embedder/embedding"].T}


@functools.partial(jax.jit, static_argnames="model")
def teacher_forced(model, params, *tokens):
    return model.apply({"params": params}, *tokens)


def assert_parity(model, flat, vectors, suffix):
    params = trees.unflatten(flat)
    inputs = vectors["encoder_input_tokens"].astype(np.int32)
    fed = vectors["decoder_input_tokens"].astype(np.int32)
    targets = vectors["decoder_target_tokens"].astype(np.int32)
    logits = teacher_forced(model, params, inputs, fed, targets)
    expected = vectors[f"logits{suffix}"]
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    decoded = generate(model, params, inputs, max_decode_length=NEW_TOKENS)
    # transformers writes the start token, 0, in front
    np.testing.assert_array_equal(decoded.tokens[:, 0], vectors[f"greedy{suffix}"][:, 1:])


def test_without_a_prompt(flat_params, vectors):
    assert_parity(Transformer(CONFIG), flat_params, vectors, "")


def test_with_the_prompt_of_a_peft_adapter(flat_params, vectors, folder):
    adapter = load_file(folder / "adapter_encoder_only/adapter_model.safetensors")
    flat = {**flat_params, PROMPT_PATH: adapter["prompt_embeddings"]}
    assert_parity(PROMPTED, flat, vectors, "_adapter_encoder_only")


def test_peft_uses_only_the_encoder_half_of_a_default_adapter(flat_params, vectors, folder):
    adapter = load_file(folder / "adapter_default/adapter_model.safetensors")
    prompt = adapter["prompt_embeddings"]
    assert prompt.shape == (2 * PROMPT_LENGTH, 32)  # for the encoder, then for the decoder
    flat = {**flat_params, PROMPT_PATH: prompt[:PROMPT_LENGTH]}
    assert_parity(PROMPTED, flat, vectors, "_adapter_default")
