"""Tests of experiments/figure4_parameter_counts: the formulas, by numbers worked out by hand."""

import filecmp

import pytest

from experiments.figure4_parameter_counts import report
from experiments.speed.report import replace_between_marks
from prompt_tuning import config
from prompt_tuning.model.sizes import T5Config

SMALL = config.read_model("t5_1_1_small")  # H 512, N D 6 x 64, L 8 and 8
FOLDER = report.FOLDER


@pytest.fixture(scope="module")
def found():
    return report.rows()


def test_small_with_ten_tokens_by_hand():
    assert report.prompt_tuning(SMALL, 10) == (5_120, 5_120)
    assert report.warp(SMALL, 10) == (12 * 512, 12 * 512)
    # Keys and values, 384 wide, of 8 + 8 + 8 layers, for each of ten tokens.
    assert report.prefix_tuning_direct(SMALL, 10) == (184_320, 184_320)
    # 3 embeddings of 10 x 512; 3 times 513 x 512; 513 x 2 x 8 x 384 for each of 3 places.
    assert report.prefix_tuning(SMALL, 10) == (15_360 + 787_968 + 9_455_616, 184_320)
    # Four LSTMs from 512 to 256, 4 x 256 x (512 + 256) + 2 x 4 x 256 each; two layers 513 x 512.
    assert report.p_tuning_lstm(SMALL, 10) == (5_120 + 3_153_920 + 525_312, 5_120)
    assert report.p_tuning_mlp(SMALL, 10) == (5_120 + 787_968, 5_120)
    assert report.model_tuning(SMALL, 10) == (76_961_152, 76_961_152)
    assert report.prompt_design(SMALL, 10) == (0, 0)


def wide(width, layers):
    """A model as wide as another family's, for the numbers of other papers."""
    return T5Config(
        name="t5_1_1_other", vocab_size=1, emb_dim=width, num_heads=width // 64, head_dim=64,
        num_encoder_layers=layers, num_decoder_layers=layers, mlp_dim=1,
    )  # fmt: skip


def test_the_numbers_of_the_papers_themselves():
    """WARP: up to 25K at width 1024 with 20 tokens. Prefix tuning: 0.1% of GPT-2 medium's 345M with
    10 tokens; its 24 attentions are as many as those of an encoder-decoder of 8 layers each.
    """
    assert report.warp(wide(1024, 8), 20).kept < 25_000
    assert 0.0005 < report.prefix_tuning(wide(1024, 8), 10).kept / 345e6 < 0.0015


def test_every_method_has_every_size_and_length(found):
    with_length = len(report.METHODS) - len(report.WITHOUT_LENGTH)
    assert len(found) == 5 * (6 * with_length + 2)
    for row in found:
        assert row.kept <= row.trained
        assert row.trained <= row.model


def test_the_order_of_the_methods_is_that_of_the_figure(found):
    at = {(row.size, row.method): row for row in found if row.length in (0, 100)}
    for size in report.SIZES:
        one = {method: at[size, method] for method in report.METHODS}
        assert one["model tuning"].kept > one["prefix tuning"].kept > 10 * one["WARP"].kept
        assert one["WARP"].kept > one["prompt tuning"].kept > one["prompt design"].kept == 0
        assert one["prefix tuning"].trained > one["P-tuning, LSTM head"].trained


def test_the_tables_are_the_committed_ones(found):
    table = report.table(found)
    assert (FOLDER / "table.md").read_text(encoding="utf-8") == table + "\n"
    assert (FOLDER / "table.csv").read_text(encoding="utf-8") == report.write_csv(found)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert replace_between_marks(readme, table) == readme


def test_the_figure_is_drawn_alike_each_time(found, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report.draw(found, tmp_path / name)
    for file in ("figure.png", "figure.svg"):
        assert filecmp.cmp(tmp_path / "a" / file, tmp_path / "b" / file, shallow=False)
    assert "prompt tuning" in (tmp_path / "a" / "figure.svg").read_text(encoding="utf-8")
