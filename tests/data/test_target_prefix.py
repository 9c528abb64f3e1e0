"""Targets that begin with a sentinel: what is written, and what the metrics see of it."""

import pytest

from prompt_tuning.data import batches, evaluation, tasks
from prompt_tuning.data.target_prefix import with_prefix
from prompt_tuning.pocket import glue_tasks, register

register.register_tasks()
SENTINEL = "<extra_id_0>"
LENGTHS = {"inputs": 128, "targets": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for task in ("cb", "multirc", "record", "wsc"):
        glue_tasks.make(task, data_dir=folder)
    return folder


def named(member, data):
    (name,) = (
        name
        for name in tasks.task_names()
        if name.startswith(f"taskless_pocket_glue_{member}_v") and not name.endswith("_examples")
    )
    return tasks.get(name, data_dir=data)


def targets(examples):
    return [row["targets_pretokenized"].decode() for row in examples.raw]


@pytest.mark.parametrize("member", ["cb", "multirc", "record", "wsc_and_dev"])
def test_targets_have_it_and_metrics_do_not_see_it(data, member):
    plain = named(member, data)
    task = with_prefix(plain, SENTINEL)
    for split in ("train", "validation"):
        pairs = zip(tasks.parts(plain, split), tasks.parts(task, split), strict=True)
        for part, prefixed in pairs:
            own = batches.load_examples(part, split, LENGTHS)
            examples = batches.load_examples(prefixed, split, LENGTHS)
            assert targets(examples) == [f"{SENTINEL} {text}" for text in targets(own)]
            (sentinel,) = task.vocabulary.encode(SENTINEL)
            assert {int(row[0]) for row in examples.targets} == {sentinel}
            assert [row[1:].tolist() for row in examples.targets] == [
                row.tolist() for row in own.targets
            ]
            if split == "validation":
                right = evaluation.measure(examples, targets(examples))
                assert right.metrics == evaluation.measure(own, targets(own)).metrics
                without = evaluation.measure(examples, targets(own))
                assert without.metrics == right.metrics
                wrong = evaluation.measure(examples, [SENTINEL] * len(examples))
                assert max(wrong.metrics.values()) < min(right.metrics.values())


def test_labels_begin_with_it(data):
    task = with_prefix(named("cb", data), SENTINEL)
    assert task.labels == tuple(
        f"{SENTINEL} {label}" for label in ("entailment", "contradiction", "neutral")
    )
    examples = batches.load_examples(task, "validation", LENGTHS)
    assert examples.labelled.all()
    assert evaluation.majority_floor(examples).metrics["accuracy"] == pytest.approx(100 / 3)


def test_it_is_another_task(data):
    plain = named("cb", data)
    assert with_prefix(plain, SENTINEL) == with_prefix(plain, SENTINEL) != plain
    assert with_prefix(plain, "<extra_id_1>") != with_prefix(plain, SENTINEL)


def test_what_cannot_have_it_is_refused(data):
    with pytest.raises(ValueError, match=r"pocket_corpus_prefix_lm' makes tokens without one"):
        with_prefix(tasks.get("pocket_corpus_prefix_lm"), SENTINEL)
    with pytest.raises(ValueError, match=r"cannot write Run.target_prefix, 'é'"):
        with_prefix(named("cb", data), "é")
