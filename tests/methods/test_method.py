"""Tests of prompt_tuning/methods/method.py: what a method adds, how it starts, what trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.methods import method
from prompt_tuning.methods.method import Frozen, Method
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

CONFIG = T5Config(
    name="doc",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
FROZEN = Frozen(CONFIG, np.ones((16, 8), np.float32), lambda text: [1])
HOOKS = soft_prompt_hooks(length=3)


def test_what_hooks_add_is_listed_by_path():
    assert method.added_shapes(CONFIG, HOOKS) == {PROMPT_PATH: (3, 8)}
    assert method.added_shapes(CONFIG, Method(kind="nothing").hooks) == {}


def test_without_a_start_the_modules_initialise_themselves():
    def twos(rng, shape):
        return jnp.full(shape, 2.0)

    hooks = soft_prompt_hooks(length=3, initializer=twos)
    values = method.initial_values(Method(kind="twos", hooks=hooks), jax.random.key(0), FROZEN)
    assert values.keys() == {PROMPT_PATH}
    np.testing.assert_array_equal(values[PROMPT_PATH], np.full((3, 8), 2.0))
    random = Method(kind="random", hooks=HOOKS)
    one, same, other = (
        method.initial_values(random, jax.random.key(seed), FROZEN)[PROMPT_PATH]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, f"The initial values of own do not fit the model: {PROMPT_PATH} is missing"),
        ({"a": np.ones(2)}, "a has no place"),
        ({PROMPT_PATH: np.ones((2, 8))}, r"has shape \[2, 8\], expected \[3, 8\]"),
        ({PROMPT_PATH: np.full((3, 8), np.nan)}, f"own are not finite: {PROMPT_PATH}"),
    ],
)
def test_other_initial_values_are_refused(values, message):
    own = Method(kind="own", hooks=HOOKS, start=lambda rng, frozen: values)
    with pytest.raises(ValueError, match=message):
        method.initial_values(own, jax.random.key(0), FROZEN)


def test_what_trains_is_what_is_added_or_what_patterns_name():
    paths = functools.partial(method.trainable_paths, paths=["a/b", "a+", "c"])
    assert paths(Method(kind="own"), added=["a+"]) == ["a+"]
    assert paths(Method(kind="own", trainable=("a.*",)), added=["c"]) == ["a/b", "a+"]
    with pytest.raises(ValueError, match="Nothing trains in this run"):
        paths(Method(kind="own"), added=[])
    with pytest.raises(ValueError, match="'d' matches no parameter"):
        paths(Method(kind="own", trainable=("d",)), added=["c"])
