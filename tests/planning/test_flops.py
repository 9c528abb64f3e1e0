"""Tests of prompt_tuning/planning/flops.py: operations by hand."""

import pytest

from prompt_tuning import config
from prompt_tuning.planning import flops
from prompt_tuning.planning.flops import Dimensions

TINY = Dimensions(encoder_layers=2, decoder_layers=2, H=4, N=2, A=6, M=8, V=10)
SHAPE = {"P": 2, "T": 3, "L": 2, "rows": 2}


def test_operations_of_a_layer_by_hand():
    # 2 S (4 H A + 3 H M) = 2 x 5 x (96 + 96), 4 S S A = 4 x 25 x 6
    assert flops.encoder_layer(TINY, S=5) == (1920 + 600, 1920 + 1200)
    # 2 L (8 H A + 3 H M) = 2 x 2 x (192 + 96); 4 L L A = 96; 4 L S N H = 4 x 2 x 5 x 2 x 4 = 320
    assert flops.decoder_layer(TINY, S=5, L=2) == (1152 + 416, 1152 + 832)


def test_keys_are_formed_where_that_is_less():
    # L = S = 5. Formed: 2 L (2 H A) + 2 S (2 H A) = 960 and 4 L S A = 600; absorbed: 960 + 800.
    own = 2 * 5 * (96 + 96) + 600
    assert flops.decoder_layer(TINY, S=5, L=5) == (own + 960 + 600, own + 600 + 960 + 1200)


def test_operations_of_a_step_by_hand():
    layers = (2520 + 3120) + (1568 + 1984)
    logits = 4 * 2 * 4 * 10  # forward and backward
    # q, k, v: 2 x 3 H A = 144 a position. P = 2, T = 3, two rows: the prompt's once, not twice;
    # backward for two positions of ten; attention 3 x 2 x 2 rows x S T A.
    saved = 144 * 2 + 144 * (10 - 2) + 3 * 2 * 2 * 5 * 3 * 6
    assert flops.training(TINY, **SHAPE) == 2 * (2 * layers + logits) - saved


def test_a_model_that_trains_has_gradients_of_its_matrices():
    # encoder 1920 a layer; decoder 2 L (4 H A + 3 H M) = 768, cross-attention
    # 2 L (2 H A) + 2 S (2 H A) = 192 + 480; logits 2 L H V = 160
    layers = (2520 + 3120) + (1568 + 1984)
    matrices = 2 * 1920 + 2 * (768 + 672) + 160
    found = flops.training(TINY, **SHAPE, trains_model=True)
    assert found == 2 * (2 * layers + 320 + matrices)


def test_what_is_computed_again():
    assert flops.recomputed(TINY, **SHAPE, remat="none") == 0
    assert flops.recomputed(TINY, **SHAPE, remat="layer") == 2 * 2 * (2520 + 1568)
    # 4 A (S S + L (L + S)) a pair of layers = 24 x (25 + 14)
    assert flops.recomputed(TINY, **SHAPE, remat="attention") == 2 * 2 * 24 * 39


def test_dimensions_of_a_model():
    small = flops.dimensions(config.read_model("t5_1_1_small"))
    assert small == Dimensions(8, 8, H=512, N=6, A=384, M=1024, V=32128, K=3)
    assert flops.dimensions(config.read_model("t5_1_0_small")).K == 2
    byt5 = flops.dimensions(config.read_model("byt5_small"))
    assert (byt5.encoder_layers, byt5.decoder_layers) == (12, 4)


def test_small_is_twice_its_weights_forward_and_backward():
    """Positions x weights x 4, within the attention and the first layer."""
    small = flops.dimensions(config.read_model("t5_1_1_small"))
    weights = 8 * (4 * 512 * 384 + 3 * 512 * 1024)
    found = flops.training(small, P=100, T=128, L=8, rows=16)
    assert found == pytest.approx(16 * 228 * weights * 4, rel=0.2)
