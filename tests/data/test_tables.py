"""Your own files as tasks, and the errors for a malformed file."""

import dataclasses
import json
from pathlib import Path

import pytest

from prompt_tuning.data import (
    batches,
    describe,
    evaluation,
    tables,
    tasks,
)
from prompt_tuning.data.tables import TableTask

STRANGERS = Path(__file__).parent / "strangers"
LENGTHS = {"inputs": 64, "targets": 16}
CSV = 'text,stars\n"Fine, really",1\nAwful,0\n'


@pytest.fixture
def table(tmp_path):
    """Writes the files and returns the table: table(train, ending='.csv', **settings)."""

    def make(train, validation=None, ending=".csv", **settings):
        files = {}
        for split, text in (("train", train), ("validation", validation or train)):
            path = tmp_path / f"{split}{ending}"
            path.write_text(text, encoding="utf-8")
            files[f"{split}_file"] = str(path)
        defaults = {"name": "mine", "target_column": "stars", "vocabulary": "byt5"}
        return TableTask(**{**defaults, **files, **settings})

    return make


def make(made):
    """A table as a task, as a run has it."""
    return tasks.get("mine", local=[made])


def texts(task, split="train"):
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in batches.load_examples(task, split, LENGTHS).raw
    ]


def make_and_load(made):
    """What `train` does before it loads a model."""
    task = tables.make(made)
    for split in ("train", "validation"):
        texts(task, split)


def stranger(file, target, **settings):
    """A table of one file, the same for both splits."""
    path = str(STRANGERS / file)
    return TableTask("mine", path, path, target, vocabulary="byt5", **settings)


def test_many_runs_read_a_table_once(table):
    """As those of a sweep do, each of which makes the task anew."""
    made = table(CSV)
    shouted = dataclasses.replace(made, template="{text}!")
    with batches.keep_loaded():
        first, again, other = (
            batches.load_examples(make(one), "train", LENGTHS) for one in (made, made, shouted)
        )
    assert first is again
    assert other.raw[1]["inputs_pretokenized"] == b"Awful!"


def test_csv_with_label_words(table):
    made = table(CSV, label_words={"0": "bad", "1": "good"})
    task = make(made)
    assert task.table == dataclasses.replace(made, input_columns=("text",))
    assert texts(task) == [("text: Fine, really", "good"), ("text: Awful", "bad")]
    assert task.labels == ("bad", "good")
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    assert evaluation.measure(examples, ["good", "great"]).metrics == {"accuracy": 50.0}


def test_label_words_may_have_numbers_for_keys(table):
    task = make(table(CSV, label_words={0: "no", 1: "yes"}))
    assert task.labels == ("no", "yes")
    assert texts(task) == [("text: Fine, really", "yes"), ("text: Awful", "no")]


def test_values_are_the_labels_without_words(table):
    task = make(table(CSV))
    assert task.table.label_words == {"0": "0", "1": "1"}
    assert task.labels == ("0", "1")
    assert texts(task) == [("text: Fine, really", "1"), ("text: Awful", "0")]


def test_tsv_with_quotes_that_are_text(table):
    task = make(table('text\tstars\nSay "hi", Bob\t1\n', ending=".tsv"))
    assert texts(task) == [('text: Say "hi", Bob', "1")]


JSONL = "\n".join(
    json.dumps(row)
    for row in (
        {"premise": "P é.", "hypothesis": "H.", "id": 3, "stars": True},
        {"premise": "Q.", "hypothesis": "I.", "id": 4, "stars": False},
    )
)


def test_jsonl_columns_are_sorted(table):
    task = make(table(JSONL, ending=".jsonl"))
    assert task.labels == ("False", "True")
    assert texts(task)[0] == ("hypothesis: H. id: 3 premise: P é.", "True")


def test_named_columns_keep_their_order(table):
    task = make(table(JSONL, ending=".jsonl", input_columns=("premise", "hypothesis")))
    assert texts(task)[0] == ("premise: P é. hypothesis: H.", "True")


