"""Which lengths rows are padded to: a few, since the model compiles once for each.

needs     31 35 38 70 81 140      the longest row of each batch
widths    40       88    144      three programs; every batch is padded to the next width
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

MULTIPLE = 8  # of all widths
AT_MOST = 6


def choose(needs: Iterable[int], at_most: int = AT_MOST, longest: int = 0) -> tuple[int, ...]:
    """Chooses the widths that pad the least.

    Args:
      needs: the lengths that batches need, each as often as it occurs.
      at_most: number of widths.
      longest: a length that must fit although no batch may need it.

    Returns:
      Multiples of 8, ascending; the last one fits all.

    >>> choose([31, 35, 38, 70, 81, 140], at_most=3)
    (40, 88, 144)
    """
    rounded = -(-np.array([*needs], np.int64) // MULTIPLE) * MULTIPLE
    top = max(int(rounded.max(initial=MULTIPLE)), -(-longest // MULTIPLE) * MULTIPLE)
    values, counts = np.unique(np.append(rounded, top), return_counts=True)
    # least[k][j]: padding of the first j values with k widths; the last of them is values[j - 1]
    before = np.concatenate([[0], np.cumsum(counts)])
    tokens = np.concatenate([[0], np.cumsum(counts * values)])
    least = np.full((at_most + 1, len(values) + 1), np.inf)
    least[:, 0] = 0
    split = np.zeros(least.shape, int)
    for k in range(1, at_most + 1):
        for j in range(1, len(values) + 1):
            padded = values[j - 1] * (before[j] - before[:j]) - (tokens[j] - tokens[:j])
            totals = least[k - 1, :j] + padded
            split[k, j] = int(np.argmin(totals))
            least[k, j] = totals[split[k, j]]
    chosen, j = [], len(values)
    for k in range(at_most, 0, -1):
        if j == 0:
            break
        chosen.append(int(values[j - 1]))
        j = split[k, j]
    return tuple(sorted(chosen))


def few(
    needs: Sequence[int],
    *,
    worth: float,
    at_most: int = AT_MOST,
    longest: int = 0,
    positions: Callable[[int], int] = int,
) -> tuple[int, ...]:
    """Chooses as few widths as save nearly all padding.

    Args:
      needs, at_most, longest: see `choose`.
      worth: the share of all positions that one more width must save.
      positions: the encoder's positions for inputs of a width, the prompt included.

    >>> few([31, 35, 38, 70, 81, 140], worth=0.1), few([31, 35, 38, 70, 81, 140], worth=0.9)
    ((40, 88, 144), (144,))
    """

    def padded(chosen: tuple[int, ...]) -> int:
        return sum(positions(fitting(int(need), chosen)) for need in needs)

    chosen = choose(needs, 1, longest)
    for count in range(2, at_most + 1):
        more = choose(needs, count, longest)
        if padded(more) < (1 - worth) * padded(chosen):
            chosen = more
    return chosen


def fitting(length: int, widths: Sequence[int]) -> int:
    """The smallest width that a row of this length fits into.

    Raises:
      ValueError: it fits into none.

    >>> fitting(41, (40, 88, 144))
    88
    """
    for width in widths:
        if length <= width:
            return width
    raise ValueError(f"A row of {length} tokens does not fit any of the widths {tuple(widths)}.")
