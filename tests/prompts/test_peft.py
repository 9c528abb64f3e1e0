"""Adapters of peft: written as peft writes them, read where they are prompts, else refused."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from prompt_tuning.prompts import files, peft, show
from prompt_tuning.prompts.files import PromptFile
from prompt_tuning.prompts.metadata import PromptMetadata

PROMPT = np.arange(8, dtype=np.float32).reshape(2, 4) / 4
METADATA = PromptMetadata("t5_1_1_base", "0123456789abcdef", 2, 4, task="cb", step=300)


@pytest.fixture
def adapter(parity, copy_of):
    """The default adapter of peft, to be changed."""
    return copy_of(parity / "hf_tiny" / "adapter_default")


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_only_the_encoders_rows_are_read(adapter, parity):
    rows = safetensors.numpy.load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"]
    found = peft.read(adapter)
    np.testing.assert_array_equal(found.prompt, rows[:6])
    assert rows.shape == (12, 32)
    assert (found.metadata.model, found.metadata.model_fingerprint) == ("visible/model", "")
    one = peft.read(parity / "hf_tiny" / "adapter_encoder_only")
    assert one.prompt.shape == (6, 32)
    change_config(adapter, num_transformer_submodules=None)
    np.testing.assert_array_equal(peft.read(adapter).prompt, rows[:6])


def test_export_writes_what_peft_writes(tmp_path, parity):
    folder = peft.export(PromptFile("p", PROMPT, METADATA), tmp_path / "a", base_model="me/t5")
    assert folder == str(tmp_path / "a")
    written = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    theirs = parity / "hf_tiny" / "adapter_encoder_only" / "adapter_config.json"
    expected = json.loads(theirs.read_text())
    del expected["tokenizer_kwargs"]
    assert written == {
        **expected,
        "base_model_name_or_path": "me/t5",
        "num_virtual_tokens": 2,
        "token_dim": 4,
        "num_attention_heads": None,
        "num_layers": None,
    }
    with safetensors.safe_open(tmp_path / "a" / "adapter_model.safetensors", "numpy") as file:
        assert list(file.keys()) == ["prompt_embeddings"]
        assert file.metadata()["format"] == "pt"
        np.testing.assert_array_equal(file.get_tensor("prompt_embeddings"), PROMPT)


@pytest.mark.parametrize("metadata", [METADATA, None])
def test_a_prompt_survives_the_round_trip(metadata, tmp_path):
    folder = peft.export(PromptFile("p", PROMPT, metadata), tmp_path / "a")
    found = peft.read(folder)
    np.testing.assert_array_equal(found.prompt, PROMPT)
    if metadata is None:
        assert (found.metadata.model, found.metadata.model_fingerprint) == ("", "")
    else:
        assert found.metadata == METADATA


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(ValueError, match="exists already. Choose another folder"):
        peft.export(PromptFile("p", PROMPT, None), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_suffix_is_refused(tmp_path):
    metadata = PromptMetadata("t5", "f", 2, 4, position="suffix")
    message = "was trained as a suffix .* peft prepends every prompt. Train .*'prefix' to export"
    with pytest.raises(ValueError, match=message):
        peft.export(PromptFile("p", PROMPT, metadata), tmp_path / "a")


@pytest.mark.parametrize(
    "kind", ["PREFIX_TUNING", "LORA", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "IA3"]
)
def test_other_kinds_are_refused_by_name(kind, adapter):
    change_config(adapter, peft_type=kind)
    with pytest.raises(ValueError, match=f"is a {kind} adapter; only PROMPT_TUNING is a soft"):
        peft.read(adapter)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_type": "CAUSAL_LM"}, "made for CAUSAL_LM; .*SEQ_2_SEQ_LM"),
        ({"num_transformer_submodules": 3}, "num_transformer_submodules 3"),
        ({"modules_to_save": ["classifier"]}, r"besides its prompt \(\['classifier'\]\)"),
        ({"num_virtual_tokens": 5}, r"gives 5 vectors of width 32 for 2 .* holds \[12, 32\]"),
        ({"num_transformer_submodules": 1}, r"gives 6 .* for 1 submodules, .* holds \[12, 32\]"),
        ({"token_dim": 64}, r"of width 64 .* holds \[12, 32\]"),
        ({"num_virtual_tokens": None}, "gives None vectors"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, adapter):
    change_config(adapter, **changes)
    with pytest.raises(ValueError, match=f"The adapter '{adapter}' .*{message}"):
        peft.read(adapter)


def test_damage_is_named(adapter, tmp_path):
    with pytest.raises(ValueError, match="is not a peft adapter: there is no adapter_config.json"):
        peft.read(tmp_path)
    tensors = adapter / "adapter_model.safetensors"
    safetensors.numpy.save_file({"lora_A": PROMPT}, tensors)
    with pytest.raises(ValueError, match="one tensor, 'prompt_embeddings'; it holds lora_A"):
        peft.read(adapter)
    safetensors.numpy.save_file({"prompt_embeddings": PROMPT.astype(np.int32)}, tensors)
    with pytest.raises(ValueError, match="holds I32; F32, F16, BF16 are read"):
        peft.read(adapter)
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(ValueError, match="adapter_model.safetensors' is damaged or incomplete"):
        peft.read(adapter)
    tensors.rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match="only a pickle .* could run code and is not opened. Load"):
        peft.read(adapter)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="adapter_config.json' is damaged or incomplete"):
        peft.read(adapter)


def test_other_floats_become_float32(adapter):
    half = np.full((12, 32), 1.5, np.float16)
    safetensors.numpy.save_file({"prompt_embeddings": half}, adapter / "adapter_model.safetensors")
    found = peft.read(adapter).prompt
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.full((6, 32), 1.5))


def test_an_imported_prompt_fits_every_model_of_its_width(adapter, tmp_path):
    found = peft.read(adapter)
    files.save(tmp_path / "p", found.prompt, found.metadata)
    loaded = files.read_prompt(tmp_path / "p")
    files.check_fits(loaded, width=32, model_name="t5", fingerprint=lambda: "any")
    with pytest.raises(ValueError, match="has width 32, made for visible/model; t5 has width 64"):
        files.check_fits(loaded, width=64, model_name="t5", fingerprint=lambda: "any")
    assert "model    visible/model, fingerprint unknown" in show.summary(tmp_path / "p")
