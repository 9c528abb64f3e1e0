"""What the frozen parameters of a T5 take on each device of a mesh."""

import math

import jax
import numpy as np

from prompt_tuning.model import quantization
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import DTYPES, T5Config
from prompt_tuning.parallel import rules


def frozen_arrays(config: T5Config, dtype: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that `inference/weights.py` loads, without values.

    Args:
      config: the model.
      dtype: 'float32', 'bfloat16' or one of `quantization.KINDS`.

    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> frozen_arrays(config, 'int8')['token_embedder/embedding_scale'].shape
    (16,)
    """
    found = {}
    for path, shape in parameter_shapes(config).items():
        if dtype not in quantization.KINDS:
            found[path] = jax.ShapeDtypeStruct(shape, DTYPES[dtype])
            continue
        parts = quantization.quantize(path, np.zeros((1,) * len(shape), np.float32), dtype)
        of_axis = 1 if path.endswith("/kernel") else 0  # that the scale has an entry for
        for name, leaf in parts.items():
            full = shape if name == path else shape[of_axis : of_axis + 1]
            found[name] = jax.ShapeDtypeStruct(full, leaf.dtype)
    return found


def device_bytes(config: T5Config, dtype: str, model: int) -> int:
    """Bytes of the frozen parameters on one device.

    Args:
      config, dtype: see `frozen_arrays`.
      model: devices that share one copy.
    """
    total = 0
    for path, leaf in frozen_arrays(config, dtype).items():
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        total += size // model if rules.MODEL in rules.spec(path) else size
    return total
