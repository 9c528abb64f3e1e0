"""The command line of a cell: what a person would type to make the run that the sweep makes."""

import os
import shlex

from prompt_tuning.sweeps import grid


def folder(sweep: grid.Sweep, cell: grid.Cell) -> str:
    """MODEL_DIR of a cell's run."""
    return os.path.join(sweep.runs, cell.key)


def bindings(cell: grid.Cell, model_dir: str) -> list[str]:
    """All settings of a cell's run, besides its files."""
    return [
        *cell.bindings,
        f"RANDOM_SEED = {cell.seed}",
        f"MODEL_DIR = {model_dir!r}",
        "Run.eval_rank = True",
    ]


def arguments(sweep: grid.Sweep, cell: grid.Cell) -> list[str]:
    """The command of a cell, in words.

    It writes to the same MODEL_DIR as the sweep, so each resumes what the other has begun.
    """
    settings = [binding.partition("=") for binding in bindings(cell, folder(sweep, cell))]
    return [
        "prompt-tuning",
        "train" if cell.train else "eval",
        *(f"--gin_file={file}" for file in cell.gin_files),
        *(f"--gin.{name.strip()}={value.strip()}" for name, _, value in settings),
    ]


def line(sweep: grid.Sweep, cell: grid.Cell) -> str:
    """The command of a cell as a line of a shell."""
    return shlex.join(arguments(sweep, cell))
