"""Tests of prompt_tuning/training/identity.py: what may not change when a run is resumed."""

import dataclasses
import itertools
import json
import re
import types

import numpy as np
import pytest
import tiny_runs

from prompt_tuning.data import batches
from prompt_tuning.training import identity

THEN = identity.Identity(
    settings={"BATCH_SIZE": "8", "Run.optimizer": "@adafactor"},
    defaults={"Run.z_loss": "0.0001", "adafactor.learning_rate": "0.3"},
    model="0123",
    data={"a train": {"rows": 5, "digest": "01"}},
    versions={"jax": "0.10.2", "numpy": "2.4.6"},
)


def refusal(now, examples=()):
    with pytest.raises(ValueError, match="runs/a holds a different run: ") as error:
        identity.check("runs/a", THEN, now, examples)
    listed = str(error.value).split("different run: ")[1]
    listed, advice = listed.split(". Set it back, or choose another MODEL_DIR.")
    assert advice == ""
    return listed.split("; ")


def test_everything_that_differs_is_named_as_it_was_and_is():
    now = dataclasses.replace(
        THEN,
        settings={"BATCH_SIZE": "8", "adamw.b1": "0.8", "Run.optimizer": "@adamw"},
        defaults={"Run.z_loss": "0", "adamw.b2": "0.999"},
        model="4567",
    )
    assert refusal(now) == [
        "Run.z_loss was 0.0001 and is 0 now",
        "Run.optimizer was @adafactor and is @adamw now",
        "adamw.b1 was not set and is 0.8 now",
        "the model at INITIAL_CHECKPOINT_PATH had the fingerprint 0123 and has 4567 now",
    ]


def test_a_default_that_is_explicit_or_new_is_not_a_difference():
    said = {**THEN.settings, "adafactor.learning_rate": "0.3"}
    new = {"Run.z_loss": "0.0001", "Run.of_a_later_version": "None"}
    identity.check("runs/a", THEN, dataclasses.replace(THEN, settings=said, defaults=new), [])


def test_another_computation_is_reported():
    line = identity.other_computation
    assert "an earlier version started this run" in line(THEN, THEN)
    then, now = (dataclasses.replace(THEN, computed=f"computed on {it}") for it in ("cpu", "gpu"))
    assert line(then, then) is None
    assert line(then, now) == (
        "this run started computed on cpu; now computed on gpu: results may differ in the last bits"
    )


def test_it_survives_the_disk(tmp_path):
    assert identity.read(str(tmp_path)) is None
    identity.write(str(tmp_path), THEN)
    assert identity.read(str(tmp_path)) == THEN
    assert json.loads((tmp_path / "identity.json").read_text())["settings"]["BATCH_SIZE"] == "8"
    for content in ("{", "[]", '{"settings": {}}'):
        (tmp_path / "identity.json").write_text(content)
        with pytest.raises(ValueError, match=r"identity.json is damaged: .*Restore it, or choose"):
            identity.read(str(tmp_path))


def test_other_libraries_are_one_line():
    assert identity.other_versions(THEN, THEN) is None
    now = dataclasses.replace(THEN, versions={"jax": "0.12.0", "numpy": "2.5.0"})
    assert identity.other_versions(THEN, now) == (
        "this run started with jax 0.10.2, numpy 2.4.6; now jax 0.12.0, numpy 2.5.0: results may "
        "differ in the last bits"
    )


def task_named(name):
    return types.SimpleNamespace(name=name)


def examples(*targets, split="train"):
    ragged = batches.Ragged.from_rows([np.array(row, np.int32) for row in targets])
    return batches.Examples(
        types.SimpleNamespace(name="a"),
        split,
        {"inputs": 8, "targets": 8},
        ragged,
        ragged,
        (),
        {},
        {},
    )


def of_data(*sets):
    run = tiny_runs.make_run("anywhere")
    stream = batches.TrainBatches(sets[:1], 1, 0)
    return identity.of_run(run, "0123", stream, sets[1:], "computed on cpu")


def test_other_data_under_the_same_name_are_refused(monkeypatch):
    train, dev = examples([1, 2], [3]), examples([4], split="validation")
    then = of_data(train, dev)
    assert then.data["a train"]["rows"] == 2
    monkeypatch.setattr(batches, "load_examples", lambda task, split, *_, **__: now[split])
    found = []
    for other in (examples([1], [2, 3]), examples([3], [1, 2]), examples([1, 2], [3], [4])):
        now = {"train": other, "validation": dev}
        with pytest.raises(ValueError, match="the data of a train have changed since") as error:
            identity.check("runs/a", then, of_data(other, dev), [other, dev])
        found.append(re.search(r"\(.* now\)", str(error.value))[0])
    assert found == ["(2 rows then, 2 now)"] * 2 + ["(2 rows then, 3 now)"]
    other = examples([5], split="validation")
    now = {"train": train, "validation": other}
    with pytest.raises(ValueError, match="the data of a validation have changed since"):
        identity.check("runs/a", then, of_data(train, other), [train, other])
    identity.check("runs/a", then, of_data(train, dev), [train, dev])
    with pytest.raises(ValueError, match="the data of a validation are no longer part of it"):
        identity.check("runs/a", then, of_data(train), [train])


def test_data_that_are_drawn_again_each_time_are_not_compared(monkeypatch, capsys):
    """A user's task with a random preprocessor can be resumed."""
    numbers = itertools.count()
    monkeypatch.setattr(batches, "load_examples", lambda *_, **__: examples([next(numbers)]))
    first, second = batches.load_examples("a"), batches.load_examples("a")
    identity.check("runs/a", of_data(first), of_data(second), [second])
    assert capsys.readouterr().out == (
        "the data of a train differ each time they are read and cannot be compared\n"
    )


def test_the_rates_of_a_mixture_belong_to_it():
    run = tiny_runs.make_run("anywhere")
    parts = [
        examples([1]),
        dataclasses.replace(examples([2]), task=task_named("b")),
    ]
    then, now = (
        identity.of_run(run, "0123", batches.TrainBatches(parts, 1, 0, rates), [], "")
        for rates in ([1.0, 1.0], [1.0, 3.0])
    )
    with pytest.raises(ValueError, match="the rate of a was 0.5 and is 0.25 now; the rate of b"):
        identity.check("runs/a", then, now, parts)


def test_where_other_data_were_asked_for_only_the_setting_is_named():
    now = dataclasses.replace(
        THEN,
        settings={**THEN.settings, "Run.eval_examples": "3"},
        data={"a train": {"rows": 4, "digest": "02"}},
    )
    assert refusal(now) == ["Run.eval_examples was not set and is 3 now"]
