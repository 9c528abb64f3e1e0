"""One .safetensors file of a model's parameters under T5X's names, of 16 or 32 bits."""

import os

from prompt_tuning.checkpoints import tensor_files
from prompt_tuning.checkpoints.leaves import Leaf


def recognises(path: str) -> bool:
    """Whether the path is such a file."""
    return path.endswith(".safetensors") and os.path.isfile(path)


def leaves(path: str) -> dict[str, Leaf]:
    """Lists the parameters of a file without reading them.

    Raises:
      ValueError: the file is damaged.
    """
    return tensor_files.leaves(path, kinds=("F16", "BF16", "F32"))
