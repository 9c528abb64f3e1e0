"""Tests of checkpoints/checkpoint.py: it finds, reads strictly, and reports what does not fit."""

import json
import logging
import pathlib
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
import t5x_tiny
from flax import serialization

from prompt_tuning.checkpoints import checkpoint, t5x_native
from prompt_tuning.prompts.prompt import PROMPT_PATH

PARITY = pathlib.Path(__file__).parents[1] / "data" / "parity"
TINY = PARITY / "t5x_tiny"
NATIVE = TINY / "native" / "checkpoint_3"
ORBAX = TINY / "orbax" / "checkpoint_3"


def tiny_shapes():
    described = json.loads((TINY / "params.json").read_text())
    return {path: tuple(shape) for path, (shape, _, _) in described.items()}


def small(tmp_path, **arrays):
    """Writes a checkpoint of a few parameters."""
    return t5x_native.write(tmp_path, arrays, 1)


@pytest.mark.parametrize("folder", [NATIVE, ORBAX], ids=["native", "orbax"])
def test_loads_every_parameter(folder):
    loaded = checkpoint.load_model(folder, tiny_shapes())
    expected = t5x_tiny.parameters()
    assert loaded.keys() == expected.keys()
    for path, array in loaded.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[path])


@pytest.mark.parametrize(
    "path",
    [f"{NATIVE}", f"{NATIVE}/", f"{NATIVE.parent}", f"{NATIVE.parent}/", f"{NATIVE}/checkpoint"],
)
def test_the_ways_to_name_a_checkpoint(path):
    assert checkpoint.find(path) == str(NATIVE)


def test_the_newest_of_several_is_taken_and_logged(tmp_path, caplog):
    for step in (900, 1000, 20):
        t5x_native.write(tmp_path, {"a": np.full(1, step, np.float32)}, step)
    (tmp_path / "checkpoint_2000.tmp-17").mkdir()
    (tmp_path / "checkpoint_3000").mkdir()
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(checkpoint.read_variable(tmp_path, "a"), [1000])
    assert re.search(r"steps \[20, 900, 1000, 3000\]; taking .*checkpoint_1000\.", caplog.text)


def test_casts_each_leaf(tmp_path):
    folder = small(tmp_path, a=np.array([1.0, 1.00390625], np.float32))
    loaded = checkpoint.load_model(folder, {"a": (2,)}, dtype="bfloat16")
    assert loaded["a"].dtype == ml_dtypes.bfloat16
    # 1 + 2^-8 is between two bfloat16 and is rounded to the even one.
    np.testing.assert_array_equal(loaded["a"].astype(np.float32), [1.0, 1.0])
    with pytest.raises(ValueError, match="one of 'float32', 'bfloat16', got 'float16'"):
        checkpoint.load_model(folder, {"a": (2,)}, dtype="float16")


def test_a_prompt_is_new_by_intent():
    expected = {**tiny_shapes(), PROMPT_PATH: (5, 32)}
    assert (
        checkpoint.load_model(NATIVE, expected, new=(PROMPT_PATH,)).keys() == tiny_shapes().keys()
    )
    with pytest.raises(ValueError, match=rf"Missing in the checkpoint \(1\): {PROMPT_PATH}\."):
        checkpoint.load_model(NATIVE, expected)


def test_a_name_on_the_hub_without_hf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"the Hugging Face Hub is named hf://google/flan-t5-small\."
    ):
        checkpoint.find("google/flan-t5-small")
    with pytest.raises(ValueError, match=r"name the model as hf://google/flan-t5-small\."):
        checkpoint.find("https://huggingface.co/google/flan-t5-small/tree/main")


@pytest.mark.parametrize("main", ["b" * 40, None])
def test_a_folder_of_the_hub_cache(tmp_path, main):
    """The commit of `main`, or the first one where no branch is in the cache."""
    folder = tmp_path / "models--google--flan-t5-small"
    for commit in ("a" * 40, "b" * 40):
        (folder / "snapshots" / commit).mkdir(parents=True)
    if main:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    commit = main or "a" * 40
    expected = f"name '{folder}/snapshots/{commit}', or hf://google/flan-t5-small@{commit}"
    with pytest.raises(ValueError, match=expected):
        checkpoint.find(folder)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    t5x_native.write("~/models", {"a/kernel": np.ones((2, 2), np.float32)}, 5)
    assert checkpoint.find("~/models") == f"{tmp_path}/models/checkpoint_5"
    with pytest.raises(ValueError, match="starts with gs:// or hf://"):
        checkpoint.find("s3://bucket/models")


def test_everything_that_does_not_fit_is_in_one_message(tmp_path):
    folder = small(tmp_path, a=np.ones(2), b=np.ones((2, 3)), c=np.ones(1))
    with pytest.raises(ValueError) as error:
        checkpoint.load_model(folder, {"b": (3, 2), "c": (1,), "d": (4,), "e": (5,)})
    assert str(error.value) == (
        f"The checkpoint {folder!r} does not fit the model. Missing in the checkpoint (2): d, e. "
        "In the checkpoint but not in the model (1): a. Of another shape (1): b ([2, 3] in the "
        "checkpoint, [3, 2] in the model). Choose the model (its gin file) that the checkpoint "
        "was made for, or its checkpoint."
    )


