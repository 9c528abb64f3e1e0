"""The settings of a run as text, each under the name that a user sets it by.

    BATCH_SIZE                          '32'
    Run.optimizer                       '@adafactor'
    adafactor.learning_rate             '0.3'
    from_class_labels.labels            "['True', 'False']"
    from_class_labels.fallback          '@from_sampled_vocabulary'
    T5Config.dropout_rate               '0.1'

The Python object is walked, with its dataclasses, functions and `functools.partial`s at every
depth, because a run may be made without gin.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import paths
from prompt_tuning.macros import MACRO_OF_FIELD
from prompt_tuning.methods import model_tuning, of_run, prompt_tuning
from prompt_tuning.methods.method import Method
from prompt_tuning.prompts import files
from prompt_tuning.run import AS_METHOD, BATCH_SIZE, Run

# Fields that do not affect the result: folders, speed, additional measurements and files. Data and
# vocabulary are compared by content, not by path.
WITHOUT_EFFECT = {
    "model_dir",
    "eval_output_dir",
    "infer_output_dir",
    "config_text",
    "batch_tokens",  # its effect is that on batch_size
    "eval_batch_size",
    "eval_rank",
    "num_decodes",
    "checkpoint_steps",
    "data_dir",
    "vocabulary_file",
    "task_module",
    "allow_other_model",
    "resolved",
    "layers",
    "remat",
    "attention",
    "microbatch_rows",
    "pad_to_full_length",
    "packing",
    "profile_steps",
    "mesh",
}
OF_WHAT_IS_ADDED = {"prompt_initializer", "prompt_position", "embedding_file"}
PROBED_STEPS = sorted({0, *np.geomspace(1, 2_000_000, 120).astype(int).tolist()})
SHOWN_STEPS = (0, 100, 1_000, 10_000)


class Settings(NamedTuple):
    """Texts by name.

    Attributes:
      chosen: settings that differ from their default or have none.
      defaults: settings that have their default.
    """

    chosen: dict[str, str]
    defaults: dict[str, str]


class Part(NamedTuple):
    """One component of an object: an argument, a field, an attribute."""

    name: str
    value: Any
    default: Any = inspect.Parameter.empty


def settings(run: Run) -> Settings:
    """Lists the settings that affect the result of a run.

    A setting that names a file (..._file, ..._FILE, ....path) is replaced by a digest of the file's
    content.
    """
    found = Settings({}, {})
    adds_nothing = run.method.kind == model_tuning.KIND
    left_out = WITHOUT_EFFECT | (OF_WHAT_IS_ADDED if adds_nothing else set())
    for field in dataclasses.fields(run):
        if field.name in left_out:
            continue
        value = getattr(run, field.name)
        if field.name == "task_feature_lengths":  # the only mapping without an order
            value = dict(sorted(value.items()))
        name = MACRO_OF_FIELD.get(field.name, f"Run.{field.name}")
        _add(found, name, Part(name, value, _default(field)), "Run")
    return found


def _add(found: Settings, name: str, part: Part, parent: str) -> None:
    """Adds a setting and the components of its value; a name that is taken gets a prefix."""
    if name in found.chosen or name in found.defaults:
        name = f"{parent}/{name}"
    written = _written(name, part.value)
    is_default = part.default is not inspect.Parameter.empty and (
        _written(name, part.default) == written
    )
    (found.defaults if is_default else found.chosen)[name] = written
    if not written.startswith("schedule "):
        _add_parts(found, name, part.value)


def _add_parts(found: Settings, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        for item in value:
            _add_parts(found, name, item)
    elif _is_made_of_parts(value):
        owner = _qualified(value).rpartition(".")[2]
        for part in _parts(value):
            _add(found, f"{owner}.{part.name}", part, name)


def _written(name: str, value: Any) -> str:
    if name.endswith(".learning_rate") and callable(value):
        return _schedule(value) or text(value)
    if name.lower().endswith(("_file", ".path")) and isinstance(value, str):
        return _file(value)
    return text(value)


def text(value: Any) -> str:
    """Writes a value; equal values have equal texts, in every process and on every host.

    >>> text((1.0, 1e-4, np.float64(0.5))), text({'yes': None})
    ('[1, 0.0001, 0.5]', "{'yes': None}")
    >>> text(functools.partial(settings, run=3)), text(max)
    ('@settings', '@builtins.max')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if value is None or isinstance(value, bool | int | str | bytes | complex):
        return repr(value)
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, np.dtype | enum.Enum):
        return str(value)
    if isinstance(value, np.ndarray | jax.Array):
        array = np.ascontiguousarray(value)
        return f"{array.dtype}{list(array.shape)} {digest(array.tobytes())}"
    if isinstance(value, Mapping):
        pairs = (f"{text(key)}: {text(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(text, value)))}}}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(map(text, value))}]"
    return f"@{_qualified(value)}"


def digest(content: bytes) -> str:
    """A digest of 12 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def _file(path: str) -> str:
    """The digest of a file's content; a prompt may be named without its suffix."""
    with contextlib.suppress(ValueError, OSError):  # reading it reports what is wrong
        for candidate in (path, *(path + suffix for suffix in files.SUFFIXES)):
            if paths.is_file(place := paths.expand(candidate)):
                return f"file {digest(paths.read_bytes(place))}"
    return repr(path)


def _schedule(schedule: Callable[..., Any]) -> str | None:
    """A schedule by its values, since optax returns a closure; None if it takes no step."""
    try:
        rates = np.asarray(jax.vmap(schedule)(jnp.asarray(PROBED_STEPS)))
        shown = [float(schedule(step)) for step in SHOWN_STEPS]
    except Exception:  # not a function of the step
        return None
    listed = ", ".join(
        f"{rate:g} at {step:,}" for step, rate in zip(SHOWN_STEPS, shown, strict=True)
    )
    values = " ".join(f"{rate:.5g}" for rate in rates.tolist())  # ignores the last bits
    return f"schedule {listed} ({digest(values.encode())})"


def _is_made_of_parts(value: Any) -> bool:
    plain = (str, bytes, bool, int, float, complex, enum.Enum, np.ndarray, np.generic, np.dtype)
    others = (jax.Array, os.PathLike, set, frozenset, type, types.ModuleType, type(None))
    return not isinstance(value, plain + others)


def _parts(value: Any) -> Iterator[Part]:
    """What a partial binds, a function's defaults, a dataclass's fields, an object's attributes."""
    if isinstance(value, Method):
        yield from _method_parts(value)
    elif isinstance(value, functools.partial):
        yield from _arguments(value.func, value.args, value.keywords)
    elif inspect.ismethod(value):
        yield Part("self", value.__self__)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield Part(field.name, getattr(value, field.name), _default(field))
    elif hasattr(value, "_fields"):
        for name in value._fields:
            yield Part(name, getattr(value, name))
    elif inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        yield from _arguments(value, (), {})
        yield from _body(inspect.unwrap(value))
    else:
        for name, attribute in sorted(getattr(value, "__dict__", {}).items()):
            yield Part(name, attribute)


def _method_parts(method: Method) -> Iterator[Part]:
    """The settings of a method, which for prompt tuning are fields of the run, too.

    One without settings, of the user's own, is compared by its functions.
    """
    repeated = of_run.FIELDS.values() if method.kind == prompt_tuning.KIND else ()
    for name, value in method.settings.items():
        if name not in repeated:
            yield Part(name, value)
    if not method.settings and method.kind != model_tuning.KIND:
        yield Part("hooks", method.hooks)
        yield Part("start", method.start)


def _arguments(function: Callable, args: tuple, keywords: Mapping[str, Any]) -> Iterator[Part]:
    try:
        signature = inspect.signature(function)
        bound = signature.bind_partial(*args, **keywords).arguments
        parameters = signature.parameters
    except (TypeError, ValueError):  # some functions written in C have no signature
        bound = {**{f"argument_{i}": x for i, x in enumerate(args)}, **keywords}
        parameters = {}
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for key, value in bound.pop(name, {}).items():
                yield Part(key, value)
        elif name in bound:
            yield Part(name, bound.pop(name), parameter.default)
        elif parameter.default is not inspect.Parameter.empty:
            yield Part(name, parameter.default, parameter.default)
    for name, value in bound.items():
        yield Part(name, value)


def _body(function: Any) -> Iterator[Part]:
    """Closure, globals and constants of a function that cannot be imported by name."""
    code = getattr(function, "__code__", None)
    is_named = function.__module__ != "__main__" and "<" not in function.__qualname__
    if code is None or is_named:
        return
    used = inspect.getclosurevars(function)
    for name, value in sorted(used.nonlocals.items()):
        if value is not function:
            yield Part(name, value)
    for name, value in sorted(used.globals.items()):
        if isinstance(value, bool | int | float | str):
            yield Part(name, value)
    yield Part("body", sorted(set(_names_and_constants(code)) - {text(function.__doc__)}))


def _names_and_constants(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_and_constants(constant)
        elif constant is not None:
            yield text(constant)


def _default(field: dataclasses.Field) -> Any:
    if field.name == "batch_size":
        return BATCH_SIZE
    if field.default is AS_METHOD:
        argument = of_run.FIELDS.get(field.name, field.name)
        return inspect.signature(prompt_tuning.prompt_tuning).parameters[argument].default
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def _qualified(value: Any) -> str:
    """The name of a function or of an object's class.

    The module is left out for this package, and private modules for others: they change from
    version to version.
    """
    if isinstance(value, Method):
        return value.kind
    if isinstance(value, functools.partial):
        return _qualified(value.func)
    named = value if hasattr(value, "__qualname__") else type(value)
    module = getattr(named, "__module__", None) or "builtins"
    if module.split(".")[0] == "prompt_tuning":
        return named.__qualname__
    first, *rest = module.split(".")
    public = [first, *(name for name in rest if not name.startswith("_"))]
    return ".".join([*public, named.__qualname__])
