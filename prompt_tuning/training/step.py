"""One training step: the loss, its gradient with respect to what trains, the update.

    trainable ──┐
                merge ──> model ──> loss ──> gradient of `trainable` only ──> optimizer
    frozen ─────┘

The frozen parameters are an argument that is never differentiated, so neither the
gradient nor the optimizer's state has a place for them (Lester et al. 2021, section 2).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prompt_tuning import trees
from prompt_tuning.model.losses import cross_entropy_loss
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.shapes import Array, Float
from prompt_tuning.training.optimizers import decay_and_apply


class TrainState(NamedTuple):
    """Everything that a step changes; the frozen model is not in it."""

    step: int  # steps done
    trainable: trees.FlatTree
    opt_state: Any


class StepMetrics(NamedTuple):
    """What a step measured, as arrays that need not have been computed yet."""

    loss: Float[Array, ""]  # nats per target token, z-loss included
    accuracy: Float[Array, ""]  # share of target tokens ranked first
    gradient_norm: Float[Array, ""]
    trainable_norm: Float[Array, ""]  # of what trains, after the update
    target_tokens: Float[Array, ""]


def row_keys(key: jax.Array, batch: dict[str, Any]) -> jax.Array:
    """The dropout key of each row, by its place in the batch."""
    rows = jnp.arange(batch["encoder_input_tokens"].shape[0])
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


@functools.lru_cache(maxsize=32)  # equal arguments share one step, and what it compiled
def make_train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    *,
    weight_decay_rate: float = 0.0,
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
) -> Callable[[TrainState, trees.FlatTree, dict[str, Any], jax.Array], tuple]:
    """Compiles `(state, frozen, batch, rng) -> (state, metrics)`.

    Args:
      model: the T5 with its hooks.
      optimizer: an optax transformation of the trainable tree.
      weight_decay_rate: share of what trains that every step subtracts, see `decay_and_apply`.
      label_smoothing, z_loss, loss_normalizing_factor: see `cross_entropy_loss`.

    Returns:
      The step. Its dropout is drawn from `fold_in(rng, state.step)`, so a resumed run
      draws what the first one would have; `rng` None runs without dropout. The arrays of
      the state it is given are donated: continue with those of the state it returns.
    """
    measure = functools.partial(
        cross_entropy_loss,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        loss_normalizing_factor=loss_normalizing_factor,
    )

    def loss_fn(trainable, frozen, batch, keys):
        params = trees.unflatten(trees.merge(trainable, frozen))
        logits = model.apply(
            {"params": params},
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"],
            dropout_keys=keys,
            rngs=None if keys is None else {"dropout": keys[0]},  # for modules of hooks
        )
        return measure(logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"])

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(trainable, opt_state, frozen, batch, rng, step):
        keys = None if rng is None else row_keys(jax.random.fold_in(rng, step), batch)
        differentiate = jax.value_and_grad(loss_fn, has_aux=True)
        (_, sums), gradient = differentiate(trainable, frozen, batch, keys)
        changes, opt_state = optimizer.update(gradient, opt_state, trainable)
        trainable = decay_and_apply(trainable, changes, weight_decay_rate)
        tokens = jnp.maximum(sums.n_tokens, 1.0)
        metrics = StepMetrics(
            loss=sums.loss_sum / tokens,
            accuracy=sums.n_correct / tokens,
            gradient_norm=optax.global_norm(gradient),
            trainable_norm=optax.global_norm(trainable),
            target_tokens=sums.n_tokens,
        )
        return trainable, opt_state, metrics

    def step(state, frozen, batch, rng=None):
        trainable, opt_state, metrics = update(
            state.trainable, state.opt_state, frozen, batch, rng, jnp.int32(state.step)
        )
        return TrainState(state.step + 1, trainable, opt_state), metrics

    return step
