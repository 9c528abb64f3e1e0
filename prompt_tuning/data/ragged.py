"""Rows of token ids of different lengths."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in one array: row i is flat[starts[i]:starts[i + 1]]."""

    flat: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> "Ragged":
        """Joins rows of token ids."""
        starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row [N]."""
        return np.diff(self.starts)

    def repeated(self, times: int) -> "Ragged":
        """Each row several times, one after the other.

        >>> Ragged.from_rows([np.array([5, 6]), np.array([7])]).repeated(2).padded(range(4), 2)
        array([[5, 6],
               [5, 6],
               [7, 0],
               [7, 0]], dtype=int32)
        """
        return Ragged.from_rows([self[row] for row in range(len(self)) for _ in range(times)])

    def padded(self, rows: Sequence[int], length: int) -> np.ndarray:
        """Stacks rows, padded with 0 to a length no row exceeds."""
        table = np.zeros((len(rows), length), np.int32)
        for place, row in enumerate(rows):
            tokens = self[row]
            table[place, : len(tokens)] = tokens
        return table