def test_template(table):
    template = "Does {premise} entail {hypothesis}? {{yes}}"
    task = make(table(JSONL, ending=".jsonl", template=template))
    assert texts(task)[0] == ("Does P é. entail H.? {yes}", "True")


def test_free_text_is_measured_as_squad(table):
    train = "question,answer\nWho?,Ann Lee\nWhere?,Rome\n"
    task = make(table(train, target_column="answer", free_text=True))
    assert task.labels is None
    assert task.info.metrics == ("em", "f1")
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    found = evaluation.measure(examples, ["the Lee", "rome"]).metrics
    assert found == pytest.approx({"em": 50.0, "f1": 100 * (2 / 3 + 1) / 2})


def test_test_file_needs_no_target(table, tmp_path, capsys):
    (tmp_path / "test.csv").write_text("text\nSo so\n")
    task = make(table(CSV, test_file=str(tmp_path / "test.csv")))
    assert texts(task, "test") == [("text: So so", "<unk>")]
    assert "test.csv': no column 'stars', so no row has a label" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings", [{"input_columns": ("text", "stars")}, {"template": "{text} {stars}"}]
)
def test_the_input_never_holds_the_answer(table, settings):
    message = "would hold the answer: the target column 'stars' is in its input_columns or temp"
    with pytest.raises(ValueError, match=message):
        make(table(CSV, **settings))


def test_a_row_to_train_on_needs_a_label(table):
    with pytest.raises(ValueError, match="'stars' is empty. A row to train on needs a label; fill"):
        texts(make(table("text,stars\nA,1\nB,\nC,0\n")))


def test_forms_of_a_label_that_look_the_same_are_told_apart(table, capsys):
    texts(make(table("text,stars\nA,cafe\u0301\nB,no\nC, no\n", vocabulary="byt5")))
    said = capsys.readouterr().out
    assert r"'cafe\u0301' is read as the label 'caf\xe9' in 1 row" in said
    assert "' no' is read as the label 'no' in 1 row\n" in said


def test_a_table_is_read_again_each_time_and_registered_nowhere(table):
    make(table(CSV))
    task = make(table("text,stars\nNew,1\n"))
    assert "mine" not in tasks.task_names()
    assert texts(task) == [("text: New", "1")]


def test_byte_order_mark_and_blank_lines(table):
    task = make(table("\ufefftext,stars\nA,1\n\nB,0\n\n"))
    assert texts(task) == [("text: A", "1"), ("text: B", "0")]


@pytest.mark.parametrize("name", ["train", "later"])
def test_a_null_is_empty_text_wherever_it_is(name, capsys):
    """In row 1, or in row 8: the columns are those of all rows, and all are written."""
    task = make(stranger(f"06-jsonl-first-row-null/{name}.jsonl", "label"))
    empty, full = (0, 7) if name == "train" else (7, 0)
    assert task.table.input_columns == ("context", "question")
    assert texts(task)[empty][0] == f"context:  question: is it number {empty}"
    n = full + full % 2
    assert texts(task)[full][0] == f"context: it is number {n} question: is it number {full}"
    assert "'context' is empty in 1 of 20 rows" in capsys.readouterr().out


def test_a_key_that_only_some_rows_have(table):
    train = '{"a": "1", "stars": 1}\n{"b": "2", "stars": 0}\n'
    task = make(table(train, ending=".jsonl"))
    assert texts(task) == [("a: 1 b: ", "1"), ("a:  b: 2", "0")]


def test_an_index_is_not_read(capsys):
    """pandas writes the number of a row into a first column without a name."""
    task = make(stranger("03-unnamed-index-column/train.csv", "label"))
    assert texts(task)[1] == ("text: message 1 is fine", "1")
    texts(task, "validation")
    printed = capsys.readouterr().out
    assert printed.count("not read: 'Unnamed: 0'; name it in input_columns") == 1


