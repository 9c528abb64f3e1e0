"""Batches of inputs for a model, see `data/sorted_batches.py`."""

from collections.abc import Iterator

from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.sorted_batches import SortedBatch, sorted_batches
from prompt_tuning.model.inputs import width_matters
from prompt_tuning.model.transformer import Transformer


def batches_for(
    model: Transformer,
    inputs: Ragged,
    batch_size: int,
    length: int,
    *,
    pad_to_full_length: bool = False,
) -> Iterator[SortedBatch]:
    """Yields every input once, the longest first.

    Args:
      model: what they are for.
      inputs: token ids.
      batch_size: B.
      length: the longest that an input may be, in tokens.
      pad_to_full_length: pad all to it. A model whose positions depend on the padding, as with a
        suffix, gets no others.
    """
    is_fixed = pad_to_full_length or width_matters(model.hooks.reserve)
    return sorted_batches(
        inputs,
        batch_size,
        positions=model.encoder_length,
        width=length if is_fixed else None,
    )
