"""Learning rate schedules of T5X; a constant learning rate is a plain number.

Each function returns an optax schedule, `step -> learning rate`, and checks its steps. The
optimizers take one in place of a number, in gin `adafactor.learning_rate = @linear_decay()`. Any
other schedule of optax is named directly: `@optax.cosine_decay_schedule()`. T5X spells the three
as products of factors:

    linear_warmup  'constant * linear_warmup'
    linear_decay   'linear_decay' with decay_factor = 1 / (total_steps - warmup_steps)
    rsqrt_decay    'constant * rsqrt_decay'

      linear_warmup     linear_decay      rsqrt_decay
         _______           /\\             ____
        /                 /  \\                \\__
       /                 /    \\                   \\____
"""

import jax.numpy as jnp
import optax


def linear_warmup(learning_rate: float, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up from 0 at step 0, then constant.

    Raises:
      ValueError: warmup_steps is not positive.

    >>> schedule = linear_warmup(0.4, warmup_steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 50, 100, 1000)]
    [0.0, 0.2, 0.4, 0.4]
    """
    _check_positive(warmup_steps=warmup_steps)
    return optax.warmup_constant_schedule(0.0, learning_rate, warmup_steps)


def linear_decay(learning_rate: float, total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """Linear decay to 0 at total_steps, after an optional linear warm-up.

    Raises:
      ValueError: total_steps is not greater than warmup_steps.

    >>> schedule = linear_decay(0.4, total_steps=300, warmup_steps=100)
    >>> [round(float(schedule(step)), 3) for step in (50, 100, 200, 300, 400)]
    [0.2, 0.4, 0.2, 0.0, 0.0]
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"linear_decay needs 0 <= warmup_steps < total_steps, got warmup_steps={warmup_steps} "
            f"and total_steps={total_steps}. total_steps counts from step 0, warm-up included."
        )
    fall = optax.linear_schedule(learning_rate, 0.0, total_steps - warmup_steps)
    if warmup_steps == 0:
        return fall
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([rise, fall], [warmup_steps])


def rsqrt_decay(learning_rate: float = 1.0, warmup_steps: int = 10_000) -> optax.Schedule:
    """Inverse square root decay: learning_rate / sqrt(max(step, warmup_steps)).

    The defaults are T5's pre-training: 0.01 for 10,000 steps, then 1 / sqrt(step).

    Raises:
      ValueError: warmup_steps is not positive.

    >>> schedule = rsqrt_decay()
    >>> [round(float(schedule(step)), 4) for step in (0, 10_000, 1_000_000)]
    [0.01, 0.01, 0.001]
    """
    _check_positive(warmup_steps=warmup_steps)
    return lambda step: learning_rate / jnp.sqrt(jnp.maximum(step, warmup_steps))


def _check_positive(**steps: int) -> None:
    for name, count in steps.items():
        if count <= 0:
            raise ValueError(
                f"{name} must be at least 1, got {count}. For a rate that does not change, set "
                "learning_rate to a number."
            )
