"""A JSONL, CSV or TSV file of your own becomes a task by naming its columns.

    reviews.csv                              inputs                     targets
    text,stars                          ->   text: Fine food.           good
    "Fine food.",1

    table = TableTask(name='reviews', train_file='reviews.csv', validation_file='dev.csv',
                      target_column='stars', label_words={'0': 'bad', '1': 'good'})
    register(table).name                     'reviews', from now on a task like any other

Everything that can be wrong with a file is said when it is registered, with
the row it is in.
"""

import csv
import dataclasses
import functools
import json
import os
import string
from collections.abc import Iterable, Mapping, Sequence

from prompt_tuning.data import metrics, postprocessors, registry, vocabularies
from prompt_tuning.data.tensorflow_import import seqio, tf

Row = dict[str, str]
MANY_LABELS = 100  # A class column with more different values is surely free text.


@dataclasses.dataclass(frozen=True)
class TableTask:
    """What makes files a task.

    Attributes:
      name: the task's name, for MIXTURE_OR_TASK_NAME.
      train_file, validation_file, test_file: the files, by their ending: .jsonl (one object a
        line), .csv (comma, quotes allowed) or .tsv (tab, quotes mean nothing); CSV and TSV
        begin with a line of column names. Rows of the test file may lack the target.
      target_column: the column the model is to write.
      input_columns: the columns it reads, written 'column: value' in this order; all but the
        target, sorted, if none are named.
      template: the input written out instead, 'premise: {premise} hypothesis: {hypothesis}';
        {{ and }} are braces.
      label_words: the word for each value of the target column, {'0': 'no', '1': 'yes'}, in the
        order of the classes; without it the values are the words, sorted.
      free_text: the target is any text, measured as SQuAD does, instead of a class.
      vocabulary: 't5', 'mt5', 'byt5' or 'pocket', as the model has it.
    """

    name: str
    train_file: str
    validation_file: str
    target_column: str
    test_file: str | None = None
    input_columns: Sequence[str] = ()
    template: str | None = None
    label_words: Mapping[str, str] | None = None
    free_text: bool = False
    vocabulary: str = "t5"

    def register(self) -> None:
        """Makes it a task that seqio knows, see the function `register`."""
        register(self)


@dataclasses.dataclass(frozen=True)
class Registered:
    """The task a table became."""

    name: str
    labels: tuple[str, ...] | None  # None for free text.
    rows: dict[str, int]  # Rows of each split.


def register(table: TableTask) -> Registered:
    """Reads the files, checks them and registers the task; again, if they have changed.

    Raises:
      ValueError: a file is missing, empty or malformed; a column is unknown; a value of the
        target column has no label word; the name belongs to another task.
    """
    if table.free_text and table.label_words:
        raise ValueError(f"The table {table.name!r} cannot have both free_text and label_words.")
    _check_name(table.name)
    family = vocabularies.family(table.vocabulary)
    files = {"train": table.train_file, "validation": table.validation_file}
    files |= {"test": table.test_file} if table.test_file else {}
    rows = {split: _read(path) for split, path in files.items()}
    labels = None if table.free_text else _labels(table, rows["train"], files["train"])
    table = dataclasses.replace(table, input_columns=_input_columns(table, rows["train"][0][1]))
    splits = {
        split: [
            _example(table, labels, row, number, files[split], needs_target=split != "test")
            for number, row in rows[split]
        ]
        for split in files
    }
    registry.remove(table.name)
    names = ("em", "f1") if table.free_text else ("accuracy",)
    postprocess = (
        postprocessors.answers
        if labels is None
        else functools.partial(postprocessors.class_number, labels=labels)
    )
    registry.add(
        table.name,
        registry.TaskInfo("table", table.name, labels, "validation", names),
        source=seqio.FunctionDataSource(
            functools.partial(_dataset, splits=splits, free_text=table.free_text),
            splits=tuple(splits),
        ),
        preprocessors=[],
        postprocess_fn=postprocess,
        metric_fns=[metrics.squad if table.free_text else metrics.accuracy],
        output_features=family.output_features,
    )
    return Registered(table.name, labels, {split: len(rows) for split, rows in splits.items()})


def _dataset(
    split: str,
    shuffle_files: bool,
    seed: int | None = None,
    *,
    splits: dict[str, list[tuple[str, str]]],
    free_text: bool,
) -> tf.data.Dataset:
    """Makes one split; seqio asks with a seed, as T5X runs it, but shuffles by itself."""
    inputs, targets = zip(*splits[split], strict=True)
    columns = {"inputs": list(inputs), "targets": list(targets), "idx": list(range(len(inputs)))}
    if free_text:
        columns["answers"] = [[target] for target in targets]
    return tf.data.Dataset.from_tensor_slices(columns)


