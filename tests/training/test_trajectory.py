"""Twelve steps of prompt tuning, number for number as T5X's Trainer and MultiOptimizer made them."""

from pathlib import Path

import numpy as np
import pytest

from prompt_tuning import trees
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

VECTORS = Path(__file__).parents[1] / "data/parity/t5x_prompt_trajectory.npz"
STEPS = 12


@pytest.fixture(scope="module")
def vectors():
    return dict(np.load(VECTORS))


def part(vectors, marker):
    return {k.removeprefix(marker): v for k, v in vectors.items() if k.startswith(marker)}


def train(vectors, optimizer):
    """Trains the prompt on the twelve batches; yields it and the loss after each step."""
    config = T5Config(
        name="t5x_tiny",
        vocab_size=128,
        emb_dim=32,
        num_heads=4,
        head_dim=8,
        num_encoder_layers=2,
        num_decoder_layers=2,
        mlp_dim=64,
    )
    prompt = vectors["prompt_init:prompt/prompt"]
    model = Transformer(config, soft_prompt_hooks(length=len(prompt)))
    frozen = part(vectors, "frozen:")
    step = make_train_step(model, optimizer, z_loss=1e-4)
    trainable = {PROMPT_PATH: np.array(prompt)}
    state = TrainState(0, trainable, optimizer.init(trainable))
    for i in range(STEPS):
        state, metrics = step(state, frozen, part(vectors, f"batch{i}:"))
        yield np.asarray(state.trainable[PROMPT_PATH]), metrics.loss * metrics.target_tokens


@pytest.mark.parametrize("start_step", [0, 1_100_000])
def test_every_step_equals_t5xs(vectors, start_step):
    optimizer = adafactor(learning_rate=0.3, start_step=start_step)
    for i, (prompt, loss_sum) in enumerate(train(vectors, optimizer), start=1):
        expected = vectors[f"start{start_step}:prompt_after{i}"]
        np.testing.assert_allclose(prompt, expected, atol=1e-4, rtol=0, err_msg=f"step {i}")
        expected_loss = vectors[f"start{start_step}:loss_sum{i}"]
        np.testing.assert_allclose(loss_sum, expected_loss, rtol=1e-5, err_msg=f"step {i}")


def test_the_two_starts_part_ways(vectors):
    """Or the test above could not tell one from the other."""
    apart = vectors["start0:prompt_after12"] - vectors["start1100000:prompt_after12"]
    assert np.abs(apart).max() > 0.1


def test_the_frozen_tree_is_that_of_a_t5(vectors):
    frozen = part(vectors, "frozen:")
    assert PROMPT_PATH not in frozen
    assert trees.count(frozen) > 50_000
