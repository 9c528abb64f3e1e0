"""Reads pretrained parameters from any supported format, strictly.

    load_model(path, expected) -> {'token_embedder/embedding': array, ...}

Every parameter that the model expects is loaded, or is declared new (the prompt), or the run
stops and names it; so it does for a parameter that the model does not have. Optimizer states
are never read.

A further format is one more entry in `_READERS`: a module with `recognises(folder)` and
`leaves(folder)`, in T5X's parameter names.
"""

import collections
import concurrent.futures
import difflib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from prompt_tuning import paths, trees
from prompt_tuning.checkpoints import (
    hugging_face,
    hugging_face_hub,
    t5x_native,
    t5x_orbax,
    t5x_safetensors,
)
from prompt_tuning.checkpoints import leaves as leaves_lib
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import EMBEDDING_PATH

_READERS: dict[str, ModuleType] = {
    "T5X": t5x_native,
    "T5X (Orbax)": t5x_orbax,
    "safetensors with T5X's names": t5x_safetensors,
    "Hugging Face (safetensors)": hugging_face,
}


class _Names(NamedTuple):
    is_name: Callable[[str], bool]
    find: Callable[[str], str]
    fingerprint: Callable[[str], str | None]


_NAMED: dict[str, _Names] = {}
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_PARALLEL_READS = 4
_logger = logging.getLogger(__name__)


def register_names(
    family: str,
    *,
    is_name: Callable[[str], bool],
    find: Callable[[str], str],
    fingerprint: Callable[[str], str | None] = lambda name: None,
) -> None:
    """Makes the names of a family of models usable wherever a checkpoint path is.

    Args:
      family: registering it again replaces it.
      is_name: whether a text is such a name and not a path.
      find: turns a name into the path of a checkpoint, or raises ValueError.
      fingerprint: of the parameters, see `trees.fingerprint`, where it is known without reading
        them; None where it is not.
    """
    _NAMED[family] = _Names(is_name, find, fingerprint)


class ParameterRow(NamedTuple):
    """One line of `show`."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    count: int


def find(path: str | os.PathLike) -> str:
    """Turns what a user wrote into the folder of one checkpoint.

    Args:
      path: .../checkpoint_1000 with or without a trailing slash, the index file in it,
        or the folder that holds several of them, of which the newest is taken; a Hugging
        Face folder; hf://NAME@REVISION, see `hugging_face_hub.py`; or a
        registered name, see `register_names`.

    Raises:
      ValueError: there is no checkpoint, or one that is not read.
    """
    return _find(os.fspath(path))[0]


def family_of_name(path: str) -> str | None:
    """The family that a registered name is of, see `register_names`; None for a path."""
    return next((family for family, names in _NAMED.items() if names.is_name(path)), None)


def stated_fingerprint(path: str) -> str | None:
    """The fingerprint of a checkpoint's parameters, where it is known without reading them.

    Returns:
      None for a path, and for a name whose family does not know it.
    """
    family = family_of_name(path)
    return _NAMED[family].fingerprint(path) if family else None


def step_of(name: str) -> int | None:
    """The step in the name of a T5X checkpoint's folder; None for another name.

    >>> step_of('checkpoint_1000'), step_of('best')
    (1000, None)
    """
    named = re.fullmatch(r"checkpoint_(\d+)", name)
    return int(named[1]) if named else None


def variables(path: str | os.PathLike) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The shape and dtype of every parameter, by T5X name; reads no values."""
    return {name: (leaf.shape, leaf.dtype) for name, leaf in leaves(path).items()}


def show(path: str | os.PathLike) -> list[ParameterRow]:
    """The parameters as rows of a table, sorted by name."""
    return [
        ParameterRow(name, shape, dtype.name, int(np.prod(shape, dtype=np.int64)))
        for name, (shape, dtype) in sorted(variables(path).items())
    ]


def read_variable(path: str | os.PathLike, name: str) -> np.ndarray:
    """Reads one parameter, `token_embedder/embedding`, and no other.

    Raises:
      ValueError: the checkpoint has no parameter of that name.
    """
    folder, found = _leaves(path)
    if name not in found:
        close = difflib.get_close_matches(name, found, n=3)
        hint = (
            f"Close names: {', '.join(close)}."
            if close
            else f"It has {leaves_lib.some(sorted(found))}."
        )
        raise ValueError(f"{folder!r} has no parameter {name!r}. {hint}")
    return found[name].read()


