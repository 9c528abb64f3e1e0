"""Prompt ensembling: several prompts of a task over one frozen model, and a majority vote.

    example ──> prompt 0 ──> 'True'  ┐
            ──> prompt 1 ──> 'False' ├──> 'True'     one batch, one copy of the model
            ──> prompt 2 ──> 'True'  ┘

Lester et al. 2021, section 6: the prompts differ in their seed, each example is in the batch once
for each of them, and the answer that most prompts give counts.

    EVAL_OUTPUT_DIR/metrics.json               of each prompt, their average, the best, the ensemble
    EVAL_OUTPUT_DIR/predictions/TASK.jsonl     one line per example, with all votes
"""

import collections
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning import folders, paths
from prompt_tuning.data.batches import Examples
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.evaluate import Evaluated
from prompt_tuning.inference.frozen import FrozenT5
from prompt_tuning.inference.row_prompts import RowPrompts
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.parallel import processes
from prompt_tuning.prompts import files
from prompt_tuning.prompts.files import PromptFile
from prompt_tuning.run import Run

SCORE = "dev_score"


class Ensembled(NamedTuple):
    """The result of an ensemble, as in table 3 of the paper.

    Attributes:
      each: every prompt by itself.
      ensemble: the majority vote.
    """

    each: list[Evaluated]
    ensemble: Evaluated

    @property
    def best(self) -> Evaluated:
        """The prompt with the highest score, the first one of equals."""
        return max(self.each, key=lambda one: one.score)

    def rows(self) -> dict[str, tuple[float, float, float]]:
        """Average, best and ensemble, by metric, the score last."""
        columns = [_values(one) for one in self.each]
        best, vote = _values(self.best), _values(self.ensemble)
        return {
            name: (statistics.fmean(column[name] for column in columns), best[name], vote[name])
            for name in vote
        }


def _values(one: Evaluated) -> Mapping[str, float]:
    return one.metrics | {SCORE: one.score}


def majority(votes: Sequence[str]) -> str:
    """The most frequent answer; of equally frequent ones that which comes first.

    >>> majority(['no', 'yes', 'maybe', 'yes']), majority(['no', 'yes', 'yes', 'no'])
    ('yes', 'no')
    """
    return collections.Counter(votes).most_common(1)[0][0]


@processes.first_prints()
def ensemble_run(run: Run, prompts: Sequence[str]) -> Ensembled:
    """Evaluates prompts of one task, each by itself and together, and writes what they predict.

    Args:
      run: names the frozen model, the task and the split; its own prompt is not read.
      prompts: files, or folders of runs whose best prompt is taken.

    Raises:
      ValueError: there are fewer than two, a prompt cannot be read or does not fit, or the run is
        not one of prompt tuning.
    """
    if run.method.kind != prompt_tuning.KIND or run.trains_model:
        raise ValueError(
            "An ensemble is one of prompts over a frozen model, but this run trains something "
            "else. Leave out gin/methods/model_tuning.gin, and take gin/methods/prompt_tuning.gin."
        )
    if len(prompts) < 2:
        raise ValueError(f"An ensemble needs two prompts or more, got {len(prompts)}.")
    folder = run.eval_output_dir or os.path.join(run.model_dir, "ensemble")
    paths.check_folder(folder, "EVAL_OUTPUT_DIR")
    read = [read_prompt(path) for path in prompts]
    task = loading.prepare_task(run, trained=True)
    sets = evaluate.load_eval_sets(run, task)
    for examples in sets:
        print(examples.report())
    t5 = loading.load_t5(run, task, loading.mesh_of(run))
    votes = [all_votes(t5, read, examples, run) for examples in sets]
    each = [
        evaluate.measure_predictions(sets, [[row[number] for row in rows] for rows in votes])
        for number in range(len(prompts))
    ]
    answers = [[majority(row) for row in rows] for rows in votes]
    found = Ensembled(each, evaluate.measure_predictions(sets, answers))
    if processes.is_first():
        _write(folder, run, [one.path for one in read], sets, votes, found)
    print(table(found))
    print(f"written to {folder}")
    return found


def read_prompt(path: str) -> PromptFile:
    """Reads a prompt, or the best one of a MODEL_DIR.

    Raises:
      ValueError: see `files.read_prompt`.
    """
    return files.read_prompt(os.path.join(path, "prompts/best") if paths.is_folder(path) else path)


def all_votes(
    t5: FrozenT5, prompts: Sequence[PromptFile], examples: Examples, run: Run
) -> list[list[str]]:
    """What each of M prompts predicts for each of N examples, [N][M].

    Args:
      t5: the frozen model.
      prompts: of one position.
      examples: with raw rows.
      run: `decoding`, `eval_batch_size` (rows), `seed` and `pad_to_full_length` apply.

    Raises:
      ValueError: see `FrozenT5.with_prompts`.
    """
    model, params, lengths = t5.with_prompts(prompts)
    each = np.tile(np.arange(len(prompts), dtype=np.int32), len(examples))
    texts = evaluate.predict_texts(model, params, examples, run, RowPrompts(each, lengths))
    return [texts[start : start + len(prompts)] for start in range(0, len(texts), len(prompts))]


def table(found: Ensembled) -> str:
    """Average, best and ensemble of every metric."""
    lines = [f"{len(found.each)} prompts{'average':>27}{'best':>10}{'ensemble':>10}"]
    for name, values in found.rows().items():
        shown = "dev score (mean)" if name == SCORE else name
        lines.append(f"  {shown:24}" + "".join(f"{value:10.2f}" for value in values))
    return "\n".join(lines)


def _write(
    folder: str,
    run: Run,
    prompts: Sequence[str],
    sets: Sequence[Examples],
    votes: Sequence[list[list[str]]],
    found: Ensembled,
) -> None:
    paths.make_folder(os.path.join(folder, "predictions"))
    columns = zip(*found.rows().values(), strict=True)
    summary = {
        "task": run.task,
        "split": run.eval_split,
        "examples": sum(map(len, sets)),
        "prompts": {path: _values(one) for path, one in zip(prompts, found.each, strict=True)},
        **{
            name: dict(zip(found.rows(), values, strict=True))
            for name, values in zip(("average", "best", "ensemble"), columns, strict=True)
        },
    }
    text = json.dumps(summary, indent=2) + "\n"
    folders.replace_file(os.path.join(folder, "metrics.json"), text.encode())
    for examples, rows in zip(sets, votes, strict=True):
        answers = found.ensemble.predictions[examples.task.name]
        lines = [
            {"prediction": answer, "votes": row} for answer, row in zip(answers, rows, strict=True)
        ]
        evaluate.write_predictions(folder, examples, lines)
