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

from prompt_tuning.model import attention, matmul
from prompt_tuning.model.attention import Biases
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.dropout import scale as drop
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.inputs import Inputs
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
    """Multiplies by a matrix, whose sides may each combine several dimensions.

    The matrix is multiplied in those dimensions, as in T5X: on some machines a gradient
    would differ in its last bit otherwise.

    Attributes:
      features: the output dimensions, such as (N, D).
      contracted: the number of input dimensions; 2 where the input is [N, D].
      hooks: see `Hooks.dense`.
    """

    features: int | tuple[int, ...]
    contracted: int = 1
    hooks: Hooks = Hooks()
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal"
    )

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        inputs = x.shape[-self.contracted :]
        features = self.features if isinstance(self.features, tuple) else (self.features,)
        kernel = self.param("kernel", self.kernel_init, (math.prod(inputs), math.prod(features)))
        scale, rounds_x = self._scale()
        multiply = functools.partial(
            matmul.multiply,
            kernel=kernel,
            scale=scale,
            rounds_x=rounds_x,
            contracted=self.contracted,
            features=features,
            dtype=self.dtype,
        )
        around = self.hooks.make("dense", "/".join(self.path))
        if around is None:
            return multiply(x)
        batch = x.shape[: -self.contracted]

        def multiply_flat(x):
            return multiply(x.reshape(*batch, *inputs)).reshape(*batch, math.prod(features))

        y = around(x.reshape(*batch, math.prod(inputs)), multiply_flat)
        return y.reshape(*batch, *features)

    def matrix(self) -> Float[Array, "I ..."]:
        """The matrix itself, [I, *features], of a model whose parameters are given."""
        kernel = self.get_variable("params", "kernel")
        return matmul.dequantized(kernel, self._scale()[0], self.dtype).reshape(-1, *self.features)

    def _scale(self) -> tuple[Float[Array, " O"] | None, bool]:
        """The scale of an int8 matrix, and whether x is rounded; see `quantization.py`."""
        scale, of_both = (
            self.get_variable("params", name) for name in ("kernel_scale", "kernel_scale_w8a8")
        )
        return (scale, False) if of_both is None else (of_both, True)


class Attention(nn.Module):
    """Multi-head attention over any keys and values.

    `queries`, `keys_values` and the call are separate so that a decoder can cache projections:
    those of the encoder's output once, those of each token as it is decoded. Where all three
    are projections of one x, queries come first: it is T5X's order, and gradients are summed in
    its reverse.

    Attributes:
      hooks: see `Hooks.extra_keys_values` and `Hooks.dense`.
      place: the stack, the layer and the kind of attention, as hooks get them.
      compute: how it is computed.
    """

    config: T5Config
    hooks: Hooks = Hooks()
    place: tuple[str, int | None, str] = ("encoder", None, "self_attention")
    compute: Compute = Compute()

    def setup(self):
        cfg = self.config
        heads = (cfg.num_heads, cfg.head_dim)
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        dense = functools.partial(Dense, dtype=cfg.activation_dtype, hooks=self.hooks)

        def query_init(*args):  # holds the 1/sqrt(D) by which scores are not divided
            return normal(*args) / math.sqrt(cfg.head_dim)

        self.query = dense(heads, kernel_init=query_init)
        self.key = dense(heads, kernel_init=normal)
        self.value = dense(heads, kernel_init=normal)
        self.out = dense(cfg.emb_dim, contracted=2, kernel_init=normal)
        self.extra = self.hooks.make("extra_keys_values", *self.place)

    def queries(self, x: Float[Array, "B Q H"]) -> Float[Array, "B Q N D"]:
        """Projects x to queries."""
        return self.query(x)

    def keys_values(
        self, x: Float[Array, "B S H"]
    ) -> tuple[Float[Array, "B S N D"], Float[Array, "B S N D"]]:
        """Projects x to keys and values."""
        return self.key(x), self.value(x)

    def with_extra(
        self, keys: Float[Array, "R S N D"], values: Float[Array, "R S N D"], inputs: Inputs
    ) -> tuple[Float[Array, "R Z N D"], Float[Array, "R Z N D"]]:
        """Prepends the E keys and values of a hook, Z = E + S; without a hook Z is S.

        Args:
          keys, values: of B rows or, in the decoder, of R = B * K, the K of one input adjacent.
          inputs: the encoder's, of B rows.
        """
        if self.extra is None:
            return keys, values
        each = keys.shape[0] // inputs.tokens.shape[0]

        def in_front(extra, own):
            by_input = jnp.broadcast_to(extra, (inputs.tokens.shape[0], *extra.shape[1:]))
            by_row = jnp.repeat(by_input, each, axis=0).astype(own.dtype)
            return jnp.concatenate([by_row, own], axis=1)

        extra_keys, extra_values = self.extra(inputs)
        return in_front(extra_keys, keys), in_front(extra_values, values)

    def __call__(
        self,
        queries: Float[Array, "B Q N D"],
        keys: Float[Array, "B Z N D"],
        values: Float[Array, "B Z N D"],
        biases: Biases,
        weights_mask: Float[Array, "B N 1 S"] | None = None,
    ) -> Float[Array, "B Q H"]:
        """Attends from each of Q positions to Z.

        `biases` are added to the scores of the last S keys, and `weights_mask` drops attention to
        them; those of a hook, which come first, have none.
        """
        if extra := keys.shape[1] - biases[0].shape[-1]:
            before = ((0, 0), (0, 0), (0, 0), (extra, 0))
            biases = tuple(jnp.pad(bias, before) for bias in biases)
            if weights_mask is not None:
                weights_mask = jnp.pad(weights_mask, before, constant_values=1)
        return self.out(
            attention.attend(queries, keys, values, biases, weights_mask, compute=self.compute)
        )

    def absorbs(self, queries: int, keys: int) -> bool:
        """Whether `absorbed` takes fewer multiplications than keys and values of the memory do.

        Args:
          queries: for each input, over the whole sequence.
          keys: positions of the memory, S.
        """
        hooked = self.hooks.extra_keys_values or self.hooks.dense
        cfg = self.config
        formed = keys * cfg.emb_dim * cfg.head_dim + queries * cfg.head_dim * keys
        if hooked or self.is_initializing():
            return False
        return queries * (keys + cfg.head_dim) * cfg.emb_dim < formed

    def absorbed(
        self,
        x: Float[Array, "B Q H"],
        memory: Float[Array, "B S H"],
        biases: Biases,
        weights_mask: Float[Array, "B N 1 S"] | None = None,
    ) -> Float[Array, "B Q H"]:
        """Attends from x to the memory without projecting the memory to keys and values.

        The same function with the products in another order, q . (W m) = (q W) . m:

            scores = ((x Wq) Wk^T) memory^T          out = ((weights memory) Wv) Wo

        With few queries it takes far fewer multiplications.
        """
        dtype = self.config.activation_dtype
        queries = matmul.einsum("bqnd,hnd->bqnh", self.query(x), self.key.matrix(), dtype)
        mixed = attention.attend(
            queries, memory, memory, biases, weights_mask, compute=self.compute
        )
        return self.out(matmul.einsum("bqnh,hnd->bqnd", mixed, self.value.matrix(), dtype))


