"""Loads the parameters of a frozen T5, one at a time: reads or draws, rounds, stacks.

    checkpoint ──> (path, array), sorted ──> float32, bfloat16 or int8 ──> [layers, ...] if scanned

No parameter is in memory twice, so a model needs little more memory while it is loaded than
afterwards. Parameters that are rounded to int8 or stacked are hashed on the way, before they are:
the fingerprint is that of the checkpoint.

With several processes each reads the slices that its devices hold. Process 0 reads all of every
parameter, for the fingerprint, and so do those that round to int8: a scale is that of a whole
column.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.model import parameters, quantization
from prompt_tuning.model.sizes import DTYPES, T5Config
from prompt_tuning.model.stacking import Stacker
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import placing, processes
from prompt_tuning.run import RANDOM_WEIGHTS
from prompt_tuning.run_checks import PARAM_DTYPES

Change = Callable[[trees.FlatTree, T5Config], trees.FlatTree]
_RANDOM: dict[str, Change | None] = {RANDOM_WEIGHTS: None}
_DRAWN_AT_ONCE = 10**9  # parameters; a larger model is drawn a layer at a time, which takes longer


class Weights(NamedTuple):
    """The parameters of a T5.

    Attributes:
      params: by T5X's paths; those of stacked layers as in `stacking.py`.
      fingerprint: see `trees.fingerprint`; None if it was not computed on the way.
    """

    params: trees.FlatTree
    fingerprint: str | None


def register_random(name: str, change: Change) -> None:
    """Makes NAME:SEED, as a checkpoint's path, draw random parameters and then change them.

    Args:
      name: the text before the colon.
      change: `(params, config) -> params`, by T5X's paths.
    """
    _RANDOM[name] = change


def is_random(path: str) -> bool:
    """Whether a checkpoint's path asks for random parameters.

    >>> is_random('random:7'), is_random('runs/random')
    (True, False)
    """
    return path.partition(":")[0] in _RANDOM


def load(
    config: T5Config,
    path: str,
    *,
    dtype: str = "float32",
    stacks: bool = False,
    mesh: Mesh | None = None,
) -> Weights:
    """Loads every parameter of a T5, or draws them.

    Args:
      config: the model's dimensions.
      path: a checkpoint; or 'random' or 'random:SEED' for untrained parameters, or another
        name of `register_random`.
      dtype: one of PARAM_DTYPES.
      stacks: collect the parameters of the layers of a stack in one array.
      mesh: the devices to split them over, see `parallel/rules.py`; None is one device.

    Raises:
      ValueError: the checkpoint cannot be read, or does not hold exactly this model; the type is
        unknown.
    """
    if dtype not in PARAM_DTYPES:
        known = ", ".join(map(repr, PARAM_DTYPES))
        raise ValueError(f"dtype must be one of {known}, got {dtype!r}.")
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    layers = layers if stacks else {}
    stacker = Stacker(layers) if mesh is None else placing.Placer(mesh, layers)
    rounds = dtype in quantization.KINDS
    by_parts = mesh is not None and not rounds and not processes.is_first()
    read = functools.partial(placing.read_parts, mesh) if by_parts else None
    fingerprint = trees.Fingerprint() if rounds or stacks or mesh is not None else None
    for name, leaf in _each(config, path, read):
        if fingerprint is not None and not by_parts:
            fingerprint.add(name, leaf)
        if not rounds:
            stacker.add(name, leaf.astype(DTYPES[dtype]))
            continue
        for part, array in quantization.quantize(name, np.asarray(leaf), dtype).items():
            stacker.add(part, array)
    text = fingerprint and fingerprint.text()
    return Weights(stacker.finish(), text if mesh is None else processes.of_first(text))


def _each(
    config: T5Config, path: str, read: Callable[[str, Leaf], Any] | None
) -> Iterator[tuple[str, np.ndarray | jax.Array | placing.Parts]]:
    """Yields the parameters sorted by path, in the type that they are stored in.

    Args:
      config, path: see `load`.
      read: see `checkpoint.each_parameter`; None reads whole parameters.
    """
    name, _, seed = path.partition(":")
    shapes = parameters.parameter_shapes(config)
    if name not in _RANDOM:
        reads = {} if read is None else {"read": read}
        yield from checkpoint.each_parameter(path, shapes, model=config, **reads)
        return
    if seed and not seed.isdecimal():
        raise ValueError(f"Random weights are asked for as 'random' or 'random:7'; got {path!r}.")
    rng, change = jax.random.key(int(seed or 0)), _RANDOM[name]
    if change is None and sum(map(math.prod, shapes.values())) > _DRAWN_AT_ONCE:
        yield from parameters.draw_each(config, rng)
        return
    params = parameters.draw(Transformer(config), rng)
    params = params if change is None else change(params, config)
    for name in sorted(params):
        yield name, params.pop(name)
