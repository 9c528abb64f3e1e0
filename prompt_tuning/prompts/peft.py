"""Prompts as peft's adapters: a folder that `PeftModel.from_pretrained` opens, and back.

    adapter_config.json          peft_type PROMPT_TUNING, how many vectors, how wide
    adapter_model.safetensors    `prompt_embeddings`, [P * S, H]

S, num_transformer_submodules, is 2 unless peft was set otherwise: it then trains rows for
the decoder, too, which nothing ever reads. Only the first P rows have an effect, prepended to the
encoder's input, as here. What is written here has S = 1.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning import folders, paths
from prompt_tuning.prompts import files
from prompt_tuning.prompts.files import PromptFile
from prompt_tuning.prompts.metadata import PromptMetadata, header, read_header

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"

_TENSOR = "prompt_embeddings"
_TYPES = ("F32", "F16", "BF16")
_KIND = "PROMPT_TUNING"
_TASK = "SEQ_2_SEQ_LM"
_TESTED_VERSION = "0.21.2"


def export(
    prompt_file: PromptFile, folder: str | os.PathLike, *, base_model: str | None = None
) -> str:
    """Writes a prompt as an adapter, whole or not at all.

    The prompt's origin is in the header of adapter_model.safetensors, which
    `read` reads again and peft ignores.

    Args:
      prompt_file: what `files.read_prompt` returned.
      folder: must not exist.
      base_model: the Hugging Face name or folder of the model that the prompt was made
        for; peft needs it only where the user names no model.

    Returns:
      The folder.

    Raises:
      ValueError: the folder exists, or the prompt was trained as a suffix, where
        peft cannot put it.
    """
    metadata = prompt_file.metadata
    if metadata and metadata.position == "suffix":
        raise ValueError(
            f"The prompt {prompt_file.path!r} was trained as a suffix of the input, and peft "
            "prepends every prompt. Train one with Run.prompt_position='prefix' to export it."
        )
    prompt = np.ascontiguousarray(prompt_file.prompt, np.float32)
    described = {"format": "pt", **(header(metadata) if metadata else {})}
    config = json.dumps(_config(prompt.shape, base_model), indent=2) + "\n"
    tensors = safetensors.numpy.save({_TENSOR: prompt}, metadata=described)
    folder = paths.local(folder, "An adapter")
    with folders.new_folder(folder) as temporary:
        folders.write_synced(os.path.join(temporary, CONFIG_FILE), config.encode())
        folders.write_synced(os.path.join(temporary, TENSOR_FILE), tensors)
    return os.path.abspath(folder)


def read(folder: str | os.PathLike) -> PromptFile:
    """Reads an adapter of peft.

    Returns:
      The prompt [P, H], and what is known of its origin: all, if it was exported from
      here, else the name of peft's base model.

    Raises:
      ValueError: there is no adapter, it is of another kind (PREFIX_TUNING, LORA, ...), for
        another kind of model, or contradicts itself.
    """
    folder = paths.local(folder, "An adapter")
    config = _read_config(folder)
    _check_kind(folder, config)
    array, described = _read_tensor(folder)
    length, width = config.get("num_virtual_tokens"), config.get("token_dim")
    rows = [length * s for s in _submodules(config) if isinstance(length, int)]
    if array.ndim != 2 or array.shape[0] not in rows or width not in (None, array.shape[1]):
        raise ValueError(
            f"The adapter {folder!r} contradicts itself: {CONFIG_FILE} gives {length} vectors of "
            f"width {width} for {config.get('num_transformer_submodules')} submodules, "
            f"{TENSOR_FILE} holds {list(array.shape)}."
        )
    prompt = files.checked(array[:length], f"{folder!r}").astype(np.float32)
    metadata = read_header(folder, described)
    if metadata is None:
        base = config.get("base_model_name_or_path") or ""
        metadata = PromptMetadata(
            model=base,
            model_fingerprint="",
            length=length,
            width=prompt.shape[1],
            position="prefix",
        )
    return PromptFile(folder, prompt, metadata)


def _config(shape: tuple[int, ...], base_model: str | None) -> dict[str, Any]:
    length, width = shape
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "modules_to_save": None,
        "num_attention_heads": None,
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "peft_type": _KIND,
        "peft_version": _TESTED_VERSION,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": None,
        "task_type": _TASK,
        "token_dim": width,
        "tokenizer_name_or_path": None,
    }


def _submodules(config: Mapping[str, Any]) -> tuple[int, ...]:
    """How often the prompt may be repeated in the file; peft's first versions did not store it."""
    told = config.get("num_transformer_submodules")
    return (1, 2) if told is None else (told,)


def _read_config(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, CONFIG_FILE)
    if not os.path.isfile(path):
        raise ValueError(
            f"{folder!r} is not a peft adapter: there is no {CONFIG_FILE} in it. Name the folder "
            f"that `save_pretrained` wrote."
        )
    try:
        config = json.loads(paths.read_bytes(path))
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path!r} is damaged or incomplete ({error}). Copy it again.") from error
    return config


def _check_kind(folder: str, config: Mapping[str, Any]) -> None:
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != _KIND:
        raise ValueError(
            f"The adapter {folder!r} is a {kind} adapter; only {_KIND} is a soft prompt of vectors "
            f"prepended to the embedded input, and only that can be imported."
        )
    if task not in (None, _TASK):
        raise ValueError(
            f"The adapter {folder!r} was made for {task}; the prompts here are for the encoder of "
            f"a T5 ({_TASK})."
        )
    submodules = config.get("num_transformer_submodules")
    if submodules not in (None, 1, 2):
        raise ValueError(
            f"The adapter {folder!r} has num_transformer_submodules {submodules!r}; an "
            f"encoder-decoder has 1 (the encoder) or 2."
        )
    if config.get("modules_to_save"):
        raise ValueError(
            f"The adapter {folder!r} has trained modules of the model besides its prompt "
            f"({config['modules_to_save']}), which a prompt file cannot hold."
        )


def _read_tensor(folder: str) -> tuple[np.ndarray, dict[str, str] | None]:
    path = os.path.join(folder, TENSOR_FILE)
    if not os.path.isfile(path):
        pickle = os.path.isfile(os.path.join(folder, "adapter_model.bin"))
        has = "only a pickle (adapter_model.bin), which could run code and is not opened"
        raise ValueError(
            f"The adapter {folder!r} has {has if pickle else 'no ' + TENSOR_FILE}. Load it with "
            f"peft and save it again with save_pretrained(folder, safe_serialization=True)."
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names, described = list(file.keys()), file.metadata()
            if names != [_TENSOR]:
                raise ValueError(
                    f"{path!r} should hold one tensor, {_TENSOR!r}; it holds "
                    f"{', '.join(sorted(names))}."
                )
            kind = file.get_slice(_TENSOR).get_dtype()
            if kind not in _TYPES:
                raise ValueError(f"{path!r} holds {kind}; {', '.join(_TYPES)} are read.")
            return file.get_tensor(_TENSOR), described
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path!r} is damaged or incomplete ({error}). Copy it again.") from error
