"""Postprocessors: what of a model's text counts as which answer."""

import pytest

from prompt_tuning.data import postprocessors

CB = ("entailment", "contradiction", "neutral")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("entailment", 0),
        ("neutral", 2),
        ("Neutral", -1),
        (" neutral ", 2),
        ("ｎｅｕｔｒａｌ", 2),
        ("", -1),
        ("<unk>", -1),
    ],
)
def test_class_number_wants_the_label_up_to_its_spelling(text, expected):
    assert postprocessors.class_number(text, labels=CB) == expected


@pytest.mark.parametrize(
    "text, expected",
    [("3.4", 3.4), ("0.0", 0.0), ("high", -1.0), ("", -1.0), ("nan", -1.0), ("-inf", -1.0)],
)
def test_number(text, expected):
    assert postprocessors.number(text) == expected


def test_multirc_groups_targets_by_question():
    example = {"idx/paragraph": 7, "idx/question": 31, "idx/answer": 2}
    labels = ("False", "True")
    target = postprocessors.multirc("True", labels=labels, example=example, is_target=True)
    assert target == {"value": 1, "group": 31}
    assert postprocessors.multirc("maybe", labels=labels, example=example) == {"value": -1}


def test_record_target_is_all_answers_and_the_query():
    example = {"answers": [b"Atkins", b"Susan Atkins"], "idx/passage": 4, "idx/query": 9}
    target = postprocessors.record("Atkins", example=example, is_target=True)
    assert target == {"value": ["Atkins", "Susan Atkins"], "group": (4, 9)}
    assert postprocessors.record("Tate", example=example) == {"value": "Tate"}


@pytest.mark.parametrize(
    "said, noun, expected",
    [
        ("Bob", b"Bob", 1),
        ("THE BOB", b"bob", 1),  # Case and determiners do not matter.
        ("fuzzy bunny", b"the bunny", 1),  # The noun is among the words said,
        ("bunny", b"fuzzy bunny", 1),  # or the words said are in the noun.
        ("fuzzy", b"bunny", 0),
        ("Bob", b"Bob's hat", 0),  # A possessive is someone else's thing.
        ("Bob's hat", b"Bob's hat", 1),
        ("", b"Bob", -1),
        ("  ", b"Bob", -1),
        ("the", b"Bob", -1),
    ],
)
def test_wsc_matches_nouns(said, noun, expected):
    example = {"targets_pretokenized": noun, "label": 1}
    assert postprocessors.wsc(said, example=example) == expected


def test_wsc_target_is_the_label():
    example = {"targets_pretokenized": b"Bob", "label": 0}
    assert postprocessors.wsc("Bob", example=example, is_target=True) == 0


def test_answers():
    assert postprocessors.answers("x", example={"answers": [b"y"]}, is_target=True) == ["y"]
    assert postprocessors.answers("x", example={"answers": [b"y"]}) == "x"


def test_with_example_keeps_the_texts_of_predictions_only():
    example = {"inputs_pretokenized": b"in", "targets_pretokenized": b"neutral"}

    def postprocess(text, **kwargs):
        return postprocessors.class_number(text, labels=CB, **kwargs)

    target = postprocessors.with_example(
        "neutral", postprocess=postprocess, example=example, is_target=True
    )
    assert target == 2
    assert postprocessors.with_example("?", postprocess=postprocess, example=example) == {
        "prediction": -1,
        "prediction_pretokenized": "?",
        "inputs_pretokenized": "in",
        "targets_pretokenized": "neutral",
    }
