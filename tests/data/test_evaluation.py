"""Evaluation: predictions in, a task's numbers out."""

import dataclasses

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import batches, evaluation, registry, tasks, vocabularies

LENGTHS = {"inputs": 48, "targets": 8}


@pytest.fixture(scope="module")
def four():
    """Targets awful, great, awful, great."""
    return batches.load_examples(tasks.get("generated_sentiment"), "validation", LENGTHS, limit=4)


def test_texts(four):
    found = evaluation.measure(four, ["awful", "great", "great", "nice"])
    assert found == evaluation.Measured({"accuracy": 50.0}, {})


def test_token_ids_are_decoded_up_to_eos(four):
    tokens = np.zeros((4, 8), np.int32)
    for row, text in enumerate(["awful", "great", "awful", "great"]):
        ids = [byte + 3 for byte in text.encode()]
        tokens[row, : len(ids) + 2] = [*ids, 1, 77]
    assert evaluation.measure(four, tokens).metrics == {"accuracy": 100.0}


def test_the_score_of_each_level(four):
    """Levels 2, 1, 10 and 2; a row without a label is of no level."""
    rows = tuple(
        {**row, "level": level} for row, level in zip(four.raw, (2, 1, 10, 2), strict=True)
    )
    predictions = ["awful", "nice", "awful", "nice"]
    assert evaluation.measure_levels(four, predictions) == {}
    examples = dataclasses.replace(four, raw=rows)
    found = evaluation.measure_levels(examples, predictions)
    assert found == {"1": 0.0, "2": 50.0, "10": 100.0}
    assert list(found) == ["1", "2", "10"]
    assert evaluation.measure(examples, predictions).metrics == {"accuracy": 50.0}
    unlabelled = ({**rows[0], "targets_pretokenized": b"<unk>"}, *rows[1:])
    found = evaluation.measure_levels(dataclasses.replace(four, raw=unlabelled), predictions)
    assert found == {"1": 0.0, "2": 0.0, "10": 100.0}


def test_another_number_of_predictions_is_refused(four):
    with pytest.raises(ValueError, match=r"has 4 examples, but there are 3 predictions"):
        evaluation.measure(four, ["awful"] * 3)


def test_examples_without_raw_rows_are_refused(four):
    with pytest.raises(ValueError, match=r"loaded without their raw rows.*keep_raw=True"):
        evaluation.measure(dataclasses.replace(four, raw=()), ["awful"] * 4)


@pytest.mark.parametrize("change", [{"targets_pretokenized": b"<unk>"}, {"label": -1}])
def test_a_split_without_labels_is_refused(four, change):
    rows = tuple({**row, **change} for row in four.raw)
    with pytest.raises(ValueError, match=r"'validation' of 'generated_sentiment' has no labels"):
        evaluation.measure(dataclasses.replace(four, raw=rows), ["awful"] * 4)


@pytest.fixture
def task_with():
    """Registers a task of two rows with the given metric functions."""
    names = []

    def make(metric_fns):
        def dataset(split, shuffle_files):
            return tf.data.Dataset.from_tensor_slices({"inputs": ["a", "b"], "targets": ["x", "y"]})

        name = f"measured_{len(names)}"
        names.append(name)
        registry.add(
            name,
            registry.TaskInfo("custom", name, None, "validation", ()),
            source=seqio.FunctionDataSource(dataset, splits=["validation"]),
            preprocessors=[],
            postprocess_fn=None,
            metric_fns=metric_fns,
            output_features=vocabularies.family("byt5").output_features,
        )
        return name

    yield make
    for name in names:
        registry.remove(name)


def test_scalars_are_unwrapped_and_texts_kept_apart(task_with):
    def metric(targets, predictions):
        assert targets == ["x", "y"]
        return {
            "plain": np.float32(1.5),
            "scalar": seqio.metrics.Scalar(2),
            "shown": seqio.metrics.Text(textdata=f"{predictions}"),
        }

    (examples,) = evaluation.eval_set(tasks.get(task_with([metric])), "validation", LENGTHS)
    found = evaluation.measure(examples, ["p", "q"])
    assert found.metrics == {"plain": 1.5, "scalar": 2.0}
    assert found.samples == {"shown": "['p', 'q']"}


def test_a_metric_on_scores_is_refused(task_with):
    def metric(targets, scores):
        return {}

    (examples,) = evaluation.eval_set(tasks.get(task_with([metric])), "validation", LENGTHS)
    with pytest.raises(ValueError, match=r"1 metric functions, 0 of them on predictions alone"):
        evaluation.measure(examples, ["p", "q"])


def test_a_task_without_metrics_cannot_be_evaluated(task_with):
    with pytest.raises(ValueError, match=r"has no metric, so it cannot be evaluated"):
        evaluation.eval_set(tasks.get(task_with([])), "validation", LENGTHS)


def test_dev_score():
    assert evaluation.dev_score({"f1": 50.0, "exact_match": 20.0}) == 35.0
    with pytest.raises(ValueError, match=r"there are no metrics"):
        evaluation.dev_score({})


def test_the_majority_floor_is_the_best_constant_answer():
    """Of the first five validation rows three have the one label, two the other."""
    five = batches.load_examples(tasks.get("generated_sentiment"), "validation", LENGTHS, limit=5)
    assert evaluation.majority_floor(five) == evaluation.Measured({"accuracy": 60.0}, {})
