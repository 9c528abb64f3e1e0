"""A JSONL, CSV or TSV file of your own becomes a task by naming its columns.

    reviews.csv                              inputs                     targets
    text,stars                          ->   text: Fine food.           good
    "Fine food.",1

    table = TableTask(name='reviews', train_file='reviews.csv', validation_file='dev.csv',
                      target_column='stars', label_words={'0': 'bad', '1': 'good'})
    tasks.get('reviews', local=[table])      a task like any other, for this run alone

What the settings leave open, the training file decides: which columns are read, and which labels
there are. `keep` writes that into MODEL_DIR and `recall` reads it, so that a trained run evaluates
and infers without its training file. Each file is read when it is first needed.
"""

import collections
import dataclasses
import functools
import json
import os
import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from prompt_tuning import folders, paths
from prompt_tuning.data import labels as label_rule
from prompt_tuning.data import metrics, postprocessors, registry, table_files, vocabularies
from prompt_tuning.data.labels import MANY_LABELS, UNLABELLED
from prompt_tuning.data.table_files import UNNAMED, Row, Table
from prompt_tuning.data.tensorflow_import import seqio, tf

KEPT = "task.json"  # in MODEL_DIR
HF_INDEX = re.compile(r"__index_level_\d+__")  # the name of pandas' index in Hugging Face datasets

Reader = Callable[[str], Table]


