"""Tests of bridge/saving.py: the prompt alone, in our format and in the official code's."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

from prompt_tuning import trees
from prompt_tuning.bridge import network, saving
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH

OFFICIAL = "numpy_checkpoints/checkpoint_1000/encoder.prompt.prompt.prompt"


@pytest.fixture
def state(frozen, prompt):
    target = trees.unflatten(trees.merge(frozen, {PROMPT_PATH: prompt}))
    return {"target": target, "state": {"step": np.int32(1000)}}


def test_both_files_are_written_and_the_save_is_not_changed(
    tmp_path, config, state, frozen, prompt
):
    save = saving.prompt_files(model_dir=str(tmp_path), config=config, task="my_task")
    infos = object()
    assert save(state, infos) == (state, infos)
    found = files.read_prompt(tmp_path / "prompts" / "step_001000")
    np.testing.assert_array_equal(found.prompt, prompt)
    expected = {
        "model": "t5x_tiny",
        "model_fingerprint": trees.fingerprint(frozen),
        "length": 5,
        "width": 32,
        "task": "my_task",
        "step": 1000,
    }
    assert expected.items() <= dataclasses.asdict(found.metadata).items()
    with open(tmp_path / OFFICIAL, "rb") as file:  # no suffix, but a .npy
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), prompt)
    np.testing.assert_array_equal(np.load(tmp_path / "prompts" / "step_001000.npy"), prompt)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["encoder.prompt.prompt.prompt", "step_001000.npy", "step_001000.safetensors"]


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_the_files_say_where_the_prompt_is(tmp_path, config, state, position):
    module = network.transformer(config=config, prompt_length=5, position=position)
    saving.prompt_files(model_dir=str(tmp_path), config=config, task="t", module=module)(
        state, None
    )
    found = files.read_prompt(tmp_path / "prompts" / "step_001000")
    assert (found.metadata.kind, found.metadata.position) == ("prompt_tuning", position)


def test_a_later_save_of_the_same_run_hashes_the_model_no_more(
    tmp_path, config, state, monkeypatch
):
    save = saving.prompt_files(model_dir=str(tmp_path), config=config, task="my_task")
    save(state, None)
    monkeypatch.delattr(trees, "fingerprint")
    save({**state, "state": {"step": np.int32(2000)}}, None)
    first, second = (files.read_prompt(tmp_path / "prompts" / f"step_00{n}000") for n in (1, 2))
    assert first.metadata.model_fingerprint == second.metadata.model_fingerprint
