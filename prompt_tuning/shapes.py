"""The letters that stand for dimensions, the same in every file.

A public array argument is annotated with them, `Float[Array, "B T H"]`, and the
tests check the annotations at run time. Inside dense mathematics the variable's
name carries them: `scores_BxNxLxT`.

    B  batch: examples handled together
    T  input length in tokens, padding included
    P  prompt length in vectors
    S  encoder length: T, or P + T where a prompt was joined
    L  target length in tokens, padding included
    H  model width (`emb_dim`)
    N  attention heads
    D  width of one head (`head_dim`)
    F  width of the feed-forward layer (`mlp_dim`)
    V  vocabulary rows of the embedding table
    K  beams, or decodes for one input
    C  classes: label strings that are ranked
    M  prompts or tasks in one batch
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray

__all__ = ["Array", "Bool", "Float", "Int"]
