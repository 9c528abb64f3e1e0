"""Metrics against numbers worked out by hand."""

import pytest
import seqio

from prompt_tuning.data import metrics


def test_accuracy_counts_illegal_predictions_as_wrong():
    assert metrics.accuracy([0, 1, 1, 0], [0, -1, 1, 1]) == {"accuracy": 50.0}


def test_f1_turns_an_illegal_prediction_into_the_wrong_class():
    # Class 1: two hits, the -1 on a 1 is a miss, the -1 on a 0 is a false alarm: 4 / (3 + 3).
    assert metrics.f1([1, 1, 1, 0], [1, 1, -1, -1])["f1"] == pytest.approx(100 * 4 / 6)


def test_f1_is_zero_when_class_1_is_nowhere():
    assert metrics.f1([0, 0], [0, 0]) == {"f1": 0.0}


def test_mean_3class_f1():
    # Class 0: 2*2/(2+3), class 1: 2*1/(2+1), class 2: nothing right.
    value = metrics.mean_3class_f1([0, 0, 1, 1, 2], [0, 0, 1, 0, -1])["mean_3class_f1"]
    assert value == pytest.approx(100 * (4 / 5 + 2 / 3 + 0) / 3)


def test_mean_3class_f1_divides_by_three_even_without_a_third_class():
    assert metrics.mean_3class_f1([0, 1], [0, 1])["mean_3class_f1"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    "predictions, expected",
    [
        ([0, 0, 1, 1], 100.0),
        ([1, 1, 0, 0], -100.0),
        ([1, 1, 1, 1], 0.0),  # Always the same: no correlation.
        ([0, 1, 1, 1], 57.73502691896258),  # (2*1 - 0*1) / sqrt(3*2*2*1) = 1 / sqrt(3)
    ],
)
def test_matthews(predictions, expected):
    value = metrics.matthews_corrcoef([0, 0, 1, 1], predictions)["matthews_corrcoef"]
    assert value == pytest.approx(expected)


def test_matthews_treats_illegal_as_a_third_class():
    # Gorodkin's form of it: covariances 3 of sqrt(4 * 5).
    value = metrics.matthews_corrcoef([0, 0, 1, 1], [0, -1, 1, 1])["matthews_corrcoef"]
    assert value == pytest.approx(100 * 3 / 20**0.5)


def test_pearson_and_spearman():
    targets, predictions = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 10.0]
    # Covariance sum 14, squared sums 5 and 50: 14 / sqrt(250).
    pearson = metrics.pearson_corrcoef(targets, predictions)["pearson_corrcoef"]
    assert pearson == pytest.approx(100 * 14 / 250**0.5)
    assert metrics.spearman_corrcoef(targets, predictions) == {"spearman_corrcoef": 100.0}


def test_correlation_of_a_constant_is_zero_not_nan():
    assert metrics.pearson_corrcoef([1.0, 2.0], [3.0, 3.0]) == {"pearson_corrcoef": 0.0}
    assert metrics.spearman_corrcoef([1.0, 2.0], [3.0, 3.0]) == {"spearman_corrcoef": 0.0}


@pytest.mark.parametrize(
    "answers, said, em, f1",
    [
        (["The Broncos"], "broncos!", 100.0, 100.0),
        (["Denver Broncos"], "the Broncos", 0.0, 100 * 2 / 3),
        (["Rome", "Roma"], "Roma", 100.0, 100.0),
        (["Rome"], "", 0.0, 0.0),
        (["an apple a day"], "apple day", 100.0, 100.0),
        (["anthem"], "the", 0.0, 0.0),  # Only whole articles go.
    ],
)
def test_squad(answers, said, em, f1):
    assert metrics.squad([answers], [said]) == pytest.approx({"em": em, "f1": f1})


def test_record_counts_a_query_once():
    targets = [
        {"value": ["Rome", "Roma"], "group": (0, 0)},
        {"value": ["Rome", "Roma"], "group": (0, 0)},
        {"value": ["Bonn"], "group": (0, 1)},
    ]
    predictions = [{"value": "Roma"}, {"value": "Oslo"}, {"value": "Paris"}]
    assert metrics.record(targets, predictions) == {"em": 50.0, "f1": 50.0}


def test_multirc():
    targets = [
        {"value": 1, "group": 5},
        {"value": 0, "group": 5},
        {"value": 1, "group": 6},
        {"value": 1, "group": 6},
    ]
    predictions = [{"value": 1}, {"value": 0}, {"value": 1}, {"value": -1}]
    # Question 5 is all right, question 6 is not; over all answers 2 hits, 1 miss.
    assert metrics.multirc_exact_match(targets, predictions) == {"exact_match": 50.0}
    assert metrics.multirc_f1(targets, predictions)["f1"] == pytest.approx(80.0)


def test_different_numbers_are_refused():
    with pytest.raises(ValueError, match=r"got 2 targets, 1 predictions"):
        metrics.accuracy([0, 1], [0])
    with pytest.raises(ValueError, match=r"at least one; got 0 targets, 0 predictions"):
        metrics.accuracy([], [])


def _prediction(value, text):
    return {
        "prediction": value,
        "prediction_pretokenized": text,
        "inputs_pretokenized": f"input {text}",
        "targets_pretokenized": "yes",
    }


def test_samples_show_some_examples_and_some_wrong_ones():
    targets = [1, 1]
    predictions = [_prediction(1, "yes"), _prediction(0, "no")]
    shown = metrics.samples(targets, predictions, task="boolq")
    assert isinstance(shown["boolq samples"], seqio.metrics.Text)
    assert "prediction: yes" in shown["boolq samples"].textdata
    wrong = shown["boolq negative samples"].textdata
    assert wrong == "example: input no\n\ntarget: yes\n\nprediction: no"


def test_samples_know_that_any_right_answer_is_right():
    targets = [{"value": ["Rome", "Roma"], "group": (0, 0)}]
    shown = metrics.samples(targets, [_prediction({"value": "Roma"}, "Roma")], task="record")
    assert shown["record negative samples"].textdata == ""


def test_on_predictions_unwraps():
    wrapped = metrics.on_predictions([1], [_prediction(1, "yes")], metric=metrics.accuracy)
    assert wrapped == {"accuracy": 100.0}
