"""Dropout masks of T5, drawn for each example by itself.

An example's masks depend on its key alone: not on the other rows of the batch, on how far the row
is padded, nor on whether layers are unrolled or scanned. So a batch that is cut into micro-batches
trains as the whole one does.

As in T5X, all positions of an example share one draw, except in the encoder's output, where each
has its own. Attention to keys that a hook adds is not dropped.

    draw(keys, config, input_length=S, length=L)  ->  model.apply(..., dropout=drawn)

Random numbers take long to compile: a stack draws the masks of all its layers at once, in a program
of its own that several input lengths share.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.model.sizes import T5Config
from prompt_tuning.shapes import Array, Float

Keys = Array  # [B] typed PRNG keys, one for each example
MULTIPLE = 256  # that the input length of a draw is rounded up to


class LayerMasks(NamedTuple):
    """Factors of one layer, 0 or 1 / (1 - rate); of all layers with a first axis more.

    Attributes:
      weights, cross_weights: of attention weights, by key position.
      attention, cross, mlp: of what each sub-layer adds.
      hidden: of the hidden layer of the feed-forward.
    """

    weights: Float[Array, "*A B N 1 S"]
    attention: Float[Array, "*A B 1 H"]
    hidden: Float[Array, "*A B 1 F"]
    mlp: Float[Array, "*A B 1 H"]
    cross_weights: Float[Array, "*A B N 1 S"] | None = None
    cross: Float[Array, "*A B 1 H"] | None = None


class StackMasks(NamedTuple):
    """Factors of the input, of every layer (stacked) and of the output of a stack."""

    input: Float[Array, "B 1 H"]
    layers: LayerMasks
    output: Float[Array, "B #S H"]


class Dropout(NamedTuple):
    """Masks of both stacks, of inputs that are at least as long as those they are used for."""

    encoder: StackMasks
    decoder: StackMasks


def draw(keys: Keys, config: T5Config, *, input_length: int, length: int) -> Dropout | None:
    """Draws the masks of a batch of B examples; None if nothing is dropped.

    Args:
      keys: [B].
      config: dimensions and dropout rate.
      input_length: S, the prompt included.
      length: L.
    """
    if not config.dropout_rate:
        return None
    rounded = -(-input_length // MULTIPLE) * MULTIPLE
    return Dropout(
        encoder_masks(keys, config, rounded), decoder_masks(keys, config, length, rounded)
    )


def fitted(masks: StackMasks, length: int, input_length: int | None = None) -> StackMasks:
    """The part of longer masks that a stack of this length uses.

    Args:
      masks: of a stack.
      length: of the stack's own positions.
      input_length: of the positions that a decoder's cross-attention reads.
    """
    layers = masks.layers._replace(weights=masks.layers.weights[..., :length])
    if input_length is not None:
        layers = layers._replace(cross_weights=layers.cross_weights[..., :input_length])
    return masks._replace(layers=layers, output=masks.output[:, :length])


def layer_masks(masks: StackMasks | None, layer: int) -> LayerMasks | None:
    """Those of one layer."""
    return None if masks is None else jax.tree.map(lambda mask: mask[layer], masks.layers)


def scale(x: Float[Array, "*B H"], mask: Float[Array, "..."] | None) -> Float[Array, "*B H"]:
    """Applies a mask; None drops nothing."""
    return x if mask is None else x * mask


@functools.partial(jax.jit, static_argnames=("config", "length"))
def encoder_masks(keys: Keys, config: T5Config, length: int) -> StackMasks:
    """Draws the masks of the encoder.

    Args:
      keys: [B].
      config: dimensions and dropout rate.
      length: S, the prompt included.
    """
    draw = _Draws(_fold(keys, 0), config)
    input_mask, attention, hidden, mlp = draw.vectors(config.num_encoder_layers, "HFH")
    weights = draw.weights(1, config.num_encoder_layers, length)
    output = draw.mask(2, (length, config.emb_dim))
    return StackMasks(input_mask, LayerMasks(weights, attention, hidden, mlp), output)


@functools.partial(jax.jit, static_argnames=("config", "length", "input_length", "rows"))
def decoder_masks(
    keys: Keys, config: T5Config, length: int, input_length: int, rows: int = 1
) -> StackMasks:
    """Draws the masks of the decoder.

    Args:
      keys: [B].
      config: dimensions and dropout rate.
      length: L.
      input_length: S.
      rows: K, target sequences of each input.
    """
    layers = config.num_decoder_layers
    cross = _Draws(_fold(keys, 1), config).weights(1, layers, input_length)
    own_keys = jax.vmap(
        lambda key: jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(rows))
    )
    draw = _Draws(own_keys(_fold(keys, 2)).reshape(-1), config)
    input_mask, attention, crossed, hidden, mlp = draw.vectors(layers, "HHFH")
    weights = draw.weights(1, layers, length)
    masks = LayerMasks(weights, attention, hidden, mlp, cross, crossed)
    return StackMasks(input_mask, masks, draw.mask(2, (1, config.emb_dim)))


def _fold(keys: Keys, number: int) -> Keys:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


class _Draws(NamedTuple):
    """Draws of one stack. A shape begins with what may vary, so that a longer draw begins as a
    shorter one."""

    keys: Keys
    config: T5Config

    def mask(self, number: int, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
        """Factors [B, *shape]."""
        keep = 1.0 - self.config.dropout_rate

        def of_one(key):
            return jax.random.bernoulli(jax.random.fold_in(key, number), keep, shape)

        return jax.vmap(of_one)(self.keys).astype(self.config.activation_dtype) / keep

    def vectors(self, layers: int, widths: str) -> list[Float[Array, "..."]]:
        """One mask [B, 1, H] for the input, then for each width one [layers, B, 1, width]."""
        cfg = self.config
        sizes = [{"H": cfg.emb_dim, "F": cfg.mlp_dim}[name] for name in widths]
        flat = self.mask(0, (cfg.emb_dim + layers * sum(sizes),))
        parts = [flat[:, None, : cfg.emb_dim]]
        start = cfg.emb_dim
        for size in sizes:
            end = start + layers * size
            part = flat[:, start:end].reshape(-1, layers, 1, size)
            parts.append(jnp.moveaxis(part, 1, 0))
            start = end
        return parts

    def weights(self, number: int, layers: int, length: int) -> Float[Array, "A B N 1 S"]:
        drawn_BxSxAxN = self.mask(number, (length, layers, self.config.num_heads))
        return jnp.transpose(drawn_BxSxAxN, (2, 0, 3, 1))[:, :, :, None]
