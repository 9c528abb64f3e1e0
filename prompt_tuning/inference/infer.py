"""Inference: predictions for new text with a trained prompt, one JSON object per line.

    in    .csv .tsv .jsonl   the columns of the run's table, written as in training; or texts in a
                             column 'input', 'inputs' or 'text'; the other columns are passed on
          any other file     one text per line, blank lines included
          no file            a split of the task itself
    out   {"input": ..., "prediction": "entailment", "score": -0.02,
           "label_scores": {"entailment": -0.02, "contradiction": -5.1, "neutral": -7.7}}

Scores are log-probabilities in nats. `label_scores` are written for tasks with class labels;
`decodes`, instead of `prediction` and `score`, where more than one was asked for.
"""

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from prompt_tuning import folders, paths
from prompt_tuning.data import batches, table_files, tables, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.sorted_batches import SortedBatch, in_order
from prompt_tuning.inference import loading
from prompt_tuning.inference.input_batches import batches_for
from prompt_tuning.model import decoding
from prompt_tuning.parallel import placing, processes
from prompt_tuning.run import Run

INPUT_KEYS = ("input", "inputs", "text")
TABLE_INPUT_KEYS = ("input", "inputs")  # a column 'text' may be one of the table's that is missing
WINDOW = 64  # batches whose inputs are sorted by length together
OUTPUT_KEYS = ("input", "prediction", "score", "decodes", "label_scores", "tokens_cut")


class Input(NamedTuple):
    """One text to predict for, and what else its row held, our own names left out."""

    text: str
    fields: dict[str, Any]


class Inferred(NamedTuple):
    """The result of inference."""

    path: str  # of the JSON lines
    examples: int
    cut: int  # inputs that were longer than the configured length


def read_inputs(path: str, table: tables.TableTask | None = None) -> list[Input]:
    """Reads the rows of a .csv, .tsv or .jsonl file, or the lines of any other as texts.

    Args:
      path: a line of a text file is a whole input, as `train` shows its first example.
      table: the table of the run; a file with its columns is written as in training.

    Raises:
      ValueError: no such file, an empty one, one without the columns that are needed, or a
        malformed line.
    """
    if os.path.splitext(path)[1].lower() in table_files.ENDINGS:
        file = table_files.read(path)
        for note in file.notes:
            print(note)
        return _from_table(file, table) if _has_columns(file, table) else _from_texts(file, table)
    lines = table_files.read_lines(path)
    if not any(line.strip() for line in lines):
        raise ValueError(f"The input file {path!r} is empty; expected one text per line.")
    blank = sum(not line.strip() for line in lines)
    if blank:
        print(f"{path!r}: {blank:,} of {len(lines):,} lines are blank; each is an input, too")
    return [Input(line, {}) for line in lines]


def _has_columns(file: table_files.Table, table: tables.TableTask | None) -> bool:
    """Whether a file has the columns of the run's table.

    Raises:
      ValueError: it has some of them, and not all.
    """
    needed = () if table is None else tables.columns_read(table)
    missing = [column for column in needed if column not in file.columns]
    if missing and len(missing) < len(needed):
        raise ValueError(
            f"{file.path!r} lacks the columns {', '.join(missing)} of the table "
            f"{table.name!r}; {table_files.listed(file)}."
        )
    return bool(needed) and not missing


def _from_table(file: table_files.Table, table: tables.TableTask) -> list[Input]:
    columns = tables.columns_read(table)
    for row in file.rows:
        if not any(column in row.cells for column in columns):
            raise ValueError(
                f"Line {row.line} of {file.path!r} has none of the columns {', '.join(columns)} "
                f"of the table {table.name!r}."
            )
    return [Input(tables.format_input(table, file, row), _others(row)) for row in file.rows]


def _from_texts(file: table_files.Table, table: tables.TableTask | None) -> list[Input]:
    """Takes each row's input as it is."""
    keys = INPUT_KEYS if table is None else TABLE_INPUT_KEYS
    if not any(key in file.columns for key in keys):
        named = f"a column named {', '.join(map(repr, keys[:-1]))} or {keys[-1]!r}"
        if table is not None:
            columns = ", ".join(tables.columns_read(table))
            named = f"the columns of the table {table.name!r}, {columns}, or {named}"
        raise ValueError(f"{file.path!r} needs {named}; {table_files.listed(file)}.")
    inputs = []
    for row in file.rows:
        key = next((key for key in keys if key in row.cells), None)
        if key is None or not isinstance(row.cells[key], str):
            raise ValueError(
                f"Line {row.line} of {file.path!r}: expected a text named {keys[0]!r}; got "
                f"{json.dumps(row.cells, ensure_ascii=False)[: table_files.SHOWN]}"
            )
        inputs.append(Input(row.cells[key], _others(row, key)))
    return inputs


