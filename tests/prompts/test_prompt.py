"""Tests of prompt_tuning/prompts/prompt.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import trees
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, JoinPrompt, soft_prompt_hooks

CONFIG = T5Config(
    name="test",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
TOKENS = np.array([[5, 6, 1], [7, 1, 0]], np.int32)
PROMPT = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
EMBEDDED = np.array([[[5.0, 5.0], [6.0, 6.0]]], np.float32)
VALID = np.array([[True, False]])


def joined(position):
    module = JoinPrompt(length=2, position=position)
    return module.apply({"params": {"prompt": {"prompt": PROMPT}}}, EMBEDDED, VALID)


def test_prefix_comes_in_front():
    rows, valid = joined("prefix")
    np.testing.assert_array_equal(rows, [[[1, 2], [3, 4], [5, 5], [6, 6]]])
    np.testing.assert_array_equal(valid, [[True, True, True, False]])


def test_suffix_comes_behind_the_padding():
    rows, valid = joined("suffix")
    np.testing.assert_array_equal(rows, [[[5, 5], [6, 6], [1, 2], [3, 4]]])
    np.testing.assert_array_equal(valid, [[True, False, True, True]])


def test_prompt_is_cast_to_the_activations():
    module = JoinPrompt(length=2)
    params = {"params": {"prompt": {"prompt": PROMPT}}}
    rows, _ = module.apply(params, EMBEDDED.astype(jnp.bfloat16), VALID)
    assert rows.dtype == jnp.bfloat16


def test_the_parameter_lies_at_its_path_as_float32():
    model = Transformer(CONFIG, soft_prompt_hooks(length=3))
    flat = trees.flatten(model.init(jax.random.key(0), TOKENS, TOKENS, TOKENS)["params"])
    bare = trees.flatten(Transformer(CONFIG).init(jax.random.key(0), *[TOKENS] * 3)["params"])
    assert set(flat) - set(bare) == {PROMPT_PATH}
    assert flat[PROMPT_PATH].shape == (3, 8)
    assert flat[PROMPT_PATH].dtype == jnp.float32


def test_embedded_tokens_as_prompt_are_the_tokens():
    """A prompt made of the embeddings of [9, 4] is as good as those two tokens in front."""
    model = Transformer(CONFIG, soft_prompt_hooks(length=2))
    params = model.init(jax.random.key(0), TOKENS, TOKENS, TOKENS)["params"]
    table = params["token_embedder"]["embedding"]
    flat = trees.flatten(params) | {PROMPT_PATH: table[jnp.array([9, 4])]}
    with_prompt = model.apply({"params": trees.unflatten(flat)}, TOKENS, TOKENS, TOKENS)
    del flat[PROMPT_PATH]
    longer = np.concatenate([np.tile([[9, 4]], (2, 1)), TOKENS], axis=1).astype(np.int32)
    without = Transformer(CONFIG).apply({"params": trees.unflatten(flat)}, longer, TOKENS, TOKENS)
    np.testing.assert_allclose(with_prompt, without, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "whole number, 1 or more; got 0"),
        ({"length": 5, "position": "middle"}, "one of .'prefix', 'suffix'.; got 'middle'"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_prompt_hooks(**arguments)
