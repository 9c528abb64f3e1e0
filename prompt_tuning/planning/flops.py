"""The operations of a training step, counted by formula.

A multiplication and an addition are two operations. For a row of T tokens, a prompt of P, L target
positions, width H, attention width A = heads x head width D, MLP width M in K matrices (3 where it
is gated) and vocabulary V:

    encoder layer, S = P + T positions
        forward     2 S (4 H A + K H M)   q, k, v, o and the MLP's matrices
                    4 S S A               scores, weighted sum
        backward    the same matrices once: the cotangent of their input; they are frozen
                    8 S S A               both factors of both products
    decoder layer
        forward     2 L (4 H A + K H M) + 4 L L A
                    2 L (4 H A)           cross-attention: q, o; k and v absorbed into them
                    4 L S N H             scores and weighted sum over the memory itself, N heads
        backward    2 L (8 H A + K H M) + 8 L L A
                    8 L S N H
    logits          2 L H V forward, 2 L H V backward

Absorbed: with L below the head width, W_k^T q is cheaper than W_k applied to all S positions, so
keys and values of the memory are never formed. Where that is more, cross-attention is

        forward     2 L (2 H A) + 2 S (2 H A) + 4 L S A
        backward    2 L (2 H A) + 2 S (2 H A) + 8 L S A

Left out, because no program has to do it: in the first encoder layer a token needs no cotangent,
only the prompt does, and the projection of the prompt, before it, is the same in all rows. Softmax,
norms, dropout, the embedding and recomputation are not counted. So a program that recomputes, or
pads more than the batch needs, reaches a smaller share of the peak.

Where the model itself trains, each matrix has a gradient, which takes as much as its forward pass.
"""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the benchmarks count operations without JAX
    from prompt_tuning.model.sizes import T5Config


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """A T5's dimensions, see the module's docstring."""

    encoder_layers: int
    decoder_layers: int
    H: int
    N: int  # heads
    A: int
    M: int
    V: int
    K: int = 3


def dimensions(config: "T5Config") -> Dimensions:
    """The dimensions of a model."""
    return Dimensions(
        encoder_layers=config.num_encoder_layers,
        decoder_layers=config.num_decoder_layers,
        H=config.emb_dim,
        N=config.num_heads,
        A=config.num_heads * config.head_dim,
        M=config.mlp_dim,
        V=config.vocab_size,
        K=len(config.mlp_activations) + 1,
    )


def encoder_layer(size: Dimensions, S: int) -> tuple[int, int]:
    """Forward and backward of one layer, for a row."""
    matrices = 2 * S * (4 * size.H * size.A + size.K * size.H * size.M)
    attention = 4 * S * S * size.A
    return matrices + attention, matrices + 2 * attention


def first_layer_saves(size: Dimensions, P: int, T: int, rows: int) -> int:
    """What the first layer need not do, of `encoder_layer`, for a batch."""
    S, projections = P + T, 2 * 3 * size.H * size.A
    forward = projections * P * (rows - 1)  # the prompt's once for all rows
    backward = projections * (rows * S - P)  # the prompt's alone, summed over the rows before
    attention = 3 * 2 * rows * S * T * size.A  # of queries, keys and values of tokens
    return forward + backward + attention


def decoder_layer(size: Dimensions, S: int, L: int) -> tuple[int, int]:
    """Forward and backward of one layer, for a row."""
    matrices = 2 * L * (4 * size.H * size.A + size.K * size.H * size.M)
    attention = 4 * L * L * size.A
    square = size.H * size.A
    crossed = min(
        (2 * L * 4 * square, 4 * L * S * size.N * size.H),  # absorbed
        (2 * L * 2 * square + 2 * S * 2 * square, 4 * L * S * size.A),
        key=sum,
    )
    matrices, attention = matrices + crossed[0], attention + crossed[1]
    return matrices + attention, matrices + 2 * attention


def training(
    size: Dimensions, *, P: int, T: int, L: int, rows: int, trains_model: bool = False
) -> int:
    """A training step for a batch of rows of T tokens each.

    Args:
      size: the model.
      P: prompt vectors; 0 where a method has none.
      T, L: input and target positions.
      rows: of the batch.
      trains_model: the matrices of the model train, all of them.
    """
    of_encoder, of_decoder = encoder_layer(size, P + T), decoder_layer(size, P + T, L)
    logits = 2 * L * size.H * size.V
    forward = size.encoder_layers * of_encoder[0] + size.decoder_layers * of_decoder[0] + logits
    backward = size.encoder_layers * of_encoder[1] + size.decoder_layers * of_decoder[1] + logits
    if trains_model:
        return rows * (forward + backward + _matrices(size, P + T, L))
    saved = first_layer_saves(size, P, T, rows) if P else 0
    return rows * (forward + backward) - saved


def recomputed(size: Dimensions, *, P: int, T: int, L: int, rows: int, remat: str) -> int:
    """What a step computes again to save memory.

    Args:
      size, P, T, L, rows: see `training`.
      remat: see `model/compute.py`.
    """
    S = P + T
    if remat == "layer":
        of_layers = (
            size.encoder_layers * encoder_layer(size, S)[0]
            + size.decoder_layers * decoder_layer(size, S, L)[0]
        )
        return rows * of_layers
    if remat == "attention":
        scores = size.encoder_layers * S * S + size.decoder_layers * L * (L + S)
        return rows * 4 * scores * size.A
    return 0


def _matrices(size: Dimensions, S: int, L: int) -> int:
    """Products with the matrices of the model, forward, for a row."""
    own, mlp, square = 4 * size.H * size.A, size.K * size.H * size.M, size.H * size.A
    crossed = 2 * L * 2 * square + 2 * S * 2 * square
    encoder = size.encoder_layers * 2 * S * (own + mlp)
    return encoder + size.decoder_layers * (2 * L * (own + mlp) + crossed) + 2 * L * size.H * size.V
