"""Several methods over one frozen model, a row of a batch with one of them each.

    prompt_ids   [1, 0, 1]      row 0 has the prompt of method 1, row 1 that of method 0, ...
    parameters   encoder/prompt/prompt/prompt_0/...    of method 0
                 encoder/prompt/prompt/prompt_1/...    of method 1

Methods that put a prompt into the input can be mixed, whatever computes it: each makes its prompt,
[P, H], and a row takes the vectors of its own. So a row's output and its gradient are those of the
row alone, and the other methods have a gradient of exactly 0. The prompts are parameters of their
own, so an optimizer that looks at a whole array, as Adafactor does, treats each as if alone.

A module at another place serves all rows with one set of parameters. One of your own may choose by
`Inputs.prompt_ids`, see `model/hooks.py`; it is then one method, and nothing needs to be mixed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning import trees
from prompt_tuning.methods.method import Method
from prompt_tuning.methods.prompt_tuning import numbered_path
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs, reserve_prompt
from prompt_tuning.prompts.prompt import JoinPrompt, Prompt, soft_prompt_hooks
from prompt_tuning.shapes import Array, Float


class Stacked(nn.Module):
    """Makes M prompts and stacks them, padded to the longest with zeros."""

    each: tuple[Callable[..., nn.Module], ...]
    length: int

    @nn.compact
    def __call__(self, width: int) -> Float[Array, "M P H"]:
        made = [vectors(name=f"prompt_{i}")(width) for i, vectors in enumerate(self.each)]
        return jnp.stack([jnp.pad(x, ((0, self.length - len(x)), (0, 0))) for x in made])


def mixed_hooks(methods: Sequence[Method]) -> Hooks:
    """Makes hooks with which row b has the prompt of method `prompt_ids[b]`.

    Make them once: new ones compile again.

    Args:
      methods: their prompts may differ in length, not in position.

    Raises:
      ValueError: a method attaches something else, or the positions differ.

    >>> from prompt_tuning.methods.prompt_tuning import prompt_tuning
    >>> hooks = mixed_hooks([prompt_tuning(length=20), prompt_tuning(length=100)])
    """
    if not methods:
        raise ValueError("Expected one or more methods to mix, got none.")
    parts = [_parts(number, method) for number, method in enumerate(methods)]
    lengths, positions, each = zip(*parts, strict=True)
    for number, position in enumerate(positions):
        if position != positions[0]:
            raise ValueError(
                f"Prompts of one batch are all at one position; that of method 0 is a "
                f"{positions[0]}, that of method {number} a {position}. Mix each kind by itself."
            )
    vectors = functools.partial(Stacked, each, max(lengths))
    hooks = soft_prompt_hooks(length=max(lengths), position=positions[0], vectors=vectors)
    reserve = functools.partial(_reserve_by_id, reserve=hooks.reserve, lengths=lengths)
    return dataclasses.replace(hooks, reserve=reserve)


def mixed_arrays(several: Sequence[Mapping[str, Any]]) -> trees.FlatTree:
    """What the methods added, as the parameters of `mixed_hooks`.

    Args:
      several: the arrays of each method by path, in the order of the methods.

    >>> mixed_arrays([{'encoder/prompt/prompt/prompt': 1}, {'encoder/prompt/prompt/prompt': 2}])
    {'encoder/prompt/prompt/prompt_0/prompt': 1, 'encoder/prompt/prompt/prompt_1/prompt': 2}
    """
    return {
        numbered_path(path, number): array
        for number, arrays in enumerate(several)
        for path, array in arrays.items()
    }


def _parts(number: int, method: Method) -> tuple[int, str, Callable[..., nn.Module]]:
    """The length, the position and the module of a method's prompt."""
    hooks = method.hooks
    reserve, join = hooks.reserve, hooks.encoder_input
    others = dataclasses.replace(hooks, reserve=None, encoder_input=None)
    is_soft_prompt = (
        isinstance(reserve, functools.partial)
        and reserve.func is reserve_prompt
        and isinstance(join, functools.partial)
        and join.func is JoinPrompt
        and others == Hooks()
    )
    if not is_soft_prompt:
        used = [x.name for x in dataclasses.fields(Hooks) if getattr(hooks, x.name) is not None]
        raise ValueError(
            f"Only methods that put a prompt into the input can be mixed; method {number}, "
            f"{method.kind}, attaches {', '.join(used) or 'nothing'}. Use it in a batch of its own."
        )
    plain = functools.partial(Prompt, join.keywords["length"], join.keywords["initializer"])
    vectors = join.keywords["vectors"] or plain
    return reserve.keywords["length"], reserve.keywords["position"], vectors


def _reserve_by_id(
    inputs: Inputs, *, reserve: Callable[[Inputs], Inputs], lengths: tuple[int, ...]
) -> Inputs:
    """Reserves as many places as the prompt of each row has vectors."""
    if inputs.prompt_ids is not None:
        own = jnp.asarray(lengths, jnp.int32)[inputs.prompt_ids]
        inputs = inputs._replace(prompt_lengths=own)
    return reserve(inputs)
