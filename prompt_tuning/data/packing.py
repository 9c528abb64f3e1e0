"""Packs several examples of a step's batch into a row, each with its own places for the prompt.

    row of the encoder   P0 P1 7 8 1   P0 P1 9 1   0        prompt_places 0 1 -1 -1 -1 0 1 -1 -1 -1
    segment_ids           1  1 1 1 1    2  2 2 2   0
    positions             0  1 2 3 4    0  1 2 3   0
    row of the decoder   0 5   0 6 0                        the targets of both, in the same order

For accelerators, which want one shape for all steps. Packers that count tokens only would let the
prompts overflow the row: every segment needs its P places, too (Lester et al. 2021 do not pack).

Loss and gradient are those of the unpacked batch, to rounding. Dropout is drawn for each row, as
T5X draws it for packed rows, and not for each example.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from prompt_tuning.data.batches import Batch, TrainBatches
from prompt_tuning.data.microbatches import SAMPLED_STEPS, MicroBatch, row_lengths
from prompt_tuning.model.inputs import Inputs, as_inputs

Reserve = Callable[[Inputs], Inputs]  # see `Hooks.reserve`
MULTIPLE = 8  # of both lengths


class Plan(NamedTuple):
    """The shape of all packed micro-batches.

    Attributes:
      rows: R, of a micro-batch.
      positions: S, of the encoder, places of prompts included.
      targets: L, of the decoder.
    """

    rows: int
    positions: int
    targets: int


class PackedBatches:
    """The batches of a stream, each as a list of packed micro-batches."""

    def __init__(self, stream: TrainBatches, plan: Plan, reserve: Reserve | None):
        self._stream, self._plan, self._reserve = stream, plan, reserve

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        return self

    def __next__(self) -> list[MicroBatch]:
        return pack(next(self._stream), self._plan, self._reserve)


def choose(stream: TrainBatches, reserve: Reserve | None, rows: int | None = None) -> Plan:
    """Chooses the shape: rows as long as the longest example may be.

    Args:
      stream: the batches; their first steps are looked at, whatever its position.
      reserve: of the model's hooks.
      rows: of a micro-batch; None is what nearly all steps need, so that a step is one.
    """
    lengths = stream.examples[0].lengths
    longest = _rounded(len(_template(reserve, lengths["inputs"]).valid[0]))
    extra = longest - lengths["inputs"]
    mean = np.mean(np.concatenate([one.inputs.lengths for one in stream.examples])) + extra
    targets = _rounded(lengths["targets"] * max(1, round(longest / mean)))
    plan = Plan(rows or 1, longest, targets)
    if rows is None:
        needs = [
            len(_fit(stream.batch(step), plan, reserve)) for step in range(0, SAMPLED_STEPS, 10)
        ]
        plan = plan._replace(rows=max(needs))
    return plan


def pack(batch: Batch, plan: Plan, reserve: Reserve | None) -> list[MicroBatch]:
    """Packs a batch, first fit, the longest example first.

    Returns:
      Micro-batches of `plan.rows` rows; the last one is filled up with empty rows. Their
      `encoder_input_tokens` and `decoder_input_tokens` are `Inputs`.

    Raises:
      ValueError: the examples have prompts of their own; `Inputs.prompt_ids` is one for each row.
    """
    if "prompt_ids" in batch:
        raise ValueError(
            "Packing expected examples that share one prompt, got 'prompt_ids' in the batch, and "
            "all examples of a packed row have the same prompt. Set Run.packing=False."
        )
    rows = _fit(batch, plan, reserve)
    rows += [[]] * (-len(rows) % plan.rows)
    return [
        _joined(batch, rows[start : start + plan.rows], plan, reserve)
        for start in range(0, len(rows), plan.rows)
    ]


def _fit(batch: Batch, plan: Plan, reserve: Reserve | None) -> list[list[int]]:
    """The examples of each row."""
    inputs = [
        _template(reserve, int(length)).valid.shape[1]
        for length in row_lengths(batch["encoder_input_tokens"])
    ]
    targets = row_lengths(batch["decoder_target_tokens"])
    rows: list[list[int]] = []
    free: list[list[int]] = []
    for example in np.argsort(inputs, kind="stable")[::-1].tolist():
        needed = inputs[example], int(targets[example])
        row = next(
            (i for i, left in enumerate(free) if left[0] >= needed[0] and left[1] >= needed[1]),
            len(rows),
        )
        if row == len(rows):
            rows.append([])
            free.append([plan.positions, plan.targets])
        rows[row].append(example)
        free[row] = [left - used for left, used in zip(free[row], needed, strict=True)]
    return rows


def _joined(batch: Batch, rows: list[list[int]], plan: Plan, reserve: Reserve | None) -> MicroBatch:
    shape = plan.rows, plan.targets
    encoder, decoder = _empty(plan.rows, plan.positions), _empty(*shape)
    if reserve is not None:
        encoder = encoder._replace(prompt_places=encoder.segment_ids - 1)
    packed = {
        "encoder_input_tokens": encoder,
        "decoder_input_tokens": decoder,
        "decoder_target_tokens": np.zeros(shape, np.int32),
        "decoder_loss_weights": np.zeros(shape, np.float32),
    }
    inputs = row_lengths(batch["encoder_input_tokens"])
    targets = row_lengths(batch["decoder_target_tokens"])
    for row, examples in enumerate(rows):
        start = first = 0
        for segment, example in enumerate(examples, 1):
            tokens = batch["encoder_input_tokens"][example, : inputs[example]]
            template = _template(reserve, len(tokens))
            end, last = start + template.tokens.shape[1], first + targets[example]
            _write_input(encoder, (row, slice(start, end)), segment, tokens, template)
            _write_target(packed, (row, slice(first, last)), segment, batch, example)
            start, first = end, last
    places = [examples[0] if examples else 0 for examples in rows]
    return MicroBatch(packed, np.array(places, np.int32))


def _empty(rows: int, length: int) -> Inputs:
    tokens, positions, segment_ids = np.zeros((3, rows, length), np.int32)
    return Inputs(tokens, np.zeros((rows, length), bool), positions, segment_ids)


def _write_input(encoder: Inputs, at, segment: int, tokens: np.ndarray, template: Inputs) -> None:
    if template.prompt_places is None:
        encoder.tokens[at] = tokens
    else:
        encoder.prompt_places[at] = template.prompt_places[0]
        encoder.tokens[at][template.prompt_places[0] < 0] = tokens
    encoder.valid[at] = True
    encoder.positions[at] = template.positions[0]
    encoder.segment_ids[at] = segment


def _write_target(packed, at, segment: int, batch: Batch, example: int) -> None:
    length = at[1].stop - at[1].start
    for name in ("decoder_target_tokens", "decoder_loss_weights"):
        packed[name][at] = batch[name][example, :length]
    decoder = packed["decoder_input_tokens"]
    decoder.tokens[at] = batch["decoder_input_tokens"][example, :length]
    decoder.valid[at] = True
    decoder.positions[at] = np.arange(length)
    decoder.segment_ids[at] = segment


@functools.lru_cache(maxsize=4096)  # lengths of examples
def _template(reserve: Reserve | None, length: int) -> Inputs:
    """The places of one example of this length, as NumPy arrays [1, P + length]."""
    inputs = as_inputs(jnp.ones((1, length), jnp.int32))
    inputs = inputs if reserve is None else reserve(inputs)
    return Inputs(*(None if field is None else np.asarray(field) for field in inputs))


def _rounded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
