"""Tests of prompt_tuning/data/sorted_batches.py."""

import numpy as np
import pytest

from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.sorted_batches import in_order, sorted_batches


def inputs_of(lengths):
    """Row i holds i + 1, as often as its length says."""
    return Ragged.from_rows([np.full(n, row + 1) for row, n in enumerate(lengths)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 16])
def test_every_row_is_there_once_and_whole(seed, batch_size):
    lengths = np.random.default_rng(seed).integers(1, 90, 10)
    found = []
    for batch in sorted_batches(inputs_of(lengths), batch_size):
        assert len(batch.tokens) == batch_size >= len(batch.rows)
        np.testing.assert_array_equal(
            (batch.tokens > 0).sum(1)[: len(batch.rows)], lengths[batch.rows]
        )
        found.append((batch.rows, {"first": batch.tokens[:, 0]}))
    assert in_order(found)["first"].tolist() == [*range(1, 11)]


def test_rows_of_one_length_keep_their_order():
    found = sorted_batches(inputs_of([5] * 7), 3)
    assert [batch.rows.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6]]


def test_few_widths_and_little_padding():
    lengths = np.random.default_rng(0).integers(1, 500, 400)
    widths = [batch.tokens.shape[1] for batch in sorted_batches(inputs_of(lengths), 8)]
    assert widths == sorted(widths, reverse=True)
    assert 2 <= len(set(widths)) <= 4
    assert sum(widths) * 8 < 1.4 * lengths.sum()


def test_a_given_width_is_used_for_all():
    shapes = {batch.tokens.shape for batch in sorted_batches(inputs_of([3, 30]), 1, width=48)}
    assert shapes == {(1, 48)}


def test_what_is_none_stays_none():
    assert in_order([(np.array([0]), (np.array([4]), None))]) == (np.array([4]), None)
