"""The orders and numbers that stored runs were made with: no version of NumPy may change them."""

import types
import zlib

import numpy as np
import pytest

from prompt_tuning.data import batches, orders


@pytest.mark.parametrize(
    "seed, expected",
    [
        ([0, 0], [9, 2, 7, 4, 5, 11, 0, 3, 6, 10, 8, 1]),
        ([3, 1], [0, 4, 11, 1, 2, 5, 10, 7, 9, 8, 6, 3]),
        ([42, 7, 685199310], [9, 3, 11, 10, 4, 8, 2, 5, 1, 0, 6, 7]),
    ],
)
def test_twelve_rows(seed, expected):
    assert orders.permutation(seed, 12).tolist() == expected


@pytest.mark.parametrize(
    "seed, count, first, checksum",
    [
        ([0, 0], 250, [141, 174, 109, 247, 243, 111], 0x33B24294),
        ([5, 2], 1000, [824, 589, 158, 673, 694, 144], 0xDDDBC5E9),
        ([1, 0, 7], 65_537, [13009, 40998, 62673, 46391, 64152, 41150], 0x9655E146),
        ([0, 3], 300_000, [105804, 155574, 47703, 114398, 253278, 243549], 0xFCA006CC),
    ],
)
def test_larger_sets(seed, count, first, checksum):
    order = orders.permutation(seed, count)
    assert order[:6].tolist() == first
    assert zlib.crc32(order.astype("<i8").tobytes()) == checksum
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_no_row_and_one_row():
    assert orders.permutation([0, 0], 0).tolist() == []
    assert orders.permutation([0, 0], 1).tolist() == [0]


def test_uniform_numbers():
    assert orders.uniform([0, 1], 0, 4).tolist() == [
        0.8897387912781343, 0.5571380502062263, 0.8009080868919721, 0.9565138174753386,
    ]  # fmt: skip
    assert orders.uniform([7, 1], 123_456_789, 2).tolist() == [
        0.8496778179796785, 0.600813001000196,
    ]  # fmt: skip


def test_a_stretch_of_the_stream_can_be_drawn_alone():
    whole = orders.uniform([0, 1], 0, 1004)
    np.testing.assert_array_equal(orders.uniform([0, 1], 1000, 4), whole[1000:])
    np.testing.assert_allclose(whole[1000:], [0.21500, 0.06713, 0.32597, 0.32918], atol=5e-6)


def numbered(task, count):
    """Rows whose only token, less 3, is their number."""
    rows = batches.Ragged.from_rows([np.array([number + 3, 1]) for number in range(count)])
    task = types.SimpleNamespace(name=task)
    return batches.Examples(task, "train", {"inputs": 2, "targets": 2}, rows, rows, (), {}, {})


def numbers(stream, steps):
    return [(next(stream)["encoder_input_tokens"][:, 0] - 3).tolist() for _ in range(steps)]


def test_batches_of_a_task_and_of_a_mixture(monkeypatch):
    """In the orders that NumPy 2.4 gave, without its Generator."""
    monkeypatch.delattr(np.random, "Generator")
    monkeypatch.delattr(np.random, "default_rng")
    task = batches.TrainBatches([numbered("one", 12)], 8, seed=0)
    assert numbers(task, 3) == [
        [9, 2, 7, 4, 5, 11, 0, 3],
        [6, 10, 8, 1, 0, 7, 1, 11],  # the second epoch begins with 0
        [3, 10, 4, 6, 9, 8, 2, 5],
    ]
    both = [numbered("one", 12), numbered("two", 5)]
    mixture = batches.TrainBatches(both, 8, seed=3, rates=(2.0, 1.0), start_step=1)
    assert numbers(mixture, 2) == [[0, 8, 11, 7, 0, 1, 1, 10], [2, 9, 3, 4, 5, 0, 4, 6]]
