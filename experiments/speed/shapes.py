"""The products whose best rate is the matmul peak; needs no library."""

PEAK_SHAPES = (
    (1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024), (4096, 512, 1024), (3648, 512, 384),
)  # fmt: skip
"""Of the products whose best rate is the peak: square ones, and some as tall as a batch."""
