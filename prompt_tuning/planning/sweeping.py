"""The plan of a sweep: that of each different program, and the sum over its runs.

Runs of a sweep that differ in the seed, the learning rate or the task's data compile the same step.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from prompt_tuning.methods import method
from prompt_tuning.planning import plan
from prompt_tuning.planning.plan import Plan
from prompt_tuning.planning.targets import Target
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid, resolved


class Group(NamedTuple):
    """The runs that compile the same step.

    Attributes:
      cells: their names in the sweep.
      plan: of one of them; its steps are those of that one.
      steps: of all of them together.
    """

    cells: tuple[str, ...]
    plan: Plan
    steps: int

    @property
    def hours(self) -> float:
        """Of all steps, one run after the other."""
        return self.steps * self.plan.seconds / 3600


def make(path: str, target: Target) -> list[Group]:
    """Plans the runs of a sweep that train; the largest batch is not looked for.

    Args:
      path: the sweep's file, see `sweeps/grid.py`.
      target: the devices.

    Raises:
      ValueError: the sweep cannot be read, none of its runs trains, or see `plan.make`.
    """
    cells = [cell for cell in grid.read_sweep(path).cells if cell.train]
    if not cells:
        raise ValueError(f"No run of the sweep {path} trains, so there is nothing to plan.")
    runs = resolved.load_runs(cells, {})
    groups: dict[Any, list[str]] = {}
    for cell in cells:
        groups.setdefault(_program(runs[cell.key]), []).append(cell.key)
    for names in groups.values():  # before anything is compiled
        plan.check(runs[names[0]], target)
    return [_group(runs, names, target) for names in groups.values()]


def hours(groups: Iterable[Group]) -> float:
    """Of all runs, one after the other."""
    return sum(group.hours for group in groups)


def _group(runs: dict[str, Run], names: list[str], target: Target) -> Group:
    steps = sum(runs[name].train_steps for name in names)
    return Group(tuple(names), plan.make(runs[names[0]], target, largest=False), steps)


def _program(run: Run) -> Any:
    """What decides which program a step compiles to."""
    added = method.added_shapes(run.model, run.method.hooks)
    arrays = {path: jax.ShapeDtypeStruct(shape, "float32") for path, shape in added.items()}
    state = jax.eval_shape(run.optimizer().init, arrays)
    return (
        run.model, run.method.kind, run.method.hooks, run.method.trainable, run.param_dtype,
        run.batch_size, tuple(sorted(run.task_feature_lengths.items())), run.microbatch_rows,
        run.layers, run.remat, run.attention, run.mesh and tuple(sorted(run.mesh.items())),
        str(state), run.loss_normalizing_factor,
    )  # fmt: skip
