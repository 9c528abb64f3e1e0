"""Model tuning, the baseline of Lester et al. 2021, section 3.1: parameters of the model train.

Nothing is added, so there is no file of added arrays; the best model is written as a T5X
checkpoint. Without a pattern nothing trains: the untuned model, which is only measured.
"""

from prompt_tuning.methods.method import Method

KIND = "model_tuning"


def model_tuning(trainable: tuple[str, ...] = (".*",)) -> Method:
    """Makes the method of model tuning.

    Args:
      trainable: patterns of what trains, whole paths; () is nothing.
    """
    return Method(kind=KIND, trainable=tuple(trainable))
