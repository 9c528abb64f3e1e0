"""Your own files as tasks, and what is said about a file that is wrong."""

import json

import pytest

from prompt_tuning.data import batches, evaluation, registry, tables, tasks, vocabularies
from prompt_tuning.data.tables import TableTask

LENGTHS = {"inputs": 64, "targets": 16}
CSV = 'text,stars\n"Fine, really",1\nAwful,0\n'


@pytest.fixture(autouse=True)
def _forget():
    yield
    registry.remove("mine")


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


def texts(split="train"):
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in batches.load("mine", split, LENGTHS).raw
    ]


def test_csv_with_label_words(table):
    found = tables.register(table(CSV, label_words={"0": "bad", "1": "good"}))
    assert found == tables.Registered("mine", ("bad", "good"), {"train": 2, "validation": 2})
    assert texts() == [("text: Fine, really", "good"), ("text: Awful", "bad")]
    assert tasks.labels("mine") == ("bad", "good")
    (examples,) = evaluation.eval_set("mine", "validation", LENGTHS)
    assert evaluation.measure(examples, ["good", "great"]).metrics == {"accuracy": 50.0}


def test_label_words_may_have_numbers_for_keys(table):
    assert tables.register(table(CSV, label_words={0: "no", 1: "yes"})).labels == ("no", "yes")


def test_values_are_the_labels_without_words(table):
    assert tables.register(table(CSV)).labels == ("0", "1")
    assert texts() == [("text: Fine, really", "1"), ("text: Awful", "0")]


def test_tsv_takes_quotes_as_they_are(table):
    tables.register(table('text\tstars\nSay "hi", Bob\t1\n', ending=".tsv"))
    assert texts() == [('text: Say "hi", Bob', "1")]


JSONL = "\n".join(
    json.dumps(row)
    for row in (
        {"premise": "P é.", "hypothesis": "H.", "id": 3, "stars": True},
        {"premise": "Q.", "hypothesis": "I.", "id": 4, "stars": False},
    )
)


def test_jsonl_columns_are_sorted(table):
    found = tables.register(table(JSONL, ending=".jsonl"))
    assert found.labels == ("False", "True")
    assert texts()[0] == ("hypothesis: H. id: 3 premise: P é.", "True")


def test_named_columns_keep_their_order(table):
    tables.register(table(JSONL, ending=".jsonl", input_columns=("premise", "hypothesis")))
    assert texts()[0] == ("premise: P é. hypothesis: H.", "True")


def test_template(table):
    template = "Does {premise} entail {hypothesis}? {{yes}}"
    tables.register(table(JSONL, ending=".jsonl", template=template))
    assert texts()[0] == ("Does P é. entail H.? {yes}", "True")


def test_free_text_is_measured_as_squad(table):
    train = "question,answer\nWho?,Ann Lee\nWhere?,Rome\n"
    found = tables.register(table(train, target_column="answer", free_text=True))
    assert found.labels is None
    assert tasks.info("mine").metrics == ("em", "f1")
    (examples,) = evaluation.eval_set("mine", "validation", LENGTHS)
    found = evaluation.measure(examples, ["the Lee", "rome"]).metrics
    assert found == pytest.approx({"em": 50.0, "f1": 100 * (2 / 3 + 1) / 2})


def test_test_file_needs_no_target(table, tmp_path):
    (tmp_path / "test.csv").write_text("text\nSo so\n")
    tables.register(table(CSV, test_file=str(tmp_path / "test.csv")))
    assert texts("test") == [("text: So so", "<unk>")]


def test_registering_again_reads_the_files_again(table):
    tables.register(table(CSV))
    tables.register(table("text,stars\nNew,1\n"))
    assert texts() == [("text: New", "1")]


def test_byte_order_mark_and_blank_lines(table):
    tables.register(table("\ufefftext,stars\nA,1\n\nB,0\n\n"))
    assert texts() == [("text: A", "1"), ("text: B", "0")]


