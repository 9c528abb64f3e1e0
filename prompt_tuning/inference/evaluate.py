"""Evaluation: decode every example of a split, then the task's own metrics.

EVAL_OUTPUT_DIR/metrics.json               the metrics of every task, and the dev score
EVAL_OUTPUT_DIR/predictions/TASK.jsonl     one line per example
"""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning import folders, paths
from prompt_tuning.data import batches, evaluation, labels, prompt_design, text_prompts
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.sorted_batches import in_order
from prompt_tuning.inference import loading
from prompt_tuning.inference.frozen import encode_labels
from prompt_tuning.inference.input_batches import batches_for
from prompt_tuning.inference.row_prompts import RowPrompts
from prompt_tuning.model import decoding
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import placing, processes
from prompt_tuning.run import Run


class Evaluated(NamedTuple):
    """The result of an evaluation.

    Attributes:
      metrics: by name; those of a mixture's tasks as 'task/name'.
      score: the mean of a task's metrics, and over tasks the mean of those.
      rank: 'rank_accuracy' in percent, of a mixture's tasks as 'task/rank_accuracy'; for tasks
        with class labels, if the run asks for it.
      samples: texts that `_examples` tasks want logged.
      predictions: the decoded texts, by task.
      levels: the score on the examples of each level of difficulty, by level, see
        `evaluation.measure_levels`; over tasks the mean of those that have the level.
    """

    metrics: dict[str, float]
    score: float
    rank: dict[str, float]
    samples: dict[str, str]
    predictions: dict[str, list[str]]
    levels: dict[str, float] = {}

    @property
    def named_levels(self) -> dict[str, float]:
        """The levels by their names among other metrics, such as 'level_1'."""
        return {f"level_{level}": score for level, score in self.levels.items()}


