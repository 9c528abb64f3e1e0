"""Labels: when two texts are the same one, which can be written, and rows that have none."""

import csv
import functools
import pathlib

import numpy as np
import pytest

from prompt_tuning.data import (
    batches,
    evaluation,
    labels,
    metrics,
    postprocessors,
    registry,
    tasks,
    vocabularies,
)
from prompt_tuning.data.tables import TableTask
from prompt_tuning.data.tensorflow_import import seqio, tf

LIKE_T5 = str(pathlib.Path(__file__).parent / "strangers" / "like_t5.model")  # lacks < { . emoji
LENGTHS = {"inputs": 64, "targets": 32}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("yes", "yes"),
        ("  very\t good\n", "very good"),
        ("a\u00a0b\u3000c", "a b c"),  # no-break and ideographic space
        ("ｙｅｓ", "yes"),
        ("cafe\u0301", "café"),
        ("ﬁne", "fine"),
        ("y\u200be\u200cs\ufeff", "yes"),
        ("Yes", "Yes"),
        ("<=50K", "<=50K"),
        ("\u200b", ""),
    ],
)
def test_the_rule(text, expected):
    assert labels.normalise(text) == expected


def test_the_rule_is_what_a_vocabulary_gives_back():
    vocabulary = vocabularies.get("t5", LIKE_T5)
    for text in ("  very  good ", "ｙｅｓ", "cafe\u0301", "\ufeffyes", "ﬁne"):
        assert vocabulary.decode(vocabulary.encode(text)) == labels.normalise(text)


def test_two_labels_that_are_one_are_refused():
    vocabulary = vocabularies.get("byt5")
    labels.check(("yes", "Yes"), vocabulary, "mine")
    with pytest.raises(ValueError, match=r"task 'mine' 'yes' and ' yes ' are the same label once"):
        labels.check(("yes", "no", " yes "), vocabulary, "mine")
    with pytest.raises(ValueError, match=r"include '\\u200b', which has no visible character"):
        labels.check(("yes", "\u200b"), vocabulary, "mine")


@pytest.mark.parametrize("label", ["<=50K", "{yes}", "good 😀"])
def test_a_label_that_cannot_be_written_is_refused_with_the_way_out(label):
    labels.check((label, "no"), vocabularies.get("byt5"), "mine")
    with pytest.raises(ValueError) as error:
        labels.check((label, "no"), vocabularies.get("t5", LIKE_T5), "mine")
    message = str(error.value)
    assert f"The vocabulary of the task 'mine' cannot write {label!r} (decoded as " in message
    assert "TableTask.label_words = {" in message
    assert "'no'" not in message


def test_a_prompt_does_not_start_at_unknown():
    tokenize = labels.tokenizer(vocabularies.get("t5", LIKE_T5))
    assert tokenize("yes") == [7]
    with pytest.raises(ValueError, match=r"cannot start at '<=50K': .* ' ⁇ =50K'.*CLASS_LABELS"):
        tokenize("<=50K")


def test_the_labels_of_a_column():
    assert labels.of_values(["no", "yes ", "yes", "ｎｏ"]) == ("no", "yes")
    assert labels.of_values(["1", "0.0", "1.0", "0"]) == ("0", "1")
    assert labels.of_values(["1.0", "0.0"]) == ("0.0", "1.0")
    assert labels.of_values(["1.5", "1.50", "01"]) == ("01", "1.5", "1.50")
    assert labels.find("1", ("0.0", "1.0")) == "1.0"
    assert labels.find("1.00", ("1", "1.0")) is None  # both are declared, and it is neither


