"""The T5 that real T5X made the vectors of tests/data/parity/t5x_tiny with."""

from pathlib import Path

import numpy as np

from prompt_tuning.model.sizes import T5Config

CONFIG = T5Config(
    name="t5x_tiny",
    vocab_size=128,
    emb_dim=32,
    num_heads=4,
    head_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=64,
)


def parameters() -> dict[str, np.ndarray]:
    """Its parameters, by path."""
    marker = "param:"
    with np.load(Path(__file__).parent / "data" / "parity" / "t5x_tiny" / "vector.npz") as file:
        return {k.removeprefix(marker): file[k] for k in file.files if k.startswith(marker)}