def test_an_index_is_read_if_it_is_named(capsys):
    columns = ("Unnamed: 0", "text")
    task = make(stranger("03-unnamed-index-column/train.csv", "label", input_columns=columns))
    assert texts(task)[1] == ("Unnamed: 0: 1 text: message 1 is fine", "1")
    assert capsys.readouterr().out == ""


def test_an_index_of_hugging_face_datasets(table):
    row = '{"text": "A", "stars": 1, "__index_level_0__": 7}'
    task = make(table(row, ending=".jsonl"))
    assert texts(task) == [("text: A", "1")]


def test_columns_without_a_name_and_what_they_hold(capsys):
    task = make(stranger("02-spam-csv/spam.utf-8.csv", "v1"))
    assert texts(task)[0] == ("v2: see you at the café at 0", "ham")
    assert task.labels == ("ham", "spam")
    assert "not read: 'Unnamed: 2', 'Unnamed: 3';" in capsys.readouterr().out


def test_columns_that_the_training_file_lacks_are_reported(table, capsys):
    task = make(table(CSV, validation="text,more,stars\nA,x,1\n"))
    assert texts(task, "validation") == [("text: A", "1")]
    assert "validation.csv': not read: 'more'" in capsys.readouterr().out


def test_columns_that_another_split_lacks_are_refused(table):
    made = table("text,more,stars\nA,x,1\n", validation="text,stars\nA,1\n")
    with pytest.raises(ValueError, match=r"validation.csv' has no column 'more'; its columns are"):
        make_and_load(made)


def test_a_split_is_read_when_it_is_loaded(table, tmp_path):
    """A table whose columns and labels are known needs no training file."""
    made = table(CSV, input_columns=("text",), label_words={"0": "bad", "1": "good"})
    (tmp_path / "train.csv").unlink()
    task = make(made)
    assert texts(task, "validation") == [("text: Fine, really", "good"), ("text: Awful", "bad")]
    with pytest.raises(ValueError, match=r"train.csv' cannot be read: No such file"):
        texts(task, "train")


def test_what_the_training_file_decided_is_kept(table, tmp_path):
    made = table(JSONL, validation=JSONL.splitlines()[1], ending=".jsonl")
    task = make(made)
    tables.keep(task, str(tmp_path))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"train.jsonl' cannot be read"):
        make(made)
    task = make(tables.recall(made, str(tmp_path)))
    assert task.labels == ("False", "True")
    assert texts(task, "validation") == [("hypothesis: I. id: 4 premise: Q.", "False")]


def test_the_tables_own_settings_are_not_recalled(table, tmp_path):
    task = make(table(CSV))
    tables.keep(task, str(tmp_path))
    words = {"0": "bad", "1": "good"}
    named = table(CSV, input_columns=("body",), label_words=words)
    assert tables.recall(named, str(tmp_path)) == named
    template = table(CSV, template="{text}", label_words=words)
    assert tables.recall(template, str(tmp_path)) == template
    free_text = table(CSV, free_text=True)
    assert tables.recall(free_text, str(tmp_path)).label_words is None
    other = table(CSV, target_column="text")
    assert tables.recall(other, str(tmp_path)) == other
    assert tables.recall(other, str(tmp_path / "nowhere")) == other


def test_what_is_kept_may_be_damaged(table, tmp_path):
    (tmp_path / "task.json").write_text("{")
    with pytest.raises(ValueError, match=r"task.json', which records .* is damaged: .* Remove it"):
        tables.recall(table(CSV), str(tmp_path))


