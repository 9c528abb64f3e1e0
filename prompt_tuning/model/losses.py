"""What training minimises: cross entropy per target token, as T5X computes it.

    loss(token) = -sum_v q(v) log p(v)  -  entropy(q)  +  z_loss * log(Z)**2

where p = softmax(logits), Z its normaliser, and q the target: 1 - label_smoothing on the
token's own id, the rest spread evenly over the other V - 1 ids. Subtracting q's entropy
makes the best reachable loss 0. The z-loss keeps logits from drifting where bfloat16 rounds
coarsely. All of it is computed in float32.
"""

import difflib
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.shapes import Array, Float, Int

NUM_REAL_TARGET_TOKENS = "NUM_REAL_TARGET_TOKENS"
NUM_TOTAL_TARGET_TOKENS = "NUM_TOTAL_TARGET_TOKENS"
AVERAGE_PER_SEQUENCE = "AVERAGE_PER_SEQUENCE"
NORMALIZING_FACTORS = (NUM_REAL_TARGET_TOKENS, NUM_TOTAL_TARGET_TOKENS, AVERAGE_PER_SEQUENCE)


class LossSums(NamedTuple):
    """Sums over target tokens, each weighted; sums of several batches add up.

    `loss_sum / n_tokens` is the loss in nats per target token, `n_correct / n_tokens` the
    share of target tokens that the model ranks first. Of M groups of rows each is [M].
    """

    loss_sum: Float[Array, "*M"]  # z-loss included
    z_loss_sum: Float[Array, "*M"]
    n_tokens: Float[Array, "*M"]
    n_correct: Float[Array, "*M"]


def cross_entropy_loss(
    logits: Float[Array, "B L V"],
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
) -> tuple[Float[Array, ""], LossSums]:
    """The loss of a batch, with the sums that make metrics.

    Args:
      logits: scores of every vocabulary id, at every target position.
      targets: the expected ids, `decoder_target_tokens`.
      weights: `decoder_loss_weights`; a position with weight 0 does not count. None counts every
        target that is not padding (id 0).
      label_smoothing: probability that the target gives to the other ids.
      z_loss: coefficient of log(Z)**2. T5's 1e-4 is the default.
      loss_normalizing_factor: what the loss is divided by. None: nothing, the loss is the
        sum over target tokens, as T5X's default; a number: that number;
        'NUM_REAL_TARGET_TOKENS': the sum of the weights; 'NUM_TOTAL_TARGET_TOKENS': B * L,
        padding included; 'AVERAGE_PER_SEQUENCE': the mean over sequences of each one's
        mean over its tokens.

    Returns:
      The loss to differentiate, and `LossSums`, which no normalisation touches. A batch
      without a single target token has loss 0.

    Raises:
      ValueError: label_smoothing is outside [0, 1), or the name of the normalizing factor is
        unknown.

    >>> loss, sums = cross_entropy_loss(jnp.zeros((1, 2, 4)), jnp.array([[3, 0]]), z_loss=0.0)
    >>> round(float(loss), 4), float(sums.n_tokens)  # log(4), and one token
    (1.3863, 1.0)
    """
    numerator, divisor, sums = loss_parts(
        logits,
        targets,
        weights,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        loss_normalizing_factor=loss_normalizing_factor,
    )
    return divide(numerator, divisor), sums


def loss_parts(
    logits: Float[Array, "B L V"],
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
    add_up: Callable[[Float[Array, "B ..."]], Float[Array, "..."]] = jnp.sum,
) -> tuple[Float[Array, "*M"], Float[Array, "*M"] | None, LossSums]:
    """The loss of a batch as numerator and divisor, which add up over parts of a batch.

    Args:
      logits, targets, weights: see `cross_entropy_loss`.
      label_smoothing, z_loss, loss_normalizing_factor: see `cross_entropy_loss`.
      add_up: adds up values of rows or of their tokens, into one number, or into M, one for each
        group of rows, see `sums_of_groups`.

    Returns:
      The numerator, to differentiate; the divisor, which has no gradient, None where there is
      none; and `LossSums`.

    Raises:
      ValueError: see `cross_entropy_loss`.
    """
    if weights is None:
        weights = targets > 0
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
    weights = weights.astype(jnp.float32)
    token_loss, log_z = _token_losses(logits, targets, label_smoothing, z_loss)
    sums = LossSums(
        loss_sum=add_up(token_loss * weights),
        z_loss_sum=add_up(z_loss * jnp.square(log_z) * weights),
        n_tokens=add_up(weights),
        n_correct=add_up((jnp.argmax(logits, axis=-1) == targets) * weights),
    )
    factor = loss_normalizing_factor
    return *_numerator_and_divisor(token_loss, weights, sums, factor, add_up), sums


