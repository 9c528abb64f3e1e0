"""The pretraining tasks on the pocket corpus."""

import numpy as np
import pytest

from prompt_tuning.data import batches, evaluation, tasks
from prompt_tuning.pocket import corpus_tasks

CORPUS = corpus_tasks.PocketCorpus(documents=50, validation_documents=20)


def test_an_answer_to_a_cut_target_may_be_longer():
    cut = {"targets": np.array([7, 8]), "targets_pretokenized": b"no , emma"}
    ended = {"targets": np.array([7, 8, 1]), "targets_pretokenized": b"no ."}
    assert corpus_tasks.continuation("no , emma has", example=cut) == "no , emma"
    assert corpus_tasks.continuation("no . thanks", example=ended) == "no . thanks"


def test_the_tasks_on_the_corpus():
    lengths = ({"inputs": 64, "targets": 24}, {"inputs": 64, "targets": 8})
    for name, length, metric in zip(corpus_tasks.TASKS, lengths, ("span_accuracy", "accuracy")):
        task = tasks.get(name, local=[CORPUS])
        train = batches.load_examples(task, "train", length)
        dev = batches.load_examples(task, "validation", length)
        assert train.cut == dev.cut == {"inputs": 0, "targets": 0}
        right = [row["targets_pretokenized"].decode() for row in dev.raw]
        assert evaluation.measure(dev, right).metrics == {metric: 100.0}
        assert evaluation.measure(dev, [""] * len(dev)).metrics == {metric: 0.0}
        ids = np.zeros((len(dev), length["targets"]), np.int32)
        for row, tokens in enumerate(dev.raw):
            ids[row, : len(tokens["targets"])] = tokens["targets"]
        assert evaluation.measure(dev, ids).metrics == {metric: 100.0}
        eos = task.vocabulary.eos_id
        assert all(row["inputs"][-1] == eos for row in train.raw)
    assert len(train) == 50 and len(dev) == 20
    assert {row["index"] for row in train.raw}.isdisjoint(row["index"] for row in dev.raw)


def test_other_settings_are_another_task_and_change_no_registered_one():
    name, lengths = corpus_tasks.TASKS[1], {"inputs": 64, "targets": 8}
    seven = tasks.get(name, local=[corpus_tasks.PocketCorpus(documents=7)])
    assert seven == tasks.get(name, local=[corpus_tasks.PocketCorpus(documents=7)])
    assert seven != tasks.get(name, local=[CORPUS])
    assert len(batches.load_examples(seven, "train", lengths)) == 7
    assert tasks.get(name).seqio_task is tasks.registered(name)


@pytest.mark.parametrize("settings", [{"documents": 0}, {"noise_density": 1.0}])
def test_a_number_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match=f"PocketCorpus.{next(iter(settings))} must be .*; got"):
        corpus_tasks.PocketCorpus(**settings)
