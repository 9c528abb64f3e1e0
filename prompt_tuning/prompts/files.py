"""Prompt files: a trained prompt by itself, small and safe to open.

    NAME.safetensors   the tensor `prompt` [P, H], and in the header who made it and how
    NAME.npy           the same array, for other tools

The official code writes such an array as `encoder.prompt.prompt.prompt`, without a suffix.

Neither can carry code: nothing here is ever pickled or unpickled. A `.npy` says nothing
about the model it was made for, so the safetensors file is the one to hand on.
"""

import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning import folders, paths
from prompt_tuning.shapes import Float

SUFFIXES = (".safetensors", ".npy")

_TENSOR = "prompt"
_PACKAGES = ("prompt_tuning", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class PromptMetadata:
    """Where a prompt comes from.

    Attributes:
      model: name of the frozen model, 't5_1_1_small'.
      model_fingerprint: of the frozen model's parameters, see `trees.fingerprint`; empty
        where another tool made the prompt and nobody took it.
      length: P, the number of vectors.
      width: H, the model's width.
      task: the task or mixture it was trained on.
      step: training steps done.
      dev_metrics: the dev metrics at that step, by name; empty if none were measured.
      config: the run's resolved gin configuration, as text.
      versions: of the libraries, by package name.
      created: date and time in UTC, ISO 8601.
    """

    model: str
    model_fingerprint: str
    length: int
    width: int
    task: str = ""
    step: int = 0
    dev_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    config: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """A prompt as read from a file; `metadata` is None where the file has none."""

    path: str
    prompt: Float[np.ndarray, "P H"]
    metadata: PromptMetadata | None


def library_versions() -> dict[str, str]:
    """The installed versions of what a prompt's values depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def save(path: str | os.PathLike, prompt: Any, metadata: PromptMetadata) -> tuple[str, str]:
    """Writes NAME.safetensors and NAME.npy; each appears whole or not at all.

    Args:
      path: NAME, with or without one of the two suffixes. Its folder is made.
      prompt: [P, H], is written as float32.
      metadata: must tell the length and width that the prompt has.

    Returns:
      The two paths, safetensors first.

    Raises:
      ValueError: the array is no prompt, or the metadata tell another shape.
    """
    name = _without_suffix(path)
    prompt = np.ascontiguousarray(checked(prompt, f"the prompt to save as {name!r}"), np.float32)
    if (metadata.length, metadata.width) != prompt.shape:
        raise ValueError(
            f"The metadata of {name!r} tell a prompt of {metadata.length} vectors of width "
            f"{metadata.width}, but the prompt is {prompt.shape[0]} of width {prompt.shape[1]}."
        )
    npy = io.BytesIO()
    np.save(npy, prompt, allow_pickle=False)
    paths.make_folder(os.path.dirname(paths.absolute(name)))
    folders.replace_file(name + ".npy", npy.getvalue())
    folders.replace_file(
        name + ".safetensors", safetensors.numpy.save({_TENSOR: prompt}, metadata=header(metadata))
    )
    return name + ".safetensors", name + ".npy"


def check_free(path: str | os.PathLike) -> None:
    """Refuses a NAME under which there is a prompt already.

    Raises:
      ValueError: names the file.
    """
    taken = [_without_suffix(path) + suffix for suffix in SUFFIXES]
    for file in filter(paths.is_file, taken):
        raise ValueError(f"{file!r} exists already. Choose another name, or remove it first.")


def header(metadata: PromptMetadata) -> dict[str, str]:
    """Writes metadata as text, as they stand in the header of a file."""
    return {
        field: value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=float)
        for field, value in _as_dict(metadata).items()
    }


def load(path: str | os.PathLike) -> PromptFile:
    """Reads a prompt file.

    Args:
      path: a .safetensors or .npy file, or a name to which one of them belongs (the
        safetensors file is preferred, since it knows its model), or a .npy file that has
        no such suffix.

    Raises:
      ValueError: there is no such file, it is damaged, or what it holds is no prompt: a
        [P, H] array of finite floating numbers. Pickled arrays are refused unopened.
    """
    path = _find(paths.expand(path))
    is_safetensors = path.endswith(".safetensors")
    array, metadata = _load_safetensors(path) if is_safetensors else _load_npy(path)
    prompt = checked(array, f"{path!r}")
    if metadata is not None and (metadata.length, metadata.width) != prompt.shape:
        raise ValueError(
            f"{path!r} contradicts itself: its metadata tell {metadata.length} vectors of width "
            f"{metadata.width}, it holds {prompt.shape[0]} of width {prompt.shape[1]}."
        )
    return PromptFile(path, prompt.astype(np.float32), metadata)


def check_fits(
    prompt_file: PromptFile,
    *,
    width: int,
    model_name: str,
    fingerprint: Callable[[], str],
    allow_other_model: bool = False,
) -> None:
    """Refuses a prompt that was made for another model.

    A prompt without metadata (.npy) or without a fingerprint (imported from peft) can only
    be checked for its width.

    Args:
      prompt_file: what `load` returned.
      width: H of the model it is to be used with.
      model_name: the name of that model.
      fingerprint: gives the fingerprint of its parameters; called only if the prompt tells one,
        since it hashes the whole model.
      allow_other_model: accepts other parameters of the same width.

    Raises:
      ValueError: another width, always; another fingerprint, unless allowed.
    """
    made_for = _origin(prompt_file)
    if prompt_file.prompt.shape[1] != width:
        raise ValueError(
            f"The prompt {prompt_file.path!r} has width {prompt_file.prompt.shape[1]}, made for "
            f"{made_for}; {model_name} has width {width}. A prompt cannot be used with a model of "
            f"another width: choose that model, or a prompt trained with {model_name}."
        )
    metadata = prompt_file.metadata
    if metadata is None or not metadata.model_fingerprint or allow_other_model:
        return
    found = fingerprint()
    if metadata.model_fingerprint == found:
        return
    raise ValueError(
        f"The prompt {prompt_file.path!r} was made for {made_for}, but the model given is "
        f"{model_name} with fingerprint {found}. A prompt works only with the very "
        f"parameters it was trained in front of. Load that model, or pass --allow_other_model to "
        f"use the prompt all the same."
    )


def _origin(prompt_file: PromptFile) -> str:
    metadata = prompt_file.metadata
    if metadata is None or not metadata.model:
        return "a model that the file does not name"
    if not metadata.model_fingerprint:
        return metadata.model
    return f"{metadata.model} with fingerprint {metadata.model_fingerprint}"


def _without_suffix(path: str | os.PathLike) -> str:
    name = paths.expand(path)
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _find(path: str) -> str:
    candidates = [path] if path.endswith(SUFFIXES) else [path + suffix for suffix in SUFFIXES]
    for candidate in [*candidates, path]:
        if paths.is_file(candidate):
            return candidate
    raise ValueError(
        f"There is no prompt file {' or '.join(repr(each) for each in candidates)}. {_hint(path)}"
    )


def _hint(path: str) -> str:
    """What a folder that was named instead of a prompt file holds."""
    best = os.path.join(path, "prompts", "best")
    if any(paths.is_file(best + suffix) for suffix in SUFFIXES):
        return f"The best prompt of that run is {best!r}."
    if paths.is_file(os.path.join(path, "adapter_config.json")):
        return "It is a peft adapter: make a prompt file of it with `prompt-tuning prompt import`."
    return "A prompt file ends in .safetensors or .npy."


def _load_npy(path: str) -> tuple[np.ndarray, None]:
    try:
        file = io.BytesIO(paths.read_bytes(path))
        return np.lib.format.read_array(file, allow_pickle=False), None
    except (ValueError, EOFError) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise ValueError(
                f"{path!r} holds pickled Python objects, which could run code when opened; it was "
                f"not opened. Save the prompt as a plain float32 array: "
                f"np.save(path, np.asarray(prompt, np.float32))."
            ) from error
        raise ValueError(
            f"{path!r} cannot be read as .npy: {error}. The file is damaged or cut short; copy it "
            f"anew."
        ) from error


def _load_safetensors(path: str) -> tuple[np.ndarray, PromptMetadata | None]:
    try:
        with (
            paths.local_copy(path) as local,
            safetensors.safe_open(local, framework="numpy") as file,
        ):
            names, found = list(file.keys()), file.metadata()
            array = file.get_tensor(_TENSOR) if _TENSOR in names else None
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise ValueError(
            f"{path!r} cannot be read as .safetensors: {error}. The file is damaged or cut short; "
            f"copy it anew."
        ) from error
    if array is None:
        raise ValueError(
            f"{path!r} is no prompt file: it should hold one tensor named {_TENSOR!r}, it holds "
            f"{', '.join(sorted(names)[:5]) or 'nothing'}."
        )
    return array, read_header(path, found)


def read_header(path: str, found: Mapping[str, str] | None) -> PromptMetadata | None:
    """Reads a header; a file of another tool has none of our names and counts as bare.

    Raises:
      ValueError: it has some of our names, but not as `header` writes them.
    """
    fields = {field.name: field for field in dataclasses.fields(PromptMetadata)}
    known = {name: text for name, text in (found or {}).items() if name in fields}
    if not known:
        return None
    try:
        return PromptMetadata(
            **{
                name: text if fields[name].type is str else json.loads(text)
                for name, text in known.items()
            }
        )
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The metadata of {path!r} cannot be understood: {error}. They were not written by "
            f"prompt_tuning, or were edited."
        ) from error


def _as_dict(metadata: PromptMetadata) -> dict[str, Any]:
    values = {field.name: getattr(metadata, field.name) for field in dataclasses.fields(metadata)}
    return {name: dict(v) if isinstance(v, Mapping) else v for name, v in values.items()}


def checked(array: Any, whose: str) -> np.ndarray:
    """Returns a prompt [P, H] as it is.

    Raises:
      ValueError: the array is none; `whose` names it in the message.
    """
    array = np.asarray(array)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"A prompt is an array [P, H] of P vectors of the model's width H; {whose} has shape "
            f"{list(array.shape)}."
        )
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"A prompt holds floating numbers; {whose} holds {array.dtype}. Convert it to float32."
        )
    bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
    if len(bad):
        raise ValueError(
            f"A prompt holds finite numbers only; {whose} has {len(bad)} that are not (first: "
            f"vector {bad[0][0]}, column {bad[0][1]}). The training that wrote it diverged."
        )
    return array