def test_only_tables_are_found_and_kept(tmp_path):
    task = tasks.get("generated_sentiment")
    assert tables.of_task(task) is None
    tables.keep(task, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_first_example_is_shown_as_the_model_has_it(table):
    task = make(table(CSV))
    examples = batches.load_examples(task, "train", LENGTHS, keep_raw=False)
    assert describe.first_example(examples).splitlines() == [
        "first example of mine train",
        "  inputs   text: Fine, really",
        "  targets  1",
    ]


@pytest.mark.parametrize(
    "train, settings, message",
    [
        ("", {}, r"The table '.*train.csv' is empty; it needs at least one row"),
        ("text,stars\n", {}, r"train.csv' is empty"),
        (CSV, {"target_column": "star"}, r"train.csv' has no column 'star'; .* are text, stars"),
        (CSV, {"input_columns": ("body",)}, r"has no column 'body'; its columns are text, stars"),
        (CSV, {"template": "{body}"}, r"has no column 'body'"),
        (CSV, {"template": "{text"}, r"The template '{text' is malformed"),
        (CSV, {"template": "{text!r}"}, r"braces there is the name of a column and nothing else"),
        (CSV, {"template": "text"}, r"template 'text' names no column"),
        (CSV, {"label_words": {"1": "good"}}, r"Line 3 of .*'0' of 'stars' is none of '1', which"),
        ("text,stars\nA,1,2\n", {}, r"Line 2 of .* has 3 cells for the 2 columns text, stars"),
        ("text,stars\nA,\n", {}, r"Line 2 of .*'stars' is empty"),
        ("stars\n1\n", {}, r"has no column but the target 'stars'"),
        (CSV, {"name": "generated_sentiment"}, r"name 'generated_sentiment' belongs to another"),
        (CSV, {"name": "my task"}, r"letters, digits and '_-.'; got 'my task'"),
        (CSV, {"vocabulary": "gpt"}, r"Unknown vocabulary 'gpt'"),
        (CSV, {"free_text": True, "label_words": {"1": "a"}}, r"both free_text and label_words"),
        (CSV, {"train_file": "/no/such.csv"}, r"file '/no/such.csv' cannot be read: No such file"),
        (CSV, {"train_file": "/no/such.xlsx"}, r"A table is a .jsonl, .csv or .tsv file; got"),
    ],
)
def test_errors_name_what_is_wrong(table, train, settings, message):
    with pytest.raises(ValueError, match=message):
        make_and_load(table(train, validation=CSV, **settings))


@pytest.mark.parametrize(
    "train, message",
    [
        ('{"text": "A", "stars": 1}\n{"text": \n', r"Line 2 of '.*train.jsonl' is not JSON"),
        (
            '{"text": "A", "stars": 1}\n{"text": ["A"], "stars": 1}\n',
            r"Line 2 .*'text' must hold text or a number; got a list",
        ),
        ('{"text": "A", "stars": 1}\n{"text": "B"}\n', r"Line 2 of .*: 'stars' is empty"),
        ('{"text": "A", "stars": null}\n', r"Line 1 of .*: 'stars' is empty"),
    ],
)
def test_errors_name_what_is_wrong_in_jsonl(table, train, message):
    with pytest.raises(ValueError, match=message):
        make_and_load(table(train, ending=".jsonl"))


def test_lists_and_objects_that_are_not_read_do_not_matter(table):
    row = '{"text": "A", "meta": {"tags": []}, "stars": 1}'
    task = make(table(row, ending=".jsonl", input_columns=("text",)))
    assert texts(task) == [("text: A", "1")]


def test_a_file_without_a_header(table):
    made = stranger("26-tsv-quotes/noheader.csv", "label")
    with pytest.raises(ValueError, match=r"no column 'label'; its columns are one nice thing, 1"):
        make(made)


def test_a_dev_label_the_train_file_lacks(table):
    with pytest.raises(
        ValueError, match=r"Line 2 of .*validation.csv'.*'5' .* is none of '0', '1'"
    ):
        make_and_load(table(CSV, validation="text,stars\nA,5\n"))


def test_many_labels_are_surely_free_text(table):
    rows = "".join(f"A,answer {number}\n" for number in range(30))
    with pytest.raises(ValueError, match=r"30 different values in 30 rows.*set free_text = True"):
        make(table(f"text,stars\n{rows}"))


def test_a_missing_vocabulary_is_one_clear_sentence(table):
    made = table(CSV, vocabulary="t5")
    task = tasks.get("mine", local=[made], vocabulary_file="/no/such/file")
    with pytest.raises(ValueError, match=r"^The t5 vocabulary cannot be read from '/no/such/f"):
        texts(task)
