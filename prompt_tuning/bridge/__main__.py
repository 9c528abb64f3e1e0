"""Runs a program of T5X that finds our gin parts and can be imported on today's jax.

    python -m prompt_tuning.bridge t5x.train --gin_file=... --gin.TRAIN_STEPS=1130000

is `python -m t5x.train ...`, which otherwise fails at an import (see `bridge/__init__.py`) before
it reads a gin file. The same holds for t5x.eval, t5x.infer and whatever else T5X runs.
"""

import runpy
import sys

from prompt_tuning import config


def main(arguments: list[str]) -> None:
    """Runs the module that the first argument names, with the rest as its own."""
    if not arguments or not arguments[0].startswith("t5x."):
        raise SystemExit(
            "Usage: python -m prompt_tuning.bridge t5x.train|t5x.eval|t5x.infer --gin_file=..."
        )
    config.add_search_paths()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
