"""Preprocessors: the official text formats, written out by hand."""

import pytest
import tensorflow as tf

from prompt_tuning.data import preprocessors

FALSE_TRUE = ("False", "True")


def rows(*examples):
    """A dataset of the given rows."""
    slices = {key: [row[key] for row in examples] for key in examples[0]}
    return tf.data.Dataset.from_tensor_slices(slices)


def first(dataset):
    """The first row, texts as str."""
    row = next(dataset.as_numpy_iterator())
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}


CB_ROW = {"premise": "It rained.", "hypothesis": "It was wet.", "label": 1, "idx": 3}


def test_columns_are_sorted_and_named():
    labels = ("entailment", "contradiction", "neutral")
    assert first(preprocessors.columns(rows(CB_ROW), name="cb", labels=labels)) == {
        "inputs": "cb hypothesis: It was wet. premise: It rained.",
        "targets": "contradiction",
        "idx": 3,
    }


def test_without_the_task_name():
    row = first(preprocessors.columns(rows(CB_ROW), name="", labels=("a", "b")))
    assert row["inputs"] == "hypothesis: It was wet. premise: It rained."


def test_no_label_is_unk():
    unlabelled = rows({**CB_ROW, "label": -1})
    assert (
        first(preprocessors.columns(unlabelled, name="", labels=("a", "b")))["targets"] == "<unk>"
    )


def test_only_some_columns_in_their_order():
    wic = {"word": "bank", "sentence2": "B.", "sentence1": "A.", "start1": 0, "label": 0, "idx": 0}
    order = ("sentence1", "sentence2", "word")
    row = first(preprocessors.columns(rows(wic), name="wic", labels=FALSE_TRUE, only=order))
    assert row["inputs"] == "wic sentence1: A. sentence2: B. word: bank"


def test_rename():
    row = first(preprocessors.rename(rows({"a": "x", "b": "y"}), columns={"a": "c"}))
    assert row == {"c": "x", "b": "y"}


def test_multirc_loses_its_markup():
    row = {
        "paragraph": "<b>Sent 1: </b>One.<br><b>Sent 2: </b>Two.",
        "question": "How many?",
        "answer": "Two",
        "label": 1,
        "idx": {"paragraph": 1, "question": 2, "answer": 3},
    }
    dataset = tf.data.Dataset.from_tensors(row)
    assert first(preprocessors.multirc(dataset, name="multirc", labels=FALSE_TRUE)) == {
        "inputs": "multirc question: How many? answer: Two paragraph: Sent 1: One. Sent 2: Two.",
        "targets": "True",
        "idx/paragraph": 1,
        "idx/question": 2,
        "idx/answer": 3,
    }


def record_row(passage, answers):
    return tf.data.Dataset.from_tensors(
        {
            "passage": passage,
            "query": "A @placeholder sings.",
            "entities": tf.constant(["Ann", "Bob"]),
            "answers": tf.constant(answers, dtype=tf.string),
            "idx": {"passage": 5, "query": 8},
        }
    )


def test_record_is_one_example_an_answer():
    found = list(
        preprocessors.record(record_row("P.", ["Ann", "Bob"]), name="record").as_numpy_iterator()
    )
    assert [row["targets"] for row in found] == [b"Ann", b"Bob"]
    for row in found:
        assert row["inputs"] == (
            b"record query: A @placeholder sings. entities: Ann, Bob passage: P."
        )
        assert row["answers"].tolist() == [b"Ann", b"Bob"]
        assert (row["idx/passage"], row["idx/query"]) == (5, 8)


@pytest.mark.parametrize(
    "passage, expected",
    [
        ("One\n@highlight\nTwo", "One. Two"),  # A full stop where none was,
        ("One.\n@highlight\nTwo!\n@highlight\nThree", "One. Two! Three"),  # none where one was.
        ('"One"\n@highlight\nTwo', '"One" Two'),
        ("One @highlight Two", "One @highlight Two"),
    ],
)
def test_record_highlights_become_sentences(passage, expected):
    row = first(preprocessors.record(record_row(passage, ["Ann"]), name=""))
    assert row["inputs"] == f"query: A @placeholder sings. entities: Ann, Bob passage: {expected}"


def test_record_without_answers_is_unk():
    assert first(preprocessors.record(record_row("P.", []), name=""))["targets"] == "<unk>"


def wsc_row(text, pronoun, index, label=1):
    return {
        "text": text,
        "span1_text": "Bob",
        "span1_index": 0,
        "span2_text": pronoun,
        "span2_index": index,
        "label": label,
        "idx": 0,
    }


@pytest.mark.parametrize(
    "text, pronoun, index, expected",
    [
        ("Bob ate as he slept.", "he", 3, "Bob ate as *he* slept."),
        ("Bob  ate as he slept. ", "he", 4, "Bob  ate as *he* slept. "),  # Spaces stay.
        # The two kinds of row that the data has wrong.
        ('Bob said "for him," twice. ', "him", 3, 'Bob said "for *him* ," twice.'),
        ("Bob may use it , later", "it", 2, "Bob may use *it* , later"),
    ],
)
def test_wsc_marks_the_pronoun(text, pronoun, index, expected):
    dataset = preprocessors.wsc(rows(wsc_row(text, pronoun, index)), name="wsc:", only_true=False)
    row = first(dataset)
    assert row["inputs"] == f"wsc: {expected}"
    assert (row["targets"], row["label"], row["idx"]) == ("Bob", 1, 0)


def test_wsc_refuses_a_word_that_only_begins_with_the_pronoun():
    dataset = preprocessors.wsc(rows(wsc_row("Bob eats items", "it", 2)), name="", only_true=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not the pronoun"):
        first(dataset)


def test_wsc_trains_on_true_rows_only():
    both = rows(wsc_row("Bob is he .", "he", 2, 1), wsc_row("Bob was he .", "he", 2, 0))
    kept = list(preprocessors.wsc(both, name="", only_true=True).as_numpy_iterator())
    assert [row["inputs"] for row in kept] == [b"Bob is *he* ."]
    assert len(list(preprocessors.wsc(both, name="", only_true=False))) == 2


@pytest.mark.parametrize(
    "label, expected", [(1.8, "1.8"), (3.33, "3.4"), (5.0, "5.0"), (0.0, "0.0")]
)
def test_stsb_rounds_to_a_fifth(label, expected):
    row = {"sentence1": "A.", "sentence2": "B.", "label": label, "idx": 1}
    assert first(preprocessors.stsb(rows(row), name="stsb")) == {
        "inputs": "stsb sentence1: A. sentence2: B.",
        "targets": expected,
        "idx": 1,
    }
