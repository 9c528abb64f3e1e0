"""The method of a run: `Run.method`, changed by the fields that a run has for prompt tuning.

`Run.prompt_length`, `prompt_initializer`, `prompt_position` and `trainable` are older than methods;
configurations set them, and `dataclasses.replace(run, prompt_length=None)` takes the prompt away.
Their values are applied to the method here, and then repeat the method's settings.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prompt_tuning.methods import model_tuning, prompt_tuning
from prompt_tuning.methods.method import Method

FIELDS = {
    "prompt_length": "length",
    "prompt_initializer": "initializer",
    "prompt_position": "position",
}
"""Run's fields and the settings of `prompt_tuning` that they are."""


def resolve(method: Method | None, given: Mapping[str, Any], known: Mapping[str, Any]) -> Method:
    """Applies the fields of a run to its method.

    Args:
      method: Run.method, or None, which is chosen by the fields.
      given: fields that were set, by name; `trainable` may be one of them.
      known: fields that were set earlier, for a prompt that is added to another method.

    Raises:
      ValueError: a field of prompt tuning was set for a method that does not have it.

    >>> resolve(None, {'prompt_length': None, 'trainable': ('.*',)}, {}).kind
    'model_tuning'
    """
    if method is None:
        method = prompt_tuning.prompt_tuning()
    trainable = tuple(given.get("trainable", method.trainable))
    prompt_fields = [name for name in FIELDS if name in given]
    if not prompt_fields:
        return _with_trainable(method, trainable)
    if method.kind not in (prompt_tuning.KIND, model_tuning.KIND):
        raise ValueError(
            f"Run.{prompt_fields[0]} is a setting of prompt_tuning, and Run.method is "
            f"{method.kind}. Remove it, or set a setting of {method.kind}."
        )
    fields = {name: method.settings.get(key) for name, key in FIELDS.items()}
    fields = {name: value for name, value in fields.items() if value is not None}
    settings = {**known, **fields, **given}
    if settings.get("prompt_length") is None:
        return model_tuning.model_tuning(trainable)
    made = {FIELDS[name]: value for name, value in settings.items() if name in FIELDS}
    return prompt_tuning.prompt_tuning(**made, trainable=trainable)


def fields(method: Method) -> dict[str, Any]:
    """The values of a run's fields for a method."""
    said = {name: method.settings[key] for name, key in FIELDS.items() if key in method.settings}
    if method.kind != prompt_tuning.KIND:
        said = {"prompt_length": None}
    return said | {"trainable": method.trainable}


def _with_trainable(method: Method, trainable: tuple[str, ...]) -> Method:
    if trainable == method.trainable:
        return method
    if method.kind == prompt_tuning.KIND:
        return prompt_tuning.prompt_tuning(**method.settings, trainable=trainable)
    return dataclasses.replace(method, trainable=trainable)
