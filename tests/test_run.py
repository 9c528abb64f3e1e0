"""Tests of prompt_tuning/run.py: a setting that cannot work is refused by name."""

import dataclasses
import math
import re

import pytest
import tiny_runs

from prompt_tuning.macros import MACRO_OF_FIELD
from prompt_tuning.methods.method import Method
from prompt_tuning.methods.model_tuning import model_tuning
from prompt_tuning.methods.prompt_tuning import prompt_tuning
from prompt_tuning.model.decoding import Greedy
from prompt_tuning.prompts.initializers import from_class_labels
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.run import Run
from prompt_tuning.training.optimizers import adafactor

REQUIRED = {
    "model": tiny_runs.MODEL,
    "initial_checkpoint_path": "random",
    "task": "generated_sentiment",
    "task_feature_lengths": {"inputs": 48, "targets": 8},
    "model_dir": "/nowhere",
    "optimizer": adafactor,
}


def make_run(**changes):
    return dataclasses.replace(tiny_runs.make_run("/nowhere"), **changes)


def test_the_defaults_are_the_papers():
    """Lester et al. 2021, section 3."""
    default = {field.name: field.default for field in dataclasses.fields(Run)}
    assert default["train_steps"] == 30_000
    assert default["eval_period"] == 1_000
    assert (default["z_loss"], default["label_smoothing"]) == (1e-4, 0.0)
    assert default["loss_normalizing_factor"] is None
    assert default["early_stopping"] is None
    assert default["decoding"] == Greedy()
    run = Run(**REQUIRED)
    assert (run.method.kind, run.prompt_length, run.prompt_position, run.trainable) == (
        "prompt_tuning", 100, "prefix", (),
    )  # fmt: skip
    assert run.prompt_initializer is from_class_labels
    assert run.batch_size == 32