@pytest.mark.parametrize(
    "cell, expected",
    [
        (None, True),
        ("", True),
        (" ", True),
        ("?", True),
        ("-1", True),
        ("-1.0", True),
        ("x", False),
    ],
)
def test_cells_without_a_label(cell, expected):
    assert labels.is_missing(cell, ("0", "1")) is expected
    assert labels.is_missing("?", ("0", "?")) is labels.is_missing("-1", ("-1", "1")) is False


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def table(tmp_path):
    """A table of (text, label) rows, made into a task that reads the vocabulary like T5's."""

    def make(train, dev=None, test=None, vocabulary="t5", **settings):
        files = {
            f"{split}_file": write(tmp_path / f"{split}.csv", ("text", "label"), rows)
            for split, rows in (("train", train), ("validation", dev or train), ("test", test))
            if rows
        }
        made = TableTask(
            name="mine", target_column="label", vocabulary=vocabulary, **files, **settings
        )
        file = LIKE_T5 if vocabulary == "t5" else None
        return tasks.get("mine", local=[made], vocabulary_file=file)

    return make


def learned(task, split="validation"):
    """The metrics of a model that writes just what it is taught."""
    (examples,) = evaluation.eval_set(task, split, LENGTHS)
    taught = np.array([examples.targets.padded([row], 32)[0] for row in range(len(examples))])
    return evaluation.measure(examples, taught).metrics


@pytest.mark.parametrize(
    "spelling", ["yes ", " yes", "ｙｅｓ", "y\u200bes", "\ufeffyes", "yes\u00a0"]
)
def test_a_perfectly_learned_label_scores_100_however_it_is_spelled(table, spelling, capsys):
    rows = [("sad", "no"), ("glad", spelling), ("happy", "yes"), ("bad", "no")]
    task = table(rows)
    assert task.labels == ("no", "yes")
    assert learned(task) == {"accuracy": 100.0}
    said = f"validation.csv': {spelling!r} is read as the label 'yes' in 1 row\n"
    assert capsys.readouterr().out.count(said) == 1


def test_decomposed_and_doubled_spaces_alone_score_100(table):
    task = table([("a", "cafe\u0301  noir"), ("b", "the")])
    assert task.labels == ("café noir", "the")
    assert learned(task) == {"accuracy": 100.0}


def test_a_number_of_pandas_is_the_number(table):
    task = table([("a", "0"), ("b", "1")], dev=[("a", "0.0"), ("b", "1.0")], vocabulary="byt5")
    assert task.labels == ("0", "1")
    assert learned(task) == {"accuracy": 100.0}


def test_labels_outside_the_vocabulary_need_words(table):
    rows = [("ten hours", "<=50K"), ("fifty hours", ">50K")] * 4
    with pytest.raises(ValueError, match=r"cannot write '<=50K' .* TableTask.label_words = {'<=50"):
        evaluation.eval_set(table(rows), "validation", LENGTHS)
    task = table(rows, label_words={"<=50K": "low", ">50K": "high"})
    assert learned(task) == {"accuracy": 100.0}


def test_label_words_that_are_one_are_refused(table):
    rows = [("a", "0"), ("b", "1")]
    with pytest.raises(ValueError, match=r"The label words of 'mine' 'no' and 'no ' are the same"):
        table(rows, label_words={"0": "no", "1": "no "})
    with pytest.raises(ValueError, match=r"have '1' and '1.0', which are the same value, for 'no'"):
        table(rows, label_words={"1": "no", "0": "no", "1.0": "yes"})
    assert table(rows, label_words={"0": "no", "1": "no", "1.0": "no"}).labels == ("no",)


@pytest.fixture
def own_task():
    """Registers a task of your own: targets, postprocessor; with the vocabulary like T5's."""
    made = []

    def make(targets, postprocess_fn=None, vocabulary_file=LIKE_T5, numbers=None):
        name = f"own_{len(made)}"

        def dataset(split, shuffle_files):
            columns = {"inputs": ["a"] * len(targets), "targets": list(targets)}
            columns |= {"label": numbers} if numbers else {}
            return tf.data.Dataset.from_tensor_slices(columns)

        family = vocabularies.family("t5" if vocabulary_file else "byt5")
        task = registry.make(
            name,
            source=seqio.FunctionDataSource(dataset, splits=["validation"]),
            preprocessors=[],
            postprocess_fn=postprocess_fn,
            metric_fns=[metrics.accuracy],
            output_features=family.output_features,
        )
        seqio.TaskRegistry.add_provider(name, task)
        made.append(name)
        return tasks.get(name, vocabulary_file=vocabulary_file)

    yield make
    for name in made:
        registry.remove(name)


