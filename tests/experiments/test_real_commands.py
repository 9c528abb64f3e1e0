"""Every command of the real-size sweeps, as `--dry_run` prints it: it is read as it was meant."""

import collections
import functools
import shlex
from pathlib import Path

import pytest

from prompt_tuning import cli, config
from prompt_tuning.data import tasks
from prompt_tuning.planning import planned
from prompt_tuning.sweeps import commands, grid, resolved

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SIZES, TASKS, SEEDS = 5, 8, 3  # of all but table 3
RUNS = {  # and evaluations on other tasks
    "figure1_scale": (SIZES * TASKS * 3 * SEEDS, 0),
    "figure3_initialization": (SIZES * TASKS * 3 * SEEDS, 0),
    "figure3_lm_adaptation": (SIZES * TASKS * 2 * SEEDS, 0),
    "figure3_pretraining_objective": (SIZES * TASKS * 3 * SEEDS, 0),
    "figure3_prompt_length": (SIZES * TASKS * 6 * SEEDS, 0),
    "table1_domain_shift": (SIZES * 2 * SEEDS, SIZES * 2 * SEEDS * 6),
    "table2_paraphrase": (SIZES * 2 * 2 * SEEDS, SIZES * 2 * 2 * SEEDS),
    "table3_ensembling": (TASKS * 5, 0),
    "table5_runtime": (SIZES * 4 * SEEDS, 0),
}


def found():
    return sorted(path.parts[-3] for path in EXPERIMENTS.glob("*/t5_1_1/sweep.toml"))


@functools.cache
def sweep_of(name):
    return grid.read_sweep(str(EXPERIMENTS / name / "t5_1_1"))


@functools.cache
def task_names():
    return {*tasks.task_names()}


def with_evaluations(cells):
    return [one for cell in cells for one in (cell, *cell.evaluated.values())]


def parsed(line):
    """The command and the run that it makes, read as the command line reads it."""
    program, command, *rest = shlex.split(line)
    assert program == "prompt-tuning"
    bindings, rest = cli._take_bindings(rest)
    return command, config.load([word.removeprefix("--gin_file=") for word in rest], bindings)


def check(sweep, cell, line):
    command, run = parsed(line)
    folder = commands.folder(sweep, cell)
    assert (command, run.seed, run.model_dir) == (
        "train" if cell.train else "eval", cell.seed, folder,
    )  # fmt: skip
    assert run.task in task_names()
    if "size" in cell.values:
        assert run.model.name == f"t5_1_1_{cell.values['size']}"
        assert f"_{cell.values['size']}/checkpoint_1" in run.initial_checkpoint_path
    if cell.evaluated_on is not None:
        assert run.eval_output_dir == f"{folder}/evaluated/{cell.evaluated_on}"
        assert cell.evaluated_on in run.task


def test_every_sweep_is_counted():
    assert found() == sorted(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_the_number_of_runs(name):
    """Every combination has the same seeds, and all have different names."""
    sweep = sweep_of(name)
    evaluations = sum(len(cell.evaluated) for cell in sweep.cells)
    assert (len(sweep.cells), evaluations) == RUNS[name]
    assert len({cell.key for cell in sweep.cells}) == len(sweep.cells)
    seeds = collections.Counter(cell.seed for cell in sweep.cells)
    assert set(seeds.values()) == {len(sweep.cells) // len(seeds)}


@pytest.mark.parametrize("name", RUNS)
def test_every_command(name):
    """Each printed line is a run or an evaluation, of this cell."""
    sweep = sweep_of(name)
    lines = [line for line in planned.dry_run(sweep, sweep.cells) if not line.startswith("#")]
    assert len(lines) == sum(RUNS[name])
    for cell, line in zip(with_evaluations(sweep.cells), lines, strict=True):
        check(sweep, cell, line)


@pytest.mark.parametrize("name", ["table1_domain_shift", "table2_paraphrase"])
def test_the_pocket_counterparts(name):
    """Their tasks exist, so they name the version of PocketGLUE that there is."""
    sweep = grid.read_sweep(str(EXPERIMENTS / name))
    for cell in sweep.cells:
        if cell.seed == 0 and cell.values["size"] == "s":
            runs = [resolved.load_run(cell), *resolved.load_evaluations(cell).values()]
            assert len(runs) == 2
            assert all(run.task in task_names() for run in runs)
            assert runs[0].task != runs[1].task
