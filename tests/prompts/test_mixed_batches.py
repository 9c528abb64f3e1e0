"""Batches whose rows have prompts of their own: no row ever sees another's."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from prompt_tuning import trees
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import POSITIONS, as_inputs
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer

CONFIG = T5Config(
    name="test",
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=2,
    num_decoder_layers=1,
    mlp_dim=16,
)
ROWS, TOKENS, TARGETS, LONGEST, MOST, H = 256, 6, 3, 5, 8, 8
EXAMPLES = 20  # of each position: 10,240 rows in all
STEADY = hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)


@functools.cache
def frozen():
    random = np.random.default_rng(0)
    return {
        path: (0.5 * random.standard_normal(shape)).astype(np.float32)
        for path, shape in sorted(parameter_shapes(CONFIG).items())
    }


def logits_of(hooks, prompt, inputs, fed, targets):
    flat = frozen() if prompt is None else frozen() | prompt_tuning.as_params(prompt)
    params = {"params": trees.unflatten(flat)}
    return Transformer(CONFIG, hooks).apply(params, inputs, fed, targets)


@functools.cache
def mixed(position):
    hooks = prompt_tuning.hooks_of_several(MOST, LONGEST, position)
    return jax.jit(functools.partial(logits_of, hooks))


@functools.cache
def alone(length, position):
    """Every row in a batch of its own, with its own prompt [length, H]."""
    hooks = prompt_tuning.hooks(length, position)

    def of_one(prompt, tokens, fed, targets):
        return logits_of(hooks, prompt, *(x[None] for x in (tokens, fed, targets)))[0]

    return jax.jit(jax.vmap(of_one))


def padded(random, length):
    """Random ids, 1 to `length` of them in each row."""
    tokens = random.integers(1, 16, (ROWS, length)).astype(np.int32)
    return np.where(np.arange(length) < random.integers(1, length + 1, (ROWS, 1)), tokens, 0)


def batch_of(seed):
    random = np.random.default_rng(seed)
    targets = padded(random, TARGETS)
    return random, padded(random, TOKENS), np.pad(targets, ((0, 0), (1, 0)))[:, :-1], targets


@pytest.mark.parametrize("position", POSITIONS)
def test_no_row_sees_the_prompt_of_another(position):
    """Random texts, prompts, lengths, numbers of prompts; all that no row may read is NaN.

    Each row equals the row alone with its prompt to 1e-5, and not one bit of it changes if all
    other prompts do.
    """
    lengths_of_prompts = strategies.lists(
        strategies.integers(1, LONGEST), min_size=1, max_size=MOST
    )
    rows = 0

    @STEADY
    @hypothesis.given(lengths_of_prompts, strategies.integers(0, 2**32 - 1))
    def check(lengths, seed):
        nonlocal rows
        random, tokens, *decoder = batch_of(seed)
        ids = random.integers(0, len(lengths), ROWS)
        stack = np.full((MOST, LONGEST, H), np.nan, np.float32)
        for prompt, length in zip(stack, lengths, strict=False):
            prompt[:length] = random.normal(scale=2.0, size=(length, H))
        own = np.array(lengths, np.int32)[ids]
        inputs = as_inputs(tokens)._replace(prompt_ids=ids.astype(np.int32), prompt_lengths=own)
        found = np.asarray(mixed(position)(stack, inputs, *decoder))
        for length in set(lengths):
            expected = alone(length, position)(stack[ids, :length], tokens, *decoder)
            np.testing.assert_allclose(
                found[own == length], np.asarray(expected)[own == length], atol=1e-5
            )
        for number in range(len(lengths)):
            others = stack * 3 + 1
            others[number] = stack[number]
            changed = np.asarray(mixed(position)(others, inputs, *decoder))
            same = (changed == found).all(axis=(1, 2))
            np.testing.assert_array_equal(same[ids == number], True)
            assert not same[ids != number].any()
        rows += ROWS

    check()
    assert rows * len(POSITIONS) >= 10_000


def test_a_row_without_a_prompt_is_as_the_model_without_one():
    """Length 0, between rows with a prompt."""
    random, tokens, *decoder = batch_of(0)
    own = random.integers(0, 2, ROWS).astype(np.int32) * LONGEST
    stack = random.normal(size=(MOST, LONGEST, H)).astype(np.float32)
    inputs = as_inputs(tokens)._replace(prompt_ids=np.zeros(ROWS, np.int32), prompt_lengths=own)
    for position in POSITIONS:
        found = mixed(position)(stack, inputs, *decoder)
        bare = logits_of(Hooks(), None, tokens, *decoder)
        np.testing.assert_allclose(found[own == 0], bare[own == 0], atol=1e-5)
        assert (jnp.abs(found - bare).max(axis=(1, 2))[own > 0] > 1e-3).all()
