"""Puts a text, such as a sentinel, in front of everything that a task has the model write.

    inputs 'question: is leo in the cellar ...'     targets '<extra_id_0> True'

A T5 that was pretrained by span corruption alone has never written a target without a sentinel at
its start. Lester et al. 2021, section 3.2, put one in front of the targets of every task ("span
corruption + sentinel"). Metrics see the targets and predictions without it, and a prediction that
lacks it is taken as it is; `infer` writes what the model wrote.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.tensorflow_import import seqio, tf

TARGETS = "targets_pretokenized"


def with_prefix(task: TextTask | TextMixture, prefix: str) -> TextTask | TextMixture:
    """The task with the prefix, and a space, in front of its targets and class labels.

    Raises:
      ValueError: the task makes tokens without writing a text; the vocabulary cannot write the
        prefix.
    """
    if isinstance(task, TextMixture):
        members = tuple(with_prefix(member, prefix) for member in task.members)
        return dataclasses.replace(task, info=_info(task.info, prefix), members=members)
    _check(task, prefix)
    steps = list(task.seqio_task.preprocessors)
    steps.insert(steps.index(seqio.preprocessors.tokenize), functools.partial(_add, prefix=prefix))
    postprocess = task.seqio_task.postprocess_fn
    return dataclasses.replace(
        task,
        info=_info(task.info, prefix),
        origin=(task.origin, prefix),
        seqio_task=task.seqio_task.replace(
            preprocessors=steps,
            postprocess_fn=postprocess
            and functools.partial(_without, prefix=prefix, postprocess=postprocess),
        ),
    )


def _info(info, prefix: str):
    labels = info.labels and tuple(f"{prefix} {label}" for label in info.labels)
    return dataclasses.replace(info, labels=labels)


def _check(task: TextTask, prefix: str) -> None:
    if seqio.preprocessors.tokenize not in task.seqio_task.preprocessors:
        raise ValueError(
            f"Run.target_prefix is put in front of a text, and the task {task.name!r} makes tokens "
            "without one; leave it out, or choose another task."
        )
    ids = list(task.vocabulary.encode(prefix))
    if task.vocabulary.unk_id in ids:
        raise ValueError(
            f"The vocabulary of the task {task.name!r} cannot write Run.target_prefix, {prefix!r}; "
            "a sentinel is written '<extra_id_0>'."
        )


def _add(dataset: tf.data.Dataset, *, prefix: str) -> tf.data.Dataset:
    def convert(row):
        return {**row, "targets": tf.strings.join([prefix, row["targets"]], separator=" ")}

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _without(
    text: str, *, prefix: str, postprocess: Callable, example: Mapping | None = None, **more: Any
) -> Any:
    """The task's own postprocessor, which knows of no prefix."""
    if example is not None and TARGETS in example:
        target = as_text(example[TARGETS]).removeprefix(prefix).strip()
        example = {**example, TARGETS: target.encode()}
    return postprocess(text.removeprefix(prefix).strip(), example=example, **more)
