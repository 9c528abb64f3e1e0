"""One training step: the loss, its gradient with respect to what trains, the update.

    trainable ──┐
                merge ──> model ──> loss ──> gradient of `trainable` only ──> optimizer
    frozen ─────┘

The frozen parameters are an argument that is never differentiated, so neither the
gradient nor the optimizer's state has a place for them (Lester et al. 2021, section 2).

A batch may come in several micro-batches of different widths, see `data/microbatches.py`: their
gradients are added up before the optimizer's update. If the model has several prompts, 'prompt_ids'
of the batch says which one each row uses.

A joint step is the step of M runs at once, see `together.py`. Each row has the prompt, the loss and
the dropout of its own run, so the gradient of the sum of all losses is that of each run; the
optimizer of a run sees nothing of the others.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from prompt_tuning import trees
from prompt_tuning.data.microbatches import MicroBatch, whole
from prompt_tuning.methods.mixing import mixed_arrays
from prompt_tuning.model import dropout, stacking
from prompt_tuning.model.compute import compiler_options
from prompt_tuning.model.inputs import Inputs, as_inputs
from prompt_tuning.model.losses import LossSums, divide, loss_parts, sums_of_groups
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import rules
from prompt_tuning.shapes import Array, Float
from prompt_tuning.training.optimizers import decay_and_apply


class TrainState(NamedTuple):
    """Everything that a step changes; the frozen model is not in it. Of M runs, M of each."""

    step: int  # steps done
    trainable: trees.FlatTree | tuple[trees.FlatTree, ...]
    opt_state: Any


class StepMetrics(NamedTuple):
    """What a step measured, as arrays that need not have been computed yet."""

    loss: Float[Array, ""]  # nats per target token, z-loss included
    accuracy: Float[Array, ""]  # share of target tokens ranked first
    gradient_norm: Float[Array, ""]
    trainable_norm: Float[Array, ""]  # of what trains, after the update
    target_tokens: Float[Array, ""]


class Totals(NamedTuple):
    """Sums over the micro-batches of a step; of M runs, M of each."""

    gradient: trees.FlatTree | tuple[trees.FlatTree, ...]  # of the numerator of the loss
    divisor: Float[Array, "*M"] | None
    sums: LossSums

    def of_run(self, number: int) -> "Totals":
        """Those of one of M runs."""
        divisor = None if self.divisor is None else self.divisor[number]
        return Totals(self.gradient[number], divisor, LossSums(*(x[number] for x in self.sums)))


@jax.jit
def row_keys(rng: jax.Array, step: Array, places: Array) -> dropout.Keys:
    """The dropout key of each row, by the step and the row's place in the batch."""
    key = jax.random.fold_in(rng, step)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


@jax.jit
def row_keys_of_runs(rngs: jax.Array, step: Array, places: Array, runs: Array) -> dropout.Keys:
    """`row_keys` with the key, of M, and the place in the batch of the run of each row."""
    keys = jax.vmap(lambda rng: jax.random.fold_in(rng, step))(rngs)
    return jax.vmap(jax.random.fold_in)(keys[runs], places)


