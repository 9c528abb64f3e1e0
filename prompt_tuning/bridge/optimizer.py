"""The optimizer of a prompt in T5X: one for the prompt, one that does nothing for the rest.

T5X's MultiOptimizer gives every optimizer the parameters that its traversal picks. T5X still
differentiates the whole model.
"""

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from t5x import optimizers

from prompt_tuning.methods import prompt_tuning


@struct.dataclass
class _NoHyperParameters:
    learning_rate: float = 0.0  # the trainer sets one for every optimizer


class NoUpdate(optimizers.OptimizerDef):
    """Leaves its parameters as they are.

    MultiOptimizer can leave parameters to no optimizer at all and then keeps None in place of
    their state. T5X saves that with Orbax, but cannot restore it: a run could not resume. So there
    is a state, one zero per parameter, as T5X's Adafactor keeps where it has nothing to keep.
    """

    def __init__(self):
        super().__init__(_NoHyperParameters())

    def init_state(self, params):
        nothing = jax.tree.map(lambda _: jnp.zeros((1,)), params)
        return optimizers.OptimizerState(jnp.asarray(0, jnp.int32), nothing)

    def apply_gradient(self, hyper_params, params, state, grads):
        del hyper_params, grads
        return params, optimizers.OptimizerState(state.step + 1, state.param_states)


def prompt_only(*, optimizer: optimizers.OptimizerDef) -> optimizers.MultiOptimizer:
    """Makes a T5X optimizer that updates the prompt and nothing else.

    Args:
      optimizer: updates the prompt.
    """

    def is_prompt(path: str, _) -> bool:
        return prompt_tuning.is_prompt(path)

    def is_frozen(path: str, leaf) -> bool:
        return not is_prompt(path, leaf)

    return optimizers.MultiOptimizer(
        (
            (traverse_util.ModelParamTraversal(is_prompt), optimizer),
            (traverse_util.ModelParamTraversal(is_frozen), NoUpdate()),
        )
    )
