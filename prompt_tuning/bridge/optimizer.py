"""The optimizer of a prompt in T5X: one for the prompt, none for everything else.

T5X's MultiOptimizer gives an optimizer the parameters that a traversal picks, and leaves what
none picks as it is, without a state. T5X still differentiates the whole model.
"""

from flax import traverse_util

from prompt_tuning import bridge  # noqa: F401  (before t5x)
from prompt_tuning.prompts.prompt import PROMPT_PATH
from t5x import optimizers


def prompt_only(*, optimizer: optimizers.OptimizerDef) -> optimizers.MultiOptimizer:
    """Makes a T5X optimizer that moves the prompt and nothing else.

    Args:
      optimizer: moves the prompt.
    """
    prompt = traverse_util.ModelParamTraversal(lambda path, _: path.strip("/") == PROMPT_PATH)
    return optimizers.MultiOptimizer(((prompt, optimizer),))
