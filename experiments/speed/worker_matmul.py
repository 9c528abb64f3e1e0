"""The machine's matmul peak: products of large matrices through `jax.jit`."""

import jax
import jax.numpy as jnp

from experiments.speed import flops
from experiments.speed.measuring import PRODUCTS_OF_A_STEP, best_of_shapes, read_job, report


def product_steps(dtype: str) -> list:
    """One step for every shape of `flops.PEAK_SHAPES`."""

    @jax.jit
    def multiply(left, rights):
        wide = {"preferred_element_type": jnp.float32}  # as in model/matmul.py
        return [jnp.matmul(left, right, **wide).astype(dtype) for right in rights]

    def make(m, k, n):
        keys = jax.random.split(jax.random.key(0), PRODUCTS_OF_A_STEP + 1)
        left = jax.random.normal(keys[0], (m, k)).astype(dtype)
        rights = [jax.random.normal(key, (k, n)).astype(dtype) for key in keys[1:]]
        return lambda: jax.block_until_ready(multiply(left, rights))

    return [make(*shape) for shape in flops.PEAK_SHAPES]


def main() -> None:
    """Runs the job that the command line names."""
    job = read_job()
    steps = product_steps(job.variant.partition("/")[0])
    report(best_of_shapes(steps, job), jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