def _check_name(name: str) -> None:
    taken = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if name in taken and registry.info(name).family != "table":
        raise ValueError(f"The name {name!r} belongs to another task; give the table its own.")
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"A task's name is letters, digits and '_-.'; {name!r} came.")


def _read(path: str) -> list[tuple[int, Row]]:
    """Reads the rows of a file with the line each ends on."""
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r} to read a table from.")
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv}
    ending = os.path.splitext(path)[1].lower()
    if ending not in readers:
        raise ValueError(f"A table is a .jsonl, .csv or .tsv file; {path!r} came.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            rows = list(readers[ending](lines, path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} is not UTF-8 text: {error}.") from error
    if not rows:
        raise ValueError(f"The table {path!r} is empty; it needs at least one row.")
    return rows


def _read_jsonl(lines: Iterable[str], path: str) -> Iterable[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"Line {number} of {path!r} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"Line {number} of {path!r} must be an object like "
                f'{{"text": "...", "label": "..."}}; {line.strip()[:60]} came.'
            )
        yield (
            number,
            {
                key: _scalar(value, key, number, path)
                for key, value in row.items()
                if value is not None
            },
        )


def _scalar(value, column: str, number: int, path: str) -> str:
    if isinstance(value, (list, dict)):
        raise ValueError(
            f"Line {number} of {path!r}: the column {column!r} must hold a text or a number, "
            f"not a {type(value).__name__}."
        )
    return str(value)


def _read_csv(lines: Iterable[str], path: str) -> Iterable[tuple[int, Row]]:
    is_tsv = path.lower().endswith(".tsv")
    quoting = {"quoting": csv.QUOTE_NONE, "delimiter": "\t"} if is_tsv else {"strict": True}
    reader = csv.reader(lines, **quoting)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise ValueError(f"The table {path!r} has a column name twice: {', '.join(header)}.")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise ValueError(
                    f"Line {reader.line_num} of {path!r} has {len(values)} values for the "
                    f"{len(header)} columns {', '.join(header)}."
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"Line {reader.line_num} of {path!r} is malformed: {error}.") from error


def _input_columns(table: TableTask, first_row: Row) -> tuple[str, ...]:
    columns = tuple(table.input_columns) or tuple(sorted(set(first_row) - {table.target_column}))
    if not columns and table.template is None:
        raise ValueError(
            f"{table.train_file!r} has no column but the target {table.target_column!r}; a task "
            "needs something to read."
        )
    return columns


def _labels(table: TableTask, rows: list[tuple[int, Row]], path: str) -> tuple[str, ...]:
    """The label words in the order of the classes."""
    if table.label_words:
        return tuple(dict.fromkeys(str(word) for word in table.label_words.values()))
    values = sorted({_target(table, row, number, path) for number, row in rows})
    if len(values) > MANY_LABELS or (len(values) > 10 and len(values) > len(rows) / 2):
        raise ValueError(
            f"The target column {table.target_column!r} of {path!r} has {len(values)} different "
            f"values in {len(rows)} rows, too many for classes; set free_text = True."
        )
    return tuple(values)


def _example(
    table: TableTask,
    labels: tuple[str, ...] | None,
    row: Row,
    number: int,
    path: str,
    needs_target: bool,
) -> tuple[str, str]:
    text = _input(table, row, number, path)
    if not needs_target and not row.get(table.target_column):
        return text, "<unk>"
    value = _target(table, row, number, path)
    if labels is None:
        return text, value
    words = table.label_words or {label: label for label in labels}
    words = {str(raw): str(word) for raw, word in words.items()}
    if value not in words:
        raise ValueError(
            f"Line {number} of {path!r}: the value {value!r} of {table.target_column!r} is none of "
            f"{', '.join(map(repr, words))}; "
            + ("add it to label_words." if table.label_words else "the train file has no such row.")
        )
    return text, words[value]


def _target(table: TableTask, row: Row, number: int, path: str) -> str:
    value = _value(row, table.target_column, number, path)
    if not value:
        raise ValueError(f"Line {number} of {path!r}: {table.target_column!r} is empty.")
    return value


def _input(table: TableTask, row: Row, number: int, path: str) -> str:
    if table.template is not None:
        return "".join(
            before + (_value(row, field, number, path) if field is not None else "")
            for before, field in _template_fields(table.template)
        )
    return " ".join(
        f"{column}: {_value(row, column, number, path)}" for column in table.input_columns
    )


@functools.cache
def _template_fields(template: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"The template {template!r} is malformed: {error}.") from error
    if any(field == "" or form or convert for _, field, form, convert in parts):
        raise ValueError(
            f"The template {template!r} is malformed: between braces stands a column's name and "
            "nothing else."
        )
    return [(before, field) for before, field, _, _ in parts]


def _value(row: Row, column: str, number: int, path: str) -> str:
    if column not in row:
        raise ValueError(
            f"Line {number} of {path!r} has no column {column!r}; its columns are {', '.join(row)}."
        )
    return row[column]
