"""Tests of prompt_tuning/data/packing.py."""

import functools

import numpy as np
import pytest

from prompt_tuning.data import batches, packing, tasks
from prompt_tuning.data.packing import Plan
from prompt_tuning.model.inputs import reserve_prompt

RESERVE = functools.partial(reserve_prompt, length=2)


def batch_of(inputs, targets):
    def padded(rows, width):
        return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)

    target = padded(targets, 4)
    return {
        "encoder_input_tokens": padded(inputs, 8),
        "decoder_input_tokens": np.pad(target, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": target,
        "decoder_loss_weights": (target > 0).astype(np.float32),
    }


BATCH = batch_of([[9, 1], [7, 8, 1], [6, 1]], [[6, 1], [5, 1], [4, 1]])


def test_a_row_by_hand():
    """The picture of the module; the third example has a row of its own."""
    (part,) = packing.pack(BATCH, Plan(rows=3, positions=10, targets=5), RESERVE)
    encoder, decoder = (part.batch[f"{name}_input_tokens"] for name in ("encoder", "decoder"))
    assert encoder.tokens.tolist() == [
        [0, 0, 7, 8, 1, 0, 0, 6, 1, 0],
        [0, 0, 9, 1, 0, 0, 0, 0, 0, 0],
        [0] * 10,
    ]
    assert encoder.prompt_places[0].tolist() == [0, 1, -1, -1, -1, 0, 1, -1, -1, -1]
    assert encoder.positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]
    assert encoder.segment_ids.tolist()[:2] == [[1] * 5 + [2] * 4 + [0], [1] * 4 + [0] * 6]
    np.testing.assert_array_equal(encoder.valid, encoder.segment_ids > 0)
    assert decoder.tokens.tolist() == [[0, 5, 0, 4, 0], [0, 6, 0, 0, 0], [0] * 5]
    assert decoder.positions[0].tolist() == [0, 1, 0, 1, 0]
    assert decoder.segment_ids[0].tolist() == [1, 1, 2, 2, 0]
    assert part.batch["decoder_target_tokens"].tolist()[0] == [5, 1, 4, 1, 0]
    assert part.batch["decoder_loss_weights"].tolist()[1] == [1, 1, 0, 0, 0]
    assert part.places.tolist() == [1, 0, 0]


def test_targets_limit_a_row_too():
    parts = packing.pack(BATCH, Plan(rows=1, positions=10, targets=3), RESERVE)
    assert len(parts) == 3


def test_without_a_prompt_no_places_are_reserved():
    (part,) = packing.pack(BATCH, Plan(rows=1, positions=8, targets=6), None)
    assert part.batch["encoder_input_tokens"].prompt_places is None
    assert part.batch["encoder_input_tokens"].tokens.tolist() == [[7, 8, 1, 6, 1, 9, 1, 0]]


@pytest.mark.parametrize("rows", [None, 2])
def test_every_example_of_a_stream_is_there_once(rows):
    task = tasks.get("generated_sentiment")
    stream = batches.train_batches(task, "train", {"inputs": 48, "targets": 8}, 8, 0, limit=100)
    plan = packing.choose(stream, RESERVE, rows)
    assert plan.positions == 56 and plan.targets in (8, 16, 24)  # 2 + 48, rounded up to 8
    for step, parts in zip(range(5), packing.PackedBatches(stream, plan, RESERVE), strict=False):
        assert len(parts) == 1 if rows is None else len(parts) > 1
        found = []
        for part in parts:
            encoder = part.batch["encoder_input_tokens"]
            assert encoder.tokens.shape == (plan.rows, plan.positions)
            for row, segments in enumerate(encoder.segment_ids):
                for segment in range(1, segments.max() + 1):
                    own = segments == segment
                    assert encoder.prompt_places[row][own][:3].tolist() == [0, 1, -1]
                    found.append(encoder.tokens[row][own][2:].tolist())
        batch = stream.batch(step)["encoder_input_tokens"]
        assert sorted(found) == sorted(row[row > 0].tolist() for row in batch)


def test_examples_with_prompts_of_their_own_are_not_packed():
    batch = BATCH | {"prompt_ids": np.array([0, 1, 0])}
    with pytest.raises(ValueError, match="got 'prompt_ids' in the batch, .* Set Run.packing=False"):
        packing.pack(batch, Plan(rows=3, positions=10, targets=5), RESERVE)
