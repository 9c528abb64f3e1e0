"""The plan of a run on a target: what fits, and how long it takes.

    axes      the run's MESH, or the smallest model axis that fits
    memory    by compiling the real step, see compiling.py
    seconds   of a step by a roofline: the larger of two times, neither of which any program beats

        operations / peak                     those of flops.py and those that are computed again
        bytes of parameters / bandwidth       each pass reads all of a device's, once a micro-batch

A step takes longer than that: the sums over devices, activations, softmax, norms, dropout,
the optimizer, padding to the hardware's tiles and waiting for input are left out, and so are
compilation and evaluation in the time of a run.
"""

import dataclasses
from typing import NamedTuple

from prompt_tuning.inference.frozen import transformer
from prompt_tuning.model import compute
from prompt_tuning.parallel import memory as parameters
from prompt_tuning.parallel import mesh as meshes
from prompt_tuning.parallel import rules
from prompt_tuning.planning import compiling, flops, program
from prompt_tuning.planning.compiling import Compiled
from prompt_tuning.planning.targets import Target
from prompt_tuning.run import Run

MOST_COMPILED = 3  # batches tried for the largest
MOST_ROWS = 1024  # of a device, in that


class Plan(NamedTuple):
    """A run on a target.

    Attributes:
      compiled: the step on the chosen axes; the last that were tried if none fits.
      fits: whether a device has room for it.
      chose_axes: they are the smallest model axis that fits, or the largest where none does; else
        the run's MESH.
      operations, operations_again: of a step by formula, and those that are computed again.
      seconds: of a step, by the roofline.
      bound: what the roofline's time is that of, 'operations' or 'memory'.
      steps: of the run.
      largest_batch: of those tried, the largest that fits; None if it was not asked for or nothing
        fits.
    """

    target: Target
    compiled: Compiled
    fits: bool
    chose_axes: bool
    operations: int
    operations_again: int
    seconds: float
    bound: str
    steps: int
    largest_batch: int | None

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.steps * self.seconds / 3600

    @property
    def chip_hours(self) -> float:
        return self.hours * self.target.chips


def make(run: Run, target: Target, *, largest: bool = True) -> Plan:
    """Plans a run.

    Args:
      run: the run.
      target: the devices.
      largest: look for the largest batch, which compiles up to `MOST_COMPILED` more times.

    Raises:
      ValueError: nothing was compiled: the run packs, or its batch cannot be split.
    """
    check(run, target)
    chosen = compute.choose(
        run.model, target.backend, layers=run.layers, remat=run.remat, attention=run.attention
    )
    compiled = None
    for axes in possible_axes(run, target):
        compiled = compiling.compile_step(run, chosen, target, axes)
        if compiled.fits(target.usable_bytes):
            break
    fits = compiled.fits(target.usable_bytes)
    operations, again = count_operations(run, chosen.remat)
    seconds, bound = roofline(run, target, compiled, operations + again, chosen.remat)
    best = None
    if largest and fits:
        best = largest_batch(run, chosen, target, compiled)
    return Plan(
        target=target,
        compiled=compiled,
        fits=fits,
        chose_axes=run.mesh is None,
        operations=operations,
        operations_again=again,
        seconds=seconds,
        bound=bound,
        steps=run.train_steps,
        largest_batch=best,
    )


def check(run: Run, target: Target) -> None:
    """Refuses a run that cannot be planned, before anything is compiled.

    Raises:
      ValueError: see `make`.
    """
    program.check(run)
    for axes in possible_axes(run, target):
        compiling.rows_of(run, target, axes)


def possible_axes(run: Run, target: Target) -> list[dict[str, int]]:
    """The axes to try, the smallest model axis first: the run's MESH alone if it has one.

    Those whose parameters alone take all of a device's memory are left out, except the last.

    Raises:
      ValueError: see `mesh.check` and `mesh.choose`.
    """
    count = len(target.devices)
    if run.mesh is not None:
        meshes.check(run.mesh, run.model, devices=count, batch_size=run.batch_size)
        return [dict(run.mesh)]
    meshes.choose(run.model, devices=count, batch_size=run.batch_size)  # refuses the batch
    sizes = [
        size
        for size in meshes.model_axes(run.model, count)
        if run.batch_size % (count // size) == 0
    ]
    fitting = [
        size
        for size in sizes
        if parameters.device_bytes(run.model, run.param_dtype, size) <= target.usable_bytes
    ]
    return [{rules.DATA: count // size, rules.MODEL: size} for size in fitting or sizes[-1:]]


def count_operations(run: Run, remat: str) -> tuple[int, int]:
    """Operations of a step on a batch of full length, and those that are computed again."""
    lengths, size = run.task_feature_lengths, flops.dimensions(run.model)
    model = transformer(run.model, run.method.hooks)
    S = model.encoder_length(lengths["inputs"])
    shape = {
        "P": S - lengths["inputs"],
        "T": lengths["inputs"],
        "L": lengths["targets"],
        "rows": run.batch_size,
    }
    count = flops.training(size, **shape, trains_model=run.trains_model)
    return count, flops.recomputed(size, **shape, remat=remat)


def roofline(
    run: Run, target: Target, compiled: Compiled, operations: int, remat: str
) -> tuple[float, str]:
    """Seconds of a step, and what they are those of; see the module's docstring."""
    passes = 3 if remat == "layer" else 2  # forward, backward, and forward again
    held = parameters.device_bytes(run.model, run.param_dtype, compiled.axes[rules.MODEL])
    times = {
        "operations": operations / (len(target.devices) * target.flops),
        "memory": compiled.parts * passes * held / target.bandwidth,
    }
    bound = max(times, key=times.__getitem__)
    return times[bound], bound


def largest_batch(
    run: Run, chosen: compute.Compute, target: Target, compiled: Compiled
) -> int | None:
    """The largest batch that fits, of a few: what takes memory grows with the rows.

    Args:
      run, chosen, target: see `make`.
      compiled: the step of the run, which fits.
    """
    data, usable = compiled.axes[rules.DATA], target.usable_bytes
    if compiled.parts > 1 or run.microbatch_rows is not None:
        return None  # memory does not grow with the batch
    held = parameters.device_bytes(run.model, run.param_dtype, compiled.axes[rules.MODEL])
    rows = run.batch_size // data
    best, memory = rows, compiled.memory.total
    most = MOST_ROWS
    for _ in range(MOST_COMPILED):
        per_row = (memory - held) / rows
        tried = min(_tidy(int((usable - held) / per_row)), most)
        if tried <= best:
            break
        changed = dataclasses.replace(run, batch_size=tried * data, batch_tokens=None)
        found = compiling.compile_step(changed, chosen, target, compiled.axes)
        if found.fits(usable):
            best = tried
        most = tried - 1 if not found.fits(usable) else most
        memory = found.memory.total if found.memory else (found.needed or 2 * usable)
        rows = tried
        if found.memory is None:
            memory = max(memory, int(1.1 * usable))
    return best * data


def _tidy(rows: int) -> int:
    """Rounded down to a number of two binary digits: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    step = max(1, 1 << (rows.bit_length() - 2))
    return rows // step * step
