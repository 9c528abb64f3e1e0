"""Logits and greedy decoding equal what transformers and peft stored for their tiny T5 and prompts.

The model is read by checkpoints/hugging_face.py, the adapters by prompts/peft.py.
"""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import t5x_tiny

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.decoding import generate
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts import peft
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

CONFIG = dataclasses.replace(t5x_tiny.CONFIG, name="hf_tiny")
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
    return load_parameters(CONFIG, str(folder / "model"))


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
    # transformers writes the start token, 0, first
    np.testing.assert_array_equal(decoded.tokens[:, 0], vectors[f"greedy{suffix}"][:, 1:])


def test_without_a_prompt(flat_params, vectors, folder):
    # The logits share the embedding table but, unlike T5 1.0's, are not divided by sqrt(H).
    config = json.loads((folder / "model/config.json").read_text())
    assert config["tie_word_embeddings"] and not config["scale_decoder_outputs"]
    assert checkpoint.variables(folder / "model")["decoder/logits_dense/kernel"][0] == (32, 128)
    assert_parity(Transformer(CONFIG), flat_params, vectors, "")


# peft's default trains rows for the decoder, too; only the first P have an effect.
@pytest.mark.parametrize(("kind", "rows"), [("encoder_only", 6), ("default", 12)])
def test_with_the_prompt_of_a_peft_adapter(kind, rows, flat_params, vectors, folder):
    adapter = folder / f"adapter_{kind}"
    assert f'"shape":[{rows},32]' in (adapter / "adapter_model.safetensors").read_text("latin1")
    prompt = peft.read(adapter).prompt
    assert prompt.shape == (PROMPT_LENGTH, 32)
    assert_parity(PROMPTED, {**flat_params, PROMPT_PATH: prompt}, vectors, f"_adapter_{kind}")