@pytest.mark.parametrize(
    "train, settings, message",
    [
        ("", {}, r"The table '.*train.csv' is empty; it needs at least one row"),
        ("text,stars\n", {}, r"train.csv' is empty"),
        (CSV, {"target_column": "star"}, r"Line 2 of .* has no column 'star'; .* text, stars"),
        (CSV, {"input_columns": ("body",)}, r"has no column 'body'; its columns are text, stars"),
        (CSV, {"template": "{body}"}, r"has no column 'body'"),
        (CSV, {"template": "{text"}, r"The template '{text' is malformed"),
        (CSV, {"template": "{text!r}"}, r"between braces stands a column's name and nothing else"),
        (CSV, {"label_words": {"1": "good"}}, r"Line 3 of .*'0' of 'stars' is none of '1'; add it"),
        ("text,stars\nA,1,2\n", {}, r"Line 2 of .* has 3 values for the 2 columns text, stars"),
        ("text,text\nA,1\n", {}, r"has a column name twice: text, text"),
        ('text,stars\n"A,1\n', {}, r"Line 2 of .*train.csv' is malformed"),
        ("text,stars\nA,\n", {}, r"Line 2 of .*'stars' is empty"),
        ("stars\n1\n", {}, r"has no column but the target 'stars'"),
        (CSV, {"name": "generated_sentiment"}, r"name 'generated_sentiment' belongs to another"),
        (CSV, {"name": "my task"}, r"letters, digits and '_-.'; 'my task' came"),
        (CSV, {"vocabulary": "gpt"}, r"Unknown vocabulary 'gpt'"),
        (CSV, {"free_text": True, "label_words": {"1": "a"}}, r"both free_text and label_words"),
        (CSV, {"train_file": "/no/such.csv"}, r"no file '/no/such.csv'"),
    ],
)
def test_what_is_wrong_is_said(table, train, settings, message):
    with pytest.raises(ValueError, match=message):
        tables.register(table(train, validation=CSV, **settings))


@pytest.mark.parametrize(
    "train, message",
    [
        ('{"text": "A", "stars": 1}\n{"text": \n', r"Line 2 of '.*train.jsonl' is not JSON"),
        ('["A", 1]\n', r"Line 1 of .* must be an object like .*; \[\"A\", 1\] came"),
        (
            '{"text": ["A"], "stars": 1}\n',
            r"Line 1 .*'text' must hold a text or a number, not a li",
        ),
        ('{"text": null, "body": "A", "stars": 1}\n{"stars": 1}\n', r"Line 2 .*no column 'body'"),
        ('{"text": "A", "stars": null}\n', r"Line 1 of .* has no column 'stars'"),
    ],
)
def test_what_is_wrong_in_jsonl_is_said(table, train, message):
    with pytest.raises(ValueError, match=message):
        tables.register(table(train, ending=".jsonl"))


def test_a_dev_label_the_train_file_lacks(table):
    with pytest.raises(
        ValueError, match=r"Line 2 of .*validation.csv'.*the train file has no such"
    ):
        tables.register(table(CSV, validation="text,stars\nA,5\n"))


def test_many_labels_are_surely_free_text(table):
    rows = "".join(f"A,answer {number}\n" for number in range(30))
    with pytest.raises(ValueError, match=r"30 different values in 30 rows.*set free_text = True"):
        tables.register(table(f"text,stars\n{rows}"))


def test_other_endings_are_refused(table):
    with pytest.raises(ValueError, match=r"A table is a .jsonl, .csv or .tsv file; '.*train.xlsx'"):
        tables.register(table(CSV, ending=".xlsx"))


def test_other_encodings_are_refused(table):
    made = table(CSV)
    with open(made.train_file, "wb") as file:
        file.write("text,stars\ncafé,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train.csv' is not UTF-8 text"):
        tables.register(made)


def test_a_missing_vocabulary_is_one_clear_sentence(table):
    vocabulary = vocabularies.FAMILIES["t5"].vocabulary
    before = vocabulary.sentence_pieces.file
    vocabularies.use_file(vocabularies.family("t5").vocabulary, "/no/such/file")
    try:
        tables.register(table(CSV, vocabulary="t5"))
        with pytest.raises(ValueError, match=r"^The t5 vocabulary cannot be read from '/no/such/f"):
            texts()
    finally:
        vocabulary.use_file(before)
