"""Writes a text prompt into the inputs of a task's examples; the model knows nothing of it.

    examples = with_text_prompt(sets, task, run.text_prompt, seed=0)

If a text is longer than the inputs may be, its examples are dropped first, the first of them
before the others, then the instruction. So the question is never cut; one that is too long by
itself is truncated, and counted, as in every other run.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.data import batches, labels, orders, tasks, text_prompts
from prompt_tuning.data.batches import Examples
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.text_prompts import TextPrompt

STREAM = 3  # of random numbers; 0 and 1 are those of training


class Written(NamedTuple):
    """One input.

    Attributes:
      text: all that the model reads.
      ids: its tokens, without EOS.
      shots: how many examples it holds.
      instructed: whether the instruction is in it.
    """

    text: str
    ids: list[int]
    shots: int
    instructed: bool


def with_text_prompt(
    sets: Sequence[Examples],
    task: TextTask | TextMixture,
    prompt: TextPrompt,
    *,
    seed: int,
) -> list[Examples]:
    """Writes the prompt into every input, and prints how it went.

    Args:
      sets: what is evaluated: `task`, or members of it.
      task: whose train split the examples are drawn from, those of the same dataset.
      prompt: as configured, see `text_prompts.for_task`.
      seed: decides which examples.

    Raises:
      ValueError: there are too few examples, or the vocabulary cannot write the prompt.
    """
    found = []
    for examples in sets:
        own = text_prompts.for_task(prompt, examples.task.info.member)
        _check(own, examples.task)
        solved = _solved(own, examples, task) if own.shots else []
        made, note = write_inputs(examples, solved, own, seed=seed)
        print(note)
        found.append(made)
    return found


def write_inputs(
    examples: Examples, solved: Sequence[tuple[str, str]], prompt: TextPrompt, *, seed: int
) -> tuple[Examples, str]:
    """Writes the prompt into every input.

    Args:
      examples: the questions, their raw rows kept.
      solved: input and target of what the K examples of a question are drawn from.
      prompt: with nothing left open.
      seed: see `with_text_prompt`.

    Returns:
      The examples with the new inputs, and a line or two on what was written and left out.
    """
    feature = examples.task.seqio_task.output_features["inputs"]
    limit, end = examples.lengths["inputs"], [feature.vocabulary.eos_id] * feature.add_eos
    written = [
        _fitting(
            prompt,
            [solved[i] for i in draw(seed, row, prompt.shots, len(solved))],
            as_text(raw["inputs_pretokenized"]),
            feature.vocabulary,
            limit - len(end),
        )
        for row, raw in enumerate(examples.raw)
    ]
    tokens = [np.array([*one.ids, *end], np.int32) for one in written]
    made = dataclasses.replace(
        examples,
        inputs=Ragged.from_rows([batches.fit(row, limit, examples.task) for row in tokens]),
        raw=tuple(
            {**raw, "inputs_pretokenized": one.text.encode()}
            for raw, one in zip(examples.raw, written, strict=True)
        ),
        cut={**examples.cut, "inputs": sum(len(row) > limit for row in tokens)},
        longest={**examples.longest, "inputs": max(map(len, tokens))},
    )
    return made, _note(made, prompt, written)


def draw(seed: int, row: int, count: int, of: int) -> list[int]:
    """Draws `count` different numbers below `of`; the same ones for the same seed and row.

    >>> draw(0, row=5, count=3, of=3), draw(0, row=5, count=2, of=1000)
    ([1, 0, 2], [908, 541])
    """
    moved: dict[int, int] = {}  # the first steps of a shuffle of 0, 1, ..., of - 1
    drawn = []
    for place, x in enumerate(orders.uniform([seed, STREAM], row * count, count).tolist()):
        other = place + int(x * (of - place))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return drawn


def _fitting(prompt: TextPrompt, shots, question: str, vocabulary, limit: int) -> Written:
    """Writes as many examples as fit, the last ones."""
    for dropped in range(len(shots) + 1):
        text = text_prompts.write(prompt, shots[dropped:], question)
        ids = list(vocabulary.encode(text))
        if len(ids) <= limit:
            return Written(text, ids, len(shots) - dropped, instructed=True)
    text = text_prompts.write(dataclasses.replace(prompt, instruction=""), [], question)
    return Written(text, list(vocabulary.encode(text)), 0, instructed=not prompt.instruction)


def _note(examples: Examples, prompt: TextPrompt, written: Sequence[Written]) -> str:
    """What the first input looks like, and what was left out."""
    name, limit = examples.task.name, examples.lengths["inputs"]
    lines = [f"first input of {name}: {written[0].text}"]
    short = [one for one in written if one.shots < prompt.shots or not one.instructed]
    if short:
        line = (
            f"{name}: {len(short):,} of {len(written):,} inputs have fewer than the "
            f"{prompt.shots} examples, so that the question fits into {limit} tokens (on average "
            f"{np.mean([one.shots for one in written]):.1f})"
        )
        if bare := sum(not one.instructed for one in written):
            line += f", and {bare:,} of these no instruction"
        lines.append(line)
    return "\n".join(lines)


def _solved(
    prompt: TextPrompt, examples: Examples, task: TextTask | TextMixture
) -> list[tuple[str, str]]:
    """Input and target of each training row, class labels by their words."""
    member, known = examples.task.info.member, examples.task.labels
    sources = [one for one in tasks.parts(task, "train") if one.info.member == member]
    words = dict(zip(known, prompt.words(known), strict=True)) if known else {}
    found = []
    for source in sources:
        rows = batches.load_examples(source, "train", examples.lengths)
        for raw, is_labelled in zip(rows.raw, rows.labelled, strict=True):
            if is_labelled:
                target = as_text(raw["targets_pretokenized"])
                number = labels.number_of(target, known) if known else None
                word = target if number is None else words[known[number]]
                found.append((as_text(raw["inputs_pretokenized"]), word))
    if len(found) < prompt.shots:
        raise ValueError(
            f"TextPrompt.shots asks for {prompt.shots} different examples, and the train split of "
            f"{task.name!r} has {len(found)} for {examples.task.name!r}. Set fewer, or 0."
        )
    return found


def _check(prompt: TextPrompt, task: TextTask) -> None:
    """Refuses words that the task's vocabulary cannot write."""
    if task.labels:
        labels.check(prompt.words(task.labels), task.vocabulary, task.name)
    vocabulary = task.seqio_task.output_features["inputs"].vocabulary
    template = prompt.template.replace(text_prompts.INPUTS, "").replace(text_prompts.TARGETS, "")
    for text in (prompt.instruction, template, prompt.separator):
        ids = list(vocabulary.encode(text))
        if vocabulary.unk_id in ids:
            raise ValueError(
                f"The vocabulary of the task {task.name!r} cannot write {text!r} and reads "
                f"{vocabulary.decode(ids)!r}. Set TextPrompt.instruction, TextPrompt.template and "
                "TextPrompt.separator to texts that it has."
            )
