"""What a run needs before its first step: initial values, and which parameters train."""

import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prompt_tuning import paths, trees
from prompt_tuning.data import microbatches, packing
from prompt_tuning.data.batches import TrainBatches
from prompt_tuning.data.microbatches import MicroBatch
from prompt_tuning.inference.frozen import FrozenT5, transformer
from prompt_tuning.methods import method
from prompt_tuning.methods.mixing import mixed_hooks
from prompt_tuning.model import quantization, stacking
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import width_matters
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import placing
from prompt_tuning.run import Run
from prompt_tuning.training.profiling import ProfiledStep
from prompt_tuning.training.step import TrainStep, make_joint_step, make_train_step

# Of a micro-batch on a CPU: what keeps it busy. Larger ones pad more.
CPU_FLOPS = 2e9
CPU_POSITIONS = 320
CPU_ROWS = 2


class Parameters(NamedTuple):
    """A run's parameters, split into what trains and what is frozen.

    Attributes:
      model: the T5 with the hooks of the method.
      trainable: what trains.
      frozen: all other parameters.
      added: the paths of those that the method added, in either of the two.
    """

    model: Transformer
    trainable: trees.FlatTree
    frozen: trees.FlatTree
    added: frozenset[str]


def initial_values(run: Run, t5: FrozenT5) -> trees.FlatTree:
    """Makes what a run's method adds to the model, the same for the same seed.

    Raises:
      ValueError: the method or its initialiser refuses, or makes other shapes.
    """
    table = None
    if run.embedding_file is not None:
        table = read_table(run.embedding_file, run.model.emb_dim)
    return method.initial_values(run.method, prompt_rng(run.seed), t5.start(table))


def unread_prompt_file(run: Run) -> str | None:
    """A sentence on a PROMPT_FILE that training does not start from; None if there is no such."""
    start = run.prompt_initializer
    values = getattr(start, "keywords", {}).values()
    if run.prompt_file is None or run.prompt_file in [
        os.path.expanduser(value) for value in values if isinstance(value, str)
    ]:
        return None
    return (
        f"PROMPT_FILE {run.prompt_file!r} is not read in training; add gin/prompts/file.gin in "
        "place of the other part of gin/prompts to start from it"
    )


def batch_line(run: Run) -> str:
    """A line on how many examples make a batch that is given in tokens."""
    longest = max(run.task_feature_lengths.values())
    line = f"BATCH_TOKENS {run.batch_tokens:,}: {run.batch_size:,} examples of {longest:,} tokens"
    data = 1 if run.mesh is None else run.mesh["data"]
    return line + (f", a multiple of {data} devices" if data > 1 else "")


def prompt_rng(seed: int) -> jax.Array:
    """The key that a run's prompt is drawn from."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def dropout_rng(seed: int) -> jax.Array:
    """The key that a run's dropout is drawn from, see `step.py`."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def step_rng(run: Run, trainable: trees.FlatTree) -> jax.Array | None:
    """The key of `dropout_rng` on the devices of what trains; None without dropout."""
    mesh = placing.mesh_of(trainable)
    return placing.key(mesh, dropout_rng(run.seed)) if run.model.dropout_rate else None


def split_parameters(run: Run, t5: FrozenT5) -> Parameters:
    """Adds what the method adds to the model, and splits what trains from what is frozen.

    Raises:
      ValueError: nothing trains, a pattern of `run.trainable` matches nothing, or what trains
        is not kept in float32, or is a parameter of an int8 model.
    """
    added = initial_values(run, t5)
    params = trees.merge(t5.params, added)
    chosen = set(method.trainable_paths(run.method, params, added))
    trainable = {path: leaf for path, leaf in params.items() if path in chosen}
    if t5.compute.layers == "scan":
        params = stacking.stack(params, keep=chosen)
    mesh = placing.mesh_of(t5.params)
    trainable = placing.whole(mesh, trainable)
    frozen = {path: leaf for path, leaf in params.items() if path not in chosen}
    frozen = placing.parameters(mesh, frozen, kept=added)
    if own := sorted(chosen & t5.params.keys()):
        _check_model_can_train(own[0], t5)
    check_float32(trainable)
    model = transformer(run.model, run.method.hooks, t5.compute)
    return Parameters(model, trainable, frozen, frozenset(added))


def check_float32(trainable: trees.FlatTree) -> None:
    """Refuses what trains in another type.

    Raises:
      ValueError: names the first one.
    """
    coarse = [path for path, leaf in trainable.items() if leaf.dtype != np.float32]
    if coarse:
        raise ValueError(
            f"What trains is kept in float32, but {coarse[0]} is {trainable[coarse[0]].dtype}. "
            "Set Run.param_dtype='float32'."
        )


def _check_model_can_train(path: str, t5: FrozenT5) -> None:
    """Refuses to train a parameter of a model that cannot be written as it was read."""
    if quantization.is_quantized(t5.params):
        raise ValueError(
            f"{path} trains, and the tuned model is written with it, but Run.param_dtype keeps "
            "this model rounded to int8. Set Run.param_dtype='float32', or train only what the "
            "method adds."
        )


