"""Files of what was tuned: arrays by path, small and safe to open.

    NAME.safetensors   the arrays, and their metadata in the header: model, method, settings
    NAME.npy           only beside a plain prompt: the same array [P, H], for other tools

A plain prompt is one tensor called `prompt`, the name that every file so far has and that other
tools look for; what another method added to a model has the paths of its parameters as names.
The official code writes a prompt as a .npy file without suffix, `encoder.prompt.prompt.prompt`.

Neither format can carry code: nothing here is ever pickled or unpickled. A `.npy` file has no
metadata about the model it was made for, so share the safetensors file.
"""

import dataclasses
import io
import os
import tokenize
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning import folders, paths
from prompt_tuning.prompts import metadata as metadata_lib
from prompt_tuning.prompts.metadata import PLAIN, PromptMetadata, header, read_header
from prompt_tuning.shapes import Float

SUFFIXES = (".safetensors", ".npy")

_TENSOR = "prompt"
_NPY_ERRORS = (
    ValueError,
    EOFError,
    TypeError,
    SyntaxError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """A plain prompt as read from a file; `metadata` is None where the file has none."""

    path: str
    prompt: Float[np.ndarray, "P H"]
    metadata: PromptMetadata | None


@dataclasses.dataclass(frozen=True)
class TunedFile:
    """What was read from a file, of whatever method; a plain prompt is called 'prompt'."""

    path: str
    arrays: dict[str, np.ndarray]
    metadata: PromptMetadata | None


def save(path: str | os.PathLike, prompt: Any, metadata: PromptMetadata) -> tuple[str, str]:
    """Writes NAME.safetensors and NAME.npy; each appears whole or not at all.

    Args:
      path: NAME, with or without one of the two suffixes. Its folder is made.
      prompt: [P, H], is written as float32.
      metadata: must have the prompt's length and width.

    Returns:
      The two paths, safetensors first.

    Raises:
      ValueError: the array is not a prompt, or the metadata give another shape.
    """
    name = _without_suffix(path)
    prompt = np.ascontiguousarray(checked(prompt, f"the prompt to save as {name!r}"), np.float32)
    if (metadata.length, metadata.width) != prompt.shape:
        raise ValueError(
            f"The metadata of {name!r} give a prompt of {metadata.length} vectors of width "
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


def save_arrays(
    path: str | os.PathLike, arrays: Mapping[str, Any], metadata: PromptMetadata
) -> str:
    """Writes NAME.safetensors, whole or not at all.

    Args:
      path: NAME, with or without suffix. Its folder is made.
      arrays: by the paths of their parameters; are written as float32.
      metadata: their origin.

    Returns:
      The path.
    """
    name = _without_suffix(path)
    tensors = {key: np.ascontiguousarray(array, np.float32) for key, array in arrays.items()}
    paths.make_folder(os.path.dirname(paths.absolute(name)))
    content = safetensors.numpy.save(tensors, metadata=header(metadata))
    folders.replace_file(name + ".safetensors", content)
    return name + ".safetensors"


def check_free(path: str | os.PathLike) -> None:
    """Refuses a NAME under which there is a prompt already.

    Raises:
      ValueError: names the file.
    """
    taken = [_without_suffix(path) + suffix for suffix in SUFFIXES]
    for file in filter(paths.is_file, taken):
        raise ValueError(f"{file!r} exists already. Choose another name, or remove it first.")


def read(path: str | os.PathLike) -> TunedFile:
    """Reads a file of what was tuned, whatever the method.

    Args:
      path: a .safetensors or .npy file, or a name to which one of them belongs (the
        safetensors file is preferred, since it knows its model), or a .npy file that has
        no such suffix.

    Raises:
      ValueError: there is no such file, it is damaged, or it holds numbers that are not finite.
        Pickled arrays are refused unopened.
    """
    path = _find(paths.expand(path))
    if not path.endswith(".safetensors"):
        return TunedFile(path, {_TENSOR: _read_npy(path)}, None)
    arrays, metadata = _read_safetensors(path)
    for name, array in arrays.items():
        _check_numbers(array, f"the tensor {name!r} of {path!r}")
    return TunedFile(path, arrays, metadata)


def read_prompt(path: str | os.PathLike) -> PromptFile:
    """Reads the file of a plain prompt.

    Args:
      path: see `read`.

    Raises:
      ValueError: see `read`; or it holds what another method trained, or no prompt: a [P, H]
        array of finite floating numbers.
    """
    return as_prompt(read(path))


def as_prompt(tuned: TunedFile) -> PromptFile:
    """Takes the plain prompt out of what was read.

    Raises:
      ValueError: see `read_prompt`.
    """
    path, arrays, metadata = tuned.path, tuned.arrays, tuned.metadata
    if metadata is not None and metadata.kind != PLAIN:
        raise ValueError(
            f"{path!r} holds what the method {metadata.kind} trained, and a plain prompt is "
            f"expected. Use it in a run whose Run.method is {metadata.kind}."
        )
    if _TENSOR not in arrays:
        raise ValueError(
            f"{path!r} is not a prompt file: expected one tensor named {_TENSOR!r}, it holds "
            f"{', '.join(sorted(arrays)[:5]) or 'nothing'}."
        )
    prompt = checked(arrays[_TENSOR], f"{path!r}")
    if metadata is not None and (metadata.length, metadata.width) != prompt.shape:
        raise ValueError(
            f"{path!r} contradicts itself: its metadata give {metadata.length} vectors of width "
            f"{metadata.width}, it holds {prompt.shape[0]} of width {prompt.shape[1]}."
        )
    return PromptFile(path, prompt.astype(np.float32), metadata)


def check_fits(
    prompt_file: PromptFile,
    *,
    width: int,
    model_name: str,
    fingerprint: Callable[[], str],
    position: str | None = None,
    allow_other_model: bool = False,
) -> None:
    """Refuses a plain prompt that was made for another model or another position.

    A prompt without metadata (.npy) or without a fingerprint (imported from peft) can only
    be checked for its width.

    Args:
      prompt_file: what `read_prompt` returned.
      width: H of the model it is to be used with.
      model_name: the name of that model.
      fingerprint: gives the fingerprint of its parameters; called only if the prompt has one,
        since it hashes the whole model.
      position: 'prefix' or 'suffix', where it is to be used; None is where it was trained.
      allow_other_model: accepts other parameters of the same width.

    Raises:
      ValueError: another width or position, always; another fingerprint, unless allowed.
    """
    metadata, path = prompt_file.metadata, prompt_file.path
    metadata_lib.check_kind(path, metadata, PLAIN)
    if prompt_file.prompt.shape[1] != width:
        raise ValueError(
            f"The prompt {path!r} has width {prompt_file.prompt.shape[1]}, made for "
            f"{metadata_lib.made_for(metadata)}; {model_name} has width {width}. A prompt cannot "
            f"be used with a model of another width: choose that model, or a prompt trained with "
            f"{model_name}."
        )
    if position is not None:
        metadata_lib.check_position(path, metadata, position)
    if not allow_other_model:
        metadata_lib.check_model(path, metadata, model_name=model_name, fingerprint=fingerprint)


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


def _read_npy(path: str) -> np.ndarray:
    content = paths.read_bytes(path)
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _NPY_ERRORS as error:  # NumPy parses the header as Python
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise ValueError(
                f"{path!r} holds pickled Python objects, which could run code when opened; it was "
                f"not opened. Save the prompt as a plain float32 array: "
                f"np.save(path, np.asarray(prompt, np.float32))."
            ) from error
        raise ValueError(
            f"{path!r} cannot be read as .npy: {error}. The file is damaged or incomplete; copy "
            f"it again."
        ) from error


def _read_safetensors(path: str) -> tuple[dict[str, np.ndarray], PromptMetadata | None]:
    try:
        with (
            paths.local_copy(path) as local,
            safetensors.safe_open(local, framework="numpy") as file,
        ):
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            found = file.metadata()
    except (safetensors.SafetensorError, TypeError) as error:
        raise ValueError(
            f"{path!r} cannot be read as .safetensors: {error}. The file is damaged or "
            f"incomplete; copy it again."
        ) from error
    return arrays, read_header(path, found)


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
    _check_numbers(array, whose)
    return array


def _check_numbers(array: np.ndarray, whose: str) -> None:
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"A prompt holds floating numbers; {whose} holds {array.dtype}. Convert it to float32."
        )
    bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
    if len(bad):
        where = f"vector {bad[0][0]}, column {bad[0][1]}" if array.ndim == 2 else f"at {bad[0]}"
        raise ValueError(
            f"A prompt holds finite numbers only; {whose} has {len(bad)} that are not (first: "
            f"{where}). The training that wrote it diverged."
        )
