"""A run's training step for devices that need not be there: its arrays, without values.

The step is that of `training/step.py`. Its arrays have the shapes, types and places that a run's
have, so neither data nor a checkpoint nor a vocabulary is read. Inputs and targets are as long as
TASK_FEATURE_LENGTHS allows: a run pads its batches to what they need, so it takes no more.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning import trees
from prompt_tuning.inference.frozen import transformer
from prompt_tuning.methods import method
from prompt_tuning.model import dropout, stacking
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import memory, rules
from prompt_tuning.run import Run
from prompt_tuning.training import setup
from prompt_tuning.training.step import TrainState


class Program(NamedTuple):
    """What a step is compiled for.

    Attributes:
      model: the T5 with the hooks of the method.
      state, frozen, batch: arrays without values; `batch` is one micro-batch.
      masks, key: of dropout, or None.
      parts: micro-batches of a step.
    """

    model: Transformer
    state: TrainState
    frozen: trees.FlatTree
    batch: dict[str, jax.ShapeDtypeStruct]
    masks: Any
    key: Any
    parts: int


def check(run: Run) -> None:
    """Refuses a run whose shapes depend on its data.

    Raises:
      ValueError: it packs its examples.
    """
    if run.packing:
        raise ValueError(
            "The rows of a packed batch depend on the data, which a plan does not read; plan the "
            "run with --gin.Run.packing=False, whose rows are padded instead."
        )


def make(run: Run, compute: Compute, rows: int, mesh: Mesh | None = None) -> Program:
    """Lists the arrays of a step.

    Args:
      run: the run.
      compute: how its model is computed.
      rows: of a micro-batch, a divisor of the run's batch size.
      mesh: the devices; None is the one that JAX has.

    Raises:
      ValueError: nothing trains, or what trains is not kept in float32.
    """
    model = transformer(run.model, run.method.hooks, compute)
    whole = None if mesh is None else rules.replicated(mesh)
    by_rows = None if mesh is None else rules.by_rows(mesh)
    trainable, frozen, added = _parameters(run, compute)
    where = {} if mesh is None else rules.shardings(mesh, frozen, added)
    trainable = _put(trainable, whole)
    state = TrainState(0, trainable, _put(jax.eval_shape(run.optimizer().init, trainable), whole))
    masks, key = _dropout(run, model, rows, mesh)
    return Program(
        model,
        state,
        {path: _put(leaf, where.get(path)) for path, leaf in frozen.items()},
        _put(_batch(run, rows), by_rows),
        masks,
        key,
        run.batch_size // rows,
    )


def _parameters(run: Run, compute: Compute) -> tuple[trees.FlatTree, trees.FlatTree, set[str]]:
    """What trains, what is frozen, and the paths of what the method adds."""
    shapes = method.added_shapes(run.model, run.method.hooks)
    added = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    params = trees.merge(memory.frozen_arrays(run.model, run.param_dtype), added)
    chosen = set(method.trainable_paths(run.method, params, added))
    trainable = {path: leaf for path, leaf in params.items() if path in chosen}
    setup.check_float32(trainable)
    if compute.layers == "scan":
        params = jax.eval_shape(lambda flat: stacking.stack(flat, keep=chosen), params)
    frozen = {path: leaf for path, leaf in params.items() if path not in chosen}
    return trainable, frozen, set(added)


def _batch(run: Run, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of `data/batches.py`."""
    lengths = run.task_feature_lengths
    targets = (rows, lengths["targets"])
    return {
        "encoder_input_tokens": jax.ShapeDtypeStruct((rows, lengths["inputs"]), jnp.int32),
        "decoder_input_tokens": jax.ShapeDtypeStruct(targets, jnp.int32),
        "decoder_target_tokens": jax.ShapeDtypeStruct(targets, jnp.int32),
        "decoder_loss_weights": jax.ShapeDtypeStruct(targets, jnp.float32),
    }


def _dropout(run: Run, model: Transformer, rows: int, mesh: Mesh | None) -> tuple[Any, Any]:
    """Masks and key as `TrainStep` draws them; the rows of masks are split."""
    if not run.model.dropout_rate:
        return None, None
    lengths = run.task_feature_lengths
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    drawn = jax.eval_shape(
        lambda keys: dropout.draw(
            keys,
            run.model,
            input_length=model.encoder_length(lengths["inputs"]),
            length=lengths["targets"],
        ),
        keys,
    )
    key = jax.eval_shape(lambda keys: keys[0], keys)
    if mesh is None:
        return drawn, key
    return dropout.Dropout(*(_split(masks, mesh) for masks in drawn)), _put(
        key, rules.replicated(mesh)
    )


def _split(masks: dropout.StackMasks, mesh: Mesh) -> dropout.StackMasks:
    """Masks of layers have the rows on their second axis."""
    second = NamedSharding(mesh, PartitionSpec(None, rules.DATA))
    first = rules.by_rows(mesh)
    return dropout.StackMasks(
        _put(masks.input, first), _put(masks.layers, second), _put(masks.output, first)
    )


def _put(tree: Any, sharding: NamedSharding | None) -> Any:
    if sharding is None:
        return tree
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
