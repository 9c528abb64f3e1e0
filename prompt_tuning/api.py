"""The Python interface: load a model, a prompt or a run in one line each."""

import os
from collections.abc import Sequence

from prompt_tuning import config
from prompt_tuning.data import vocabularies
from prompt_tuning.inference import frozen
from prompt_tuning.inference.frozen import FrozenT5
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files
from prompt_tuning.run import Run


def load_model(
    model: str | T5Config,
    checkpoint_path: str,
    *,
    vocabulary: str | None = None,
    vocabulary_file: str | None = None,
    dtype: str = "float32",
) -> FrozenT5:
    """Loads a frozen T5.

    Args:
      model: a size, such as 't5_1_1_small' (a part of gin/models), or dimensions.
      checkpoint_path: a T5X checkpoint, local or gs://; a Hugging Face one, a folder or
        hf://NAME@REVISION; 'random' for untrained parameters.
      vocabulary: 't5', 'mt5', 'byt5' or 'pocket'; None goes by the model's name.
      vocabulary_file: a sentencepiece model on disk; None is the public one.
      dtype: of the parameters, 'float32', 'bfloat16', 'int8' or 'int8_w8a8'.

    Raises:
      ValueError: an unknown size, or a checkpoint that cannot be read or does not fit.

    >>> t5 = load_model('tiny_byt5', 'random')
    >>> t5.score(['is it so?'], ['yes', 'no']).shape
    (1, 2)
    """
    if isinstance(model, str):
        model = config.read_model(model)
    if vocabulary is None:
        named = [name for name in vocabularies.FAMILIES if name in model.name]
        vocabulary = max(named, key=len, default="t5")  # 'mt5' and 'byt5' have 't5' in them
    pieces = vocabularies.get(vocabulary, vocabulary_file)
    return frozen.load_t5(model, checkpoint_path, pieces, dtype=dtype)


def load_prompt(path: str) -> files.PromptFile:
    """Loads a prompt, .safetensors or .npy; see `prompts/files.py`."""
    return files.read_prompt(path)


def load_run(gin_files: str | os.PathLike | Sequence[str], **macros: object) -> Run:
    """Reads a configuration, for `train`, `evaluate` or `infer`.

    Args:
      gin_files: one or more files, such as 'configs/pocket/quickstart.gin'.
      **macros: further settings, such as `TRAIN_STEPS=100`.

    Raises:
      ValueError: see `config.load`.
    """
    names = [gin_files] if isinstance(gin_files, str | os.PathLike) else gin_files
    texts = {name: str(x) if isinstance(x, os.PathLike) else x for name, x in macros.items()}
    return config.load(names, [f"{name}={value!r}" for name, value in texts.items()])
