"""Cuts the batch of a step into micro-batches of rows of similar length, each with its own width.

    lengths of a batch   31 260 45 38 90 140 52 70
    sorted by length     31  38 | 45  52 | 70  90 | 140 260     micro-batches of 2 rows
    padded to            48     | 56     | 96     | 264         a few widths for all steps

A step adds up the gradients of its micro-batches, so its examples and its gradient are those of the
whole batch, to rounding; only padding is saved. Buckets across batches would change which examples
share a step.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prompt_tuning.data import widths

if TYPE_CHECKING:  # a step needs no TensorFlow
    from prompt_tuning.data.batches import TrainBatches

Batch = dict[str, np.ndarray]

SAMPLED_STEPS = 200  # that widths are chosen by, from step 0 on: the same when a run is resumed
AT_MOST = 4  # widths, each of which is compiled
WORTH = 0.02  # share of positions that one more width must save


class MicroBatch(NamedTuple):
    """Some rows of a batch.

    Attributes:
      batch: arrays as those of the whole batch, inputs as wide as these rows need.
      places: the place of each row in the whole batch, [m] int32.
    """

    batch: Batch
    places: np.ndarray


class Plan(NamedTuple):
    """How batches are cut.

    Attributes:
      rows: of a micro-batch, a divisor of the batch size.
      widths: that inputs are padded to, in tokens, ascending.
    """

    rows: int
    widths: tuple[int, ...]


class MicroBatches:
    """The batches of a stream, each as a list of micro-batches."""

    def __init__(self, stream: "TrainBatches", plan: Plan):
        self._stream, self._plan = stream, plan

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        return self

    def __next__(self) -> list[MicroBatch]:
        return cut(next(self._stream), self._plan)


def whole(batch: Batch) -> list[MicroBatch]:
    """A batch as one micro-batch."""
    rows = len(batch["encoder_input_tokens"])
    return [MicroBatch(batch, np.arange(rows, dtype=np.int32))]


def cut(batch: Batch, plan: Plan) -> list[MicroBatch]:
    """Sorts the rows of a batch by length and cuts it.

    Raises:
      ValueError: a row fits into none of the widths.

    >>> tokens = np.array([[7, 8, 9, 1] + [0] * 12, [7] * 10 + [0] * 6])
    >>> parts = cut({'encoder_input_tokens': tokens}, Plan(rows=1, widths=(8, 16)))
    >>> [(part.batch['encoder_input_tokens'].shape, part.places.tolist()) for part in parts]
    [((1, 8), [0]), ((1, 16), [1])]
    """
    lengths = row_lengths(batch["encoder_input_tokens"])
    order = np.argsort(lengths, kind="stable").astype(np.int32)
    parts = []
    for start in range(0, len(order), plan.rows):
        places = order[start : start + plan.rows]
        width = widths.fitting(int(lengths[places].max()), plan.widths)
        part = {name: array[places] for name, array in batch.items()}
        part["encoder_input_tokens"] = _resized(part["encoder_input_tokens"], width)
        parts.append(MicroBatch(part, places))
    return parts


def choose(stream: "TrainBatches", rows: int, positions: Callable[[int], int] = int) -> Plan:
    """Chooses the widths for a stream: as few as save nearly all padding.

    Args:
      stream: the batches; their first steps are looked at, whatever its position.
      rows: of a micro-batch, a divisor of the batch size.
      positions: the encoder's positions for inputs of a width, the prompt included.
    """
    needs = np.concatenate(
        [_needs(stream.input_lengths(step), rows) for step in range(SAMPLED_STEPS)]
    )
    longest = max(int(examples.inputs.lengths.max()) for examples in stream.examples)
    chosen = widths.few(needs, worth=WORTH, at_most=AT_MOST, longest=longest, positions=positions)
    return Plan(rows, chosen)


def fitting_rows(batch_size: int, at_least: int) -> int:
    """The smallest divisor of a batch size that is not below a number.

    >>> fitting_rows(16, 3), fitting_rows(16, 20)
    (4, 16)
    """
    rows = min(at_least, batch_size)
    while batch_size % rows:
        rows += 1
    return rows


def row_lengths(tokens: np.ndarray) -> np.ndarray:
    """Tokens of each row up to the last that is not padding."""
    return (np.arange(1, tokens.shape[1] + 1) * (tokens != 0)).max(axis=1)


def _needs(lengths: np.ndarray, rows: int) -> np.ndarray:
    """The longest row of each micro-batch."""
    return np.sort(lengths)[rows - 1 :: rows]


def _resized(tokens: np.ndarray, width: int) -> np.ndarray:
    """Cuts padding off, or adds some where the width is rounded up."""
    extra = max(0, width - tokens.shape[1])
    return np.pad(tokens[:, :width], ((0, 0), (0, extra)))
