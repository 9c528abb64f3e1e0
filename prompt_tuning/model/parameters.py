"""The parameters of a T5 by path: their shapes, and random values for them."""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from prompt_tuning import trees
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer


@functools.lru_cache(maxsize=64)  # a large model takes seconds to trace
def parameter_shapes(config: T5Config, hooks: Hooks = Hooks()) -> Mapping[str, tuple[int, ...]]:
    """Lists the path and shape of every parameter, without making any.

    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> parameter_shapes(config)['token_embedder/embedding']
    (16, 8)
    """
    made = jax.eval_shape(functools.partial(_init, Transformer(config, hooks)), jax.random.key(0))
    return {path: leaf.shape for path, leaf in made.items()}


@functools.partial(jax.jit, static_argnames=("model", "paths"))
def draw(
    model: Transformer, rng: jax.Array, paths: tuple[str, ...] | None = None
) -> trees.FlatTree:
    """Draws the parameters at the given paths; None is all. The others are never made."""
    flat = _init(model, rng)
    return flat if paths is None else {path: flat[path] for path in paths}


def draw_each(config: T5Config, rng: jax.Array) -> Iterator[tuple[str, jax.Array]]:
    """Draws all parameters, those of one layer at a time, sorted by path."""

    def group(path: str) -> str:
        layer = re.match(r"(encoder|decoder)/layers_\d+/", path)
        return layer[0] if layer else path

    for _, paths in itertools.groupby(sorted(parameter_shapes(config)), group):
        drawn = draw(Transformer(config), rng, tuple(paths))
        for path in sorted(drawn):
            yield path, drawn.pop(path)


def _init(model: Transformer, rng: jax.Array) -> trees.FlatTree:
    return trees.flatten(model.init(rng, *[np.ones((1, 1), np.int32)] * 3)["params"])
