"""Adafactor's second moments, as T5X kept them in the checkpoint that model tuning starts from.

    state.param_states.encoder.layers_0.mlp.wo.kernel.v_row   ->   FactoredState.v_row[path]
    optimizer.state.step                                      ->   FactoredState.count

Lester et al. 2021 tune the model with the accumulators of its pretraining. Both programs choose the
dimensions of a row and a column alike, so an array is taken as it is. The step comes with them: the
second moment is a mean over all steps so far, and learning rate schedules see that step, as in T5X.
Momentum is not read.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from prompt_tuning.checkpoints import checkpoint, t5x_native
from prompt_tuning.checkpoints.t5x_native import Accumulators
from prompt_tuning.inference import weights
from prompt_tuning.run import Run
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState

ADVICE = "Set Run.restore_accumulators=False to start without them."


class Restored(NamedTuple):
    """A state, and a line on what was restored; None where nothing was asked for."""

    state: TrainState
    line: str | None


def restore(run: Run, fresh: TrainState, own: frozenset[str]) -> Restored:
    """Puts the accumulators of a run's checkpoint into its fresh state, if there are any.

    Args:
      run: names the checkpoint and the optimizer.
      fresh: see `resume.fresh_state`.
      own: the paths of what the method added, which no checkpoint has.

    Raises:
      ValueError: they do not fit, or `adafactor.start_step` is set as well.
    """
    paths = sorted(fresh.trainable.keys() - own)
    if not run.restore_accumulators or not paths or not _is_adafactor(run.optimizer):
        return Restored(fresh, None)
    found = _read(run.initial_checkpoint_path)
    if isinstance(found, str):
        return Restored(fresh, f"Adafactor starts without accumulators: {found}")
    if getattr(run.optimizer, "keywords", {}).get("start_step"):
        raise ValueError(
            f"adafactor.start_step sets the step, and so does {run.initial_checkpoint_path}, whose "
            f"accumulators are of step {found.step:,}; remove adafactor.start_step. {ADVICE}"
        )
    missing = [path for path in paths if path not in found.of]
    if missing:
        raise ValueError(
            f"{run.initial_checkpoint_path} has accumulators, but not of {len(missing)} of the "
            f"{len(paths)} parameters that train, such as {missing[0]}. {ADVICE}"
        )
    opt_state = _with_accumulators(fresh.opt_state, found, paths)
    line = (
        f"Adafactor continues with the accumulators of {len(paths)} parameters at step "
        f"{found.step:,} of {run.initial_checkpoint_path}"
    )
    return Restored(fresh._replace(opt_state=opt_state), line)


def _is_adafactor(make: Callable[[], optax.GradientTransformation]) -> bool:
    return getattr(make, "func", make) is adafactor


def _read(path: str) -> Accumulators | str:
    """The accumulators of a checkpoint, or why there are none."""
    if weights.is_random(path):
        return f"{path} has none"
    folder = checkpoint.find(path)
    if not t5x_native.recognises(folder):
        return f"{path} is not of T5X's own format, the only one they are read from"
    found = t5x_native.accumulators(folder)
    return f"{path} has none" if found is None else found


def _with_accumulators(opt_state: Any, found: Accumulators, paths: list[str]) -> Any:
    """The state of an optax chain with the arrays and the step of a checkpoint."""

    def replaced(one: Any) -> Any:
        if "count" not in getattr(one, "_fields", ()):
            return one
        one = one._replace(count=_like(one.count, np.asarray(found.step, np.int32), "The step"))
        if not isinstance(one, optax.FactoredState):
            return one
        arrays = {name: _merged(getattr(one, name), name, found, paths) for name in found.names}
        return one._replace(**arrays)

    return jax.tree.map(replaced, opt_state, is_leaf=lambda one: hasattr(one, "_fields"))


def _merged(
    fresh: Mapping[str, Any], name: str, found: Accumulators, paths: list[str]
) -> dict[str, Any]:
    read = {
        path: _like(fresh[path], found.of[path][name].read(), f"{name} of {path}") for path in paths
    }
    return {**fresh, **read}


def _like(fresh: jax.Array, array: np.ndarray, what: str) -> jax.Array:
    """An array in place of another, on its devices.

    Raises:
      ValueError: the shapes differ.
    """
    if array.shape != fresh.shape:
        raise ValueError(
            f"{what} has shape {list(array.shape)} in the checkpoint and {list(fresh.shape)} here, "
            f"where adafactor.min_dim_size_to_factor may be another. {ADVICE}"
        )
    return jax.device_put(array.astype(fresh.dtype), fresh.sharding)