class FeedForward(nn.Module):
    """T5 1.1: `wo(gelu(wi_0 x) * wi_1 x)`; T5 1.0: `wo(relu(wi x))`."""

    config: T5Config
    hooks: Hooks = Hooks()

    @nn.compact
    def __call__(self, x: Float[Array, "B S H"], hidden_mask: Float[Array, "B 1 F"] | None = None):
        cfg = self.config
        dense = functools.partial(Dense, dtype=cfg.activation_dtype, hooks=self.hooks)
        branches = []
        for i, name in enumerate(cfg.mlp_activations):
            wi = "wi" if len(cfg.mlp_activations) == 1 else f"wi_{i}"
            branch = dense(cfg.mlp_dim, name=wi)(x)
            branches.append(branch if name == "linear" else getattr(nn, name)(branch))
        hidden = functools.reduce(operator.mul, branches)
        hidden = drop(hidden, hidden_mask)
        return dense(cfg.emb_dim, name="wo")(hidden)


def relative_position_bucket(
    distance: Int[np.ndarray, "*shape"], *, bidirectional: bool
) -> Int[np.ndarray, "*shape"]:
    """Maps distances (key position minus query position) to 32 buckets.

    Half of the buckets hold one distance each; the other half grow
    logarithmically up to 128, and all longer distances share the last. A
    bidirectional table has half its buckets for keys to the right; in the causal
    one those are bucket 0. (Raffel et al. 2020, section 2.1.)

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
    # float32 and the epsilon as in T5X: they decide which bucket a distance at a border is in
    ratio = np.log(back.astype(np.float32) / exact + np.finfo(np.float32).eps)
    steps = ratio / np.log(MAX_DISTANCE / exact) * (buckets - exact)
    logarithmic = np.minimum(exact + steps.astype(np.int32), buckets - 1)
    return offset + np.where(back < exact, back, logarithmic)


class RelativePositionBias(nn.Module):
    """One number per head and bucket, added to the scores of every layer of a stack."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query_positions: Int[Array, "#B Q"], key_positions: Int[Array, "#B S"]
    ) -> Float[Array, "#B N Q S"]:
        table_NxV = self.param(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.config.num_heads, NUM_BUCKETS),
        )
        # The bucket of each distance is a constant; the lookup keeps positions dynamic.
        reach = MAX_DISTANCE
        distances = np.arange(-reach, reach + 1)
        buckets = jnp.asarray(relative_position_bucket(distances, bidirectional=self.bidirectional))
        distance_BxQxS = key_positions[:, None, :] - query_positions[:, :, None]
        bucket_BxQxS = buckets[jnp.clip(distance_BxQxS, -reach, reach) + reach]
        bias_NxBxQxS = jnp.asarray(table_NxV, self.config.activation_dtype)[:, bucket_BxQxS]
        return jnp.moveaxis(bias_NxBxQxS, 0, 1).astype(jnp.float32)
