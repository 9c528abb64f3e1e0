"""From the model's output to the reported metrics.

    eval_set(task, 'validation', lengths)        the tasks and their rows
    measure(examples, texts or token ids)        a task's own metrics
    measure_levels(examples, texts or ids)       the dev score of each level of difficulty
    dev_score(metrics)                           one number to choose by

The metrics are the seqio task's: its postprocessor, then its metric functions, called as seqio's
own evaluator calls them, but only on rows that have a label.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning.data import batches, labels, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.tensorflow_import import seqio

LEVEL = "level"  # the feature of a row that holds its level of difficulty


class Measured(NamedTuple):
    """What a task's metric functions returned."""

    metrics: dict[str, float]
    samples: dict[str, str]  # Texts for the log, from the `_examples` tasks.


def eval_set(
    task: TextTask | TextMixture,
    split: str,
    lengths: Mapping[str, int],
    *,
    limit: int | None = None,
) -> list[batches.Examples]:
    """Loads what there is to evaluate: the task, or the members of a mixture that have the split.

    Args:
      task: see `tasks.get`. Members without metrics (WSC's training half) are left out.
      split, lengths, limit: see `batches.load_examples`.

    Raises:
      ValueError: see `batches.load_examples`; no task has a metric, as AX-b; a task has no row
        with a label; the vocabulary cannot write a label.

    >>> task, lengths = tasks.get('generated_sentiment'), {'inputs': 48, 'targets': 8}
    >>> [(examples.task.name, len(examples)) for examples in eval_set(task, 'validation', lengths)]
    [('generated_sentiment', 200)]
    """
    parts = [part for part in tasks.parts(task, split) if part.seqio_task.metric_fns]
    if not parts:
        raise ValueError(
            f"The task {task.name!r} has no metric, so it cannot be evaluated; "
            "`prompt-tuning infer` writes its predictions."
        )
    for part in parts:
        if part.labels:
            labels.check(part.labels, part.vocabulary, part.name)
    sets = [batches.load_examples(part, split, lengths, limit=limit) for part in parts]
    for examples in sets:
        _check_labelled(examples)
    return sets


def check_targets(examples: batches.Examples) -> str | None:
    """Checks that the targets of a task without known labels can be written.

    Returns:
      A sentence on free text that cannot be predicted exactly, if there is any.

    Raises:
      ValueError: the targets are classes, and the vocabulary cannot write one of them.
    """
    if examples.task.labels:
        return None
    ids_of = {
        as_text(row["targets_pretokenized"]): row["targets"]
        for row, is_labelled in zip(examples.raw, examples.labelled, strict=True)
        if is_labelled
    }
    return labels.check_targets(
        ids_of, int(examples.labelled.sum()), examples.task.vocabulary, examples.task.name
    )


def decode(task: TextTask, tokens: np.ndarray) -> list[str]:
    """Turns predicted token ids into text, each row up to its EOS.

    >>> decode(tasks.get('generated_sentiment'), np.array([[106, 117, 104, 100, 119, 1, 0, 0]]))
    ['great']
    """
    return [task.vocabulary.decode(row) for row in np.asarray(tokens).tolist()]


def measure(examples: batches.Examples, predictions: Sequence[str] | np.ndarray) -> Measured:
    """Computes a task's metrics on a prediction for every example.

    Rows without a label are left out, see `batches.Examples.labelled`.

    Args:
      examples: a split as `batches.load_examples` returns it, its raw rows kept.
      predictions: texts, or token ids [N, L].

    Raises:
      ValueError: the numbers differ; the split has no labels; the task has no metrics or
        some that need scores.

    >>> task, lengths = tasks.get('generated_sentiment'), {'inputs': 48, 'targets': 8}
    >>> examples = batches.load_examples(task, 'train', lengths, limit=4)
    >>> measure(examples, ['awful', 'great', 'awful', 'nice']).metrics
    {'accuracy': 75.0}
    """
    return _metrics(examples.task, _pairs(examples, predictions))


