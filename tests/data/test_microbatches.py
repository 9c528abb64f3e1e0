"""Tests of prompt_tuning/data/microbatches.py."""

import numpy as np
import pytest

from prompt_tuning.data import batches, microbatches, tasks
from prompt_tuning.data.microbatches import Plan

LENGTHS = {"inputs": 48, "targets": 8}


def batch_of(lengths, width):
    """Row i holds i + 1, as often as its length says."""
    tokens = np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = row + 1
    return {"encoder_input_tokens": tokens, "number": np.arange(len(lengths)) + 1}


def test_rows_of_similar_length_share_a_width():
    batch = batch_of([3, 12, 5, 30], width=48)
    short, long = microbatches.cut(batch, Plan(rows=2, widths=(8, 32)))
    assert short.batch["encoder_input_tokens"].tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [3, 3, 3, 3, 3, 0, 0, 0],
    ]
    assert long.batch["encoder_input_tokens"].shape == (2, 32)
    assert short.places.tolist() == [0, 2] and long.places.tolist() == [1, 3]
    assert long.batch["number"].tolist() == [2, 4]


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_no_token_is_lost(seed, rows):
    lengths = np.random.default_rng(seed).integers(1, 41, 8)
    batch = batch_of(lengths, width=44)  # not a multiple of 8
    parts = microbatches.cut(batch, Plan(rows, (16, 48)))
    assert sorted(np.concatenate([part.places for part in parts]).tolist()) == [*range(8)]
    for part in parts:
        tokens = part.batch["encoder_input_tokens"]
        assert tokens.shape in {(rows, 16), (rows, 48)}
        for row, place in zip(tokens, part.places, strict=True):
            assert (row > 0).sum() == lengths[place] == (row == place + 1).sum()


def test_a_zero_within_a_row_is_not_its_end():
    tokens = np.array([[7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]])
    (part,) = microbatches.cut({"encoder_input_tokens": tokens}, Plan(1, (8, 16)))
    assert part.batch["encoder_input_tokens"].tolist() == tokens.tolist()


@pytest.fixture(scope="module")
def stream():
    task = tasks.get("generated_sentiment")
    return batches.train_batches(task, "train", LENGTHS, 8, seed=0, limit=100)


def test_the_lengths_of_a_batch(stream):
    for step in (0, 3, 40):
        tokens = stream.batch(step)["encoder_input_tokens"]
        assert sorted(stream.input_lengths(step)) == sorted((tokens > 0).sum(axis=1))


def test_widths_do_not_depend_on_where_the_stream_stands(stream):
    plan = microbatches.choose(stream, rows=2)
    stream.step = 77
    assert microbatches.choose(stream, rows=2) == plan
    assert stream.step == 77
    longest = int(stream.examples[0].inputs.lengths.max())
    assert plan.widths[-1] == -(-longest // 8) * 8
    assert len(plan.widths) <= microbatches.AT_MOST


def test_one_width_is_enough_where_padding_costs_nothing(stream):
    assert len(microbatches.choose(stream, 2, lambda width: 1).widths) == 1
    assert len(microbatches.choose(stream, 2, lambda width: width**3).widths) > 1


def test_the_stream_is_cut_step_by_step(stream):
    stream.step = 5
    plan = Plan(4, (48,))
    first = next(microbatches.MicroBatches(stream, plan))
    for part, expected in zip(first, microbatches.cut(stream.batch(5), plan), strict=True):
        for name, array in expected.batch.items():
            np.testing.assert_array_equal(part.batch[name], array)
    assert stream.step == 6
