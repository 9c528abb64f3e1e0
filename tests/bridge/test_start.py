"""Tests of bridge/start.py: a new prompt starts where our own run of the same seed starts."""

import functools

import jax
import numpy as np
import pytest

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

import tiny_runs

from prompt_tuning import trees
from prompt_tuning.bridge import start, task_vocabulary
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.inference.frozen import FrozenT5, load_parameters
from prompt_tuning.prompts import files, initializers
from prompt_tuning.prompts.metadata import PromptMetadata
from prompt_tuning.training import setup

SHAPE = (4, tiny_runs.MODEL.emb_dim)
LABELS = functools.partial(initializers.from_class_labels, labels=("awful", "great"))
TEXT = functools.partial(initializers.from_embedded_string, text="so")


@pytest.fixture(scope="module")
def params():
    return load_parameters(tiny_runs.MODEL, "random:3")


@pytest.fixture(scope="module")
def checkpoint(params, tmp_path_factory):
    return t5x_native.write(tmp_path_factory.mktemp("frozen"), params, 7)


@pytest.fixture(scope="module")
def vocabulary():
    return task_vocabulary.vocabulary(task="generated_sentiment", module="prompt_tuning.data.tasks")


@pytest.mark.parametrize(
    "initializer",
    [LABELS, TEXT, initializers.from_sampled_vocabulary, initializers.from_random_uniform],
    ids=["class_labels", "embedded_string", "sampled_vocabulary", "random_uniform"],
)
def test_it_is_the_prompt_of_our_own_run(params, checkpoint, vocabulary, initializer):
    run = tiny_runs.make_run("unused", prompt_initializer=initializer, seed=11)
    (ours,) = setup.initial_values(run, FrozenT5(tiny_runs.MODEL, params, vocabulary)).values()
    make = start.new_prompt(
        initializer=initializer, checkpoint_path=checkpoint, vocabulary=vocabulary, seed=11
    )
    theirs = jax.jit(lambda key: make(key, SHAPE))(jax.random.key(0))  # T5X compiles it
    np.testing.assert_array_equal(theirs, ours)


def test_labels_are_rows_of_the_checkpoints_table(params, checkpoint, vocabulary):
    make = start.new_prompt(
        initializer=LABELS, checkpoint_path=checkpoint, vocabulary=vocabulary, seed=0
    )
    letters = np.array([ord(letter) + 3 for letter in "awful"])  # ByT5's ids
    expected = np.asarray(params["token_embedder/embedding"])[letters].mean(axis=0)
    np.testing.assert_allclose(make(None, SHAPE)[0], expected, rtol=1e-6)


def test_a_prompt_file_needs_no_checkpoint(tmp_path, vocabulary):
    np.save(tmp_path / "mine.npy", np.full(SHAPE, 0.25, np.float32))
    make = start.new_prompt(
        initializer=functools.partial(initializers.from_file, path=str(tmp_path / "mine.npy")),
        checkpoint_path="there is none",
        vocabulary=vocabulary,
    )
    np.testing.assert_array_equal(make(None, SHAPE), np.full(SHAPE, 0.25))


def test_another_table_takes_the_checkpoints_place(tmp_path, vocabulary):
    np.save(tmp_path / "table.npy", np.full((384, SHAPE[1]), 2.0, np.float32))
    make = start.new_prompt(
        initializer=LABELS,
        checkpoint_path="there is none",
        vocabulary=vocabulary,
        embedding_file=str(tmp_path / "table.npy"),
    )
    np.testing.assert_array_equal(make(None, SHAPE), np.full(SHAPE, 2.0))


def test_the_checkpoint_of_another_width_is_refused(checkpoint, vocabulary):
    make = start.new_prompt(initializer=LABELS, checkpoint_path=checkpoint, vocabulary=vocabulary)
    with pytest.raises(ValueError, match="has width 16, the model 8. Name the part of gin/models"):
        make(None, (4, 8))


def save_prompt(path, fingerprint):
    metadata = PromptMetadata(model="tiny", model_fingerprint=fingerprint, length=4, width=SHAPE[1])
    return files.save(path, np.full(SHAPE, 0.25, np.float32), metadata)[0]


def test_a_given_prompt_is_used_with_its_own_model(tmp_path, params, checkpoint):
    path = save_prompt(tmp_path / "mine", trees.fingerprint(params))
    make = start.given_prompt(path=path, checkpoint_path=checkpoint, config=tiny_runs.MODEL)
    made = jax.jit(lambda key: make(key, SHAPE))(jax.random.key(0))
    np.testing.assert_array_equal(made, np.full(SHAPE, 0.25))


def test_a_prompt_of_another_model_is_refused_unless_allowed(tmp_path, checkpoint):
    path = save_prompt(tmp_path / "mine", "0123456789abcdef")
    given = {"path": path, "checkpoint_path": checkpoint, "config": tiny_runs.MODEL}
    with pytest.raises(ValueError, match="was made for tiny with fingerprint 0123456789abcdef"):
        start.given_prompt(**given)(None, SHAPE)
    allowed = start.given_prompt(**given, allow_other_model=True)
    np.testing.assert_array_equal(allowed(None, SHAPE), np.full(SHAPE, 0.25))


def test_a_given_prompt_of_another_length_is_refused(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros((3, SHAPE[1]), np.float32))
    make = start.given_prompt(
        path=str(tmp_path / "mine.npy"), checkpoint_path="not read", config=tiny_runs.MODEL
    )
    with pytest.raises(ValueError, match="Set PROMPT_LENGTH=3 for its length"):
        make(None, SHAPE)


def test_the_tasks_vocabulary_is_its_own(vocabulary):
    assert vocabulary.encode("hi") == [107, 108]
    with pytest.raises(ValueError, match="There is no task 'generated_sentimen'. Did you mean"):
        task_vocabulary.vocabulary(task="generated_sentimen", module="prompt_tuning.data.tasks")


def test_a_task_without_its_data_is_refused_before_t5x_looks_for_it(tmp_path):
    import seqio

    try:
        with pytest.raises(ValueError, match="which is not in the data folder"):
            task_vocabulary.vocabulary(task="super_glue_cb_v102", data_dir=str(tmp_path))
    finally:
        seqio.set_tfds_data_dir_override(None)


def test_a_vocabulary_file_is_for_vocabularies_that_read_one(tmp_path):
    with pytest.raises(ValueError, match="VOCABULARY_FILE names"):
        task_vocabulary.vocabulary(
            task="generated_sentiment", vocabulary_file=str(tmp_path / "x.model")
        )
