"""From what a model wrote to the numbers that are reported.

    eval_set('taskless_super_glue_cb_v102', 'validation', lengths)   the tasks and their rows
    measure(examples, texts or token ids)                            a task's own metrics
    dev_score(metrics)                                               one number to choose by

The metrics are the seqio task's: its postprocessor, then its metric functions,
called as seqio's own evaluator calls them.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.data import batches, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.preprocessors import UNLABELLED
from prompt_tuning.data.tensorflow_import import seqio

UNLABELLED_TARGETS = (UNLABELLED, "-1.0")  # -1.0: how STS-B writes a missing similarity.


class Measured(NamedTuple):
    """What a task's metric functions gave."""

    metrics: dict[str, float]
    samples: dict[str, str]  # Texts for the log, from the `_examples` tasks.


def eval_set(
    name: str, split: str, lengths: Mapping[str, int], *, limit: int | None = None
) -> list[batches.Examples]:
    """Loads what there is to evaluate: the task, or the tasks of a mixture that have the split.

    Args:
      name: a task or mixture. Tasks without metrics (WSC's training half) are left out.
      split, lengths, limit: see `batches.load`.

    Raises:
      ValueError: see `batches.load`; or no task has a metric, as AX-b.

    >>> sets = eval_set('generated_sentiment', 'validation', {'inputs': 48, 'targets': 8})
    >>> [(examples.task, len(examples)) for examples in sets]
    [('generated_sentiment', 200)]
    """
    parts = [part for part in tasks.parts(tasks.get(name), split) if part.metric_fns]
    if not parts:
        raise ValueError(
            f"The task {name!r} has no metric, so it cannot be evaluated; "
            "`prompt-tuning infer` writes its predictions."
        )
    return [batches.load(part, split, lengths, limit=limit) for part in parts]


def decode(task: str, tokens: np.ndarray) -> list[str]:
    """Turns predicted token ids into text, each row up to its EOS.

    >>> decode('generated_sentiment', np.array([[106, 117, 104, 100, 119, 1, 0, 0]]))
    ['great']
    """
    vocabulary = tasks.get(task).output_features["targets"].vocabulary
    return [vocabulary.decode(row) for row in np.asarray(tokens).tolist()]


def measure(examples: batches.Examples, predictions: Sequence[str] | np.ndarray) -> Measured:
    """Computes a task's metrics on a prediction for every example.

    Args:
      examples: a split as `batches.load` returns it, its raw rows kept.
      predictions: texts, or token ids [N, L].

    Raises:
      ValueError: the numbers differ; the split has no labels; the task has no metrics or
        some that need scores.

    >>> lengths = {'inputs': 48, 'targets': 8}
    >>> examples = batches.load('generated_sentiment', 'train', lengths, limit=4)
    >>> measure(examples, ['awful', 'great', 'awful', 'nice']).metrics
    {'accuracy': 75.0}
    """
    task = tasks.get(examples.task)
    _check_measurable(task, examples, len(predictions))
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind in "iu":
        predictions = decode(examples.task, predictions)
    targets = [
        task.postprocess_fn(as_text(row["targets_pretokenized"]), example=row, is_target=True)
        for row in examples.raw
    ]
    values = [
        task.postprocess_fn(text, example=row, is_target=False)
        for text, row in zip(predictions, examples.raw, strict=True)
    ]
    metrics, samples = {}, {}
    for metric_fn in task.predict_metric_fns:
        for name, value in metric_fn(targets, values).items():
            if isinstance(value, seqio.metrics.Text):
                samples[name] = as_text(value.textdata)
            else:
                value = value.value if isinstance(value, seqio.metrics.Scalar) else value
                metrics[name] = float(value)
    return Measured(metrics, samples)


def majority_floor(examples: batches.Examples) -> Measured:
    """What one and the same answer to every row scores: the best of the 20 commonest targets.

    >>> lengths = {'inputs': 48, 'targets': 8}
    >>> examples = batches.load('generated_sentiment', 'train', lengths, limit=4)
    >>> majority_floor(examples).metrics
    {'accuracy': 50.0}
    """
    targets = collections.Counter(as_text(row["targets_pretokenized"]) for row in examples.raw)
    answers = [answer for answer, _ in targets.most_common(20)]
    constant = [measure(examples, [answer] * len(examples)) for answer in answers]
    return max(constant, key=lambda measured: dev_score(measured.metrics))


def _check_measurable(task: seqio.Task, examples: batches.Examples, predictions: int) -> None:
    if len(examples.raw) != len(examples):
        raise ValueError(
            f"The examples of {examples.task!r} were loaded without their raw rows, which the "
            "metrics need; load them with keep_raw=True."
        )
    if predictions != len(examples):
        raise ValueError(
            f"{examples.task!r} ({examples.split}) has {len(examples):,} examples and "
            f"{predictions:,} predictions came; there must be one for each."
        )
    if not task.predict_metric_fns or len(task.metric_fns) > len(task.predict_metric_fns):
        raise ValueError(
            f"The task {task.name!r} has {len(task.metric_fns)} metric functions, "
            f"{len(task.predict_metric_fns)} of them on predictions alone (targets, predictions); "
            "all must be, and there must be one."
        )
    first = examples.raw[0]
    if as_text(first["targets_pretokenized"]) in UNLABELLED_TARGETS or first.get("label") == -1:
        raise ValueError(
            f"The split {examples.split!r} of {examples.task!r} has no labels, so nothing can be "
            "measured on it; `prompt-tuning infer` writes its predictions."
        )


def dev_score(metrics: Mapping[str, float]) -> float:
    """The number a checkpoint is chosen by: the mean of a task's metrics (Lester et al. 2021, 3).

    >>> dev_score({'mean_3class_f1': 80.0, 'accuracy': 90.0})
    85.0

    Raises:
      ValueError: there are no metrics.
    """
    if not metrics:
        raise ValueError("A dev score is the mean of a task's metrics; no metrics came.")
    return sum(metrics.values()) / len(metrics)
