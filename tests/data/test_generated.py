"""The generated tasks: balanced, disjoint, short and the same everywhere."""

import functools
import hashlib

import pytest

from prompt_tuning.data import batches, generated, tasks

LENGTHS = {"inputs": 48, "targets": 8}


@functools.cache
def texts(name, split):
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in batches.load_examples(tasks.get(name), split, LENGTHS).raw
    ]


@pytest.mark.parametrize("split, count", [("train", 2000), ("validation", 200)])
def test_sizes_and_balance(split, count):
    labels = [label for _, label in texts("generated_sentiment", split)]
    assert len(labels) == count
    assert labels.count("great") == labels.count("awful") == count // 2


def test_no_sentence_occurs_twice():
    sentences = [
        text for split in ("train", "validation") for text, _ in texts("generated_sentiment", split)
    ]
    assert len(set(sentences)) == len(sentences) == 2200


def test_everything_fits():
    for split in ("train", "validation"):
        for name in generated.LABEL_WORDS:
            examples = batches.load_examples(tasks.get(name), split, LENGTHS)
            assert examples.cut == {"inputs": 0, "targets": 0}
            assert examples.longest["inputs"] <= 48 and examples.longest["targets"] <= 8


def test_the_word_decides_the_label():
    for text, label in texts("generated_sentiment", "validation"):
        word = text.split()[-2]
        assert (word in generated.GOOD) == (label == "great")
        assert (word in generated.BAD) == (label == "awful")


def test_the_other_task_has_the_same_sentences_and_other_words():
    words = {"awful": "false", "great": "true"}
    expected = [(text, words[label]) for text, label in texts("generated_sentiment", "train")]
    assert texts("generated_sentiment_true_false", "train") == expected


def test_the_same_rows_on_every_machine():
    rows = texts("generated_sentiment", "train")
    assert rows[:2] == [
        ("the old dance was really dreary .", "awful"),
        ("the old dance was really warm .", "great"),
    ]
    digest = hashlib.sha256("\n".join(text for text, _ in rows).encode()).hexdigest()
    assert digest[:16] == "3c28bd1067e09f18"