def step_inputs(
    run: Run, stream: TrainBatches, model: Transformer, mesh: Mesh | None = None
) -> tuple[Iterator[list[MicroBatch]], str]:
    """Chooses how the batches of a run are cut and padded, or packed.

    A CPU is as fast with few rows as with many, so a micro-batch has just the work that keeps it
    busy, and little padding. Other devices get the whole batch at once. On a mesh each device
    computes as many rows of a micro-batch as it would alone.

    Returns:
      The batches from where the stream stands, and a line on how a step is computed.

    Raises:
      ValueError: the run cannot be packed, or the devices do not divide the rows of a micro-batch.
    """
    how = f"computed on {jax.default_backend()}: layers {model.compute.layers}, remat "
    how += f"{model.compute.remat}, attention {model.compute.attention}; "
    devices = placing.fill(mesh, 1)  # that split rows
    if mesh is not None:
        how += f"{devices} x {mesh.size // devices} devices, data x model; "
    rows = run.microbatch_rows
    if rows is not None and rows % devices:
        raise ValueError(
            f"MESH splits the rows of a micro-batch over {devices} devices, and {devices} does not "
            f"divide Run.microbatch_rows, {rows}; change one of them, or leave it to None."
        )
    if run.packing:
        return _packed(run, stream, how, mesh)
    if rows is None and jax.default_backend() == "cpu":
        tokens = np.mean(np.concatenate([one.inputs.lengths for one in stream.examples]))
        rows = cpu_rows(run, model.encoder_length(int(tokens)), devices)
    rows = rows or run.batch_size
    if run.pad_to_full_length or width_matters(run.method.hooks.reserve):
        plan = microbatches.Plan(rows, (run.task_feature_lengths["inputs"],))
    else:
        plan = microbatches.choose(stream, rows, model.encoder_length)
    parts = run.batch_size // rows
    how += f"{parts} micro-batches of {rows} rows" if parts > 1 else "the whole batch at once"
    how += f", inputs padded to {', '.join(map(str, plan.widths))} tokens"
    return microbatches.MicroBatches(stream, plan), how


def cpu_rows(run: Run, positions: int, devices: int = 1) -> int:
    """Rows of a micro-batch that keep a CPU busy.

    Args:
      run: names model and batch size.
      positions: of the encoder in a row, padding excluded.
      devices: that split the rows.
    """
    flops = 4 * _encoder_weights(run.model) * positions
    at_least = max(CPU_ROWS, CPU_FLOPS / flops, CPU_POSITIONS / positions)
    return devices * microbatches.fitting_rows(run.batch_size // devices, math.ceil(at_least))


def _packed(
    run: Run, stream: TrainBatches, how: str, mesh: Mesh | None
) -> tuple[Iterator[list[MicroBatch]], str]:
    reserve = run.method.hooks.reserve
    if width_matters(reserve):
        raise ValueError(
            "Run.packing needs examples whose positions do not depend on padding, and a prompt "
            "behind the input has others; set prompt_tuning.position='prefix' or Run.packing=False."
        )
    plan = packing.choose(stream, reserve, run.microbatch_rows)
    plan = plan._replace(rows=placing.fill(mesh, plan.rows))
    how += f"packed into {plan.rows} rows of {plan.positions} positions and {plan.targets} targets"
    return packing.PackedBatches(stream, plan, reserve), how


def batch_put(mesh: Mesh | None) -> Callable[[Any], Any]:
    """What moves a batch to its devices."""
    return jax.device_put if mesh is None else functools.partial(placing.rows, mesh)


def train_step(run: Run, model: Transformer, mesh: Mesh | None = None) -> TrainStep | ProfiledStep:
    """The step of a run."""
    step = make_train_step(
        model,
        run.optimizer(),
        weight_decay_rate=run.weight_decay_rate,
        label_smoothing=run.label_smoothing,
        z_loss=run.z_loss,
        loss_normalizing_factor=run.loss_normalizing_factor,
        mesh=mesh,
    )
    return ProfiledStep(step, run) if run.profile_steps else step


def joint_rng(runs: Sequence[Run], trainable: trees.FlatTree) -> jax.Array | None:
    """The keys of `dropout_rng` of several runs, [M]; None without dropout."""
    if not runs[0].model.dropout_rate:
        return None
    keys = jnp.stack([dropout_rng(run.seed) for run in runs])
    return placing.key(placing.mesh_of(trainable), keys)


def joint_hooks(runs: Sequence[Run]) -> Hooks:
    """The hooks of the prompts of several runs, see `mixed_hooks`."""
    return _joint_hooks(tuple((run.method.kind, run.method.hooks) for run in runs))


@functools.lru_cache(maxsize=16)  # new hooks compile again
def _joint_hooks(methods: tuple[tuple[str, Hooks], ...]) -> Hooks:
    return mixed_hooks([method.Method(kind=kind, hooks=hooks) for kind, hooks in methods])


def joint_step(
    runs: Sequence[Run], model: Transformer, mesh: Mesh | None = None
) -> TrainStep | ProfiledStep:
    """The step of several runs together."""
    step = make_joint_step(
        model,
        tuple(run.optimizer() for run in runs),
        weight_decay_rates=tuple(run.weight_decay_rate for run in runs),
        label_smoothing=runs[0].label_smoothing,
        z_loss=runs[0].z_loss,
        loss_normalizing_factor=runs[0].loss_normalizing_factor,
        mesh=mesh,
    )
    return ProfiledStep(step, runs[0]) if runs[0].profile_steps else step


def _encoder_weights(config: T5Config) -> int:
    """The weights that a token is multiplied by: two operations each, and two backward."""
    shapes = parameter_shapes(config).items()
    return sum(math.prod(shape) for path, shape in shapes if re.match("encoder/.*/kernel", path))


def read_table(path: str, width: int) -> np.ndarray:
    path = paths.expand(path)
    try:
        with paths.local_copy(path) as local:
            table = np.load(local, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"The embedding table {path} cannot be read: {error}") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(
            f"The embedding table {path} must have shape (V, {width}) for this model; got "
            f"{table.shape}."
        )
    return table