def measure_levels(
    examples: batches.Examples, predictions: Sequence[str] | np.ndarray
) -> dict[str, float]:
    """The dev score of the examples of each level of difficulty, by level.

    A task has levels if its rows have the feature 'level', a whole number; without it there are
    none. Rows without a label are left out.

    Args:
      examples, predictions: see `measure`.

    Raises:
      ValueError: see `measure`.
    """
    if not examples.raw or LEVEL not in examples.raw[0]:
        return {}
    by_level: dict[int, list[Pair]] = {}
    for pair in _pairs(examples, predictions):
        by_level.setdefault(int(pair.row[LEVEL]), []).append(pair)
    return {
        str(level): dev_score(_metrics(examples.task, pairs).metrics)
        for level, pairs in sorted(by_level.items())
    }


class Pair(NamedTuple):
    """What the metric functions take of a row, after the task's postprocessor."""

    target: Any
    prediction: Any
    row: Mapping[str, Any]


def _pairs(examples: batches.Examples, predictions: Sequence[str] | np.ndarray) -> list[Pair]:
    """The rows that have a label."""
    task = examples.task.seqio_task
    _check_measurable(examples, len(predictions))
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind in "iu":
        predictions = decode(examples.task, predictions)
    pairs = []
    for text, row, is_labelled in zip(predictions, examples.raw, examples.labelled, strict=True):
        if is_labelled:
            target = as_text(row["targets_pretokenized"])
            target = task.postprocess_fn(target, example=row, is_target=True)
            value = task.postprocess_fn(text, example=row, is_target=False)
            pairs.append(Pair(target, value, row))
    return pairs


def _metrics(task: TextTask, pairs: Sequence[Pair]) -> Measured:
    targets, values = [pair.target for pair in pairs], [pair.prediction for pair in pairs]
    metrics, samples = {}, {}
    for metric_fn in task.seqio_task.predict_metric_fns:
        for name, value in metric_fn(targets, values).items():
            if isinstance(value, seqio.metrics.Text):
                samples[name] = as_text(value.textdata)
            else:
                value = value.value if isinstance(value, seqio.metrics.Scalar) else value
                metrics[name] = float(value)
    return Measured(metrics, samples)


def majority_floor(examples: batches.Examples) -> Measured:
    """The score of one constant answer: the best of the 20 most frequent targets.

    >>> task, lengths = tasks.get('generated_sentiment'), {'inputs': 48, 'targets': 8}
    >>> majority_floor(batches.load_examples(task, 'train', lengths, limit=4)).metrics
    {'accuracy': 50.0}
    """
    targets = collections.Counter(
        labels.normalise(as_text(row["targets_pretokenized"]))
        for row, is_labelled in zip(examples.raw, examples.labelled, strict=True)
        if is_labelled
    )
    answers = [answer for answer, _ in targets.most_common(20)]
    constant = [measure(examples, [answer] * len(examples)) for answer in answers]
    return max(constant, key=lambda measured: dev_score(measured.metrics))


def _check_measurable(examples: batches.Examples, predictions: int) -> None:
    name, task = examples.task.name, examples.task.seqio_task
    if len(examples.raw) != len(examples):
        raise ValueError(
            f"The examples of {name!r} were loaded without their raw rows, which the "
            "metrics need; load them with keep_raw=True."
        )
    if predictions != len(examples):
        raise ValueError(
            f"{name!r} ({examples.split}) has {len(examples):,} examples, but there are "
            f"{predictions:,} predictions; there must be one for each."
        )
    if not task.predict_metric_fns or len(task.metric_fns) > len(task.predict_metric_fns):
        raise ValueError(
            f"The task {name!r} has {len(task.metric_fns)} metric functions, "
            f"{len(task.predict_metric_fns)} of them on predictions alone (targets, predictions); "
            "all must be, and there must be one."
        )
    _check_labelled(examples)


def _check_labelled(examples: batches.Examples) -> None:
    if not examples.labelled.any():
        raise ValueError(
            f"The split {examples.split!r} of {examples.task.name!r} has no labels, so nothing can "
            "be measured on it; `prompt-tuning infer` writes its predictions."
        )


def dev_score(metrics: Mapping[str, float]) -> float:
    """The number a checkpoint is chosen by: the mean of a task's metrics (Lester et al. 2021, 3).

    >>> dev_score({'mean_3class_f1': 80.0, 'accuracy': 90.0})
    85.0

    Raises:
      ValueError: there are no metrics.
    """
    if not metrics:
        raise ValueError("A dev score is the mean of a task's metrics; there are no metrics.")
    return sum(metrics.values()) / len(metrics)
