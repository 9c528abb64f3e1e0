"""Prompt files: what is saved is loaded, and what is not a prompt is refused."""

import json
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata, header

PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4)


def metadata(**changes):
    fields = {
        "model": "t5_1_1_tiny",
        "model_fingerprint": "0123456789abcdef",
        "length": 3,
        "width": 4,
        "task": "super_glue_cb_v102",
        "step": 500,
        "dev_metrics": {"accuracy": 87.5, "f1": np.float32(0.5)},
        "config": "PROMPT_LENGTH = 3\nDROPOUT_RATE = 0.1\n",
    }
    return PromptMetadata(**{**fields, **changes})


def test_what_is_saved_is_loaded(tmp_path):
    paths = files.save(tmp_path / "new" / "cb", jnp.asarray(PROMPT), metadata())
    assert paths == (str(tmp_path / "new" / "cb.safetensors"), str(tmp_path / "new" / "cb.npy"))
    for name in ("cb", "cb.safetensors"):
        read = files.read_prompt(tmp_path / "new" / name)
        assert read.path == paths[0]
        assert read.prompt.dtype == np.float32
        np.testing.assert_array_equal(read.prompt, PROMPT)
        assert read.metadata == metadata(created=read.metadata.created)
    bare = files.read_prompt(paths[1])
    np.testing.assert_array_equal(bare.prompt, PROMPT)
    assert bare.metadata is None
    assert sorted(os.listdir(tmp_path / "new")) == ["cb.npy", "cb.safetensors"]


def test_the_files_are_plain_for_other_tools(tmp_path):
    safe, npy = files.save(tmp_path / "cb.npy", PROMPT, metadata())
    np.testing.assert_array_equal(np.load(npy, allow_pickle=False), PROMPT)
    with safetensors.safe_open(safe, framework="numpy") as file:
        assert list(file.keys()) == ["prompt"]
        header = file.metadata()
    assert header["model"] == "t5_1_1_tiny"
    assert header["step"] == "500"
    assert json.loads(header["dev_metrics"]) == {"accuracy": 87.5, "f1": 0.5}
    assert {"jax", "flax", "optax", "prompt_tuning"} <= json.loads(header["versions"]).keys()
    assert header["created"].endswith("+00:00")


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    files.save(tmp_path / "cb", PROMPT, metadata())

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.save(tmp_path / "cb", PROMPT + 1, metadata())
    np.testing.assert_array_equal(files.read_prompt(tmp_path / "cb").prompt, PROMPT)
    assert sorted(os.listdir(tmp_path)) == ["cb.npy", "cb.safetensors"]


def test_bfloat16_is_saved_as_float32(tmp_path):
    files.save(tmp_path / "cb", jnp.asarray(PROMPT, jnp.bfloat16), metadata())
    assert files.read_prompt(tmp_path / "cb.npy").prompt.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(4, np.float32), r"\[P, H\] .* has shape \[4\]"),
        (np.ones((1, 3, 4), np.float32), r"has shape \[1, 3, 4\]"),
        (np.ones((0, 4), np.float32), r"has shape \[0, 4\]"),
        (np.ones((3, 4), np.int32), "holds int32. Convert it to float32"),
        (np.array([[1, 2], [3, np.nan]], np.float32), "1 that are not .* vector 1, column 1"),
        (np.array([[np.inf, -np.inf]], np.float32), "has 2 that are not"),
    ],
)
def test_what_is_not_a_prompt_is_refused(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    safetensors.numpy.save_file({"prompt": array}, tmp_path / "bad.safetensors")
    for name in ("bad.npy", "bad.safetensors"):
        with pytest.raises(ValueError, match=f"{name}' .*{message}|{message}"):
            files.read_prompt(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        files.save(tmp_path / "out", array, metadata())
    assert not (tmp_path / "out.npy").exists()


class Bomb:
    opened = False

    def __reduce__(self):
        return (setattr, (Bomb, "opened", True))


def test_pickles_are_refused_unopened(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[Bomb()]], object), allow_pickle=True)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="objects.npy' holds pickled Python objects"):
        files.read_prompt(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match="raw.npy' cannot be read as .npy"):
        files.read_prompt(tmp_path / "raw.npy")
    assert not Bomb.opened


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("cut", [0, 5, 60, -4])
def test_a_file_cut_short_is_named(tmp_path, suffix, cut):
    files.save(tmp_path / "cb", PROMPT, metadata())
    path = tmp_path / f"cb{suffix}"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"cb{suffix}' cannot be read as .* damaged or incomplete"):
        files.read_prompt(path)


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(ValueError, match=r"no prompt file '.*cb.safetensors' or '.*cb.npy'"):
        files.read_prompt(tmp_path / "cb")
    with pytest.raises(ValueError, match=r"no prompt file '.*cb.npy'\. A prompt file ends in"):
        files.read_prompt(tmp_path / "cb.npy")


