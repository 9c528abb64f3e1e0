"""Shuffles and random numbers that depend on the seed alone, not on NumPy's version.

NumPy guarantees the bit stream of PCG64, but not what `Generator` makes of it (NEP 19). A run
resumed after an upgrade must see the same batches, so the bits are turned into permutations and
floats here, by the algorithms of NumPy 2.4's `Generator.permutation` and `Generator.random`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

_BLOCK = 1024  # 64-bit numbers per draw


def permutation(seed: Sequence[int], count: int) -> np.ndarray:
    """Shuffles the numbers from 0 to count - 1 (Fisher-Yates).

    >>> permutation([0, 0], 5)
    array([2, 4, 3, 0, 1])
    """
    draws = _draws(np.random.PCG64(seed))
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        mask = (1 << last.bit_length()) - 1
        while (other := next(draws) & mask) > last:
            pass
        order[last], order[other] = order[other], order[last]
    return np.array(order, np.int64)


def uniform(seed: Sequence[int], start: int, count: int) -> np.ndarray:
    """Draws numbers in [0, 1) from an endless stream, from position `start` on.

    >>> uniform([0, 1], start=1_000, count=2).round(4)
    array([0.215 , 0.0671])
    """
    bits = np.random.PCG64(seed).advance(start)
    return (bits.random_raw(count) >> np.uint64(11)) * 2.0**-53


def _draws(bits: np.random.PCG64) -> Iterator[int]:
    """Yields 32-bit numbers, the low half of each 64-bit one first."""
    while True:
        numbers = bits.random_raw(_BLOCK)
        halves = np.stack([numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)], axis=1)
        yield from halves.reshape(-1).tolist()