class TrainStep:
    """`(state, frozen, batch, rng) -> (state, metrics)`.

    The batch is a dict of arrays or its micro-batches. Dropout is drawn from the number of the
    step and the place of each row in the batch, so a resumed run draws what the first one would
    have; `rng` None runs without dropout. The arrays of the state it is given are donated: continue
    with those of the state it returns.

    The joint step of M runs takes M keys, [M], and 'prompt_ids' in the batch, which say whose each
    row is; the places are those in the batch of the row's own run. Its metrics are M.

    Attributes:
      programs: how many widths were compiled.
      compile_seconds: what that took, tracing included.
    """

    def __init__(self, model: Transformer, empty: Callable, accumulate: Callable, update: Callable):
        self._model, self._empty = model, empty
        self._accumulate, self._update = accumulate, update
        self._widths: set[tuple[int, ...]] = set()
        self.compile_seconds = 0.0

    @property
    def programs(self) -> int:
        return len(self._widths)

    def close(self) -> None:
        """Nothing; `profiling.ProfiledStep` writes its trace."""

    def __call__(
        self,
        state: TrainState,
        frozen: trees.FlatTree,
        batch: Sequence[MicroBatch] | dict[str, Any],
        rng: jax.Array | None = None,
    ) -> tuple[TrainState, StepMetrics]:
        parts = whole(batch) if isinstance(batch, dict) else batch
        totals = None if len(parts) == 1 else self._nothing(state.trainable)
        for part in parts:
            width = (*_tokens(part).shape, totals is None)
            began = None if width in self._widths else time.monotonic()
            keys, masks = self._dropout(part, state.step, rng)
            totals = self._accumulate(state.trainable, frozen, part.batch, masks, keys, totals)
            if began is not None:
                self._widths.add(width)
                self.compile_seconds += time.monotonic() - began
        trainable, opt_state, metrics = self._update(state.trainable, state.opt_state, totals)
        return TrainState(state.step + 1, trainable, opt_state), metrics

    def lower(
        self,
        state: TrainState,
        frozen: trees.FlatTree,
        batch: dict[str, Any],
        masks: dropout.Dropout | None,
        key: jax.Array | None,
        *,
        adds: bool,
    ) -> tuple[jax.stages.Lowered, jax.stages.Lowered]:
        """Lowers the programs of a step, for arrays or `jax.ShapeDtypeStruct`s.

        Args:
          state, frozen: see the class.
          batch: of one micro-batch.
          masks, key: its dropout.
          adds: to the totals of other micro-batches.

        Returns:
          The gradient of the micro-batch, and the update.
        """
        found = (state.trainable, frozen, batch, masks, key, None)
        totals = jax.eval_shape(self._accumulate, *found)
        if where := getattr(jax.tree.leaves(state.trainable)[0], "sharding", None):
            totals = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), totals
            )
        return (
            self._accumulate.lower(*found[:-1], totals if adds else None),
            self._update.lower(state.trainable, state.opt_state, totals),
        )

    def _nothing(self, trainable: trees.FlatTree) -> Totals:
        """Zeros, committed to the devices as later totals are: others would compile once more."""
        return jax.device_put(self._empty(trainable), jax.tree.leaves(trainable)[0].sharding)

    def _dropout(self, part: MicroBatch, step: int, rng: jax.Array | None):
        """The key of the micro-batch, for modules of hooks, and the model's own masks."""
        if rng is None:
            return None, None
        if rng.ndim:
            keys = row_keys_of_runs(rng, np.int32(step), part.places, part.batch["prompt_ids"])
        else:
            keys = row_keys(rng, np.int32(step), part.places)
        length = _tokens(part).shape[1]
        inputs = part.batch["encoder_input_tokens"]
        if not isinstance(inputs, Inputs) or inputs.prompt_places is None:
            length = self._model.encoder_length(length)
        masks = dropout.draw(
            keys,
            self._model.config,
            input_length=length,
            length=part.batch["decoder_target_tokens"].shape[1],
        )
        return keys[0], masks


def _tokens(part: MicroBatch) -> Array:
    inputs = part.batch["encoder_input_tokens"]
    return inputs.tokens if isinstance(inputs, Inputs) else inputs


@functools.lru_cache(maxsize=32)  # equal arguments share one step, and what it compiled
def make_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    *,
    weight_decay_rate: float = 0.0,
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
    mesh: Mesh | None = None,
) -> TrainStep:
    """Makes the step of a run.

    Args:
      model: the T5 with its hooks.
      optimizer: an optax transformation of the trainable tree.
      weight_decay_rate: share of what trains that every step subtracts, see `decay_and_apply`.
      label_smoothing, z_loss, loss_normalizing_factor: see `cross_entropy_loss`.
      mesh: the devices of its arrays, see `parallel/mesh.py`; None is one device.
    """

    def update(trainable, opt_state, totals):
        return _update(optimizer, weight_decay_rate, trainable, opt_state, totals)

    return _make(model, update, label_smoothing, z_loss, loss_normalizing_factor, mesh)