def test_another_safetensors_file(tmp_path):
    safetensors.numpy.save_file({"prompt": PROMPT}, tmp_path / "bare.safetensors")
    assert files.read_prompt(tmp_path / "bare").metadata is None
    safetensors.numpy.save_file({"shared": PROMPT}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="one tensor named 'prompt', it holds shared"):
        files.read_prompt(tmp_path / "model")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"model": "t5"}, "cannot be understood: .*missing"),
        ({"model": "t5", "step": "many"}, "cannot be understood: Expecting value"),
    ],
)
def test_metadata_that_cannot_be_understood(tmp_path, header, message):
    safetensors.numpy.save_file({"prompt": PROMPT}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(ValueError, match=message):
        files.read_prompt(tmp_path / "a")


def test_metadata_must_have_the_shape(tmp_path):
    with pytest.raises(ValueError, match="a prompt of 5 vectors of width 4, but the prompt is 3"):
        files.save(tmp_path / "a", PROMPT, metadata(length=5))


def fits(prompt_file, **changes):
    model = {"width": 4, "model_name": "t5_1_1_tiny", "fingerprint": "0123456789abcdef"}
    given = {**model, **changes}
    fingerprint = given.pop("fingerprint")
    files.check_fits(prompt_file, fingerprint=lambda: fingerprint, **given)


def test_a_prompt_of_another_model_is_refused():
    prompt_file = files.PromptFile("cb.safetensors", PROMPT, metadata())
    fits(prompt_file)
    with pytest.raises(ValueError) as error:
        fits(prompt_file, model_name="t5_1_1_other", fingerprint="f" * 16)
    assert str(error.value) == (
        "The prompt 'cb.safetensors' was made for t5_1_1_tiny with fingerprint 0123456789abcdef, "
        "but the model given is t5_1_1_other with fingerprint ffffffffffffffff. A prompt works "
        "only with the parameters it was trained with. Load that model, or pass "
        "--allow_other_model to use the prompt all the same."
    )
    fits(prompt_file, fingerprint="f" * 16, allow_other_model=True)


def test_another_width_is_refused_whatever_is_allowed():
    prompt_file = files.PromptFile("cb.safetensors", PROMPT, metadata())
    with pytest.raises(ValueError, match="width 4, made for t5_1_1_tiny .*; t5_1_1_xl has width 8"):
        fits(prompt_file, width=8, model_name="t5_1_1_xl", allow_other_model=True)
    bare = files.PromptFile("cb.npy", PROMPT, None)
    fits(bare, fingerprint="f" * 16)
    with pytest.raises(ValueError, match="made for a model that the file does not name"):
        fits(bare, width=8)


def test_a_prompt_is_used_where_it_was_trained():
    suffix = files.PromptFile("cb.safetensors", PROMPT, metadata(position="suffix"))
    fits(suffix, position="suffix")
    fits(suffix)
    with pytest.raises(ValueError) as error:
        fits(suffix, position="prefix", allow_other_model=True)
    assert str(error.value) == (
        "The prompt 'cb.safetensors' was trained as a suffix of the input, but is used here as a "
        "prefix. Set Run.prompt_position='suffix'."
    )
    fits(files.PromptFile("cb.npy", PROMPT, None), position="suffix")


@pytest.mark.parametrize(
    ("config", "position"),
    [
        ("Run:\n  prompt_position = 'suffix'\n", "suffix"),
        ('Run.prompt_position = "suffix"\n', "suffix"),
        ("Run.prompt_position = 'prefix'\n", "prefix"),
        ("PROMPT_LENGTH = 3\n", "prefix"),
    ],
)
def test_an_old_file_has_its_position_in_its_configuration(tmp_path, config, position):
    """Files that were written before there were methods have no kind, position or settings."""
    old = header(metadata(config=config))
    for name in ("kind", "position", "settings"):
        del old[name]
    safetensors.numpy.save_file({"prompt": PROMPT}, tmp_path / "a.safetensors", metadata=old)
    found = files.read_prompt(tmp_path / "a").metadata
    assert (found.kind, found.position, found.step) == ("prompt_tuning", position, 500)


def test_the_file_of_another_method_is_no_prompt(tmp_path):
    arrays = {"encoder/lora/a": np.ones((2, 3)), "encoder/lora/b": np.zeros(2)}
    about = metadata(kind="lora", length=0, settings={"rank": 2})
    path = files.save_arrays(tmp_path / "a", arrays, about)
    assert os.listdir(tmp_path) == ["a.safetensors"]
    found = files.read(path)
    assert {name: x.tolist() for name, x in found.arrays.items()} == {
        name: x.tolist() for name, x in arrays.items()
    }
    assert (found.metadata.kind, found.metadata.settings) == ("lora", {"rank": 2})
    with pytest.raises(ValueError, match="a.safetensors' holds what the method lora trained, and"):
        files.read_prompt(path)


@pytest.mark.parametrize("byte", range(10, 80, 3))
@pytest.mark.parametrize("value", [b"(", b"'", b"\x00", b"\xff"])
def test_a_damaged_npy_header_is_named(tmp_path, byte, value):
    """NumPy parses the header as Python, and raises what a Python parser raises."""
    files.save(tmp_path / "cb", PROMPT, metadata())
    path = tmp_path / "cb.npy"
    content = path.read_bytes()
    path.write_bytes(content[:byte] + value + content[byte + 1 :])
    with pytest.raises(ValueError, match=r"cb.npy' (cannot be read as .npy: .* damaged|has shape)"):
        files.read_prompt(path)


@pytest.mark.parametrize("task", ["mrpc", "rte", "sst2"])
def test_the_released_prompts_load(real_data, task):
    read = files.read_prompt(real_data / "released_prompts" / f"t5_1_1_lm100k_base_{task}")
    assert read.prompt.shape == (100, 768)
    assert read.prompt.dtype == np.float32
    assert read.metadata is None


def test_a_prompt_that_the_official_code_saved_has_no_suffix(tmp_path):
    path = tmp_path / "encoder.prompt.prompt.prompt"
    with open(path, "wb") as file:
        np.save(file, np.full((2, 3), 0.5, np.float32))
    found = files.read_prompt(path)
    np.testing.assert_array_equal(found.prompt, np.full((2, 3), 0.5))
    assert (found.path, found.metadata) == (str(path), None)
    path.write_text("no array")
    with pytest.raises(ValueError, match=r"encoder.prompt.prompt.prompt' cannot be read as .npy"):
        files.read_prompt(path)
