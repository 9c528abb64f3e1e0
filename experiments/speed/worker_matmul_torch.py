"""The same products as `worker_matmul.py` through torch."""

import torch

from experiments.speed.measuring import PRODUCTS_OF_A_STEP, best_of_shapes, read_job, report
from experiments.speed.shapes import PEAK_SHAPES


def product_steps(dtype: str) -> list:
    """One step for every shape of `PEAK_SHAPES`."""

    def make(m, k, n):
        left = torch.randn(m, k).to(getattr(torch, dtype))
        rights = [torch.randn(k, n).to(left.dtype) for _ in range(PRODUCTS_OF_A_STEP)]
        return lambda: [left @ right for right in rights]

    return [make(*shape) for shape in PEAK_SHAPES]


def main() -> None:
    """Runs the job that the command line names."""
    job = read_job()
    with torch.inference_mode():
        steps = product_steps(job.variant.partition("/")[0])
        report(best_of_shapes(steps, job), "cpu")


if __name__ == "__main__":
    main()