def sums_of_groups(
    values: Float[Array, "B ..."], groups: Int[Array, " B"], count: int
) -> Float[Array, " M"]:
    """Adds up the values of the rows of each of M = `count` groups.

    >>> sums_of_groups(jnp.array([[1.0, 2.0], [4.0, 0.0], [8.0, 0.0]]), jnp.array([1, 0, 1]), 2)
    Array([ 4., 11.], dtype=float32)
    """
    of_rows = jnp.sum(values.reshape(len(groups), -1), axis=1)
    return jax.ops.segment_sum(of_rows, groups, count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _token_losses(
    logits: Float[Array, "B L V"],
    targets: Int[Array, "B L"],
    label_smoothing: float,
    z_loss: float,
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """Returns each token's loss, and log(Z).

    The gradient is written out, (1 + 2 * z_loss * log(Z)) * softmax(logits) - q, and rounds as
    T5X's does: with optimizers that divide a gradient by its own size, small differences grow.
    """
    return _token_losses_forward(logits, targets, label_smoothing, z_loss)[0]


def _token_losses_forward(logits, targets, label_smoothing, z_loss):
    high, low, entropy = _target_distribution(logits.shape[-1], label_smoothing)
    highest = jnp.max(logits, axis=-1, keepdims=True).astype(jnp.float32)
    shifted = logits.astype(jnp.float32) - highest
    total = jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True)
    log_p = shifted - jnp.log(total)
    loss = -(high - low) * jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    if low:
        loss -= low * jnp.sum(log_p, axis=-1)
    log_z = (jnp.log(total) + highest)[..., 0]
    loss = loss + z_loss * jnp.square(log_z) - entropy
    return (loss, log_z), (logits, targets, highest, total, log_z)


def _token_losses_backward(label_smoothing, z_loss, kept, gradients):
    logits, targets, highest, total, log_z = kept
    of_loss, of_log_z = (gradient[..., None] for gradient in gradients)
    high, low, _ = _target_distribution(logits.shape[-1], label_smoothing)
    q = jnp.where(targets[..., None] == jnp.arange(logits.shape[-1])[None, None], high, low)
    unnormalized = jnp.exp(logits.astype(jnp.float32) - highest)
    of_logits = of_loss * ((1.0 + 2.0 * z_loss * log_z)[..., None] * unnormalized / total - q)
    of_logits += of_log_z * unnormalized / total
    return of_logits.astype(logits.dtype), None


_token_losses.defvjp(_token_losses_forward, _token_losses_backward)


def _target_distribution(n_ids: int, label_smoothing: float) -> tuple[float, float, float]:
    """Returns q on the target, q on every other id, and the entropy of q."""
    high = 1.0 - label_smoothing
    low = label_smoothing / max(n_ids - 1, 1)
    entropy = -high * math.log(high) - (n_ids - 1) * low * math.log(low + 1e-20)
    return high, low, entropy


def divide(total: Float[Array, "..."], count: Float[Array, "..."] | None) -> Float[Array, "..."]:
    """total / count, and 0 where there is nothing to count; the total if the count is None."""
    return total if count is None else total / jnp.where(count == 0, 1.0, count)


def _numerator_and_divisor(
    token_loss: Float[Array, "B L"],
    weights: Float[Array, "B L"],
    sums: LossSums,
    factor: float | str | None,
    add_up: Callable[[Array], Array],
) -> tuple[Float[Array, "*M"], Float[Array, "*M"] | None]:
    if factor is None:
        return sums.loss_sum, None
    if not isinstance(factor, str):
        return sums.loss_sum / factor, None
    name = factor.upper()
    if name == NUM_REAL_TARGET_TOKENS:
        return sums.loss_sum, sums.n_tokens
    if name == NUM_TOTAL_TARGET_TOKENS:
        return sums.loss_sum, add_up(jnp.ones_like(token_loss))
    if name == AVERAGE_PER_SEQUENCE:
        n_tokens_B = jnp.sum(weights, axis=-1)
        mean_loss_B = divide(jnp.sum(token_loss * weights, axis=-1), n_tokens_B)
        return add_up(mean_loss_B), add_up((n_tokens_B != 0).astype(jnp.float32))
    guess = difflib.get_close_matches(name, NORMALIZING_FACTORS, n=1)
    raise ValueError(
        f"Unknown loss_normalizing_factor {factor!r}"
        + (f", did you mean {guess[0]!r}?" if guess else ".")
        + f" Known: None, a number, {', '.join(NORMALIZING_FACTORS)}."
    )
