"""Tests of prompt_tuning/model/sizes.py and of the published sizes in gin/models."""

import re
from pathlib import Path

import pytest

from prompt_tuning.config import read_model
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config

PARTS = sorted((Path(__file__).parents[2] / "gin" / "models").glob("*.gin"))
SMALL = dict(
    name="small",
    vocab_size=8,
    emb_dim=4,
    num_heads=2,
    head_dim=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=8,
)


def count(name):
    total = 0
    for shape in parameter_shapes(read_model(name)).values():
        product = 1
        for size in shape:
            product *= size
        total += product
    return total


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Lester et al. 2021, table 4, less the prompt
        ("t5_1_1_small", 76_961_152),
        ("t5_1_1_base", 247_577_856),
        ("t5_1_1_large", 783_150_080),
        ("t5_1_1_xl", 2_849_757_184),
        ("t5_1_1_xxl", 11_135_332_352),
        # the closed form of table 4 with one feed-forward matrix less and no logits matrix
        ("t5_1_0_small", 60_506_624),
        ("t5_1_0_base", 222_903_552),
        ("t5_1_0_large", 737_668_096),
        # the closed form; the papers round to 300M, 580M, 1.2B and 300M, 582M, 1.23B
        ("mt5_small", 300_176_768),
        ("mt5_base", 582_401_280),
        ("mt5_large", 1_229_581_312),
        ("byt5_small", 299_637_760),
        ("byt5_base", 581_653_248),
        ("byt5_large", 1_228_183_552),
    ],
)
def test_parameter_counts(name, parameters):
    assert count(name) == parameters


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_part_is_a_model_of_its_own_name(path):
    config = read_model(path.stem)
    assert config.name == path.stem
    counted = re.search(r"([\d,]+) parameters", path.read_text())
    assert counted is None or int(counted[1].replace(",", "")) == count(path.stem)


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ValueError, match="'t5_1_1_smal'. Did you mean t5_1_1_small.*byt5_base"):
        read_model("t5_1_1_smal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emb_dim": 0}, "emb_dim must be a whole number, 1 or more; got 0"),
        ({"num_heads": 1.5}, "num_heads must be a whole number, 1 or more; got 1.5"),
        ({"dropout_rate": -0.1}, r"\[0, 1\); got -0.1"),
        ({"dtype": "float16"}, "one of .'bfloat16', 'float32'.; got 'float16'"),
        ({"mlp_activations": ("gelu_new",)}, r"must name one or more of .*got \('gelu_new',\)"),
    ],
)
def test_impossible_dimensions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        T5Config(**{**SMALL, **change})
