"""Converts a checkpoint from one format to another, and compares two checkpoints.

Values are copied bit for bit, one parameter in memory at a time.
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from prompt_tuning import paths
from prompt_tuning.checkpoints import (
    checkpoint,
    hugging_face,
    hugging_face_config,
    t5x_native,
    t5x_orbax,
)
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.sizes import T5Config

FORMATS = ("t5x", "orbax", "hf")
_FUNCTION = ("mlp_activations", "logits_via_embedding")


class Comparison(NamedTuple):
    """How checkpoint B differs from checkpoint A."""

    only_in_a: list[str]
    only_in_b: list[str]
    shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    value: dict[str, float]  # the largest absolute difference
    equal: int

    @property
    def different(self) -> set[str]:
        """All paths that are not the same in both."""
        return {*self.only_in_a, *self.only_in_b, *self.shape, *self.value}

    @property
    def summary(self) -> str:
        """The result in one line."""
        same = f"{self.equal} parameters are equal"
        if not self.different:
            return f"no difference: {same}"
        if all(map(prompt_tuning.is_prompt, self.different)):
            return f"only the prompt differs: {same}"
        return f"{len(self.different)} parameters differ, {same}"


def convert(
    source: str,
    target: str,
    kind: str,
    *,
    model: T5Config | None = None,
    known_models: Iterable[T5Config] = (),
    step: int | None = None,
    drop_prompt: bool = False,
) -> str:
    """Writes a checkpoint in another format.

    Args:
      source: see `checkpoint.find`.
      target: the folder to make; for T5X's formats .../checkpoint_STEP, or the folder to
        make checkpoint_STEP in.
      kind: 't5x', 'orbax' or 'hf'.
      model: what the parameters are of, which only 'hf' asks for: T5X's checkpoints do not
        say which activation they were trained with.
      known_models: where no model is named, the one of these with the same shapes is taken.
      step: the number in the name; None takes the source's, or 0.
      drop_prompt: leaves out the prompt that the checkpoint holds.

    Returns:
      The path of what was written.

    Raises:
      ValueError: the target exists, the source cannot be read, a prompt would go into a
        format that has no place for one, or no model or several have these shapes.
    """
    if kind not in FORMATS:
        raise ValueError(f"The format must be one of {', '.join(FORMATS)}; got {kind!r}.")
    target = paths.local(target, "The converted checkpoint")
    found = checkpoint.leaves(source)
    if drop_prompt:
        prompt, found = prompt_tuning.split_prompt(found)
        if prompt is None:
            raise ValueError(f"{source!r} holds no prompt to drop.")
    if kind == "hf":
        return hugging_face.write(target, found, _model_of(source, found, model, known_models))
    folder, step = _place(source, target, step)
    writer = t5x_native if kind == "t5x" else t5x_orbax
    return writer.write(folder, found, step)


def compare(a: str, b: str) -> Comparison:
    """Compares two checkpoints of any format; a value is the same whatever its type.

    Raises:
      ValueError: one of them cannot be read.
    """
    leaves_a, leaves_b = checkpoint.leaves(a), checkpoint.leaves(b)
    shape, value = {}, {}
    equal = 0
    for path in sorted(leaves_a.keys() & leaves_b.keys()):
        one, other = leaves_a[path], leaves_b[path]
        if one.shape != other.shape:
            shape[path] = (one.shape, other.shape)
            continue
        x, y = (leaf.read().astype(np.float32, copy=False) for leaf in (one, other))
        if np.array_equal(x, y, equal_nan=True):
            equal += 1
        else:
            value[path] = float(np.abs(x - y).max())
    return Comparison(
        sorted(leaves_a.keys() - leaves_b.keys()),
        sorted(leaves_b.keys() - leaves_a.keys()),
        shape,
        value,
        equal,
    )


def _place(source: str, target: str, step: int | None) -> tuple[str, int]:
    """The folder and the step of the checkpoint_STEP to write."""
    folder, name = os.path.split(target.rstrip("/"))
    named = checkpoint.step_of(name)
    if named is not None:
        if step not in (None, named):
            raise ValueError(f"{target!r} names step {named}, but step {step} was asked for.")
        return folder or ".", named
    if step is None:
        step = checkpoint.step_of(os.path.basename(checkpoint.find(source))) or 0
    return target, step


def _model_of(
    source: str, found: dict[str, Leaf], model: T5Config | None, known_models: Iterable[T5Config]
) -> T5Config:
    """The model that config.json describes."""
    prompt = [path for path in found if prompt_tuning.is_prompt(path)]
    if prompt:
        raise ValueError(
            f"{source!r} holds a prompt ({prompt[0]}), for which Hugging Face's T5 has no place. "
            f"Pass --drop_prompt to leave it out; `prompt-tuning prompt export` makes a peft "
            f"adapter of a prompt file."
        )
    stated = checkpoint.hugging_face_model(source)
    if stated is not None:
        if model is not None:
            hugging_face_config.check_same(stated, model, f"{source!r}")
        return stated if model is None else model
    if model is not None:
        return model
    shapes = {path: leaf.shape for path, leaf in found.items()}
    fitting = [each for each in known_models if hugging_face.shapes(each) == shapes]
    functions = {tuple(getattr(each, name) for name in _FUNCTION) for each in fitting}
    if len(functions) != 1:
        names = ", ".join(each.name for each in fitting)
        why = f"several models have its shapes ({names})" if fitting else "no known model has them"
        raise ValueError(
            f"{source!r} does not say which activations it was trained with, and {why}. Name the "
            f"model with --model, a part of gin/models or a gin file of your own."
        )
    return fitting[0]
