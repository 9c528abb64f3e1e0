"""Runs the layers of a stack one after the other, unrolled or as a scan over stacked parameters."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from prompt_tuning.model.compute import Compute
from prompt_tuning.model.dropout import StackMasks, layer_masks
from prompt_tuning.shapes import Array, Float


def run_layers(
    make: Callable[[int | None], nn.Module],
    run: Callable[..., Float[Array, "B S H"]],
    x: Float[Array, "B S H"],
    masks: StackMasks | None,
    layers: int,
    compute: Compute,
) -> Float[Array, "B S H"]:
    """Passes x through all layers.

    Args:
      make: makes layer 0, 1, ...; None makes the one whose parameters are stacked.
      run: `(layer, x, masks of the layer) -> x`.
      x: the input of the first layer.
      masks: of the stack.
      layers: how many.
      compute: `layers` and `remat` apply.
    """
    if compute.remat == "layer":
        # Without a scan, XLA could merge the second computation with the first.
        run = nn.remat(run, prevent_cse=compute.layers == "unroll")
    if compute.layers == "scan":
        return scan(run, make(None), x, masks and masks.layers, layers)[0]
    for number in range(layers):
        x = run(make(number), x, layer_masks(masks, number))
    return x


def scan(
    run: Callable[..., Any], layer: nn.Module, carried: Any, by_layer: Any, layers: int
) -> tuple[Any, Any]:
    """Loops over stacked parameters.

    Args:
      run: `(layer, carried, part of by_layer) -> carried`, or a tuple (carried, kept).
      layer: the module whose parameters are stacked, [layers, ...].
      carried: passed from layer to layer.
      by_layer: arrays [layers, ...], a part for each layer.
      layers: how many.

    Returns:
      What the last layer returned, and what each kept, stacked.
    """

    def body(layer, carried, part):
        result = run(layer, carried, part)
        return result if isinstance(result, tuple) else (result, None)

    looped = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=layers,
    )
    return looped(layer, carried, by_layer)
