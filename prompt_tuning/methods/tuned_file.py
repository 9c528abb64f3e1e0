"""The file of what a method added to a model: written, read again, and checked.

A plain prompt is kept as every prompt file so far, see `prompts/files.py`; the arrays of another
method by their paths. A file is used only by the method, the settings and the model it was
trained with.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prompt_tuning import trees
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.methods.method import Method, added_shapes, check_shapes, json_settings
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files, metadata
from prompt_tuning.prompts.metadata import PromptMetadata


class Added(NamedTuple):
    """What a method added to a model, as read from its file.

    Attributes:
      method: with the length that a plain prompt has in the file.
      arrays: by path.
      path: of the file, None for a method that adds nothing.
    """

    method: Method
    arrays: trees.FlatTree
    path: str | None


def save(
    path: str | os.PathLike, method: Method, arrays: Mapping[str, Any], about: PromptMetadata
) -> str:
    """Writes what a method added, NAME.safetensors and for a plain prompt NAME.npy.

    Args:
      path: NAME.
      method: its kind and settings are written beside `about`.
      arrays: all that it added, by path.
      about: the model, the task and the step; the rest is filled in here.

    Returns:
      The path of the safetensors file.
    """
    settings = json_settings(method.settings)
    about = dataclasses.replace(
        about, kind=method.kind, settings=settings, position=settings.get("position", "")
    )
    if method.kind != prompt_tuning.KIND:
        return files.save_arrays(path, arrays, about)
    prompt, _ = prompt_tuning.split_prompt(arrays)
    about = dataclasses.replace(about, length=prompt.shape[0], width=prompt.shape[1])
    return files.save(path, prompt, about)[0]


def read(
    path: str | os.PathLike,
    method: Method,
    config: T5Config,
    fingerprint: Callable[[], str],
    *,
    allow_other_model: bool = False,
) -> Added:
    """Reads what a method added to a model.

    Args:
      path: see `files.read`.
      method: the method of the run.
      config: the model it is to be used with.
      fingerprint: gives the fingerprint of its parameters.
      allow_other_model: accepts other parameters of the same shapes.

    Raises:
      ValueError: the file cannot be read, or is of another method, model or settings.
    """
    tuned = files.read(path)
    metadata.check_kind(tuned.path, tuned.metadata, method.kind)
    if method.kind == prompt_tuning.KIND:
        prompt = files.as_prompt(tuned)
        files.check_fits(
            prompt,
            width=config.emb_dim,
            model_name=config.name,
            fingerprint=fingerprint,
            position=method.settings["position"],
            allow_other_model=allow_other_model,
        )
        changed = prompt_tuning.prompt_tuning(
            **{**method.settings, "length": len(prompt.prompt)}, trainable=method.trainable
        )
        return Added(changed, prompt_tuning.as_params(prompt.prompt), tuned.path)
    metadata.check_settings(tuned.path, tuned.metadata, json_settings(method.settings))
    check_shapes(added_shapes(config, method.hooks), tuned.arrays, f"The arrays of {path!r} do")
    if not allow_other_model:
        metadata.check_model(
            tuned.path, tuned.metadata, model_name=config.name, fingerprint=fingerprint
        )
    return Added(method, tuned.arrays, tuned.path)