def _others(row: table_files.Row, *used: str) -> dict[str, Any]:
    taken = {*used, *OUTPUT_KEYS}  # an earlier prediction, fed back, must not pass for a new one
    return {name: value for name, value in row.cells.items() if name not in taken}


@processes.first_prints()
def infer_run(run: Run, input_file: str | None = None, output_file: str | None = None) -> Inferred:
    """Predicts for every input and writes JSON lines.

    Args:
      run: names the model, the prompt, the task and the decoding.
      input_file: see `read_inputs`; None takes `run.eval_split` of the task itself.
      output_file: None is predictions.jsonl in the run's infer_output_dir. An earlier file is
        replaced when all predictions are written.

    Raises:
      ValueError: an input, the prompt or the model cannot be read or does not fit; the output
        is the input.
    """
    if run.text_prompt is not None:
        raise ValueError(
            "Run.text_prompt is written into the inputs by `prompt-tuning eval` alone, which also "
            "writes the predictions; write the text into the inputs yourself, or leave out "
            "gin/methods/prompt_design.gin."
        )
    path = _output_path(run, input_file, output_file)
    task = loading.prepare_task(run, trained=True)
    if input_file is None:
        inputs = _inputs_of_task(run, task)
    else:
        inputs = read_inputs(input_file, tables.of_task(task))
    labels = task.labels
    cut = 0
    with folders.new_file(path) if processes.is_first() else open(os.devnull, "w") as file:
        loaded = loading.load_trained(run, task)
        for record in _records(run, loaded, inputs, labels):
            cut += "tokens_cut" in record
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{loaded.what}: {len(inputs):,} predictions, written to {path}")
    if cut:
        limit = run.task_feature_lengths["inputs"]
        print(
            f"{cut:,} inputs were longer than {limit} tokens and were truncated; see 'tokens_cut'"
        )
    return Inferred(path, len(inputs), cut)


def _output_path(run: Run, input_file: str | None, output_file: str | None) -> str:
    folder = run.infer_output_dir or os.path.join(run.model_dir, "infer")
    path = paths.absolute(output_file or os.path.join(folder, "predictions.jsonl"))
    read = None if input_file is None else os.path.realpath(paths.absolute(input_file))
    if read == os.path.realpath(path):
        raise ValueError(f"The output {path!r} is the input file; choose another --output.")
    return path


def _inputs_of_task(run: Run, task: TextTask | TextMixture) -> list[Input]:
    found = []
    for part in tasks.parts(task, run.eval_split):
        examples = batches.load_examples(
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
    """Predicts for `WINDOW` batches at a time, sorted by length, and yields in the given order."""
    t5, model, params, _ = loaded
    length = run.task_feature_lengths["inputs"]
    label_ids = None if labels is None else t5.encode_labels(labels)
    mesh = placing.mesh_of(params)

    def predict(start: int, batch: SortedBatch):
        tokens = placing.rows(mesh, batch.tokens)
        decoded = decoding.generate(
            model,
            params,
            tokens,
            max_decode_length=run.task_feature_lengths["targets"],
            strategy=run.decoding,
            num_decodes=run.num_decodes,
            eos_id=t5.vocabulary.eos_id,
            rng=placing.key(mesh, jax.random.fold_in(jax.random.key(run.seed), start)),
        )
        ranked = None
        if label_ids is not None:
            ranked = decoding.rank(model, params, tokens, label_ids)
        return batch.rows, placing.gathered(mesh, (*decoded, ranked))

    size = placing.fill(mesh, min(run.eval_batch_size, len(inputs)))
    for first in range(0, len(inputs), WINDOW * size):
        chunk = inputs[first : first + WINDOW * size]
        ids, cut = t5.encode_cut([item.text for item in chunk], length)
        found = [
            predict(first + number * size, batch)
            for number, batch in enumerate(
                batches_for(model, ids, size, length, pad_to_full_length=run.pad_to_full_length)
            )
        ]
        tokens, scores, ranked = in_order(found)
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
