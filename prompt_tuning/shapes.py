"""The letters for dimensions, the same in every file.

Public array arguments are annotated with them, `Float[Array, "B T H"]`, and the
tests check the annotations at run time. Inside dense mathematics they are part of
the variable's name: `scores_BxNxLxT`.

    B  batch: examples handled together
    T  input length in tokens, padding included
    P  prompt length in vectors
    S  encoder length: P + T with a prompt, else T; or the length of either stack
    L  target length in tokens, padding included
    R  decoder rows: B * K, the K of one input adjacent
    H  model width (`emb_dim`)
    N  attention heads
    D  width of one head (`head_dim`)
    F  width of the feed-forward layer (`mlp_dim`)
    V  vocabulary rows of the embedding table
    K  beams, or decodes for one input
    C  classes: label strings that are ranked
    Q  query positions of an attention
    E  extra keys and values that a hook adds; Y is E + L, Z is E + S
    I  input width of a matrix
    O  its output width
    M  prompts or tasks in one batch
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray

__all__ = ["Array", "Bool", "Float", "Int"]
