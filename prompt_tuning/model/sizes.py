"""The dimensions of a T5: everything that determines the shapes of its parameters.

The published sizes are gin parts, one file each (gin/models/t5_1_1_small.gin and so
on), and a run includes one of them.
"""

import dataclasses

import jax.numpy as jnp

DTYPES = {"float32": jnp.dtype("float32"), "bfloat16": jnp.dtype("bfloat16")}
ACTIVATIONS = ("gelu", "linear", "relu", "silu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Dimensions and switches of one T5 encoder-decoder.

    The field names are those of T5X's `network.T5Config`.

    Attributes:
      name: name of the model in prompt files and messages.
      vocab_size: rows of the embedding table; at least the vocabulary's size.
      emb_dim: model width H.
      num_heads: attention heads N.
      head_dim: width D of one head; N * D need not equal H.
      num_encoder_layers, num_decoder_layers: layers of each stack.
      mlp_dim: width F of the feed-forward layers.
      mlp_activations: ('gelu', 'linear') is T5 1.1's gated GELU in its tanh
        approximation, ('relu',) is T5 1.0.
      logits_via_embedding: True (T5 1.0) reads logits off the embedding table,
        divided by sqrt(H); False (T5 1.1) has a separate matrix.
      dropout_rate: used in training only; 0.1 in the paper, the frozen model included.
      dtype: activations, 'float32' or 'bfloat16'.

    Raises:
      ValueError: a field is out of its range.
    """

    name: str
    vocab_size: int
    emb_dim: int
    num_heads: int
    head_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    mlp_dim: int
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    logits_via_embedding: bool = False
    dropout_rate: float = 0.1
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"T5Config.{field.name} must be a whole number, 1 or more; got {value!r}."
                )
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"The dropout rate must be in [0, 1); got {self.dropout_rate!r}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"T5Config.dtype must be one of {sorted(DTYPES)}; got {self.dtype!r}.")
        unknown = [name for name in self.mlp_activations if name not in ACTIVATIONS]
        if unknown or not self.mlp_activations:
            raise ValueError(
                f"T5Config.mlp_activations must name one or more of {ACTIVATIONS}; "
                f"got {self.mlp_activations}."
            )

    @property
    def activation_dtype(self):
        """The dtype of activations as jax.numpy knows it."""
        return DTYPES[self.dtype]
