"""Inference: new text through a trained prompt, one JSON object a line.

    in    a text a line, or JSON objects with an "input"; or a split of the task itself
    out   {"input": ..., "prediction": "entailment", "score": -0.02,
           "label_scores": {"entailment": -0.02, "contradiction": -5.1, "neutral": -7.7}}

Scores are log-probabilities in nats. `label_scores` come for tasks with class labels;
`decodes`, instead of `prediction` and `score`, where more than one was asked for.
"""

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning.data import batches, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.inference import loading
from prompt_tuning.model import decoding
from prompt_tuning.run import Run

INPUT_KEYS = ("input", "inputs", "text")
OUTPUT_KEYS = ("input", "prediction", "score", "decodes", "label_scores", "tokens_cut")


class Input(NamedTuple):
    """One text to predict for, and what else its line held, our own names left out."""

    text: str
    fields: dict[str, Any]


class Inferred(NamedTuple):
    """What inference did."""

    path: str  # of the JSON lines
    examples: int
    cut: int  # inputs that were longer than the configured length


def read_inputs(path: str) -> list[Input]:
    """Reads a .jsonl file of objects, or any other file as a text a line.

    Raises:
      ValueError: no such file, an empty one, or a line that is not what it should be.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The input file {path} cannot be read: {error}") from error
    parse = _parse_json if path.endswith((".jsonl", ".json")) else _parse_text
    inputs = [parse(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not inputs:
        raise ValueError(f"The input file {path} is empty; a text a line was expected.")
    return inputs


def _parse_text(path: str, number: int, line: str) -> Input:
    return Input(line, {})


def _parse_json(path: str, number: int, line: str) -> Input:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
    key = next((key for key in INPUT_KEYS if isinstance(record, dict) and key in record), None)
    if key is None or not isinstance(record[key], str):
        raise ValueError(
            f"{path}, line {number}: an object with a text named 'input' was expected; got "
            f"{line[:80]!r}."
        )
    taken = {key, *OUTPUT_KEYS}  # an earlier prediction, fed back, must not pass for a new one
    return Input(record[key], {name: x for name, x in record.items() if name not in taken})


def infer_run(run: Run, input_file: str | None = None, output_file: str | None = None) -> Inferred:
    """Predicts for every input and writes JSON lines.

    Args:
      run: names the model, the prompt, the task and the decoding.
      input_file: see `read_inputs`; None takes `run.eval_split` of the task itself.
      output_file: None is predictions.jsonl in the run's infer_output_dir.

    Raises:
      ValueError: an input, the prompt or the model cannot be read or does not fit.
    """
    task = loading.prepare_task(run)
    inputs = _inputs_of_task(run) if input_file is None else read_inputs(input_file)
    loaded = loading.load_trained(run, task)
    labels = tasks.labels(run.task)
    path = output_file or os.path.join(
        run.infer_output_dir or os.path.join(run.model_dir, "infer"), "predictions.jsonl"
    )
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    cut = 0
    with open(path, "w", encoding="utf-8") as file:
        for record in _records(run, loaded, inputs, labels):
            cut += "tokens_cut" in record
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{loaded.what}: {len(inputs):,} predictions, written to {path}")
    if cut:
        limit = run.task_feature_lengths["inputs"]
        print(f"{cut:,} inputs were longer than {limit} tokens and were cut; see 'tokens_cut'")
    return Inferred(path, len(inputs), cut)


def _inputs_of_task(run: Run) -> list[Input]:
    found = []
    for part in tasks.parts(tasks.get(run.task), run.eval_split):
        examples = batches.load(
            part, run.eval_split, run.task_feature_lengths, limit=run.eval_examples
        )
        print(examples.report())
        found += [Input(as_text(row["inputs_pretokenized"]), {}) for row in examples.raw]
    return found


def _records(
    run: Run,
    loaded: loading.LoadedModel,
    inputs: list[Input],
    labels: tuple[str, ...] | None,
) -> Iterator[dict[str, Any]]:
    """Predicts batch by batch; the last one is filled up, so that one shape compiles."""
    t5, model, params, _ = loaded
    size = min(run.eval_batch_size, len(inputs))
    length = run.task_feature_lengths["inputs"]
    label_ids = None if labels is None else t5.encode_labels(labels)
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        texts = [item.text for item in chunk] + [chunk[-1].text] * (size - len(chunk))
        ids, cut = t5.encode_cut(texts, length)
        decoded = decoding.generate(
            model,
            params,
            ids,
            max_decode_length=run.task_feature_lengths["targets"],
            strategy=run.decoding,
            num_decodes=run.num_decodes,
            eos_id=t5.vocabulary.eos_id,
            rng=jax.random.fold_in(jax.random.key(run.seed), start),
        )
        tokens, scores = np.asarray(decoded.tokens), np.asarray(decoded.scores)
        ranked = None
        if label_ids is not None:
            ranked = np.asarray(decoding.rank(model, params, ids, label_ids))
        for i, item in enumerate(chunk):
            record = {"input": item.text, **item.fields}
            decodes = [
                {"prediction": t5.decode(row), "score": float(score)}
                for row, score in zip(tokens[i], scores[i], strict=True)
            ]
            record |= decodes[0] if run.num_decodes == 1 else {"decodes": decodes}
            if ranked is not None:
                record["label_scores"] = dict(zip(labels, map(float, ranked[i]), strict=True))
            if cut[i]:
                record["tokens_cut"] = cut[i]
            yield record
