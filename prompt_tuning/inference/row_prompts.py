"""Texts that use different prompts in one batch: which prompt each text uses, and how long it is.

    prompts      a [20, H], b [100, H]        one stack [2, 100, H], lengths [20, 100]
    prompt_ids   [0, 1, 0]                    texts 0 and 2 use a, text 1 uses b

The stack is padded to the longest prompt, and to a power of 2 in number, so that other prompts run
the same compiled program. What pads a prompt is behind its row and masked, see `model/inputs.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.data.sorted_batches import SortedBatch
from prompt_tuning.model.inputs import as_inputs
from prompt_tuning.shapes import Array, Float, Int


class Checked(NamedTuple):
    """A prompt that fits the model, and where it is used, 'prefix' or 'suffix'."""

    array: Float[Array, "P H"]
    position: str


class RowPrompts(NamedTuple):
    """The prompt of each row.

    Attributes:
      ids: number of the prompt of each of B texts.
      lengths: vectors of each of M prompts.
    """

    ids: Int[np.ndarray, " B"]
    lengths: Int[np.ndarray, " M"]

    def added_to(self, batch: SortedBatch) -> SortedBatch:
        """The batch with `Inputs` as its tokens; rows that fill it up repeat the last."""
        fill = len(batch.tokens) - len(batch.rows)
        ids = np.pad(self.ids[batch.rows], (0, fill), mode="edge")
        inputs = as_inputs(batch.tokens)
        inputs = inputs._replace(prompt_ids=ids, prompt_lengths=self.lengths[ids])
        return batch._replace(tokens=inputs)


def chosen(count: int, prompt_ids: Any, rows: int) -> Int[np.ndarray, " B"]:
    """The prompt of each row; None is one prompt for each.

    Args:
      count: M, the number of prompts.
      prompt_ids: a list or an array of whole numbers, from 0.
      rows: how many there are.

    Raises:
      ValueError: there is not one id for each row, or an id is not 0 to M - 1.

    >>> chosen(2, [1, 0, 1], 3)
    array([1, 0, 1], dtype=int32)
    """
    if prompt_ids is None:
        if count != rows:
            raise ValueError(
                f"Expected one prompt for each of {rows} texts, got {count}. Pass prompt_ids, "
                "which say which prompt each text uses."
            )
        return np.arange(count, dtype=np.int32)
    ids = np.asarray(prompt_ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"prompt_ids are a list of whole numbers; got {prompt_ids!r}.")
    if len(ids) != rows:
        raise ValueError(f"Expected one prompt id for each of {rows} texts, got {len(ids)}.")
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise ValueError(
            f"A prompt id is a place in the list of {count} prompts, 0 to {count - 1}; got "
            f"{wrong[0]}."
        )
    return ids.astype(np.int32)


def each(
    prompts: Sequence[Any], check: Callable[[Any], tuple[Float[Array, "P H"], str]]
) -> list[Checked | None]:
    """Checks each prompt of a list; None, which is no prompt, stays.

    Args:
      prompts: of one call.
      check: gives the array of a prompt and its position.

    Raises:
      ValueError: the list is empty, or `check` refuses a prompt, whose number is then named.
    """
    if not prompts:
        raise ValueError("Expected a list of one or more prompts, got an empty one.")
    checked: list[Checked | None] = []
    for number, prompt in enumerate(prompts):
        try:
            checked.append(None if prompt is None else Checked(*check(prompt)))
        except ValueError as error:
            raise ValueError(f"Prompt {number} of {len(prompts)}: {error}") from error
    return checked


def one_position(prompts: Sequence[Checked | None]) -> str | None:
    """The position of all prompts; None if there are none.

    Raises:
      ValueError: they differ.
    """
    found: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        if prompt is not None:
            found.setdefault(prompt.position, number)
    if len(found) > 1:
        (one, a), (other, b) = found.items()
        raise ValueError(
            f"All prompts of a call are at one position, but prompt {a} is a {one} and prompt {b} "
            f"a {other}. Use those of each position in a call of their own."
        )
    return next(iter(found), None)


def stacked(
    prompts: Sequence[Checked | None], width: int
) -> tuple[Float[np.ndarray, "M P H"], Int[np.ndarray, " M"]]:
    """Stacks prompts, with zeros behind each; and the length of each, 0 for None.

    >>> two, three = (Checked(np.ones((length, 4)), 'prefix') for length in (2, 3))
    >>> stack, lengths = stacked([two, None, three], 4)
    >>> stack.shape, lengths.tolist()
    ((4, 3, 4), [2, 0, 3, 0])
    """
    count = 1 << (len(prompts) - 1).bit_length()
    lengths = np.zeros(count, np.int32)
    lengths[: len(prompts)] = [0 if prompt is None else len(prompt.array) for prompt in prompts]
    stack = np.zeros((count, max(1, lengths.max()), width), np.float32)
    for number, prompt in enumerate(prompts):
        if prompt is not None:
            stack[number, : len(prompt.array)] = prompt.array
    return stack, lengths
