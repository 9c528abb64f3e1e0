"""Random orders that are the same for ever: by the seed, whatever the version of NumPy.

NumPy promises the bits of PCG64 and nothing of what `Generator` makes of them. A run that is
resumed after an upgrade must go on in the same order, so the bits are turned into orders and
numbers here, as NumPy 2.4 did it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

_BLOCK = 1024  # 64-bit numbers drawn at once


def permutation(seed: Sequence[int], count: int) -> np.ndarray:
    """Shuffles the numbers from 0 to count - 1 (Fisher and Yates).

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
    """Draws numbers in [0, 1): those from place `start` of an endless stream on.

    >>> uniform([0, 1], start=1_000, count=2).round(4)
    array([0.215 , 0.0671])
    """
    bits = np.random.PCG64(seed).advance(start)
    return (bits.random_raw(count) >> np.uint64(11)) * 2.0**-53


def _draws(bits: np.random.PCG64) -> Iterator[int]:
    """The bits as 32-bit numbers, the low half of each 64 first."""
    while True:
        numbers = bits.random_raw(_BLOCK)
        halves = np.stack([numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)], axis=1)
        yield from halves.reshape(-1).tolist()
