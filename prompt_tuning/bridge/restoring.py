"""What may be new when T5X restores a frozen model: the prompt, and nothing else.

With `fallback_to_scratch` T5X fills in whatever a checkpoint lacks with random numbers, and drops
what the model has no place for, silently. `all_but_the_prompt`, one of `RestoreCheckpointConfig`'s
`state_transformation_fns`, raises instead.
"""

from collections.abc import Mapping
from typing import Any

from t5x import state_utils

from prompt_tuning.checkpoints import leaves
from prompt_tuning.methods import prompt_tuning


def all_but_the_prompt(
    found: Mapping[str, Any], expected: Mapping[str, Any], *, is_resuming: bool = False
) -> Mapping[str, Any]:
    """Returns what was found, if it is the model's parameters, all of them and no others.

    Args:
      found: the checkpoint's state, after `assignment_map`.
      expected: the run's own.
      is_resuming: whether a run is resumed; then T5X itself requires every parameter.

    Raises:
      ValueError: parameters are missing in the checkpoint, or have no place in the model.
    """
    if is_resuming:
        return found
    there, needed = _parameters(found), _parameters(expected)
    missing, unexpected = sorted(needed - there), sorted(there - needed)
    if missing or unexpected:
        parts = [
            f"{what} ({len(names)}): {leaves.some(names)}."
            for what, names in (
                ("Missing in the checkpoint", missing),
                ("In the checkpoint but not in the model", unexpected),
            )
            if names
        ]
        raise ValueError(
            f"The checkpoint does not fit the model. {' '.join(parts)} Name the part of gin/models "
            "that the checkpoint was made for."
        )
    return found


def _parameters(state: Mapping[str, Any]) -> set[str]:
    paths = {path for path in state_utils.flatten_state_dict(state) if path.startswith("target/")}
    names = {path.removeprefix("target/") for path in paths}
    return {name for name in names if not prompt_tuning.is_prompt(name)}
