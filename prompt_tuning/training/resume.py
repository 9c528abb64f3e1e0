"""Resuming: what the saved state of a run holds, and at which step the next process resumes."""

import hashlib
import os
from typing import Any

import jax
import numpy as np
import optax

from prompt_tuning import trees
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.parallel import placing
from prompt_tuning.run import Run
from prompt_tuning.training import setup
from prompt_tuning.training.step import TrainState

# What the states themselves record of their run, see `identity.py`: a name in them, and how it is
# set.
IDENTITY = {
    "rng": "RANDOM_SEED",
    "data_position": "BATCH_SIZE",
    "task": "MIXTURE_OR_TASK_NAME",
    "frozen_model": "INITIAL_CHECKPOINT_PATH (its parameters have another fingerprint)",
}


def fresh_state(trainable: trees.FlatTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Its arrays are committed to the devices of what trains, as restored ones are, so that both
    compile the same program.
    """
    mesh = placing.mesh_of(trainable)
    fresh = (trainable, optimizer.init(trainable))
    if mesh is not None:
        return TrainState(0, *placing.whole(mesh, fresh))
    return TrainState(0, *jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding), fresh))


def state_tree(run: Run, fingerprint: str, state: TrainState) -> dict[str, Any]:
    """What is saved: all that a step changes, and what the run must keep."""
    return {
        "trainable": state.trainable,
        "opt_state": state.opt_state,
        "step": state.step,
        "rng": np.asarray(jax.random.key_data(setup.dropout_rng(run.seed))),
        "data_position": state.step * run.batch_size,
        "task": _digest(run.task),
        "frozen_model": _digest(fingerprint),
    }


def resume(
    store: StateStore, run: Run, fingerprint: str, fresh: TrainState, name: str = ""
) -> TrainState:
    """Restores the newest saved state, or starts at `fresh` if there is none.

    Args:
      store, run, fingerprint: of the run.
      fresh: see `fresh_state`.
      name: begins what is printed.

    Raises:
      ValueError: the state is that of another run, cannot be read, or is past a step of
        `run.checkpoint_steps` whose checkpoint is missing.
    """
    found = store.restore_newest(state_tree(run, fingerprint, fresh))
    if found is None:
        return fresh
    step, tree = found
    expected = state_tree(run, fingerprint, fresh._replace(step=step))
    for key, setting in IDENTITY.items():
        if not np.array_equal(tree[key], expected[key]):
            raise ValueError(
                f"{run.model_dir} holds a run that was started with another {setting}. Set it "
                "back to resume that run, or choose another MODEL_DIR."
            )
    _check_checkpoints(run, step)
    print(f"{name}resuming at step {step:,}")
    return TrainState(step, tree["trainable"], tree["opt_state"])


def _check_checkpoints(run: Run, step: int) -> None:
    """Refuses to resume if a step of `run.checkpoint_steps` has passed without its checkpoint."""
    for past in run.checkpoint_steps:
        if past < step and not os.path.isdir(os.path.join(run.model_dir, f"checkpoint_{past}")):
            raise ValueError(
                f"Run.checkpoint_steps asks for the model of step {past}, which {run.model_dir} "
                f"does not hold, and the run is at step {step} already. Remove {past} from the "
                "list, or choose another MODEL_DIR to start from the beginning."
            )


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), np.uint8)
