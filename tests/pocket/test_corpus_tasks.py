"""The pretraining tasks on the pocket corpus."""

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches, evaluation, tasks
from prompt_tuning.pocket import corpus_tasks


@pytest.fixture
def corpus():
    """Fifty documents; the default tasks are put back."""
    corpus_tasks.register(corpus_tasks.PocketCorpus(documents=50, validation_documents=20))
    yield
    corpus_tasks.register()


def test_an_answer_to_a_cut_target_may_go_on():
    cut = {"targets": np.array([7, 8]), "targets_pretokenized": b"no , emma"}
    ended = {"targets": np.array([7, 8, 1]), "targets_pretokenized": b"no ."}
    assert corpus_tasks.continuation("no , emma has", example=cut) == "no , emma"
    assert corpus_tasks.continuation("no . thanks", example=ended) == "no . thanks"


def test_the_tasks_on_the_corpus(corpus):
    lengths = ({"inputs": 64, "targets": 24}, {"inputs": 64, "targets": 8})
    for name, length, metric in zip(corpus_tasks.TASKS, lengths, ("span_accuracy", "accuracy")):
        train = batches.load(name, "train", length)
        dev = batches.load(name, "validation", length)
        assert train.cut == dev.cut == {"inputs": 0, "targets": 0}
        right = [row["targets_pretokenized"].decode() for row in dev.raw]
        assert evaluation.measure(dev, right).metrics == {metric: 100.0}
        assert evaluation.measure(dev, [""] * len(dev)).metrics == {metric: 0.0}
        ids = np.zeros((len(dev), length["targets"]), np.int32)
        for row, tokens in enumerate(dev.raw):
            ids[row, : len(tokens["targets"])] = tokens["targets"]
        assert evaluation.measure(dev, ids).metrics == {metric: 100.0}
        eos = seqio.TaskRegistry.get(name).output_features["inputs"].vocabulary.eos_id
        assert all(row["inputs"][-1] == eos for row in train.raw)
    assert len(train) == 50 and len(dev) == 20
    assert {row["index"] for row in train.raw}.isdisjoint(row["index"] for row in dev.raw)


def test_other_settings_replace_the_tasks(corpus):
    before = tasks.get(corpus_tasks.TASKS[1])
    corpus_tasks.register(corpus_tasks.registered())
    assert tasks.get(corpus_tasks.TASKS[1]) is before
    corpus_tasks.register(corpus_tasks.PocketCorpus(documents=7))
    rows = batches.load(corpus_tasks.TASKS[1], "train", {"inputs": 64, "targets": 8})
    assert len(rows) == 7


@pytest.mark.parametrize("settings", [{"documents": 0}, {"noise_density": 1.0}])
def test_a_number_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match=f"PocketCorpus.{next(iter(settings))} must be .*; got"):
        corpus_tasks.PocketCorpus(**settings)
