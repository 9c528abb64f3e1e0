"""The building blocks of T5: norm, dense layer, attention, feed-forward, position bias.

After Raffel et al. 2020 (T5) and Shazeer 2020 (gated feed-forward); parameter
names and shapes are those of T5X's `examples/t5`. There are no biases, attention
scores are not divided by sqrt(D), and matrices are stored two-dimensional,
[H, N * D], as T5X stores them. Scores, softmax and norms are float32 whatever the
activations are.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_tuning.model.sizes import T5Config
from prompt_tuning.shapes import Array, Float, Int

NUM_BUCKETS = 32
MAX_DISTANCE = 128


class RMSNorm(nn.Module):
    """Divides by the root mean square over the width, then scales; no mean, no bias."""

    dtype: jnp.dtype = jnp.dtype("float32")
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        scale = jnp.asarray(scale, self.dtype)
        return x.astype(self.dtype) * jax.lax.broadcast_to_rank(scale, x.ndim)


class Dense(nn.Module):
    """Multiplies by a matrix, whose sides may each stand for several dimensions.

    The matrix is multiplied in those dimensions, as in T5X: on some machines a gradient
    would differ in its last bit otherwise.

    Attributes:
      features: the dimensions that come out, such as (N, D).
      contracted: how many dimensions go in; 2 where [N, D] does.
    """

    features: int | tuple[int, ...]
    contracted: int = 1
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal"
    )

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        inputs = x.shape[-self.contracted :]
        features = self.features if isinstance(self.features, tuple) else (self.features,)
        kernel = self.param("kernel", self.kernel_init, (math.prod(inputs), math.prod(features)))
        kernel = jnp.asarray(kernel, self.dtype).reshape(*inputs, *features)
        return jnp.tensordot(x.astype(self.dtype), kernel, axes=self.contracted)


def dropout(rate: float, axes: tuple[int, ...] = (-2,)) -> nn.Dropout:
    """T5's dropout: one draw for all positions of a sequence (`axes` are not drawn anew)."""
    return nn.Dropout(rate=rate, broadcast_dims=axes)


class Attention(nn.Module):
    """Multi-head attention whose keys and values may come from anywhere.

    `queries`, `keys_values` and the call are apart so that a decoder can keep what it
    projected: once for the encoder's output, once for each token it wrote. Where all three
    come from one x, queries first: it is T5X's order, and gradients add up in its reverse.
    """

    config: T5Config

    def setup(self):
        cfg = self.config
        heads = (cfg.num_heads, cfg.head_dim)
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        dense = functools.partial(Dense, dtype=cfg.activation_dtype)

        def query_init(*args):  # carries the 1/sqrt(D) that the scores do without
            return normal(*args) / math.sqrt(cfg.head_dim)

        self.query = dense(heads, kernel_init=query_init)
        self.key = dense(heads, kernel_init=normal)
        self.value = dense(heads, kernel_init=normal)
        self.out = dense(cfg.emb_dim, contracted=2, kernel_init=normal)
        self.weights_dropout = dropout(cfg.dropout_rate)

    def queries(self, x: Float[Array, "B Q H"]) -> Float[Array, "B Q N D"]:
        """Projects what looks."""
        return self.query(x)

    def keys_values(
        self, x: Float[Array, "B S H"]
    ) -> tuple[Float[Array, "B S N D"], Float[Array, "B S N D"]]:
        """Projects what is to be looked at."""
        return self.key(x), self.value(x)

    def __call__(
        self,
        queries: Float[Array, "B Q N D"],
        keys: Float[Array, "B S N D"],
        values: Float[Array, "B S N D"],
        bias: Float[Array, "#B #N #Q S"],
        deterministic: bool = True,
    ) -> Float[Array, "B Q H"]:
        """Looks from each of Q positions at S positions; `bias` is added to the scores."""
        scores_BxNxQxS = bias + jnp.einsum(
            "bqnd,bsnd->bnqs", queries, keys, preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(scores_BxNxQxS).astype(self.config.activation_dtype)
        weights = self.weights_dropout(weights, deterministic=deterministic)
        mixed = jnp.einsum("bnqs,bsnd->bqnd", weights, values)
        return self.out(mixed)


class FeedForward(nn.Module):
    """T5 1.1: `wo(gelu(wi_0 x) * wi_1 x)`; T5 1.0: `wo(relu(wi x))`."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "B S H"], deterministic: bool = True):
        cfg = self.config
        dense = functools.partial(Dense, dtype=cfg.activation_dtype)
        branches = []
        for i, name in enumerate(cfg.mlp_activations):
            wi = "wi" if len(cfg.mlp_activations) == 1 else f"wi_{i}"
            branch = dense(cfg.mlp_dim, name=wi)(x)
            branches.append(branch if name == "linear" else getattr(nn, name)(branch))
        hidden = functools.reduce(operator.mul, branches)
        hidden = dropout(cfg.dropout_rate)(hidden, deterministic=deterministic)
        return dense(cfg.emb_dim, name="wo")(hidden)


def relative_position_bucket(
    distance: Int[np.ndarray, "*shape"], *, bidirectional: bool
) -> Int[np.ndarray, "*shape"]:
    """Puts distances (key position minus query position) into 32 buckets.

    Half of the buckets hold one distance each; the other half grow
    logarithmically up to 128, and all longer distances share the last. A
    bidirectional table spends half its buckets on keys to the right; the causal
    one puts those into bucket 0. (Raffel et al. 2020, section 2.1.)

    >>> relative_position_bucket(np.array([-200, -9, -1, 0, 1, 9]), bidirectional=True)
    array([15,  8,  1,  0, 17, 24])
    >>> relative_position_bucket(np.array([-200, -9, -1, 0, 1]), bidirectional=False)
    array([31,  9,  1,  0,  0])
    """
    buckets = NUM_BUCKETS
    offset = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = np.where(distance > 0, buckets, 0)
        back = np.abs(distance)
    else:
        back = np.maximum(-distance, 0)
    exact = buckets // 2
    # float32 and the epsilon as in T5X: they decide on which side of a border a distance falls
    ratio = np.log(back.astype(np.float32) / exact + np.finfo(np.float32).eps)
    steps = ratio / np.log(MAX_DISTANCE / exact) * (buckets - exact)
    logarithmic = np.minimum(exact + steps.astype(np.int32), buckets - 1)
    return offset + np.where(back < exact, back, logarithmic)


class RelativePositionBias(nn.Module):
    """One number a head and bucket, added to the scores of every layer of a stack."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query_positions: Int[Array, " Q"], key_positions: Int[Array, " S"]
    ) -> Float[Array, "1 N Q S"]:
        table_NxV = self.param(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.config.num_heads, NUM_BUCKETS),
        )
        # The bucket of each distance is a constant; looking it up keeps positions dynamic.
        reach = MAX_DISTANCE
        distances = np.arange(-reach, reach + 1)
        buckets = jnp.asarray(relative_position_bucket(distances, bidirectional=self.bidirectional))
        distance_QxS = key_positions[None, :] - query_positions[:, None]
        bucket_QxS = buckets[jnp.clip(distance_QxS, -reach, reach) + reach]
        bias = jnp.asarray(table_NxV, self.config.activation_dtype)[:, bucket_QxS]
        return bias[None].astype(jnp.float32)
