"""Batches of inputs for evaluation and inference: every row once, sorted by length.

    rows in order of length   1 3 7 | 2 5 6 | 4 0       batches of 3 rows
    tokens padded to           120  |   48  |  48       a few widths

All batches have the same number of rows, so a width is one compiled program: the last batch, of
the shortest rows, is filled up.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning.data import widths
from prompt_tuning.data.ragged import Ragged

AT_MOST = 4  # widths
WORTH = 0.1  # share of positions that one more width must save: each is compiled


class SortedBatch(NamedTuple):
    """Some rows of all inputs.

    Attributes:
      rows: their numbers, [n], n at most B.
      tokens: [B, T] int32, padded with 0; the last row is repeated from n on.
    """

    rows: np.ndarray
    tokens: np.ndarray


def sorted_batches(
    inputs: Ragged,
    batch_size: int,
    *,
    positions: Callable[[int], int] = int,
    width: int | None = None,
) -> Iterator[SortedBatch]:
    """Yields every row once, the longest first.

    Args:
      inputs: token ids.
      batch_size: B.
      positions: the encoder's positions for inputs of a width, the prompt included.
      width: pads all batches to it; None chooses a few.

    >>> inputs = Ragged.from_rows([np.ones(n, np.int32) for n in (30, 3, 40, 5)])
    >>> [(batch.rows.tolist(), batch.tokens.shape) for batch in sorted_batches(inputs, 3)]
    [([2, 0, 3], (3, 40)), ([1], (3, 8))]
    """
    order = np.argsort(-inputs.lengths, kind="stable")
    groups = np.split(order, np.arange(batch_size, len(order), batch_size))
    needs = [int(inputs.lengths[rows[0]]) for rows in groups]
    chosen = (
        (width,) if width else widths.few(needs, worth=WORTH, at_most=AT_MOST, positions=positions)
    )
    for rows, need in zip(groups, needs, strict=True):
        filled = np.append(rows, np.repeat(rows[-1], batch_size - len(rows)))
        yield SortedBatch(rows, inputs.padded(filled, widths.fitting(need, chosen)))


def in_order(found: Iterable[tuple[np.ndarray, Any]]) -> Any:
    """Joins what was computed for sorted batches, in the order of the rows.

    Args:
      found: the rows of each batch, and a tree of arrays [B, ...] computed for it.

    >>> in_order([(np.array([1]), np.array([5, 5])), (np.array([2, 0]), np.array([7, 3]))])
    array([3, 5, 7])
    """
    rows, trees = zip(*found, strict=True)
    place = np.argsort(np.concatenate(rows))

    def join(*arrays):
        real = [np.asarray(x)[: len(some)] for x, some in zip(arrays, rows, strict=True)]
        return np.concatenate(real)[place]

    return jax.tree.map(join, *trees)