def predict(
    model: Transformer,
    params: Any,
    examples: batches.Examples,
    *,
    strategy: decoding.Strategy,
    batch_size: int,
    seed: int = 0,
    pad_to_full_length: bool = False,
    of_rows: RowPrompts | None = None,
) -> np.ndarray:
    """Decodes every example, [N, L] ids.

    Args:
      model, params: see `decoding.generate`.
      examples: N of them.
      strategy: a sampling one draws from `seed`.
      batch_size: rows decoded together.
      seed: see `strategy`.
      pad_to_full_length: see `batches_for`.
      of_rows: the prompts of M N rows, the M of an example one after the other; None: the model
        has one prompt, or none.

    Returns:
      What is decoded for each row, N of them or M N.
    """
    inputs, length = examples.inputs, examples.lengths["inputs"]
    if of_rows is not None:
        inputs = inputs.repeated(len(of_rows.ids) // len(inputs))
    mesh = placing.mesh_of(params)
    batch_size = placing.fill(mesh, min(batch_size, len(inputs)))
    found = []
    for number, batch in enumerate(
        batches_for(model, inputs, batch_size, length, pad_to_full_length=pad_to_full_length)
    ):
        batch = batch if of_rows is None else of_rows.added_to(batch)
        decoded = decoding.generate(
            model,
            params,
            placing.rows(mesh, batch.tokens),
            max_decode_length=examples.lengths["targets"],
            strategy=strategy,
            eos_id=examples.task.vocabulary.eos_id,
            rng=placing.key(mesh, jax.random.fold_in(jax.random.key(seed), number)),
        )
        found.append((batch.rows, placing.gathered(mesh, decoded.tokens[:, 0])))
    return in_order(found)


def predict_texts(
    model: Transformer,
    params: Any,
    examples: batches.Examples,
    run: Run,
    of_rows: RowPrompts | None = None,
) -> list[str]:
    """The texts of `predict`, with the settings of a run."""
    ids = predict(
        model,
        params,
        examples,
        strategy=run.decoding,
        batch_size=run.eval_batch_size,
        seed=run.seed,
        pad_to_full_length=run.pad_to_full_length,
        of_rows=of_rows,
    )
    return evaluation.decode(examples.task, ids)


def rank_accuracy(
    model: Transformer,
    params: Any,
    examples: batches.Examples,
    batch_size: int,
    pad_to_full_length: bool = False,
) -> float:
    """Percentage of examples whose label the model finds likelier than the task's other labels.

    Rows without a label are left out.

    Raises:
      ValueError: the task has no class labels.
    """
    return share_right(
        examples,
        rank(model, params, examples, batch_size, pad_to_full_length=pad_to_full_length),
    )


def share_right(examples: batches.Examples, numbers: np.ndarray) -> float:
    """Percentage of examples whose label has the given number; those without one are left out."""
    right = [
        number == labels.number_of(as_text(row["targets_pretokenized"]), examples.task.labels)
        for number, row, is_labelled in zip(numbers, examples.raw, examples.labelled, strict=True)
        if is_labelled
    ]
    return 100 * float(np.mean(right))


def rank(
    model: Transformer,
    params: Any,
    examples: batches.Examples,
    batch_size: int,
    *,
    words: Sequence[str] | None = None,
    pad_to_full_length: bool = False,
) -> np.ndarray:
    """The number of the likeliest class label for every example [N].

    Args:
      model, params, batch_size, pad_to_full_length: see `predict`.
      examples: of a task with class labels.
      words: a text for each label; None is the labels themselves.

    Raises:
      ValueError: the task has no class labels.
    """
    task = examples.task
    if task.labels is None:
        raise ValueError(
            f"{task.name!r} has no class labels, so there is nothing to rank; take its own metrics."
        )
    label_ids = encode_labels(task.vocabulary, words or task.labels)
    inputs, length = examples.inputs, examples.lengths["inputs"]
    mesh = placing.mesh_of(params)
    batch_size = placing.fill(mesh, min(batch_size, len(inputs)))
    found = []
    for batch in batches_for(
        model, inputs, batch_size, length, pad_to_full_length=pad_to_full_length
    ):
        scores = decoding.rank(model, params, placing.rows(mesh, batch.tokens), label_ids)
        found.append((batch.rows, np.argmax(placing.gathered(mesh, scores), axis=1)))
    return in_order(found)


def measure_all(
    model: Transformer, params: Any, sets: Sequence[batches.Examples], run: Run
) -> Evaluated:
    """Predicts and measures every task of an evaluation: decoded, or ranked for a text prompt."""
    rank_scores: dict[str, float] = {}
    predictions = []
    for examples in sets:
        known, numbers = examples.task.labels, None
        if known and (run.eval_rank or run.text_prompt):
            numbers = _ranked(model, params, examples, run)
        if numbers is not None and run.eval_rank:
            name = f"{_prefix(sets, examples)}rank_accuracy"
            rank_scores[name] = share_right(examples, numbers)
        if numbers is not None and run.text_prompt:
            predictions.append([known[number] for number in numbers])
        else:
            predictions.append(predict_texts(model, params, examples, run))
    return measure_predictions(sets, predictions)._replace(rank=rank_scores)


def _ranked(model: Transformer, params: Any, examples: batches.Examples, run: Run) -> np.ndarray:
    """`rank` with the settings of a run; a text prompt may have other words for the labels."""
    words = None
    if run.text_prompt is not None:
        prompt = text_prompts.for_task(run.text_prompt, examples.task.info.member)
        words = prompt.words(examples.task.labels)
    return rank(
        model,
        params,
        examples,
        run.eval_batch_size,
        words=words,
        pad_to_full_length=run.pad_to_full_length,
    )


def measure_predictions(
    sets: Sequence[batches.Examples], predictions: Sequence[list[str]]
) -> Evaluated:
    """Measures the predictions for every task of an evaluation."""
    metrics: dict[str, float] = {}
    samples: dict[str, str] = {}
    scores = []
    levels: dict[str, list[float]] = {}
    for examples, texts in zip(sets, predictions, strict=True):
        for level, score in evaluation.measure_levels(examples, texts).items():
            levels.setdefault(level, []).append(score)
        measured, prefix = evaluation.measure(examples, texts), _prefix(sets, examples)
        metrics |= {prefix + name: value for name, value in measured.metrics.items()}
        samples |= {prefix + name: text for name, text in measured.samples.items()}
        scores.append(evaluation.dev_score(measured.metrics))
    by_task = {examples.task.name: texts for examples, texts in zip(sets, predictions, strict=True)}
    means = {level: float(np.mean(levels[level])) for level in sorted(levels, key=int)}
    return Evaluated(metrics, float(np.mean(scores)), {}, samples, by_task, means)


def _prefix(sets: Sequence[batches.Examples], examples: batches.Examples) -> str:
    """What the names of a task's metrics begin with."""
    return f"{examples.task.name}/" if len(sets) > 1 else ""


def load_eval_sets(run: Run, task: TextTask | TextMixture) -> list[batches.Examples]:
    """Loads what a run is evaluated on.

    Args:
      task: the run's task, see `loading.prepare_task`.

    Raises:
      ValueError: see `evaluation.eval_set` and `evaluation.check_targets`.
    """
    sets = evaluation.eval_set(
        task, run.eval_split, run.task_feature_lengths, limit=run.eval_examples
    )
    for examples in sets:
        note = evaluation.check_targets(examples)
        if note:
            print(note)
    return sets


@processes.first_prints()
def evaluate_run(run: Run, trained: loading.LoadedModel | None = None) -> Evaluated:
    """Evaluates a run's prompt, or its tuned model, and writes metrics and predictions.

    Args:
      run: names the task, and what was trained.
      trained: what was trained, if it is loaded already, for this task or another one.

    Raises:
      ValueError: what is to be evaluated is missing or does not fit.
    """
    folder = run.eval_output_dir or os.path.join(run.model_dir, "eval")
    paths.check_folder(folder, "EVAL_OUTPUT_DIR")
    task = loading.prepare_task(run, trained=True)
    sets = load_eval_sets(run, task)
    if run.text_prompt is not None:
        sets = prompt_design.with_text_prompt(sets, task, run.text_prompt, seed=run.seed)
    for examples in sets:
        print(examples.report())
    if trained is None:
        trained = loading.load_trained(run, task)
    else:
        dataclasses.replace(trained.t5, vocabulary=task.vocabulary)  # refuses another model's
    _, model, params, what = trained
    began = time.monotonic()
    evaluated = measure_all(model, params, sets, run)
    seconds = time.monotonic() - began
    if processes.is_first():
        _write(folder, run, what, sets, evaluated)
    print(f"{what}, {run.eval_split}, {sum(map(len, sets)):,} examples in {seconds:.1f} s")
    for name, value in (evaluated.metrics | evaluated.rank).items():
        print(f"  {name:40} {value:7.2f}")
    print(f"  {'dev score (mean)':40} {evaluated.score:7.2f}")
    for name, value in evaluated.named_levels.items():
        print(f"    {name.replace('_', ' '):38} {value:7.2f}")
    print(f"written to {folder}")
    return evaluated


def _write(
    folder: str,
    run: Run,
    what: str,
    sets: Sequence[batches.Examples],
    evaluated: Evaluated,
) -> None:
    paths.make_folder(os.path.join(folder, "predictions"))
    summary = {
        "evaluated": what,
        "task": run.task,
        "split": run.eval_split,
        "examples": sum(map(len, sets)),
        "labelled": {examples.task.name: int(examples.labelled.sum()) for examples in sets},
        "metrics": evaluated.metrics,
        "dev_score": evaluated.score,
        **({"levels": evaluated.levels} if evaluated.levels else {}),
        **({"rank": evaluated.rank} if run.eval_rank else {}),
        "cut": {examples.task.name: dict(examples.cut) for examples in sets},
    }
    text = json.dumps(summary, indent=2) + "\n"
    folders.replace_file(os.path.join(folder, "metrics.json"), text.encode())
    for examples in sets:
        texts = evaluated.predictions[examples.task.name]
        write_predictions(folder, examples, [{"prediction": text} for text in texts])


def write_predictions(
    folder: str, examples: batches.Examples, predicted: Sequence[dict[str, Any]]
) -> None:
    """Writes predictions/TASK.jsonl: each example, and what was predicted for it."""
    path = os.path.join(folder, "predictions", f"{examples.task.name}.jsonl")
    lines = []
    for row, one in zip(examples.raw, predicted, strict=True):
        line = {
            "input": as_text(row.get("inputs_pretokenized", "")),
            "target": as_text(row["targets_pretokenized"]),
            **one,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    folders.replace_file(path, "".join(lines).encode())
