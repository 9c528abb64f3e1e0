"""Which axis of each parameter is split over the devices.

    encoder/layers_0/mlp/wi_0/kernel  [H, F]     model axis on F: each device has some columns
    encoder/layers_0/mlp/wo/kernel    [F, H]     model axis on F: each device has some rows
    token_embedder/embedding          [V, H]     model axis on V

These are T5X's logical axes 'vocab', 'heads', 'joined_kv' and 'mlp' under its standard rules: sums
over devices are needed after attention and after the feed-forward only. No parameter is split over
`data`. Norms are whole on each device, and so is what trains.
"""

import re
from collections.abc import Iterable

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA, MODEL = "data", "model"
AXES = (DATA, MODEL)

_LAYER = r"(?:en|de)coder/layers(?:_\d+)?"
_SCALE = r"kernel_scale(?:_w8a8)?"  # of the columns of an int8 matrix
_TO_HEADS = r"(?:\w*attention/(?:query|key|value)|mlp/wi(?:_\d)?)"
_FROM_HEADS = r"(?:\w*attention/out|mlp/wo)"

# The first axis of scanned layers, [layers, ...], is left out; see `spec`.
RULES: dict[str, P] = {
    r"token_embedder/embedding": P(MODEL, None),
    r"token_embedder/embedding_scale": P(MODEL),
    r"(?:en|de)coder/relpos_bias/rel_embedding": P(MODEL, None),
    rf"{_LAYER}/pre_\w+_layer_norm/scale": P(None),
    rf"{_LAYER}/{_TO_HEADS}/kernel": P(None, MODEL),
    rf"{_LAYER}/{_TO_HEADS}/{_SCALE}": P(MODEL),
    rf"{_LAYER}/{_FROM_HEADS}/kernel": P(MODEL, None),
    rf"{_LAYER}/{_FROM_HEADS}/{_SCALE}": P(None),
    r"(?:en|de)coder/(?:en|de)coder_norm/scale": P(None),
    r"decoder/logits_dense/kernel": P(None, MODEL),
    rf"decoder/logits_dense/{_SCALE}": P(MODEL),
}


def spec(path: str) -> P:
    """How one parameter of a T5 is split, one entry for each of its axes.

    Args:
      path: T5X's, or that of stacked layers, see `model/stacking.py`.

    Raises:
      ValueError: no rule covers the path.

    >>> tuple(spec('encoder/layers_3/mlp/wo/kernel')), tuple(spec('encoder/layers/mlp/wo/kernel'))
    (('model', None), (None, 'model', None))
    """
    for pattern, found in RULES.items():
        if re.fullmatch(pattern, path):
            is_stacked = re.match(r"(en|de)coder/layers/", path)
            return P(None, *found) if is_stacked else found
    raise ValueError(
        f"No rule says how the parameter {path!r} is split over devices; add one to RULES in "
        "prompt_tuning/parallel/rules.py."
    )


def shardings(
    mesh: Mesh, paths: Iterable[str], whole: Iterable[str] = ()
) -> dict[str, NamedSharding]:
    """Where the parameters of a model are.

    Args:
      mesh: see `mesh.py`.
      paths: of all parameters.
      whole: those of them that each device has whole: what a method adds and what trains.

    Raises:
      ValueError: no rule covers a path.
    """
    kept = set(whole)
    return {
        path: replicated(mesh) if path in kept else NamedSharding(mesh, spec(path))
        for path in paths
    }


def replicated(mesh: Mesh) -> NamedSharding:
    """Where an array is that each device has whole."""
    return NamedSharding(mesh, P())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Where an array of a batch is, [B, ...], whose rows are split."""
    return NamedSharding(mesh, P(DATA))
