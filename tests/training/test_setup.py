"""Tests of prompt_tuning/training/setup.py: what is found wrong before anything compiles."""

import dataclasses
import functools
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.data import batches, tasks, vocabularies
from prompt_tuning.inference import loading, weights
from prompt_tuning.inference.frozen import FrozenT5, load_parameters, load_t5, transformer
from prompt_tuning.prompts import files
from prompt_tuning.prompts.initializers import (
    from_class_labels,
    from_embedded_string,
    from_file,
    from_random_uniform,
)
from prompt_tuning.prompts.metadata import PromptMetadata
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.training import loop, setup

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def t5(quick):
    params = load_parameters(tiny_runs.MODEL, "random")
    return FrozenT5(tiny_runs.MODEL, params, vocabularies.family("byt5").vocabulary)


def initial_prompt(run, t5):
    return setup.initial_values(run, t5)[PROMPT_PATH]


def make_run(**changes):
    return tiny_runs.make_run("/nowhere", **changes)


def test_the_prompt_depends_on_the_seed_alone(t5):
    def drawn(seed):
        run = make_run(prompt_initializer=from_random_uniform, seed=seed)
        return np.array(initial_prompt(run, t5))

    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).all()
    expected = from_random_uniform(jax.random.fold_in(jax.random.key(1), 0), (4, 16))
    np.testing.assert_array_equal(drawn(1), expected)
    assert (setup.prompt_rng(1) != setup.dropout_rng(1)).all()


def test_the_prompt_starts_from_the_models_embeddings(t5):
    """'ab' is bytes 97 and 98, ids 100 and 101; a label's vector is the mean of its tokens."""
    start = functools.partial(from_class_labels, labels=["ab", "c"])
    prompt = initial_prompt(make_run(prompt_initializer=start), t5)
    table = np.array(t5.params["token_embedder/embedding"])
    np.testing.assert_allclose(prompt[0], (table[100] + table[101]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(prompt[1], table[102])


@pytest.mark.parametrize(
    "start",
    [
        functools.partial(from_class_labels, labels=["yes", "<=50K"]),
        functools.partial(from_embedded_string, text="<=50K"),
    ],
    ids=["class_labels", "embedded_string"],
)
def test_a_prompt_does_not_start_at_unknown(t5, start):
    file = Path(__file__).parents[1] / "data" / "strangers" / "like_t5.model"
    vocabulary = vocabularies.get("t5", file)  # lacks '<'
    with pytest.raises(ValueError, match="The prompt cannot start at '<=50K': .* lacks a char"):
        initial_prompt(
            make_run(prompt_initializer=start), dataclasses.replace(t5, vocabulary=vocabulary)
        )


def test_an_embedding_file_replaces_the_models_table(t5, tmp_path):
    table = np.arange(384 * 16, dtype=np.float32).reshape(384, 16)
    np.save(tmp_path / "table.npy", table)
    start = functools.partial(from_class_labels, labels=["c"])
    run = make_run(prompt_initializer=start, embedding_file=str(tmp_path / "table.npy"))
    np.testing.assert_array_equal(initial_prompt(run, t5)[0], table[102])

    np.save(tmp_path / "wide.npy", np.ones((384, 32), np.float32))
    run = make_run(embedding_file=str(tmp_path / "wide.npy"))
    with pytest.raises(ValueError, match=r"must have shape \(V, 16\) .* got \(384, 32\)"):
        initial_prompt(run, t5)
    run = make_run(embedding_file=str(tmp_path / "missing.npy"))
    with pytest.raises(ValueError, match="missing.npy cannot be read"):
        initial_prompt(run, t5)
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    run = make_run(embedding_file=str(tmp_path / "pickled.npy"))
    with pytest.raises(ValueError, match="pickled.npy cannot be read"):
        initial_prompt(run, t5)


def test_parameters_are_split_by_the_patterns(t5):
    parted = setup.split_parameters(make_run(), t5)
    assert parted.trainable.keys() == {PROMPT_PATH}
    assert parted.frozen.keys() == t5.params.keys()
    assert all(parted.frozen[path] is leaf for path, leaf in t5.params.items()), "no copies"

    parted = setup.split_parameters(make_run(trainable=(".*/mlp/wo/kernel",)), t5)
    assert parted.trainable.keys() == {
        "encoder/layers_0/mlp/wo/kernel",
        "decoder/layers_0/mlp/wo/kernel",
    }
    assert PROMPT_PATH in parted.frozen

    parted = setup.split_parameters(make_run(prompt_length=None, trainable=(".*",)), t5)
    assert (parted.trainable.keys(), parted.frozen) == (t5.params.keys(), {})


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"trainable": (PROMPT_PATH, ".*/lora")}, ".*/lora"),
        ({"trainable": ("mlp",)}, "mlp"),  # a pattern matches whole paths
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(t5, changes, pattern):
    message = f"The pattern {pattern!r} matches no parameter"
    with pytest.raises(ValueError, match=re.escape(message)):
        setup.split_parameters(make_run(**changes), t5)


