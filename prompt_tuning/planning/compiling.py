"""Compiles a run's training step for a target, and reads how much memory it takes."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from prompt_tuning.inference.frozen import transformer
from prompt_tuning.model.compute import Compute
from prompt_tuning.parallel import mesh as meshes
from prompt_tuning.parallel import rules
from prompt_tuning.planning import program
from prompt_tuning.planning.chips import GIB
from prompt_tuning.planning.targets import Target
from prompt_tuning.run import Run
from prompt_tuning.training import setup

_NEEDED = re.compile(r"temporaries \(([\d.]+)([GM])\)|Used ([\d.]+)([GM]) of")


class Memory(NamedTuple):
    """Bytes of one device.

    Attributes:
      arguments: parameters, what trains, the optimizer's state, batch and dropout masks.
      temporaries: what the program keeps while it runs.
      outputs: what it makes, other than in place of arguments.
      total: what it is given. It may be less than the sum: TPUs reuse what fragmentation leaves.
    """

    arguments: int
    temporaries: int
    outputs: int
    total: int


class Compiled(NamedTuple):
    """How a compilation ended.

    Attributes:
      axes: devices on 'data' and 'model'.
      rows: of a micro-batch.
      parts: micro-batches of a step.
      memory: of the program that takes the most; None if the compiler refused.
      needed: bytes that it named when it refused; None if it did not.
      seconds: of the compilation, tracing included.
    """

    axes: Mapping[str, int]
    rows: int
    parts: int
    memory: Memory | None
    needed: int | None
    seconds: float

    def fits(self, usable_bytes: int) -> bool:
        """Whether a device has room for it."""
        return self.memory is not None and self.memory.total <= usable_bytes


def compile_step(run: Run, compute: Compute, target: Target, axes: Mapping[str, int]) -> Compiled:
    """Compiles the step of a run.

    Args:
      run: with the batch size that is tried.
      compute: how its model is computed.
      target: the devices.
      axes: of the mesh, see `parallel/mesh.py`.

    Raises:
      ValueError: the axes do not divide the rows, or the run cannot train.
    """
    one_here = target.backend != "tpu" and len(target.devices) == 1
    mesh = None if one_here else meshes.make(axes, target.devices)
    run = dataclasses.replace(run, profile_steps=None)
    rows = rows_of(run, target, axes)
    made = program.make(run, compute, rows, mesh)
    began = time.monotonic()
    step = setup.train_step(run, made.model, mesh)
    accumulate, update = step.lower(
        made.state, made.frozen, made.batch, made.masks, made.key, adds=made.parts > 1
    )
    memory = needed = None
    try:
        first, second = accumulate.compile(), update.compile()
    except Exception as error:  # JaxRuntimeError, of several types in several versions
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = _needed(str(error))
    else:
        memory = _larger(first.memory_analysis(), second.memory_analysis(), made)
    return Compiled(dict(axes), rows, made.parts, memory, needed, time.monotonic() - began)


def rows_of(run: Run, target: Target, axes: Mapping[str, int]) -> int:
    """Rows of a micro-batch, as `setup.step_inputs` chooses them for inputs of full length."""
    rows, devices = run.microbatch_rows, axes[rules.DATA]
    if rows is not None and rows % devices:
        raise ValueError(
            f"A micro-batch of Run.microbatch_rows={rows} rows cannot be split over {devices} "
            "devices; change one of them, or leave it to None."
        )
    if rows is None and target.backend == "cpu":
        model = transformer(run.model, run.method.hooks)
        positions = model.encoder_length(run.task_feature_lengths["inputs"])
        rows = setup.cpu_rows(run, positions, devices)
    return rows or run.batch_size


def _needed(text: str) -> int | None:
    match = _NEEDED.search(text)
    if match is None:
        return None
    number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return int(float(number) * (GIB if unit == "G" else 2**20))


def _larger(first: Any, second: Any, made: program.Program) -> Memory:
    """The memory of the program that takes more, with the arrays that only the other one reads."""
    state, frozen = _bytes(made.state.opt_state), _bytes(made.frozen)
    return max(_memory(first, state), _memory(second, frozen), key=lambda memory: memory.total)


def _memory(analysis: Any, besides: int) -> Memory:
    made = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    arguments, temporaries = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    total = getattr(analysis, "total_allocation_bytes", 0) or arguments + temporaries + made
    return Memory(arguments + besides, temporaries, made, total + besides)


def _bytes(tree: Any) -> int:
    """What a device holds of arrays without values."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total
