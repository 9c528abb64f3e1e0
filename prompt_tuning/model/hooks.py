"""The places where a method attaches to the T5.

The model knows nothing of methods. It offers places, and a method is a small Flax module put in
one of them; nothing here is ever subclassed.

    tokens -> embedding -> [encoder_input] -> encoder layers -> decoder -> logits

    layer         x = [layer_input](x)
                  x = x + [after_sublayer](dropout(attention(norm(x))), x)
                  x = x + [after_sublayer](dropout(mlp(norm(x))), x)
    attention     keys, values = [extra_keys_values] prepended to those of the tokens
    matrix        y = [dense](x, multiply), multiply(x) being x times the matrix

A field of `Hooks` is a factory: the model calls it inside its own scope while it is traced, and the
factory returns a `linen` module, or None to attach nothing there. The parameters of the module are
stored beside the model's, under the name that the factory gives it:

    encoder_input                                    encoder/NAME/...
    decoder_input                                    decoder/NAME/...
    layer_input, after_sublayer                      encoder/layers_0/NAME/...
    extra_keys_values                                encoder/layers_0/attention/NAME/...
    dense, path 'encoder/layers_0/attention/query'   encoder/layers_0/attention/query/NAME/...

Several modules in one scope, such as two sub-layers of a layer, need different names.

Layers may be scanned. A `layer` is a number from 0, or None where one traced body serves all layers
of a stack (`nn.scan`; a path then has no number, 'encoder/layers/...'): the factory returns one
module for all of them, and its parameters are stacked, [layers, ...]. A factory that treats layers
differently works only where they are unrolled. Factories get names and numbers only, modules get
arrays and `Inputs` only, and neither may keep an array from one call to the next.

A module in the decoder computes each position from that position alone: with a cache it is called
for one position at a time, L = 1, with its number in `inputs.positions`.

A module with its own dropout applies it if `self.has_rng('dropout')`, that is in training.
"""

import dataclasses
from collections.abc import Callable

from flax import linen as nn

from prompt_tuning.model.inputs import Inputs


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What is attached to a T5; the default attaches nothing.

    Hooks are part of the model, which is a static argument of compiled functions and hashed with
    its factories: make them once, since new ones compile again.

    Attributes:
      reserve: `(inputs) -> inputs`, before the embedding, of inputs whose `prompt_places` is None:
        returns longer ones with places for the `encoder_input` module to fill.
      encoder_input: `() -> module`; the module takes `(embedded [B, S, H], inputs)` before dropout
        and returns the same shape.
      decoder_input: the same in the decoder, `(embedded [R, L, H], inputs)`.
      layer_input: `(stack, layer) -> module`, stack being 'encoder' or 'decoder'; takes
        `(x [B, S, H], inputs)`, x being what the layer and its residual connections read, and
        returns the same shape.
      extra_keys_values: `(stack, layer, attention) -> module`, attention being 'self_attention' or
        'cross_attention'; takes the encoder's `inputs` and returns E more keys and values, two
        [B, E, N, D] or [1, E, N, D]. In the decoder the K rows of one input share them. Every
        query attends to them, with a position bias of 0. With a cache they are computed once.
      dense: `(path) -> module`, path as in 'encoder/layers_0/attention/query'; takes
        `(x [..., I], multiply)`, where `multiply(x)` is x times the matrix, [..., I] -> [..., O],
        and returns [..., O]. Heads are adjacent in I and O, as in the stored matrix.
      after_sublayer: `(stack, layer, sublayer) -> module`, sublayer being 'self_attention',
        'cross_attention' (decoder only) or 'mlp'; takes `(y [B, S, H], x [B, S, H])`, y being the
        sub-layer's output after dropout and x the residual stream that it is added to; returns
        what to add instead of y.
    """

    reserve: Callable[[Inputs], Inputs] | None = None
    encoder_input: Callable[[], nn.Module | None] | None = None
    decoder_input: Callable[[], nn.Module | None] | None = None
    layer_input: Callable[[str, int | None], nn.Module | None] | None = None
    extra_keys_values: Callable[[str, int | None, str], nn.Module | None] | None = None
    dense: Callable[[str], nn.Module | None] | None = None
    after_sublayer: Callable[[str, int | None, str], nn.Module | None] | None = None

    def make(self, place: str, *arguments) -> nn.Module | None:
        """Calls the factory of a place, if there is one."""
        factory = getattr(self, place)
        return None if factory is None else factory(*arguments)


def merge(*several: Hooks) -> Hooks:
    """Attaches all of several hooks that use different places.

    Raises:
      ValueError: two of them use the same place.

    >>> merge(Hooks(encoder_input=nn.Dense), Hooks(encoder_input=nn.Dense))
    Traceback (most recent call last):
    ...
    ValueError: Two hooks use encoder_input, which holds one. Write one module that does both.
    """
    merged: dict[str, Callable] = {}
    for hooks in several:
        used = {
            field.name: factory
            for field in dataclasses.fields(Hooks)
            if (factory := getattr(hooks, field.name)) is not None
        }
        if both := sorted(merged.keys() & used):
            raise ValueError(
                f"Two hooks use {', '.join(both)}, which holds one. Write one module that does "
                "both."
            )
        merged |= used
    return Hooks(**merged)