def classes(*words):
    return lambda text, **unused: postprocessors.class_number(text, labels=words)


def test_own_tasks_with_labels_get_the_same_check(own_task):
    known = functools.partial(postprocessors.class_number, labels=["<=50K", "high"])
    task = own_task(["<=50K", "high"], known)
    assert task.labels == ("<=50K", "high")
    with pytest.raises(ValueError, match=r"cannot write '<=50K'"):
        evaluation.eval_set(task, "validation", LENGTHS)


def test_own_tasks_whose_labels_are_hidden_are_checked_by_their_targets(own_task):
    task = own_task(["<=50K", "high"] * 4, classes("<=50K", "high"))
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    with pytest.raises(ValueError, match=r"task 'own_0' cannot write '<=50K' \(decoded as"):
        evaluation.check_targets(examples)


def test_free_text_that_cannot_be_written_is_mentioned(own_task):
    task = own_task(["happy {a}", "sad", "glad", "bad"])
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    note = evaluation.check_targets(examples)
    assert note.startswith("1 of 4 different targets of own_0 cannot be written exactly")
    assert "'happy {a}' (decoded as 'happy  ⁇ a ⁇ ')" in note
    (examples,) = evaluation.eval_set(own_task(["sad", "glad"]), "validation", LENGTHS)
    assert evaluation.check_targets(examples) is None


PARTLY = [("nice food", "1"), ("cold food", "0"), *[("nice food", "")] * 8]
TRAIN = [("nice", "1"), ("bad", "0")]


@pytest.mark.parametrize("missing", ["", " ", "?", "-1"])
@pytest.mark.parametrize("first", [False, True])
def test_rows_without_a_label_never_count(table, missing, first):
    """The model writes what is not a label everywhere: accuracy 0, not 80."""
    rows = [(text, label or missing) for text, label in PARTLY]
    task = table(TRAIN, test=rows[::-1] if first else rows, vocabulary="byt5")
    (examples,) = evaluation.eval_set(task, "test", LENGTHS)
    assert examples.labelled.sum() == 2
    assert "8 of 10 rows have no label and are left out of the metrics" in examples.report()
    assert evaluation.measure(examples, ["dunno"] * 10).metrics == {"accuracy": 0.0}
    right = ["1"] * 10 if first else ["1", "1", *[""] * 8]
    assert evaluation.measure(examples, right).metrics == {"accuracy": 50.0}
    assert evaluation.majority_floor(examples).metrics == {"accuracy": 50.0}


@pytest.mark.parametrize("missing", ["", "?", "-1"])
def test_no_label_at_all_is_no_score(table, missing):
    task = table(TRAIN, test=[("nice", missing)] * 3, vocabulary="byt5")
    with pytest.raises(ValueError, match=r"The split 'test' of 'mine' has no labels"):
        evaluation.eval_set(task, "test", LENGTHS)
    assert len(batches.load_examples(task, "test", LENGTHS)) == 3  # for inference


def test_minus_one_is_a_label_if_the_training_file_has_it(table):
    task = table([("a", "-1"), ("b", "1")], vocabulary="byt5")
    assert task.labels == ("-1", "1")
    assert learned(task) == {"accuracy": 100.0}


def test_the_missing_labels_of_tfds_never_count(own_task):
    """TFDS writes -1, and the target is what the preprocessor makes of it."""
    task = own_task(["yes", "no", "no"], classes("no", "yes"), None, numbers=[1, 0, -1])
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    assert examples.labelled.tolist() == [True, True, False]
    assert evaluation.measure(examples, ["yes", "x", "no"]).metrics == {"accuracy": 50.0}


def test_a_target_that_is_no_label_never_equals_a_prediction_that_is_none(own_task):
    known = functools.partial(postprocessors.class_number, labels=("no", "yes"))
    task = own_task(["yes", "maybe"], known, None)
    (examples,) = evaluation.eval_set(task, "validation", LENGTHS)
    assert evaluation.measure(examples, ["dunno", "dunno"]).metrics == {"accuracy": 0.0}
