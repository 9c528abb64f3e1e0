"""Class labels: one rule for when two texts are the same label, and whether one can be written.

A model writes token ids, and what its vocabulary makes of them is compared with the label. A
sentencepiece vocabulary changes the text on the way: it collapses spaces, it turns full-width and
decomposed characters into the usual ones (NFKC), and a character that it lacks becomes ' ⁇ '.
Therefore

    normalise              the rule: labels, targets and predictions are compared after it
    check                  refuses labels that are the same under the rule, or that the vocabulary
                           cannot write
    of_values, find, ...   the labels of a table's column, and which of them a cell holds
    tokenizer              text to ids for a prompt's initial value, never <unk>
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.vocabularies import nmt_nfkc

UNLABELLED = "<unk>"  # The target of a row without a label, as the t5 library has it.
MISSING = ("", "?", "-1", "-1.0")  # cells without a label, unless they are one of the labels
MANY_LABELS = 100  # A column with more different values is free text.
SHOWN = 3  # examples in a message
# Soft hyphen, zero-width space, non-joiner and joiner, direction marks, word joiner, BOM.
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))


@functools.lru_cache(maxsize=100_000)
def normalise(text: str) -> str:
    """A text as labels are compared.

    Invisible characters are removed. The rest is sentencepiece's rule nmt_nfkc, which the
    vocabularies of T5 and mT5 apply to every text: NFKC, control characters removed, white space
    collapsed and stripped. Case counts.

    >>> normalise(' yes  it\\u200b is '), normalise('ｙｅｓ'), normalise('cafe\\u0301')
    ('yes it is', 'yes', 'café')
    """
    return nmt_nfkc(text.translate(_INVISIBLE))


def number_of(text: str, labels: Sequence[str]) -> int | None:
    """The class number of a text; None if it is not a label.

    >>> number_of('yes ', ('no', 'yes')), number_of('Yes', ('no', 'yes'))
    (1, None)
    """
    return _numbers(tuple(labels)).get(normalise(text))


@functools.lru_cache(maxsize=1000)
def _numbers(labels: tuple[str, ...]) -> dict[str, int]:
    return {normalise(label): number for number, label in reversed([*enumerate(labels)])}


def of_values(values: Iterable[str]) -> tuple[str, ...]:
    """The labels of a column: its different values under the rule, sorted.

    A whole number with decimals, as pandas writes it in a column with gaps, is the number.

    >>> of_values(['yes', 'no', 'yes ']), of_values(['1.0', '0', '1']), of_values(['1.0', '2.0'])
    (('no', 'yes'), ('0', '1'), ('1.0', '2.0'))
    """
    spelt: dict[str, str] = {}
    for label in sorted({normalise(value) for value in values}, key=len):
        spelt.setdefault(_whole(label), label)
    return tuple(sorted(spelt.values()))


def find(cell: str, known: Collection[str]) -> str | None:
    """Which of the known values of a column a cell holds; None if it is none of them.

    >>> find('yes ', ['no', 'yes']), find('1.0', ['0', '1']), find('maybe', ['no', 'yes'])
    ('yes', '1', None)
    """
    if cell in known:
        return cell
    by_text, by_number = _spellings(tuple(known))
    text = normalise(cell)
    return by_text.get(text) or by_number.get(_whole(text))


@functools.lru_cache(maxsize=1000)
def _spellings(known: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    by_text = {normalise(value): value for value in reversed(known)}
    numbers = [_whole(text) for text in by_text]
    unique = {_whole(text): value for text, value in by_text.items()}
    return by_text, {number: unique[number] for number in unique if numbers.count(number) == 1}


def _whole(text: str) -> str:
    return re.sub(r"^([-+]?\d+)\.0+$", r"\1", text)


def is_missing(cell: str | None, known: Collection[str]) -> bool:
    """Whether a cell of a label column holds no label.

    >>> is_missing('?', ['0', '1']), is_missing('-1', ['-1', '1']), is_missing(' ', ['0'])
    (True, False, True)
    """
    return cell is None or (normalise(cell) in MISSING and find(cell, known) is None)


def of_postprocessor(postprocess: Callable | None) -> tuple[str, ...] | None:
    """The labels that a seqio task's postprocessor was given, ours or the t5 library's."""
    keywords = getattr(postprocess, "keywords", {})
    known = keywords.get("labels") or keywords.get("label_classes")
    return tuple(map(str, known)) if isinstance(known, list | tuple) else None


def is_labelled(target: str, label: Any, labels: Sequence[str] | None) -> bool:
    """Whether a row has a label, so that a prediction can be right or wrong.

    Args:
      target: the text to be predicted; '<unk>' means none.
      label: the row's 'label' if it has such a column; TFDS writes -1 for none.
      labels: the task's labels; a target that is none of them is not a label.

    >>> is_labelled('yes ', None, ('no', 'yes')), is_labelled('<unk>', None, None)
    (True, False)
    """
    if target == UNLABELLED or (isinstance(label, int | np.integer) and label == -1):
        return False
    return labels is None or number_of(target, labels) is not None


def check(labels: Sequence[str], vocabulary: Any, task: str) -> None:
    """Refuses labels that no model could get right.

    Args:
      labels: the class labels of a task.
      vocabulary: of the task's targets; it has `encode` and `decode`.
      task: its name, for the message.

    Raises:
      ValueError: two labels are the same under the rule, or one cannot be written.
    """
    check_distinct(labels, f"The labels of the task {task!r}")
    lost = _lost({label: vocabulary.encode(label) for label in labels}, vocabulary)
    if lost:
        raise ValueError(_cannot_be_written(task, lost))


def check_distinct(labels: Iterable[str], what: str) -> None:
    """Refuses two different labels that are the same under the rule.

    >>> check_distinct(['yes', 'yes '], 'The label words')
    Traceback (most recent call last):
    ValueError: The label words 'yes' and 'yes ' are the same label once white space, ...

    Raises:
      ValueError: there are two, or one without a visible character.
    """
    seen: dict[str, str] = {}
    for label in labels:
        if not normalise(label):
            raise ValueError(f"{what} include {label!r}, which has no visible character.")
        other = seen.setdefault(normalise(label), label)
        if other != label:
            raise ValueError(
                f"{what} {other!r} and {label!r} are the same label once white space, invisible "
                "characters and Unicode forms are normalised, as vocabularies do. Use words that "
                "still differ then."
            )


def check_targets(
    ids_of: Mapping[str, Sequence[int]], rows: int, vocabulary: Any, task: str
) -> str | None:
    """Checks the targets of a task whose labels are not known.

    Args:
      ids_of: the token ids of each different target.
      rows: how many rows have these targets.
      vocabulary, task: see `check`.

    Returns:
      A sentence about free text that cannot be written exactly, if there is any.

    Raises:
      ValueError: a target cannot be written, and so few are different that they are classes.
    """
    lost = _lost(ids_of, vocabulary)
    if not lost:
        return None
    if len(ids_of) <= MANY_LABELS and 2 * len(ids_of) <= rows:
        raise ValueError(_cannot_be_written(task, lost))
    return (
        f"{len(lost):,} of {len(ids_of):,} different targets of {task} cannot be written exactly "
        f"by its vocabulary: {_shown(lost)}."
    )


def _lost(ids_of: Mapping[str, Sequence[int]], vocabulary: Any) -> dict[str, str]:
    """The texts that decode(ids) does not restore, each with the decoded text."""
    back = {text: vocabulary.decode([int(i) for i in ids]) for text, ids in ids_of.items()}
    return {text: other for text, other in back.items() if normalise(text) != normalise(other)}


def _cannot_be_written(task: str, lost: Mapping[str, str]) -> str:
    return (
        f"The vocabulary of the task {task!r} cannot write {_shown(lost)}, so no prediction could "
        "ever be right. Give each class a word that the vocabulary has: in a table with "
        "TableTask.label_words = {'<=50K': 'low', '>50K': 'high'}, in a task of your own as the "
        "text of its targets."
    )


def _shown(lost: Mapping[str, str]) -> str:
    some = [f"{text!r} (decoded as {back!r})" for text, back in lost.items()][:SHOWN]
    return ", ".join(some) + (", ..." if len(lost) > SHOWN else "")


def tokenizer(vocabulary: Any) -> Callable[[str], list[int]]:
    """Text to ids for the initial value of a prompt; <unk> is refused.

    The function raises a ValueError for a text that the vocabulary cannot write.
    """

    def tokenize(text: str) -> list[int]:
        ids = list(vocabulary.encode(text))
        if vocabulary.unk_id in ids:
            raise ValueError(
                f"The prompt cannot start at {text!r}: the vocabulary lacks a character of it and "
                f"reads {vocabulary.decode(ids)!r}. Choose other words for CLASS_LABELS or "
                "PROMPT_TEXT."
            )
        return ids

    return tokenize