def test_a_run_in_which_nothing_trains_is_refused(t5):
    with pytest.raises(ValueError, match="Nothing trains in this run: it has no prompt and Run.t"):
        setup.split_parameters(make_run(prompt_length=None), t5)


def test_what_trains_is_kept_in_float32(t5):
    coarse = FrozenT5(
        t5.config, load_parameters(t5.config, "random", dtype="bfloat16"), t5.vocabulary
    )
    parted = setup.split_parameters(make_run(), coarse)
    assert parted.trainable[PROMPT_PATH].dtype == np.float32
    assert {str(leaf.dtype) for leaf in parted.frozen.values()} == {"bfloat16"}
    with pytest.raises(ValueError, match="kept in float32, but .* is bfloat16. Set Run.param_dty"):
        setup.split_parameters(make_run(trainable=(".*",)), coarse)


def test_the_task_is_made_available(tmp_path, monkeypatch):
    assert loading.prepare_task(make_run()).name == "generated_sentiment"
    with pytest.raises(ValueError, match="no task 'generated_sentimnt'. Did you mean generated"):
        loading.prepare_task(make_run(task="generated_sentimnt"))
    with pytest.raises(ValueError, match="task module 'nowhere.tasks' cannot be imported"):
        loading.prepare_task(make_run(task_module="nowhere.tasks"))
    (tmp_path / "my_tasks.py").write_text("import os\nos.environ['MY_TASKS'] = 'imported'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MY_TASKS", "")
    loading.prepare_task(make_run(task_module="my_tasks"))
    assert os.environ["MY_TASKS"] == "imported"
    with pytest.raises(ValueError, match="There is no data folder '/nowhere/data'"):
        loading.prepare_task(make_run(data_dir="/nowhere/data"))


def test_a_task_of_another_models_vocabulary_is_refused(monkeypatch):
    monkeypatch.setattr(weights, "load", lambda *_, **__: weights.Weights({}, None))
    run = make_run(model=dataclasses.replace(tiny_runs.MODEL, vocab_size=200))
    with pytest.raises(ValueError, match="The vocabulary has 259 ids, but tiny_byt5 embeds 200"):
        loading.load_t5(run, tasks.get("generated_sentiment"))


@pytest.mark.parametrize("name", ["start.npy", "~/start.npy"])
def test_a_prompt_file_that_training_does_not_read_is_named(name, tmp_path):
    run = tiny_runs.make_run(tmp_path, prompt_file=name)
    assert "start.npy' is not read in training; add" in setup.unread_prompt_file(run)
    start = functools.partial(from_file, path=name)
    run = tiny_runs.make_run(tmp_path, prompt_file=name, prompt_initializer=start)
    assert setup.unread_prompt_file(run) is None
    assert setup.unread_prompt_file(tiny_runs.make_run(tmp_path)) is None