@functools.lru_cache(maxsize=32)
def make_joint_step(
    model: Transformer,
    optimizers: tuple[optax.GradientTransformation, ...],
    *,
    weight_decay_rates: tuple[float, ...],
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
    mesh: Mesh | None = None,
) -> TrainStep:
    """Makes the joint step of M runs.

    Args:
      model: the T5 with `mixed_hooks` of M methods.
      optimizers, weight_decay_rates: of each run.
      label_smoothing, z_loss, loss_normalizing_factor, mesh: see `make_train_step`.
    """

    def update(trainable, opt_state, totals):
        updates = zip(optimizers, weight_decay_rates, trainable, opt_state, strict=True)
        each = [_update(*one, totals.of_run(number)) for number, one in enumerate(updates)]
        return tuple(zip(*each, strict=True))

    return _make(model, update, label_smoothing, z_loss, loss_normalizing_factor, mesh)


def _make(
    model: Transformer,
    update: Callable,
    label_smoothing: float,
    z_loss: float,
    loss_normalizing_factor: float | str | None,
    mesh: Mesh | None,
) -> TrainStep:
    def loss_fn(trainable, frozen, batch, masks, key):
        add_up = jnp.sum
        if isinstance(trainable, tuple):
            runs = {"groups": batch["prompt_ids"], "count": len(trainable)}
            add_up = functools.partial(sums_of_groups, **runs)
            trainable = mixed_arrays(trainable)
        params = stacking.nested(trees.merge(trainable, frozen), model.compute)
        is_packed = isinstance(batch["decoder_input_tokens"], Inputs)
        inputs = as_inputs(batch["encoder_input_tokens"])
        if "prompt_ids" in batch:
            inputs = inputs._replace(prompt_ids=batch["prompt_ids"])
        logits = model.apply(
            {"params": params},
            inputs,
            batch["decoder_input_tokens"],
            None if is_packed else batch["decoder_target_tokens"],
            dropout=masks,
            rngs=None if key is None else {"dropout": key},  # for modules of hooks
        )
        numerator, divisor, sums = loss_parts(
            logits,
            batch["decoder_target_tokens"],
            batch["decoder_loss_weights"],
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
            add_up=add_up,
        )
        return jnp.sum(numerator), (divisor, sums)

    @jax.jit
    def empty(trainable):
        zero = jnp.zeros((len(trainable),) if isinstance(trainable, tuple) else ())
        divisor = zero if isinstance(loss_normalizing_factor, str) else None
        return Totals(jax.tree.map(jnp.zeros_like, trainable), divisor, LossSums(*[zero] * 4))

    backend = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    options = compiler_options(model.compute, backend)

    @functools.partial(jax.jit, donate_argnames="totals", compiler_options=options)
    def accumulate(trainable, frozen, batch, masks, key, totals):
        differentiate = jax.value_and_grad(loss_fn, has_aux=True)
        (_, counted), gradient = differentiate(trainable, frozen, batch, masks, key)
        found = Totals(gradient, *counted)
        if mesh is not None:  # what is added up and updated is whole on each device
            found = jax.lax.with_sharding_constraint(found, rules.replicated(mesh))
        return found if totals is None else jax.tree.map(jnp.add, totals, found)

    return TrainStep(model, empty, accumulate, jax.jit(update, donate_argnums=(0, 1)))


def _update(
    optimizer: optax.GradientTransformation,
    weight_decay_rate: float,
    trainable: trees.FlatTree,
    opt_state: Any,
    totals: Totals,
) -> tuple[trees.FlatTree, Any, StepMetrics]:
    """The optimizer's update of one run."""
    gradient = jax.tree.map(lambda leaf: divide(leaf, totals.divisor), totals.gradient)
    changes, opt_state = optimizer.update(gradient, opt_state, trainable)
    trainable = decay_and_apply(trainable, changes, weight_decay_rate)
    sums = totals.sums
    tokens = jnp.maximum(sums.n_tokens, 1.0)
    metrics = StepMetrics(
        loss=sums.loss_sum / tokens,
        accuracy=sums.n_correct / tokens,
        gradient_norm=optax.global_norm(gradient),
        trainable_norm=optax.global_norm(trainable),
        target_tokens=sums.n_tokens,
    )
    return trainable, opt_state, metrics
