"""Writes the table of README.md: `python -m experiments.table4_parameters.report`.

Parameters of a prompt and of T5 1.1 with it, counted from the configurations in gin/models.
"""

import dataclasses
import math
import sys
from pathlib import Path
from typing import NamedTuple

from experiments.speed.report import replace_between_marks
from prompt_tuning import config
from prompt_tuning.methods.method import added_shapes
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.prompts.prompt import soft_prompt_hooks

README = Path(__file__).with_name("README.md")
SIZES = ("small", "base", "large", "xl", "xxl")
LENGTHS = (1, 5, 20, 50, 100, 150)

# Lester et al. 2021, table 4, as printed: trainable parameters, then all.
PRINTED = {
    ("small", 1): (512, 76_961_664),
    ("small", 5): (2_560, 76_963_712),
    ("small", 20): (10_420, 76_971_572),
    ("small", 50): (25_600, 76_986_752),
    ("small", 100): (51_200, 77_012_352),
    ("small", 150): (76_800, 77_037_952),
    ("base", 1): (768, 247_578_624),
    ("base", 5): (3_840, 247_581_696),
    ("base", 20): (15_360, 247_593_216),
    ("base", 50): (38_400, 247_616_256),
    ("base", 100): (76_800, 247_654_656),
    ("base", 150): (115_200, 247_693_056),
    ("large", 1): (1_024, 783_151_104),
    ("large", 5): (5_120, 783_155_200),
    ("large", 20): (20_480, 783_170_560),
    ("large", 50): (51_200, 783_201_280),
    ("large", 100): (102_400, 783_252_480),
    ("large", 150): (153_600, 783_303_680),
    ("xl", 1): (2_048, 2_849_759_232),
    ("xl", 5): (10_240, 2_849_767_424),
    ("xl", 20): (40_960, 2_849_798_144),
    ("xl", 50): (102_400, 2_849_859_584),
    ("xl", 100): (204_800, 2_849_961_984),
    ("xl", 150): (307_200, 2_850_064_384),
    ("xxl", 1): (4_096, 11_135_336_448),
    ("xxl", 5): (20_480, 11_135_352_832),
    ("xxl", 20): (81_920, 11_135_414_272),
    ("xxl", 50): (204_800, 11_137_380_352),
    ("xxl", 100): (409_600, 11_135_741_952),
    ("xxl", 150): (614_400, 11_135_946_752),
}


class Count(NamedTuple):
    """Parameters of a run."""

    trainable: int
    total: int


def count(size: str, length: int) -> Count:
    """Counts a prompt, and the T5 1.1 of a size with it."""
    model = config.read_model(f"t5_1_1_{size}")
    shallow = dataclasses.replace(model, num_encoder_layers=1, num_decoder_layers=1)  # as wide
    added = added_shapes(shallow, soft_prompt_hooks(length=length))
    trainable, frozen = (sum(map(math.prod, x.values())) for x in (added, parameter_shapes(model)))
    return Count(trainable, trainable + frozen)


def table() -> str:
    """Ours beside the paper's, and the difference."""
    lines = [
        "| size | P | trainable | all | share | paper's trainable | paper's all | difference |",
        "| --- | ---: " + "| ---: " * 6 + "|",
    ]
    for (size, length), printed in PRINTED.items():
        ours = count(size, length)
        differs = [mine - theirs for mine, theirs in zip(ours, printed, strict=True)]
        shown = ", ".join(f"{x:+,}" for x in differs) if any(differs) else "0"
        lines.append(
            f"| {size} | {length} | {ours.trainable:,} | {ours.total:,} "
            f"| {100 * ours.trainable / ours.total:.5f}% | {printed[0]:,} | {printed[1]:,} "
            f"| {shown} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Writes the table."""
    text = README.read_text(encoding="utf-8")
    README.write_text(replace_between_marks(text, table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
