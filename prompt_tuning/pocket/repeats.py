"""Initial parameters with which encoder attention finds repeated tokens from the first step.

    leo is in the cellar . is leo in the attic ?
    leo <----------------------> leo                     'attic' finds no other 'attic'

To check a claim against a text, a T5 must find the claim's words in the text. With T5's own
random initialisation the pocket models learn that late or never, since nothing makes equal
tokens attend to each other. Here the key matrix of each encoder head is its query matrix, up to
a factor, so that equal tokens do; half of the heads get a position bias against the token itself
and its nearest neighbours. Only the initial values differ: the model is a plain T5 and every
parameter trains. (After the idea of Trockman and Kolter 2023, "Mimetic initialization of
self-attention layers".)
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp

from prompt_tuning import trees
from prompt_tuning.model.sizes import T5Config

RANDOM_REPEATS = "random_repeats"  # in INITIAL_CHECKPOINT_PATH
NEAR = (0, 1, 2, 17, 18)  # position buckets of the distances 0, -1, -2, 1 and 2
NEAR_BIAS = -4.0


def start_from_repeats(params: Mapping[str, jnp.ndarray], config: T5Config) -> trees.FlatTree:
    """Changes random parameters as described above; the others stay as they are.

    A head's key matrix becomes sqrt(D) times its query matrix, which has the scale of T5's own
    keys: the attention score of two equal tokens is about sqrt(D), of others about 0.

    Args:
      params: by T5X's names.
      config: their dimensions.
    """
    changed = dict(params)
    for layer in range(config.num_encoder_layers):
        attention = f"encoder/layers_{layer}/attention"
        queries = params[f"{attention}/query/kernel"]
        changed[f"{attention}/key/kernel"] = queries * math.sqrt(config.head_dim)
    bias = "encoder/relpos_bias/rel_embedding"
    changed[bias] = params[bias].at[::2, jnp.array(NEAR)].add(NEAR_BIAS)
    return changed
