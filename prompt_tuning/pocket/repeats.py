"""First parameters with which an encoder sees at once where a text repeats itself.

    leo is in the cellar . is leo in the attic ?
    leo <----------------------> leo                     'attic' finds no other 'attic'

To check a claim against a text, a T5 must find the claim's words in the text. From T5's
own random start the pocket models learn that late or never: nothing makes equal tokens
attend to one another. Here the keys of each encoder head are its queries, up to a factor,
so that equal tokens do from the start, and half of the heads are kept from looking at the
token itself and its nearest neighbours. Only the start differs; the model is a T5 like any
other, and everything trains on from there. (The idea of starting attention where training
would take it: Trockman and Kolter 2023, "Mimetic initialization of self-attention layers".)
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp

from prompt_tuning import trees
from prompt_tuning.model.sizes import T5Config

RANDOM_REPEATS = "random_repeats"  # as a checkpoint's path: drawn at random, then changed
NEAR = (0, 1, 2, 17, 18)  # position buckets of the distances 0, -1, -2, 1 and 2
NEAR_BIAS = -4.0


def start_from_repeats(params: Mapping[str, jnp.ndarray], config: T5Config) -> trees.FlatTree:
    """Changes randomly drawn parameters as described above; the others stay as drawn.

    A head's key matrix becomes sqrt(D) times its query matrix, which gives it the scale that T5
    draws keys with: the score of a token with its equal is about sqrt(D), of others about 0.

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
