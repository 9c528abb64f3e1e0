"""What a method is: the parameters it adds to a frozen T5, and which parameters train.

    hooks      where its modules attach to the T5; the parameters of these are what it adds
    start      their initial values
    trainable  which parameters train
    kind, settings    what its file records, next to the arrays it added

A method is data. A function with a few settings makes one, and gin names that function:
`Run.method = @my_package.my_method()`. `prompt_tuning.py` and `model_tuning.py` are two examples,
the README has a third.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning import trees
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.parameters import draw, parameter_shapes
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.shapes import Array, Float


class Frozen(NamedTuple):
    """What initial values may be made from.

    Attributes:
      config: dimensions of the frozen model.
      embeddings: its embedding table, or the one of EMBEDDING_FILE.
      tokenize: text to ids, without EOS.
    """

    config: T5Config
    embeddings: Float[Array, "V H"]
    tokenize: Callable[[str], list[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """What trains, where it attaches, how it starts and what its file records.

    Two are equal if they are of one kind, train the same and were made with the same settings.

    Attributes:
      kind: its name in the file of what was tuned; a file of another kind is refused.
      hooks: the modules that it attaches, see `model/hooks.py`.
      trainable: patterns of the parameters that train, whole paths; () is all that the hooks
        add, and no parameter of the model.
      start: `(rng, frozen) -> {path: array}` for all that the hooks add; None is what the
        modules themselves initialise their parameters with.
      settings: what it was made with. Those that JSON can express are kept in its file, and must
        be the same when the file is used.
    """

    kind: str
    hooks: Hooks = dataclasses.field(default=Hooks(), compare=False)
    trainable: tuple[str, ...] = ()
    start: Callable[[jax.Array, Frozen], trees.FlatTree] | None = dataclasses.field(
        default=None, compare=False
    )
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


def added_shapes(config: T5Config, hooks: Hooks) -> dict[str, tuple[int, ...]]:
    """The path and shape of every parameter that hooks add to a T5."""
    alone, hooked = parameter_shapes(config), parameter_shapes(config, hooks)
    return {path: shape for path, shape in hooked.items() if path not in alone}


def initial_values(method: Method, rng: jax.Array, frozen: Frozen) -> trees.FlatTree:
    """Makes the parameters that a method adds, in float32; the same ones for the same key.

    Raises:
      ValueError: `method.start` refuses, or makes other parameters than the hooks have.
    """
    expected = added_shapes(frozen.config, method.hooks)
    if method.start is None:
        values = draw(Transformer(frozen.config, method.hooks), rng, tuple(expected))
    else:
        values = method.start(rng, frozen)
    values = {path: jnp.asarray(value, jnp.float32) for path, value in values.items()}
    check_shapes(expected, values, f"The initial values of {method.kind} do")
    bad = [path for path, value in values.items() if not bool(jnp.isfinite(value).all())]
    if bad:
        raise ValueError(f"The initial values of {method.kind} are not finite: {bad[0]}.")
    return values


def trainable_paths(method: Method, paths: Iterable[str], added: Iterable[str]) -> list[str]:
    """The paths of what trains.

    Args:
      method: the method.
      paths: of all parameters, those that the method adds included.
      added: of those that the method adds.

    Raises:
      ValueError: nothing trains, or a pattern matches no parameter.
    """
    patterns = method.trainable or tuple(map(re.escape, added))
    if not patterns:
        raise ValueError(
            "Nothing trains in this run: it has no prompt and Run.trainable is empty. Set "
            "Run.method, for example with gin/methods/prompt_tuning.gin."
        )
    return trees.match(paths, patterns)


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any], subject: str
) -> None:
    """Refuses arrays that are not those that the hooks add.

    Args:
      expected: see `added_shapes`.
      found: arrays by path.
      subject: whose they are, with 'do' or 'does', for the message.

    Raises:
      ValueError: a parameter is missing, has no place, or is of another shape.
    """
    shapes = {path: tuple(value.shape) for path, value in found.items()}
    wrong = [f"{path} is missing" for path in sorted(expected.keys() - shapes.keys())]
    wrong += [f"{path} has no place" for path in sorted(shapes.keys() - expected.keys())]
    wrong += [
        f"{path} has shape {list(shapes[path])}, expected {list(expected[path])}"
        for path in sorted(shapes.keys() & expected.keys())
        if shapes[path] != tuple(expected[path])
    ]
    if wrong:
        raise ValueError(f"{subject} not fit the model: {'; '.join(wrong[:5])}.")


def json_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that JSON can express, as they are when they are read again.

    >>> json_settings({'length': 4, 'sizes': (1, 2), 'initializer': len})
    {'length': 4, 'sizes': [1, 2]}
    """
    kept = {}
    for name, value in settings.items():
        try:
            kept[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            continue
    return kept
