"""Writes the prompt to files of its own at every save of T5X.

    MODEL_DIR/prompts/step_001000.safetensors, .npy                        our own prompt files
    MODEL_DIR/numpy_checkpoints/checkpoint_1000/encoder.prompt.prompt.prompt   the official code's

T5X calls it as one of `SaveCheckpointConfig.state_transformation_fns`, which see every save,
whatever the checkpoint's format. MODEL_DIR may be gs://.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from t5x import gin_utils

from prompt_tuning import folders, paths, trees
from prompt_tuning.bridge.network import PromptTransformer
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

SaveTransformation = Callable[[Mapping[str, Any], Any], tuple[Mapping[str, Any], Any]]


def prompt_files(
    *, model_dir: str, config: T5Config, task: str, module: PromptTransformer | None = None
) -> SaveTransformation:
    """Makes the function that T5X calls at every save; it changes nothing in what is saved.

    Args:
      model_dir: the run's folder.
      config: the T5, for its name.
      task: what the prompt is trained on, for the files' metadata.
      module: the network, for the position of its prompt; None leaves the position unknown.
    """
    fingerprint: list[str] = []  # of the frozen model, which every save shares

    def write(state: Mapping[str, Any], parameter_infos: Any) -> tuple[Mapping[str, Any], Any]:
        prompt, params = prompt_tuning.split_prompt(trees.flatten(state["target"]))
        if not fingerprint:
            fingerprint.append(trees.fingerprint(_OnHost(params)))
        if jax.process_index() == 0:
            array = _OnHost({"prompt": prompt})["prompt"].astype(np.float32)
            metadata = PromptMetadata(
                model=config.name,
                model_fingerprint=fingerprint[0],
                length=array.shape[0],
                width=array.shape[1],
                task=task,
                step=int(state["state"]["step"]),
                position=module.position if module else "",
                config=gin_utils.get_gin_config_str(),
            )
            _write(model_dir, array, metadata)
        return state, parameter_infos

    return write


class _OnHost(dict):
    """Arrays that are brought to this host one at a time, when they are looked at."""

    def __getitem__(self, path: str) -> np.ndarray:
        leaf = super().__getitem__(path)
        if getattr(leaf, "is_fully_addressable", True):
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)


def _write(model_dir: str, prompt: np.ndarray, metadata: PromptMetadata) -> None:
    root, step = paths.expand(model_dir), metadata.step
    written = files.save(os.path.join(root, "prompts", f"step_{step:06d}"), prompt, metadata)
    official = os.path.join(root, "numpy_checkpoints", f"checkpoint_{step}")
    paths.make_folder(official)
    npy = next(path for path in written if path.endswith(".npy"))
    content = paths.read_bytes(npy)
    folders.replace_file(os.path.join(official, prompt_tuning.official_name()), content)