@dataclasses.dataclass(frozen=True)
class TableTask:
    """What makes files a task.

    Attributes:
      name: the task's name, for MIXTURE_OR_TASK_NAME.
      train_file, validation_file, test_file: the files, see `table_files.py` for what they may
        hold. Rows of the last two may lack the target, and the test file may lack its column;
        such rows never count in a metric.
      target_column: the column the model is to write.
      input_columns: the columns it reads, written 'column: value' in this order, also where the
        value is empty. If none are named: every column that any row of the training file has,
        sorted, without the target and without columns that have no name (pandas' index).
      template: the input written out instead, 'premise: {premise} hypothesis: {hypothesis}';
        {{ and }} are braces.
      label_words: the word for each value of the target column, {'0': 'no', '1': 'yes'}, in the
        order of the classes; without it the values are the words, sorted. Cells are compared
        with the values as `labels.find` does.
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

    @property
    def names(self) -> tuple[str, ...]:
        """The task that it makes, for `tasks.get`."""
        return (self.name,)

    def make(self, name: str) -> registry.TextTask:
        """Makes the task, see the function `make`."""
        return make(self)


def make(table: TableTask) -> registry.TextTask:
    """Makes the task.

    The training file is read if the columns or the labels are not named; the rest is read, and
    checked, when a split is loaded.

    Returns:
      The task; its `table` has the input columns and label words filled in, see `resolve`.

    Raises:
      ValueError: a setting is wrong, two label words are the same, the name belongs to another
        task, or the training file is missing or malformed.
    """
    _check_settings(table)
    family = vocabularies.family(table.vocabulary)
    read = functools.cache(_read)
    is_chosen = not table.input_columns and table.template is None  # from the training file
    table = resolve(table, read)
    files = {"train": table.train_file, "validation": table.validation_file}
    files |= {"test": table.test_file} if table.test_file else {}
    labels = labels_of(table)
    names = ("em", "f1") if labels is None else ("accuracy",)

    @functools.cache
    def examples(split: str) -> list[tuple[str, str]]:
        file, has_target = read(files[split]), split != "test"
        _check_columns(file, [*columns_read(table), *[table.target_column] * has_target])
        known = read(table.train_file).columns if split != "train" and is_chosen else ()
        _print_notes(table, file, known if is_chosen else file.columns)
        return [_example(table, file, row, needs_target=split == "train") for row in file.rows]

    task = registry.make(
        table.name,
        source=seqio.FunctionDataSource(
            functools.partial(_dataset, examples=examples, free_text=table.free_text),
            splits=tuple(files),
        ),
        preprocessors=[],
        postprocess_fn=postprocessors.answers
        if labels is None
        else functools.partial(postprocessors.class_number, labels=labels),
        metric_fns=[metrics.squad if labels is None else metrics.accuracy],
        output_features=family.output_features,
    )
    info = registry.TaskInfo("table", table.name, labels, "validation", names)
    return registry.TextTask(info, origin=repr(table), table=table, seqio_task=task)


def resolve(table: TableTask, read: Reader | None = None) -> TableTask:
    """Fills in what the training file decides: the input columns and the label words.

    Raises:
      ValueError: the file is missing or malformed, or has no column to read, or the target has
        too many values for classes.
    """
    needs_columns = not table.input_columns and table.template is None
    needs_labels = not table.label_words and not table.free_text
    if not needs_columns and not needs_labels:
        return table
    train = (read or _read)(table.train_file)
    if needs_columns:
        table = dataclasses.replace(table, input_columns=_input_columns(table, train))
    if needs_labels:
        labels = _labels(table, train)
        table = dataclasses.replace(table, label_words={label: label for label in labels})
    return table


def labels_of(table: TableTask) -> tuple[str, ...] | None:
    """The label words of a resolved table in the order of the classes; None for free text."""
    if table.free_text:
        return None
    return tuple(dict.fromkeys(_words(table).values()))


def of_task(task: registry.TextTask | registry.TextMixture) -> TableTask | None:
    """The table that a task was made from, resolved; None for any other task."""
    return getattr(task, "table", None)


def keep(task: registry.TextTask, folder: str) -> None:
    """Writes what the training file decided to FOLDER/task.json; nothing if it is not a table."""
    table = task.table
    if table is None:
        return
    kept = {
        "task": table.name,
        "target_column": table.target_column,
        "input_columns": list(table.input_columns),
        "label_words": dict(table.label_words) if table.label_words else None,
    }
    content = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    folders.replace_file(os.path.join(folder, KEPT), content.encode())


def recall(table: TableTask, folder: str) -> TableTask:
    """Fills in what `keep` wrote, where the table itself has no setting.

    Raises:
      ValueError: the file is damaged.
    """
    path = os.path.join(folder, KEPT)
    if not paths.is_file(path):
        return table
    try:
        kept = json.loads(paths.read_bytes(path))
        columns, words = tuple(kept["input_columns"]), kept["label_words"]
        if (kept["task"], kept["target_column"]) != (table.name, table.target_column):
            return table
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path!r}, which records the run's table, is damaged: {error!r}. Remove it to "
            "read the training file again."
        ) from error
    changes = {}
    if columns and not table.input_columns and table.template is None:
        changes["input_columns"] = columns
    if words and not table.label_words and not table.free_text:
        changes["label_words"] = words
    return dataclasses.replace(table, **changes)


def columns_read(table: TableTask) -> tuple[str, ...]:
    """The columns that the inputs of a resolved table are made of."""
    if table.template is None:
        return tuple(table.input_columns)
    fields = [field for _, field in _template_fields(table.template) if field is not None]
    return tuple(dict.fromkeys(fields))


def format_input(table: TableTask, file: Table, row: Row) -> str:
    """Writes a row as the model reads it, in training and in inference.

    Raises:
      ValueError: a value is a list or an object.
    """
    if table.template is not None:
        return "".join(
            before + ("" if field is None else table_files.text_of(file, row, field))
            for before, field in _template_fields(table.template)
        )
    return " ".join(
        f"{column}: {table_files.text_of(file, row, column)}" for column in table.input_columns
    )


def _dataset(
    split: str,
    shuffle_files: bool,
    seed: int | None = None,
    *,
    examples: Callable[[str], list[tuple[str, str]]],
    free_text: bool,
) -> tf.data.Dataset:
    """Makes one split; seqio passes a seed under T5X, and shuffles afterwards."""
    inputs, targets = zip(*examples(split), strict=True)
    columns = {"inputs": list(inputs), "targets": list(targets), "idx": list(range(len(inputs)))}
    if free_text:
        columns["answers"] = [[target] for target in targets]
    return tf.data.Dataset.from_tensor_slices(columns)


def _check_settings(table: TableTask) -> None:
    if table.free_text and table.label_words:
        raise ValueError(f"The table {table.name!r} cannot have both free_text and label_words.")
    if table.name in {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}:
        raise ValueError(f"The name {table.name!r} belongs to another task; choose another one.")
    if not table.name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"A task's name is letters, digits and '_-.'; got {table.name!r}.")
    if table.template is not None and not columns_read(table):
        raise ValueError(
            f"The template {table.template!r} names no column, so every input would be the same; "
            "write one in braces, such as {text}."
        )
    if table.target_column in columns_read(table):
        raise ValueError(
            f"The input of {table.name!r} would hold the answer: the target column "
            f"{table.target_column!r} is in its input_columns or template. Remove it there."
        )
    _check_label_words(table)


def _check_label_words(table: TableTask) -> None:
    """Refuses words that are one label, and values that are one but have two words."""
    words = _words(table)
    what = f"The label words of {table.name!r}"
    label_rule.check_distinct(words.values(), what)
    for value, word in words.items():
        other = label_rule.find(value, [one for one in words if one != value])
        if other is not None and words[other] != word:
            raise ValueError(
                f"{what} have {value!r} and {other!r}, which are the same value, for {word!r} and "
                f"{words[other]!r}; leave one out."
            )


def _words(table: TableTask) -> dict[str, str]:
    """The label word of each value of the target column; empty for free text."""
    return {str(value): str(word) for value, word in (table.label_words or {}).items()}


def _read(path: str) -> Table:
    file = table_files.read(path)
    for note in file.notes:
        print(note)
    return file


def _input_columns(table: TableTask, train: Table) -> tuple[str, ...]:
    """All columns of the training file but the target and what is an index."""
    columns = tuple(
        column
        for column in sorted(set(train.columns) - {table.target_column})
        if not _is_index(column)
    )
    if not columns:
        raise ValueError(
            f"{table.train_file!r} has no column but the target {table.target_column!r}; a task "
            "needs something to read."
        )
    return columns


def _is_index(column: str) -> bool:
    return not column or bool(UNNAMED.fullmatch(column) or HF_INDEX.fullmatch(column))


def _check_columns(file: Table, needed: Sequence[str]) -> None:
    for column in needed:
        if column not in file.columns:
            raise ValueError(
                f"The table {file.path!r} has no column {column!r}; {table_files.listed(file)}."
            )


def _print_notes(table: TableTask, file: Table, known: Sequence[str]) -> None:
    """Prints which columns are not read, save those known, which are sometimes empty, and which
    values of the target column are read as another one.
    """
    if table.target_column not in file.columns:
        print(f"{file.path!r}: no column {table.target_column!r}, so no row has a label")
    read = columns_read(table)
    unread = [name for name in file.columns if name not in {*read, table.target_column, *known}]
    if unread:
        listed = ", ".join(map(repr, unread))
        print(f"{file.path!r}: not read: {listed}; name it in input_columns if it is to be read")
    for column in read:
        empty = sum(not table_files.text_of(file, row, column) for row in file.rows)
        if empty:
            print(f"{file.path!r}: {column!r} is empty in {empty:,} of {len(file.rows):,} rows")
    words = _words(table)
    cells = [table_files.text_of(file, row, table.target_column) for row in file.rows]
    read_as = collections.Counter((cell, label_rule.find(cell, words)) for cell in cells)
    for (cell, value), count in read_as.items():
        if value is not None and cell != value:
            rows = "1 row" if count == 1 else f"{count:,} rows"
            print(f"{file.path!r}: {_told_apart(cell, value)} in {rows}")


def _told_apart(cell: str, label: str) -> str:
    """Cell and label; two forms of a character look the same on a screen."""
    written = ascii if unicodedata.normalize("NFC", cell) == label else repr
    return f"{written(cell)} is read as the label {written(label)}"


def _labels(table: TableTask, train: Table) -> tuple[str, ...]:
    """The labels of the target column, sorted."""
    _check_columns(train, [table.target_column])
    values = label_rule.of_values(_target(table, train, row) for row in train.rows)
    if len(values) > MANY_LABELS or (len(values) > 10 and len(values) > len(train.rows) / 2):
        raise ValueError(
            f"The target column {table.target_column!r} of {train.path!r} has {len(values)} "
            f"different values in {len(train.rows)} rows, too many for classes; set "
            "free_text = True."
        )
    return values


def _example(table: TableTask, file: Table, row: Row, needs_target: bool) -> tuple[str, str]:
    text, words = format_input(table, file, row), _words(table)
    cell = table_files.text_of(file, row, table.target_column)
    is_empty = not label_rule.normalise(cell)
    is_missing = is_empty if table.free_text else label_rule.is_missing(cell, words)
    if is_missing and not needs_target:
        return text, UNLABELLED
    cell = _target(table, file, row)
    if table.free_text:
        return text, cell
    value = label_rule.find(cell, words)
    if value is None:
        raise ValueError(
            f"Line {row.line} of {file.path!r}: the value {cell!r} of {table.target_column!r} is "
            f"none of {', '.join(map(repr, words))}, which are those of label_words or, without "
            "them, of the training file. Correct it, or add it there."
        )
    return text, words[value]


def _target(table: TableTask, file: Table, row: Row) -> str:
    cell = table_files.text_of(file, row, table.target_column)
    if not label_rule.normalise(cell):
        raise ValueError(
            f"Line {row.line} of {file.path!r}: {table.target_column!r} is empty. A row to train "
            "on needs a label; fill it in, or remove the row."
        )
    return cell


@functools.cache
def _template_fields(template: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"The template {template!r} is malformed: {error}.") from error
    if any(field == "" or form or convert for _, field, form, convert in parts):
        raise ValueError(
            f"The template {template!r} is malformed: between braces there is the name of a "
            "column and nothing else."
        )
    return [(before, field) for before, field, _, _ in parts]
