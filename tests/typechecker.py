"""Checks the shapes in annotations at run time, and only those.

Other annotations are left alone: what a user gets wrong there must end in our own
sentence, and the tests of those sentences need to reach them.
"""

import typing
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray


def check(function):
    """Decorates a function so that its annotated arrays are checked."""
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint if _names_an_array(hint) else Any for name, hint in hints.items()
    }
    return beartype(function)


def _names_an_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(_names_an_array(argument) for argument in typing.get_args(hint))
