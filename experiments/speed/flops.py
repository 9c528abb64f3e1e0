"""The machine's matmul peak, and sizes for the formula of `prompt_tuning/planning/flops.py`.

A program that recomputes, or pads more than the batch needs, reaches a smaller share of the peak.
"""

from experiments.speed.shapes import PEAK_SHAPES
from prompt_tuning.planning.flops import Dimensions, training

__all__ = ["PEAK_SHAPES", "SIZES", "peak_rate", "training"]

SIZES = {
    "small": Dimensions(8, 8, H=512, N=6, A=384, M=1024, V=32128),
    "base": Dimensions(12, 12, H=768, N=12, A=768, M=2048, V=32128),
}


def peak_rate(seconds: list[float]) -> float:
    """The best rate in operations per second, from the seconds for each of `PEAK_SHAPES`."""
    return max(2 * m * k * n / spent for (m, k, n), spent in zip(PEAK_SHAPES, seconds, strict=True))
