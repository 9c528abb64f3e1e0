"""Tests of prompt_tuning/training/settings.py: what a run is made of, by name."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from prompt_tuning.data.tables import TableTask
from prompt_tuning.data.text_prompts import TextPrompt
from prompt_tuning.methods.method import Method
from prompt_tuning.model import decoding
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.prompts import initializers
from prompt_tuning.run import Run
from prompt_tuning.training import schedules
from prompt_tuning.training.optimizers import adafactor, adamw
from prompt_tuning.training.settings import WITHOUT_EFFECT, settings, text


def changed(run, **fields):
    """{name: (before, after)} of a run with other fields."""
    before, after = (
        {**found.defaults, **found.chosen}
        for found in map(settings, (run, dataclasses.replace(run, **fields)))
    )
    names = before.keys() | after.keys()
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


@pytest.fixture
def run():
    return tiny_runs.make_run("anywhere")


def test_a_gin_file_and_python_describe_the_same_run(run):
    by_gin = tiny_runs.load_run("elsewhere")
    labels = functools.partial(initializers.from_class_labels, labels=("awful", "great"))
    in_python = dataclasses.replace(
        run,
        prompt_initializer=labels,
        optimizer=functools.partial(adafactor, learning_rate=0.3),  # the default, set explicitly
    )
    assert settings(by_gin) == settings(in_python)


def test_every_field_is_part_of_it_or_named_as_without_effect(run):
    """A field that is added is compared unless someone decides otherwise."""
    other = {
        "model": dataclasses.replace(tiny_runs.MODEL, dropout_rate=0.5),
        "initial_checkpoint_path": "random:1", "param_dtype": "bfloat16", "task": "other",
        "task_feature_lengths": {"targets": 8, "inputs": 40}, "prompt_length": 5,
        "prompt_initializer": initializers.from_random_uniform, "prompt_position": "suffix",
        "method": Method(kind="mine", settings={"size": 3}),
        "prompt_file": "a", "embedding_file": "a", "trainable": (".*",), "optimizer": adamw,
        "restore_accumulators": False, "weight_decay_rate": 0.5, "train_steps": 7,
        "batch_size": 9, "label_smoothing": 0.1, "z_loss": 0.5,
        "loss_normalizing_factor": 2.0, "seed": 1, "eval_period": 3,
        "eval_split": "test", "eval_examples": 21, "early_stopping": 1,
        "decoding": decoding.Sample(), "local_tasks": (TABLE,), "target_prefix": "<extra_id_0>",
    }  # fmt: skip
    fields = {field.name for field in dataclasses.fields(Run)}
    assert fields == other.keys() | WITHOUT_EFFECT | {"text_prompt"}
    assert [name for name, value in other.items() if not changed(run, **{name: value})] == []
    assert changed(dataclasses.replace(run, prompt_length=None), text_prompt=TextPrompt())
    left = {"model_dir": "b", "data_dir": "b", "eval_batch_size": 1, "config_text": "b"}
    assert changed(run, **left) == {}
    assert changed(run, task_feature_lengths={"targets": 8, "inputs": 48}) == {}


def test_values_are_named_as_they_are_set(run):
    assert changed(run, batch_size=9, z_loss=0.5, prompt_position="suffix") == {
        "BATCH_SIZE": ("8", "9"),
        "Run.z_loss": ("0.0001", "0.5"),
        "Run.prompt_position": ("'prefix'", "'suffix'"),
    }
    model = dataclasses.replace(run.model, dropout_rate=0.0)
    assert changed(run, model=model) == {"T5Config.dropout_rate": ("0.1", "0")}
    optimizer = functools.partial(adafactor, learning_rate=0.01)
    assert changed(run, optimizer=optimizer) == {"adafactor.learning_rate": ("0.3", "0.01")}
    assert changed(run, decoding=decoding.BeamSearch(num_beams=2)) == {
        "DECODING": ("@Greedy", "@BeamSearch"),
        "BeamSearch.num_beams": (None, "2"),
        "BeamSearch.alpha": (None, "0.6"),
    }


def test_functions_are_followed_at_every_depth(run):
    def start(**low):
        fallback = functools.partial(initializers.from_random_uniform, **low)
        return functools.partial(
            initializers.from_class_labels, labels=["a"], fallback=functools.partial(fallback)
        )

    run = dataclasses.replace(run, prompt_initializer=start())
    assert changed(run, prompt_initializer=start(low=0.0)) == {
        "from_random_uniform.low": ("-0.5", "0")
    }
    assert "from_random_uniform.low" in settings(run).defaults


def test_one_function_in_two_places_has_two_names(run):
    inner = functools.partial(initializers.from_class_labels, labels=["b"])
    outer = functools.partial(initializers.from_class_labels, labels=["a"], fallback=inner)
    chosen = settings(dataclasses.replace(run, prompt_initializer=outer)).chosen
    assert chosen["from_class_labels.labels"] == "['a']"
    assert chosen["from_class_labels.fallback/from_class_labels.labels"] == "['b']"


def test_a_model_without_a_prompt_has_none_of_its_settings(run):
    run = dataclasses.replace(run, trainable=(".*",), prompt_length=None)
    assert changed(run, prompt_initializer=initializers.from_random_uniform) == {}
    assert changed(run, prompt_position="suffix") == {}


def start(rng, frozen, *, scale=1.0):
    return {}


def test_a_method_is_its_settings_or_its_functions(run):
    """A method of your own may have no settings."""
    mine = dataclasses.replace(run, method=Method(kind="mine", settings={"size": 3}))
    other = Method(kind="mine", settings={"size": 4})
    assert changed(mine, method=other) == {"mine.size": ("3", "4")}
    untold, doubled = (
        Method(kind="mine", start=functools.partial(start, scale=scale)) for scale in (1.0, 2.0)
    )
    mine = dataclasses.replace(run, method=untold)
    assert changed(mine, method=doubled) == {"start.scale": ("1", "2")}
    hooked = dataclasses.replace(untold, hooks=Hooks(encoder_input=lambda: 0.5))
    again = dataclasses.replace(untold, hooks=Hooks(encoder_input=lambda: 0.25))
    assert changed(mine, method=hooked)
    assert changed(dataclasses.replace(run, method=hooked), method=again)


def test_a_schedule_is_its_values(run):
    def rate(schedule):
        optimizer = functools.partial(adafactor, learning_rate=schedule)
        return settings(dataclasses.replace(run, optimizer=optimizer))

    decay = rate(schedules.linear_decay(0.4, total_steps=1000, warmup_steps=100))
    assert rate(schedules.linear_decay(0.4, total_steps=1000, warmup_steps=100)) == decay
    written = decay.chosen["adafactor.learning_rate"]
    assert written.startswith("schedule 0 at 0, 0.4 at 100, 0 at 1,000, 0 at 10,000 (")
    others = [
        rate(schedules.linear_decay(0.4, total_steps=1001, warmup_steps=100)),
        rate(schedules.linear_decay(0.4, total_steps=1000, warmup_steps=101)),
        rate(schedules.linear_warmup(0.4, warmup_steps=100)),
        rate(optax.join_schedules([optax.constant_schedule(0.4)] * 2, [5])),
    ]
    texts = {other.chosen["adafactor.learning_rate"] for other in others}
    assert len(texts | {written}) == 5


RATE = 0.5


def my_optimizer(learning_rate=0.1):
    return adafactor(learning_rate)


def test_own_functions_are_distinguished(run):
    def local(rate):
        return lambda: adafactor(learning_rate=rate)

    assert settings(dataclasses.replace(run, optimizer=my_optimizer)).chosen["Run.optimizer"] == (
        f"@{__name__}.my_optimizer"
    )
    first = dataclasses.replace(run, optimizer=lambda: adafactor(learning_rate=0.1))
    assert changed(first, optimizer=lambda: adafactor(learning_rate=0.1)) == {}
    assert changed(first, optimizer=lambda: adafactor(learning_rate=0.2))
    assert changed(first, optimizer=lambda: adamw(learning_rate=0.1))
    assert changed(first, optimizer=lambda: adafactor(learning_rate=RATE))
    rates = changed(dataclasses.replace(run, optimizer=local(1.0)), optimizer=local(2.0))
    assert [*rates.values()] == [("1", "2")]


class MyStart:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, rng, shape):
        return jnp.full(shape, self.scale)


def test_objects_are_distinguished_by_their_attributes(run):
    run = dataclasses.replace(run, prompt_initializer=MyStart(1.0))
    assert changed(run, prompt_initializer=MyStart(1.0)) == {}
    assert changed(run, prompt_initializer=MyStart(2.0)) == {"MyStart.scale": ("1", "2")}


TABLE = TableTask("reviews", "train.csv", "dev.csv", "stars")


def test_a_table_is_its_settings(run):
    run = dataclasses.replace(run, local_tasks=(TABLE,))
    assert settings(run).chosen["TableTask.name"] == "'reviews'"
    other = dataclasses.replace(TABLE, template="{text}", label_words={"1": "yes", "0": "no"})
    assert changed(run, local_tasks=(other,)) == {
        "TableTask.template": ("None", "'{text}'"),
        "TableTask.label_words": ("None", "{'1': 'yes', '0': 'no'}"),  # their order counts
    }


def test_a_file_is_its_content(run, tmp_path):
    tables = {name: tmp_path / f"{name}.npy" for name in "abc"}
    for name, table in tables.items():
        np.save(table, np.full((4, 2), float(name != "c")))
    run = dataclasses.replace(run, embedding_file=str(tables["a"]))
    assert changed(run, embedding_file=str(tables["b"])) == {}
    assert changed(run, embedding_file=str(tables["c"])).keys() == {"EMBEDDING_FILE"}
    starts = [
        functools.partial(initializers.from_file, path=str(path).removesuffix(".npy"))
        for path in tables.values()
    ]
    run = dataclasses.replace(run, prompt_initializer=starts[0])
    assert changed(run, prompt_initializer=starts[1]) == {}
    assert changed(run, prompt_initializer=starts[2]).keys() == {"from_file.path"}


def test_no_text_holds_an_address():
    """Object names with addresses would differ in each process."""
    things = [object(), lambda: 0, functools.partial(my_optimizer, object()), jnp.ones(2), {1, 2}]
    assert "0x" not in text(things)
    code = (
        "import functools, sys; sys.path.insert(0, 'tests'); import tiny_runs;"
        "from prompt_tuning.training.settings import settings;"
        "print(settings(tiny_runs.load_run('anywhere')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert done.stdout == f"{settings(tiny_runs.load_run('anywhere'))}\n"