def load_model(
    path: str | os.PathLike,
    expected: Mapping[str, Any],
    *,
    model: T5Config | None = None,
    dtype: str = "float32",
    new: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> trees.FlatTree:
    """Reads the parameters that a model expects, each or an error; see `each_parameter`.

    Args:
      path, expected, model, new, ignore: see `each_parameter`.
      dtype: 'float32' or 'bfloat16'; each array is cast as it is read.

    Returns:
      {T5X name: numpy array}.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, _DTYPES))}, got {dtype!r}.")
    read = each_parameter(path, expected, model=model, new=new, ignore=ignore)
    return {name: array.astype(_DTYPES[dtype], copy=False) for name, array in read}


def each_parameter(
    path: str | os.PathLike,
    expected: Mapping[str, Any],
    *,
    model: T5Config | None = None,
    new: Iterable[str] = (),
    ignore: Iterable[str] = (),
    ahead: int = _PARALLEL_READS,
    read: Callable[[str, Leaf], Any] = lambda name, leaf: leaf.read(),
) -> Iterator[tuple[str, Any]]:
    """Reads the parameters that a model expects one after the other, sorted by name.

    Args:
      path: see `find`; local, gs:// or hf://.
      expected: {T5X name: shape, or anything with a shape}.
      model: the model that expects them; where the checkpoint states its settings, as
        Hugging Face's do, they are compared.
      new: patterns of expected names that the checkpoint may lack. What is there under
        such a name is read nevertheless; what is not is left out of the result.
      ignore: patterns of names in the checkpoint that are not to be read; each must
        match one.
      ahead: how many are read at a time, and so in memory.
      read: reads one of them, given its name; in a thread.

    Yields:
      Name and what `read` returns: the array, in the type that is stored.

    Raises:
      ValueError: names or shapes differ (of each kind all are counted and the first eight
        named), or the checkpoint is damaged, or its settings are not the model's.
    """
    folder, reader = _find(os.fspath(path))
    if model is not None and reader is hugging_face:
        hugging_face.check_model(folder, model)
    found = reader.leaves(folder)
    ignored = set(trees.match(found, ignore))
    found = {name: leaf for name, leaf in found.items() if name not in ignored}
    shapes = {name: tuple(getattr(leaf, "shape", leaf)) for name, leaf in expected.items()}
    _check_fits(folder, found, shapes, new=tuple(new))
    names = sorted(shapes.keys() & found.keys())
    with concurrent.futures.ThreadPoolExecutor(ahead) as pool:
        reading: collections.deque[concurrent.futures.Future] = collections.deque()
        for number, name in enumerate(names):
            while len(reading) < min(ahead, len(names) - number):
                later = names[number + len(reading)]
                reading.append(pool.submit(read, later, found[later]))
            yield name, reading.popleft().result()


def recreate(
    frozen_path: str | os.PathLike, prompt: Any, out_dir: str | os.PathLike, step: int
) -> str:
    """Writes a frozen checkpoint and a prompt as one T5X checkpoint.

    Reads and writes one parameter at a time.

    Args:
      frozen_path: see `find`.
      prompt: [P, H].
      out_dir: the folder to make checkpoint_STEP in.
      step: the number in its name.

    Returns:
      The new checkpoint's path.

    Raises:
      ValueError: the prompt has another width than the model, or the checkpoint holds a
        prompt already.
    """
    folder, found = _leaves(frozen_path)
    held, _ = prompt_tuning.split_prompt(found)
    if held is not None:
        raise ValueError(
            f"{folder!r} holds a prompt already, of shape {list(held.shape)}. Take the checkpoint "
            "of the frozen model alone."
        )
    width = found[EMBEDDING_PATH].shape[-1] if EMBEDDING_PATH in found else None
    if np.ndim(prompt) != 2 or np.shape(prompt)[1] != width:
        raise ValueError(
            f"The prompt has shape {list(np.shape(prompt))}; the model in {folder!r} takes [P, "
            f"{width}]. Take the checkpoint that the prompt was trained with."
        )
    return t5x_native.write(out_dir, trees.merge(found, prompt_tuning.as_params(prompt)), step)


def leaves(path: str | os.PathLike) -> dict[str, Leaf]:
    """Lists the parameters, by T5X name, to be read one at a time."""
    return _leaves(path)[1]


def hugging_face_model(path: str | os.PathLike) -> T5Config | None:
    """The dimensions and activations of a Hugging Face checkpoint; None for other kinds."""
    folder, reader = _find(os.fspath(path))
    return hugging_face.read_model(folder) if reader is hugging_face else None


def _leaves(path: str | os.PathLike) -> tuple[str, dict[str, Leaf]]:
    folder, reader = _find(os.fspath(path))
    return folder, reader.leaves(folder)


def _find(path: str) -> tuple[str, ModuleType]:
    if not path:
        raise ValueError("A checkpoint is named by its folder or as hf://NAME; got an empty name.")
    if hugging_face_hub.is_name(path):
        folder = hugging_face_hub.fetch(path)
    else:
        named = next((names for names in _NAMED.values() if names.is_name(path)), None)
        folder = named.find(path) if named else _expand(path).rstrip("/") or "/"
    is_index = os.path.basename(folder) == t5x_native.INDEX_FILE and os.path.isfile(folder)
    if is_index or hugging_face.is_file_of_one(folder):
        folder = os.path.dirname(folder) or "."
    reader = _reader_of(folder)
    if reader is not None:
        return folder, reader
    inside = leaves_lib.subfolders(folder)
    steps = sorted(step for name in inside if (step := step_of(name)) is not None)
    for step in reversed(steps):
        newest = leaves_lib.join(folder, f"checkpoint_{step}")
        reader = _reader_of(newest)
        if reader is not None:
            _logger.info("%s holds checkpoints of steps %s; taking %s.", folder, steps, newest)
            return newest, reader
    raise ValueError(_not_found(folder, inside))


def _expand(path: str) -> str:
    web = re.match(r"https?://huggingface\.co/([^/]+/[^/?#]+)", path)
    if web:
        raise ValueError(f"{path!r} is a web page; name the model as hf://{web[1]}.")
    return paths.expand(path, also=("hf",))


def _reader_of(folder: str) -> ModuleType | None:
    return next((reader for reader in _READERS.values() if reader.recognises(folder)), None)


def _not_found(folder: str, inside: set[str]) -> str:
    formats = f"Formats read: {', '.join(_READERS)}."
    if not inside:
        if os.path.isfile(folder):
            return f"{folder!r} is a file and not a checkpoint. {formats}"
        if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", folder) and not os.path.exists(folder):
            return (
                f"There is no folder {folder!r}. A model on the Hugging Face Hub is named "
                f"hf://{folder}. {formats}"
            )
        return f"There is no checkpoint {folder!r}: no such folder, or an empty one. {formats}"
    if any(re.search(r"\.ckpt-\d+\.", name) or name == "checkpoint" for name in inside):
        return (
            f"{folder!r} is a TensorFlow checkpoint (of Mesh TensorFlow's T5), which is not read "
            f"here. Take the T5X checkpoint of the same model. {formats}"
        )
    if "snapshots" in inside:
        return _hub_cache(folder)
    return (
        f"{folder!r} is not a checkpoint, nor does it hold folders checkpoint_STEP; it holds "
        f"{leaves_lib.some(sorted(inside))}. {formats}"
    )


def _hub_cache(folder: str) -> str:
    """Describes which folder of the Hugging Face cache holds the model."""
    snapshots = leaves_lib.join(folder, "snapshots")
    commits = sorted(leaves_lib.subfolders(snapshots))
    main = leaves_lib.read_file(leaves_lib.join(folder, "refs"), "main")
    newest = main.decode(errors="replace").strip() if main else ""
    if not commits:
        return f"{folder!r} is a folder of the Hugging Face cache without a model in it."
    chosen = newest if newest in commits else commits[0]
    repo = os.path.basename(folder).removeprefix("models--").replace("--", "/")
    return (
        f"{folder!r} is a folder of the Hugging Face cache, and the model is in one of its "
        f"snapshots: name {leaves_lib.join(snapshots, chosen)!r}, or hf://{repo}@{chosen}."
    )


def _check_fits(
    folder: str, found: Mapping[str, Leaf], shapes: Mapping[str, Any], *, new: tuple[str, ...]
) -> None:
    missing = [
        name
        for name in sorted(shapes.keys() - found.keys())
        if not any(re.fullmatch(pattern, name) for pattern in new)
    ]
    unexpected = sorted(found.keys() - shapes.keys())
    wrong = [
        f"{name} ({list(found[name].shape)} in the checkpoint, {list(shapes[name])} in the model)"
        for name in sorted(shapes.keys() & found.keys())
        if found[name].shape != shapes[name]
    ]
    if not (missing or unexpected or wrong):
        return
    parts = [
        f"{what} ({len(names)}): {leaves_lib.some(names)}."
        for what, names in (
            ("Missing in the checkpoint", missing),
            ("In the checkpoint but not in the model", unexpected),
            ("Of another shape", wrong),
        )
        if names
    ]
    raise ValueError(
        f"The checkpoint {folder!r} does not fit the model. {' '.join(parts)} {_advice(unexpected)}"
    )


def _advice(unexpected: list[str]) -> str:
    if any(
        re.match(r"(encoder/encoder|decoder/decoder|(en|de)coder/layers)/", n) for n in unexpected
    ):
        return (
            "This checkpoint stacks its layers (T5X's scan_layers); only one array for each layer "
            "can be read. Save it with T5X without scan_layers."
        )
    if unexpected and all(map(prompt_tuning.is_prompt, unexpected)):
        return "It holds a prompt: ignore it by name, or load a checkpoint of the model alone."
    return "Choose the model (its gin file) that the checkpoint was made for, or its checkpoint."
