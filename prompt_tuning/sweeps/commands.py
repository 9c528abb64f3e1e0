"""The command line of a cell: what a person would type to make the run that the sweep makes.

prompt-tuning train ... MODEL_DIR=runs/squad-prompt-0
prompt-tuning eval  ... MODEL_DIR=runs/squad-prompt-0  EVAL_OUTPUT_DIR=.../evaluated/drop
"""

import os
import shlex

from prompt_tuning.sweeps import grid


def folder(sweep: grid.Sweep, cell: grid.Cell) -> str:
    """MODEL_DIR of a cell's run."""
    return os.path.join(sweep.runs, cell.key)


def bindings(cell: grid.Cell, model_dir: str) -> list[str]:
    """All settings of a cell's run, or of an evaluation of it, besides its files."""
    found = [
        *cell.bindings,
        f"RANDOM_SEED = {cell.seed}",
        f"MODEL_DIR = {model_dir!r}",
        "Run.eval_rank = True",
    ]
    if cell.evaluated_on is not None:
        output = os.path.join(model_dir, "evaluated", cell.evaluated_on)
        found.append(f"EVAL_OUTPUT_DIR = {output!r}")
    return found


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


def lines(sweep: grid.Sweep, cell: grid.Cell) -> list[str]:
    """The command of a cell, and after it those of its evaluations on other tasks."""
    return [line(sweep, one) for one in (cell, *cell.evaluated.values())]
