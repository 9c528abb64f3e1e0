"""The optimizers that train a prompt, or a whole model: Adafactor as T5X runs it, AdamW and SGD.

Each takes keyword arguments and returns an `optax.GradientTransformation`. The paper
(section 3) trains with Adafactor, learning rate 0.3, weight decay 1e-5, a second moment that
decays with exponent 0.8 and no scaling by the parameter's size. The weight decay is separate,
`decay_and_apply`: in T5X it is not multiplied by the learning rate.
"""

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def check(make: Callable[[], optax.GradientTransformation]) -> None:
    """Makes an optimizer, so that a wrong setting is found before a model is loaded.

    Raises:
      ValueError: it cannot be made, or its learning rate is neither a number nor a schedule.
    """
    function = getattr(make, "func", make)
    name = getattr(function, "__name__", repr(function))
    if function in (adafactor, adamw, sgd) and "learning_rate" in getattr(make, "keywords", {}):
        _check_learning_rate(name, make.keywords["learning_rate"])
    try:
        made = make()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"The optimizer cannot be made, set {name}.*: {error}.") from error
    if not (callable(getattr(made, "init", None)) and callable(getattr(made, "update", None))):
        raise ValueError(
            "Run.optimizer must make an optimizer with the methods init and update, as optax has "
            f"them; {name} makes {made!r}."
        )


def _check_learning_rate(name: str, learning_rate: Any) -> None:
    is_number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
    if is_number or _is_schedule(learning_rate):
        return
    found = repr(learning_rate)
    if isinstance(learning_rate, functools.partial):
        found = f"@{learning_rate.func.__name__} without parentheses"
    raise ValueError(
        f"{name}.learning_rate must be a number or a schedule, such as 0.3 or @linear_decay(); "
        f"got {found}."
    )


def _is_schedule(schedule: Any) -> bool:
    """Whether it makes a number of a step; the function that makes a schedule does not."""
    try:
        rate = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
    except (TypeError, ValueError):
        return False
    return getattr(rate, "shape", None) == ()


# optax's own, named here so that a run chooses among the three in one place.
adamw = optax.adamw
sgd = optax.sgd


@functools.lru_cache(maxsize=32)  # equal settings are one optimizer, so that a step compiles once
def adafactor(
    learning_rate: float | int | optax.Schedule = 0.3,
    *,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    start_step: int = 0,
    clipping_threshold: float | None = 1.0,
    multiply_by_parameter_scale: bool = False,
    min_dim_size_to_factor: int = 128,
    epsilon1: float = 1e-30,
    epsilon2: float = 1e-3,
    beta1: float | None = None,
) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern, 2018), number for number what T5X computes.

    With t = start_step + the updates made so far, g a gradient and p its parameter:

        decay  = 1 - (t + 1 - step_offset) ** -decay_rate
        v      = decay * v + (1 - decay) * (g**2 + epsilon1)
        u      = g / sqrt(v)
        u      = u / max(1, rms(u) / clipping_threshold)
        p      = p - learning_rate(t) * u

    v is kept whole, or as its row and column means where the two largest dimensions are 128 or
    more: a prompt of 100 vectors has a whole one. All of it is computed in float32, whatever the
    parameters' type.

    T5X continues counting from the checkpoint it starts from: a run that begins at the
    LM-adapted T5 makes its first update at t = 1,100,000, where `1 - decay` is 1.5e-5. The
    second moment then sums nearly all gradients with equal weight instead of averaging recent ones,
    and the clipping acts on almost every step. `start_step=1_100_000` repeats that; the default is
    a fresh count.

    Args:
      learning_rate: a number or a schedule, which sees t.
      decay_rate: exponent of the second moment's decay.
      step_offset: subtracted from t in the decay (and only there).
      start_step: t of the first update.
      clipping_threshold: largest root mean square of one parameter's update before the learning
        rate; None for no clipping.
      multiply_by_parameter_scale: multiply the update by max(rms(p), epsilon2).
      min_dim_size_to_factor: keep the full second moment where one of the two largest
        dimensions is smaller.
      epsilon1: added to the squared gradient.
      epsilon2: smallest parameter scale.
      beta1: momentum of the update; None for none, and no memory for it.

    Raises:
      ValueError: start_step is below step_offset, or the learning rate is neither a number nor
        a schedule.

    >>> optimizer = adafactor(learning_rate=0.3)
    >>> params = {'prompt': jnp.array([[2.0, -1.0]])}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update({'prompt': jnp.array([[4.0, -0.5]])}, state, params)
    >>> optax.apply_updates(params, updates)['prompt']
    Array([[ 1.7, -0.7]], dtype=float32)
    """
    _check_learning_rate("adafactor", learning_rate)
    if start_step < step_offset:
        raise ValueError(
            f"adafactor needs start_step >= step_offset, got start_step={start_step} and "
            f"step_offset={step_offset}: the decay 1 - (step + 1 - step_offset) ** -decay_rate has "
            "no value before step_offset. Set start_step to the checkpoint's step, or step_offset "
            "to 0."
        )
    steps = [
        optax.scale_by_factored_rms(
            decay_rate=decay_rate,
            step_offset=step_offset - start_step,  # optax counts the updates from 0
            min_dim_size_to_factor=min_dim_size_to_factor,
            epsilon=epsilon1,
        )
    ]
    if clipping_threshold is not None:
        steps.append(optax.clip_by_block_rms(clipping_threshold))
    steps.append(_scale_by_learning_rate(learning_rate, start_step))
    if multiply_by_parameter_scale:
        steps.append(optax.scale_by_param_block_rms(epsilon2))
    if beta1 is not None:
        steps.append(optax.ema(beta1, debias=False))
    steps.append(optax.scale(-1.0))
    return _in_float32(optax.chain(*steps))


def decay_and_apply(params: Any, updates: Any, weight_decay_rate: float = 0.0) -> Any:
    """Subtracts a share of every parameter, then adds the updates: T5X's weight decay.

    As one change of an optax chain it would be rounded otherwise. At learning rate 0.3 that
    matters: a prompt that differs in its last bit is off by a hundredth twelve steps on.

    Args:
      params, updates: trees of arrays.
      weight_decay_rate: the share; 1e-5 in the paper. Not multiplied by the learning rate.

    >>> decay_and_apply({'p': jnp.array([8.0])}, {'p': jnp.array([-1.0])}, 0.25)
    {'p': Array([5.], dtype=float32)}
    """
    decayed = jax.tree.map(lambda param: (1.0 - weight_decay_rate) * param, params)
    return optax.apply_updates(decayed, updates)


def _scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule, start_step: int
) -> optax.GradientTransformation:
    if not callable(learning_rate):
        return optax.scale(learning_rate)
    return optax.scale_by_schedule(lambda count: learning_rate(count + start_step))


def _in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs an optimizer on float32 copies: optax keeps its state in the parameters' type.

    A bfloat16 second moment cannot hold a sum to which 1.5e-5 of a gradient is added.
    """

    def cast(tree):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)

    def init(params):
        return optimizer.init(cast(params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                "adafactor.update expected the parameters as its third argument, got None. Call "
                "update(gradients, state, params)."
            )
        return optimizer.update(cast(updates), state, cast(params))

    return optax.GradientTransformation(init, update)