REFUSED = [
    ("train_steps", 0, "Run.train_steps (set by TRAIN_STEPS) must be a whole number, 1 or more"),
    ("train_steps", 10.0, "got 10.0"),
    ("batch_size", "32", "Run.batch_size (set by BATCH_SIZE) must be a whole number"),
    ("batch_size", True, "got True"),
    ("eval_period", -1, "Run.eval_period (set by EVAL_PERIOD)"),
    ("eval_batch_size", 0, "Run.eval_batch_size must be a whole number, 1 or more; got 0"),
    ("num_decodes", 0, "Run.num_decodes"),
    ("prompt_length", 0, "Run.prompt_length (set by PROMPT_LENGTH) must be a whole number, 1 or"),
    ("eval_examples", 0, "1 or more, or None; got 0"),
    ("early_stopping", 0, "Run.early_stopping"),
    ("seed", -1, "Run.seed (set by RANDOM_SEED) must be a whole number from 0 to 4,294,967,295;"),
    ("seed", 2**32, "got 4294967296"),
    ("seed", None, "got None"),
    ("seed", False, "got False"),
    ("seed", 1.5, "got 1.5"),
    ("task", "", "Run.task (set by MIXTURE_OR_TASK_NAME) must be some text; got ''"),
    ("task", None, "got None"),
    ("model_dir", None, "Run.model_dir (set by MODEL_DIR) must be some text"),
    ("initial_checkpoint_path", "", "Run.initial_checkpoint_path (set by INITIAL_CHECKPOINT_PATH)"),
    ("prompt_file", "", "Run.prompt_file (set by PROMPT_FILE) must be some text or None"),
    ("eval_split", None, "Run.eval_split must be some text"),
    ("label_smoothing", 1.0, "Run.label_smoothing must be in [0, 1); got 1.0"),
    ("label_smoothing", math.nan, "got nan"),
    ("weight_decay_rate", 1.0, "Run.weight_decay_rate must be in [0, 1); got 1.0"),
    ("z_loss", -1e-4, "Run.z_loss must be a number, 0 or more"),
    ("z_loss", "much", "got 'much'"),
    ("loss_normalizing_factor", 0, "(set by LOSS_NORMALIZING_FACTOR) must be a number above 0"),
    ("loss_normalizing_factor", "NUM_TOKENS", "one of ['NUM_REAL_TARGET_TOKENS', "),
    ("loss_normalizing_factor", math.inf, "got inf"),
    ("task_feature_lengths", {"inputs": 512}, "must be like {'inputs': 512, 'targets': 8}"),
    ("task_feature_lengths", {"inputs": 512, "targets": 0}, "got {'inputs': 512, 'targets': 0}"),
    ("task_feature_lengths", 512, "(set by TASK_FEATURE_LENGTHS)"),
    ("task_feature_lengths", ["inputs", "targets"], "got ['inputs', 'targets']"),
    ("param_dtype", "float16", "Run.param_dtype must be one of ['float32', 'bfloat16', 'int8', "),
    ("param_dtype", ["float32"], "got ['float32']"),
    ("prompt_position", "infix", "Run.prompt_position must be one of ('prefix', 'suffix')"),
    ("prompt_initializer", "random", "@from_class_labels without parentheses; got 'random'"),
    ("method", "prompt_tuning", "Run.method must be a method, such as @prompt_tuning()"),
    ("optimizer", None, "such as @adafactor without parentheses; got None"),
    ("decoding", "greedy", "must be a strategy, such as @Greedy() with parentheses; got 'greedy'"),
    ("trainable", ".*", "Run.trainable must be a list of patterns, such as ['.*/mlp/.*']"),
    ("trainable", [], "got []"),
    ("trainable", [""], "got ['']"),
    ("trainable", 5, "got 5"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_cannot_work_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_run(**{name: value})


def test_what_can_work_is_accepted():
    for factor in (None, 233472, 0.5, "num_real_target_tokens", "AVERAGE_PER_SEQUENCE"):
        assert make_run(loss_normalizing_factor=factor).loss_normalizing_factor == factor
    assert make_run(trainable=[".*"]).trainable == (".*",)
    assert make_run(seed=0, prompt_length=None, early_stopping=3).early_stopping == 3


def test_a_run_knows_what_it_trains():
    assert not make_run().trains_model
    assert not make_run(trainable=[PROMPT_PATH]).trains_model  # as configurations write it
    assert make_run(trainable=(".*",)).trains_model


OWN = Method(kind="own", settings={"length": 7})


@pytest.mark.parametrize(
    ("given", "kind", "length", "trainable"),
    [
        ({}, "prompt_tuning", 100, ()),
        ({"prompt_length": 5, "trainable": [PROMPT_PATH]}, "prompt_tuning", 5, ()),
        ({"prompt_length": None, "trainable": [".*"]}, "model_tuning", None, (".*",)),
        ({"prompt_length": None}, "model_tuning", None, ()),
        ({"method": prompt_tuning(3)}, "prompt_tuning", 3, ()),
        ({"method": prompt_tuning(3), "prompt_length": 5}, "prompt_tuning", 5, ()),
        ({"method": prompt_tuning(3), "prompt_length": None}, "model_tuning", None, ()),
        ({"method": prompt_tuning(3), "trainable": [".*"]}, "prompt_tuning", 3, (".*",)),
        ({"method": model_tuning()}, "model_tuning", None, (".*",)),
        ({"method": model_tuning(), "trainable": ["a"]}, "model_tuning", None, ("a",)),
        ({"method": model_tuning(), "prompt_length": 5}, "prompt_tuning", 5, (".*",)),
        ({"method": OWN}, "own", None, ()),
        ({"method": OWN, "trainable": ["a"]}, "own", None, ("a",)),
    ],
)
def test_the_older_fields_change_the_method(given, kind, length, trainable):
    run = Run(**REQUIRED, **given)
    assert (run.method.kind, run.prompt_length) == (kind, length)
    assert run.trainable == run.method.trainable == trainable
    again = dataclasses.replace(run, seed=1)
    assert again.method is run.method


def test_a_replaced_field_changes_what_was_resolved_before():
    run = make_run(prompt_position="suffix")
    without = dataclasses.replace(run, prompt_length=None)
    assert (without.method.kind, without.trains_model) == ("model_tuning", False)
    again = dataclasses.replace(without, prompt_length=6)
    assert again.method.settings == {
        "length": 6, "initializer": run.prompt_initializer, "position": "suffix",
    }  # fmt: skip
    own = dataclasses.replace(run, method=OWN)
    assert (own.method, own.prompt_length) == (OWN, None)
    assert dataclasses.replace(own, method=prompt_tuning(9)).prompt_length == 9


def test_a_field_that_the_method_does_not_have_is_refused():
    with pytest.raises(ValueError, match="Run.prompt_length is a setting of prompt_tuning, and R"):
        Run(**REQUIRED, method=OWN, prompt_length=5)


def test_every_macro_sets_a_field():
    assert {field.name for field in dataclasses.fields(Run)} >= MACRO_OF_FIELD.keys()


LENGTHS = {"inputs": 512, "targets": 8}


def in_tokens(tokens, **changes):
    return Run(**{**REQUIRED, "task_feature_lengths": LENGTHS, "batch_tokens": tokens, **changes})


def test_a_batch_in_tokens_counts_the_longer_of_the_two_lengths():
    """2^16 / 512 = 128, as Mesh TensorFlow and the paper count; 2^20 of the multi-task model."""
    assert in_tokens(2**16).batch_size == 128
    assert in_tokens(2**20).batch_size == 2048
    assert in_tokens(1000, task_feature_lengths={"inputs": 3, "targets": 300}).batch_size == 3
    assert in_tokens(512).batch_size == 1


def test_a_batch_in_tokens_can_be_split_over_the_devices():
    """1000 / 24 = 41; 40 are ten for each of four devices."""
    lengths = {"inputs": 24, "targets": 8}
    mesh = {"data": 4, "model": 2}
    assert in_tokens(1000, task_feature_lengths=lengths).batch_size == 41
    assert in_tokens(1000, task_feature_lengths=lengths, mesh=mesh).batch_size == 40


def test_a_batch_in_tokens_and_in_examples_is_refused():
    expected = "both are set, to 32 and 65,536; set one of them to None"
    with pytest.raises(ValueError, match=expected):
        in_tokens(2**16, batch_size=32)
    with pytest.raises(ValueError, match="both are set, to 64"):
        dataclasses.replace(in_tokens(2**16), batch_size=64)


def test_a_batch_in_tokens_follows_the_lengths_when_they_change():
    run = in_tokens(2**16)
    assert dataclasses.replace(run, seed=1).batch_size == 128
    changed = dataclasses.replace(run, task_feature_lengths={"inputs": 256, "targets": 8})
    assert changed.batch_size == 256
    assert dataclasses.replace(run, batch_size=9, batch_tokens=None).batch_size == 9
    assert dataclasses.replace(changed, batch_tokens=2**15).batch_size == 128


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="511, is less than 1 x 512 tokens"):
        in_tokens(511)
    with pytest.raises(ValueError, match="1,024, is less than 4 x 512 tokens"):
        in_tokens(1024, mesh={"data": 4, "model": 1})
    with pytest.raises(
        ValueError, match=r"Run.batch_tokens \(set by BATCH_TOKENS\) must be a whole"
    ):
        in_tokens(0)