def test_a_prompt_inside_is_reported_unless_ignored(tmp_path):
    folder = t5x_native.write(tmp_path, {"a": np.ones(2), PROMPT_PATH: np.ones((5, 2))}, 1)
    with pytest.raises(ValueError, match="It holds a prompt: ignore it by name"):
        checkpoint.load_model(folder, {"a": (2,)})
    assert checkpoint.load_model(folder, {"a": (2,)}, ignore=["encoder/prompt/.*"]).keys() == {"a"}
    with pytest.raises(ValueError, match="'prompts/.*' matches no parameter"):
        checkpoint.load_model(folder, {"a": (2,)}, ignore=["prompts/.*"])


def test_a_prompt_inside_is_read_when_expected(tmp_path):
    folder = t5x_native.write(tmp_path, {PROMPT_PATH: np.full((2, 3), 7.0, np.float32)}, 1)
    loaded = checkpoint.load_model(folder, {PROMPT_PATH: (2, 3)})
    np.testing.assert_array_equal(loaded[PROMPT_PATH], np.full((2, 3), 7.0))
    with pytest.raises(ValueError, match=r"\(\[2, 3\] in the checkpoint, \[9, 3\] in the model\)"):
        checkpoint.load_model(folder, {PROMPT_PATH: (9, 3)})


def test_stacked_layers_are_recognised(tmp_path):
    folder = t5x_native.write(tmp_path, {"encoder/encoder/mlp/wo/kernel": np.ones((4, 2, 3))}, 1)
    with pytest.raises(ValueError, match="stacks its layers .*scan_layers"):
        checkpoint.load_model(folder, {"encoder/layers_0/mlp/wo/kernel": (4, 3)})


def test_one_variable_is_read_without_the_others(tmp_path):
    folder = tmp_path / "checkpoint_3"
    shutil.copytree(NATIVE, folder)
    for path in folder.glob("target.*/0*"):
        if path.parent.name != "target.token_embedder.embedding":
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        checkpoint.read_variable(folder, "token_embedder/embedding"),
        t5x_tiny.parameters()["token_embedder/embedding"],
    )
    with pytest.raises(ValueError, match="encoder_norm/scale' of .* cannot be read"):
        checkpoint.read_variable(folder, "encoder/encoder_norm/scale")


def test_an_unknown_variable_lists_close_names():
    with pytest.raises(
        ValueError, match=r"'token_embeder/embedding'\. Close names: token_embedder/"
    ):
        checkpoint.read_variable(ORBAX, "token_embeder/embedding")


def test_show_lists_names_shapes_types_and_counts():
    rows = checkpoint.show(ORBAX)
    assert rows == checkpoint.show(NATIVE)
    assert [row.path for row in rows] == sorted(tiny_shapes())
    assert rows[-1] == ("token_embedder/embedding", (128, 32), "float32", 4096)
    assert checkpoint.variables(ORBAX)["decoder/decoder_norm/scale"] == ((32,), np.float32)


def test_recreate_joins_a_prompt_to_a_frozen_model(tmp_path):
    prompt = np.arange(160, dtype=np.float32).reshape(5, 32)
    folder = checkpoint.recreate(ORBAX, prompt, tmp_path, 30)
    assert folder == str(tmp_path / "checkpoint_30")
    loaded = checkpoint.load_model(folder, {**tiny_shapes(), PROMPT_PATH: (5, 32)})
    np.testing.assert_array_equal(loaded.pop(PROMPT_PATH), prompt)
    for path, array in t5x_tiny.parameters().items():
        np.testing.assert_array_equal(loaded[path], array)
    with pytest.raises(ValueError, match=r"holds a prompt already, of shape \[5, 32\]"):
        checkpoint.recreate(folder, prompt, tmp_path, 31)
    with pytest.raises(ValueError, match=r"shape \[5, 31\]; the model in .* takes \[P, 32\]"):
        checkpoint.recreate(ORBAX, prompt[:, 1:], tmp_path, 31)


def test_other_places_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint '.*nowhere': no such folder"):
        checkpoint.load_model(tmp_path / "nowhere", {})
    with pytest.raises(ValueError, match="is not a checkpoint, .* it holds .*native"):
        checkpoint.load_model(TINY, {})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000"')
    with pytest.raises(ValueError, match="is a TensorFlow checkpoint"):
        checkpoint.load_model(tmp_path, {})


def test_the_optimizer_state_is_ignored(tmp_path):
    index = {
        "version": 3,
        "optimizer": {
            "state": {"step": np.int32(1), "param_states": {"a": {"v": "anything at all"}}},
            "target": {"a": np.ones(2, np.float32)},
        },
    }
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(index))
    assert checkpoint.load_model(tmp_path, {"a": (2,)}).keys() == {"a"}
