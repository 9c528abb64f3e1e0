"""Compares a setting with the type that its function declares, and describes a mismatch."""

import collections.abc
import dataclasses
import functools
import inspect
import numbers
import os
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prompt_tuning.config_files import Macro, Statement

_ARRAYS = (jax.Array, np.ndarray)
# What a gin file can express without a call.
_WRITTEN = (str, int, float, bool, list, tuple, dict, type(None), type, functools.partial)
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None",
}


def check_type(function: Callable[..., Any], key: str, value: Any, statement: Statement) -> None:
    """Refuses a value of another type than the parameter declares.

    A parameter without a type, and one whose default is the value, takes anything.

    Raises:
      ValueError: what was expected, what was found, and how to write it.
    """
    parameter = parameters(function).get(key)
    expected = _declared(function).get(key, Any)
    if fits(value, expected) or (parameter is not None and parameter.default is value):
        return
    macro = statement.value
    set_by = f" (set by {macro.name})" if isinstance(macro, Macro) else ""
    raise ValueError(
        f"{statement.name}{set_by} must be {describe(expected)}; got {shown(value)}."
        f"{_hint(value, expected)}"
    )


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class by name; none for what has no signature."""
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return {}


def fits(value: Any, expected: Any) -> bool:
    """Whether a value is of a type; a type that is not understood takes anything.

    An array or an object of a class may be any that was made by a call; text and numbers are not.

    >>> fits(3, int), fits(3.0, int), fits(3, float), fits(['a'], collections.abc.Sequence[str])
    (True, False, True, True)
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if expected is bool:
        return isinstance(value, bool | np.bool_)
    if expected in (int, float):
        kind = numbers.Integral if expected is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if _is_list(expected):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and inner[-1:] != (...,):
            return len(value) == len(inner) and all(map(fits, value, inner))
        return all(fits(item, inner[0] if inner else Any) for item in value)
    expected = origin or expected
    if expected in (collections.abc.Callable, type):
        return callable(value)
    if not isinstance(expected, type) or expected is Any:
        return True
    if issubclass(expected, os.PathLike):
        return isinstance(value, str | os.PathLike)
    return _is_a(value, expected) or not isinstance(value, _WRITTEN)


def describe(expected: Any) -> str:
    """The type in words.

    >>> describe(collections.abc.Sequence[str] | None)
    'a list of text or None'
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in inner if not (float in inner and _is_number(kind))]
        return " or ".join(dict.fromkeys(map(describe, kinds)))
    if expected in _WORDS:
        return _WORDS[expected]
    if expected in _ARRAYS:
        return "an array"
    if _is_list(expected):
        return f"a list of {describe(inner[0])}" if inner else "a list"
    expected = origin or expected
    if expected is collections.abc.Callable:
        return "a function"
    if expected is type:
        return "a class"
    if isinstance(expected, type) and issubclass(expected, collections.abc.Mapping):
        return "a dict"
    return f"a {getattr(expected, '__name__', expected)}"


def _is_a(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be checked
        return True


def _is_list(expected: Any) -> bool:
    kind = typing.get_origin(expected) or expected
    return kind in (list, tuple, collections.abc.Sequence)


def _is_number(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, bool | int | complex | np.generic)


def _declared(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    if isinstance(function, type) and not dataclasses.is_dataclass(function):
        function = function.__init__
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that only a type checker can see
        return {}


def shown(value: Any) -> str:
    """A value as it is written in a gin file.

    >>> shown('text'), shown(functools.partial(fits, value=3))
    ("'text'", '@fits without parentheses')
    """
    function = value.func if isinstance(value, functools.partial) else value
    is_reference = isinstance(value, functools.partial | type)
    return f"@{function.__name__} without parentheses" if is_reference else repr(value)


def _hint(value: Any, expected: Any) -> str:
    if isinstance(value, functools.partial | type):
        return f" Write {shown(value).split()[0]}()."
    comma = isinstance(value, str) and re.fullmatch(r"-?\d+,\d+", value)
    pair = isinstance(value, tuple) and len(value) == 2 and fits(0.0, expected)
    if comma or pair:
        return " Decimals have a point, as in 0.3."
    if isinstance(value, str) and fits([value], expected):
        return f" Write [{value!r}]."
    if fits({}, expected) and not fits("", expected):
        return " Write {'NAME': VALUE}."
    return ""