def test_the_prompt_of_a_run_is_its_best_or_the_one_it_names(t5, tmp_path):
    run = tiny_runs.make_run(tmp_path)
    with pytest.raises(ValueError, match=f"There is no trained prompt in {tmp_path}. Train first"):
        loading.read_added(run, t5)
    about = PromptMetadata("tiny_byt5", t5.fingerprint, length=4, width=16)
    files.save(tmp_path / "prompts/best", np.full((4, 16), 1.0, np.float32), about)
    files.save(tmp_path / "mine", np.full((4, 16), 2.0, np.float32), about)
    assert loading.read_added(run, t5).arrays[PROMPT_PATH][0, 0] == 1.0
    named = tiny_runs.make_run(tmp_path, prompt_file=str(tmp_path / "mine.npy"))
    assert loading.read_added(named, t5).arrays[PROMPT_PATH][0, 0] == 2.0
    untuned = tiny_runs.make_run(tmp_path, prompt_length=None)
    assert loading.read_added(untuned, t5)[1:] == ({}, None)
    (tmp_path / "prompts/best.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="cannot be read as .safetensors"):
        loading.read_added(run, t5)


def test_no_frozen_array_is_copied_for_the_model(t5):
    model, params = t5.with_prompt(np.ones((4, 16), np.float32))
    flat = trees.flatten(params)
    assert all(flat[path] is leaf for path, leaf in t5.params.items())


def packed_run(tmp_path, **changes):
    return tiny_runs.make_run(tmp_path, packing=True, **changes)


def test_a_packed_run_trains_with_dropout_and_says_so(tmp_path):
    done = tiny_runs.train(packed_run(tmp_path))
    assert "packed into " in done.printed and " of 56 positions and " in done.printed
    steps = [line for line in tiny_runs.read_metrics(tmp_path) if line["split"] == "train"]
    assert steps[-1]["step"] == 6 and np.isfinite(steps[-1]["loss"])


def test_what_cannot_be_packed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Run.packing puts several examples into a row, and"):
        packed_run(tmp_path, loss_normalizing_factor="AVERAGE_PER_SEQUENCE")
    with pytest.raises(ValueError, match="exclude each other"):
        packed_run(tmp_path, pad_to_full_length=True)
    with pytest.raises(ValueError, match="a prompt behind the input has others; set prompt_tuning"):
        loop.train_run(packed_run(tmp_path, prompt_position="suffix"))


def test_rows_that_do_not_divide_the_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="microbatch_rows must divide BATCH_SIZE, 8; got 3."):
        tiny_runs.make_run(tmp_path, microbatch_rows=3)
    with pytest.raises(ValueError, match="Unknown Run.layers 'scanned', did you mean 'scan'?"):
        tiny_runs.make_run(tmp_path, layers="scanned")


def step_line(run, t5):
    task = tasks.get(run.task)
    lengths = run.task_feature_lengths
    stream = batches.train_batches(task, "train", lengths, run.batch_size, run.seed, limit=50)
    model = transformer(run.model, run.method.hooks)
    return setup.step_inputs(run, stream, model)[1].split("; ")[1]


def test_how_a_step_is_cut_and_padded(t5, monkeypatch):
    """A suffix is behind the padding, so it trains on full lengths, as T5X does."""
    assert step_line(make_run(), t5) == "the whole batch at once, inputs padded to 40 tokens"
    assert step_line(make_run(microbatch_rows=8, pad_to_full_length=True), t5) == (
        "the whole batch at once, inputs padded to 48 tokens"
    )
    suffix = make_run(microbatch_rows=4, prompt_position="suffix")
    assert step_line(suffix, t5) == "2 micro-batches of 4 rows, inputs padded to 48 tokens"
    wide = dataclasses.replace(tiny_runs.MODEL, mlp_dim=200_000)
    assert step_line(make_run(model=wide), t5).startswith(
        "the whole batch at once"
    )  # 8 x 35 places
    monkeypatch.setattr(setup, "CPU_POSITIONS", 64)
    cut = step_line(make_run(model=wide), t5)
    assert cut.startswith("4 micro-batches of 2 rows, inputs padded to ")


def test_a_model_of_int8_does_not_train(t5):
    coarse = load_t5(t5.config, "random", t5.vocabulary, dtype="int8")
    parted = setup.split_parameters(make_run(), coarse)
    assert parted.trainable.keys() == {PROMPT_PATH}
    for pattern in (".*", ".*/kernel_scale", ".*/encoder_norm/scale"):
        with pytest.raises(ValueError, match="keeps this model rounded to int8. Set Run.param_d"):
            setup.split_parameters(make_run(trainable=(pattern,)), coarse)


def test_a_batch_in_tokens_is_said_at_the_start(tmp_path):
    """385 / 48 = 8, as the other runs here have."""
    run = tiny_runs.make_run(
        tmp_path / "run", batch_size=None, batch_tokens=385, train_steps=2, eval_period=2
    )
    done = tiny_runs.train(run)
    assert "BATCH_TOKENS 385: 8 examples of 48 tokens\n" in done.printed
    again = dataclasses.replace(run, batch_size=8, batch_tokens=None)
    assert tiny_runs.train(again).trained.step == 2  # the same run, so it resumes
    split = dataclasses.replace(run, mesh={"data": 4, "model": 1})
    assert setup.batch_line(split).endswith("8 examples of 48 tokens, a multiple of 4 devices")
