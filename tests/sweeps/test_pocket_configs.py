"""What was measured in experiments/pocket, its README and configs/pocket/*_tuning.gin say."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from prompt_tuning import config
from prompt_tuning.sweeps import grid, report, runner

PROJECT = Path(__file__).parents[2]
SWEEP = grid.load(str(PROJECT / "experiments/pocket/sweep.toml"))
TASKS = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
EXPECTED = re.compile(
    r"Expected: best dev score ([\d.]+), measured ([\d.]+) to ([\d.]+) over (\d) seeds; a constant "
    r"answer has\n# at most ([\d.]+)"
)


@pytest.mark.parametrize("method", ["prompt", "model"])
@pytest.mark.parametrize("task", TASKS)
def test_a_config_is_the_run_that_was_measured(task, method):
    path = PROJECT / f"configs/pocket/{task}_{method}_tuning.gin"
    wanted = {"task": task, "size": "s", "method": method}
    cells = [cell for cell in SWEEP.cells if cell.values == wanted]
    fields = [_fields(config.load([str(path)])), _fields(config.load(*_loaded(cells[0])))]
    assert fields[0] == fields[1]

    done = runner.read_results(SWEEP)
    scores = [done[cell.key]["best"]["dev_score"] for cell in cells]
    numbers = (np.mean(scores), min(scores), max(scores), len(cells), done[cells[0].key]["floor"])
    found = EXPECTED.search(path.read_text())
    assert [float(number) for number in found.groups()] == pytest.approx(numbers, abs=0.0501)


def test_the_readme_has_the_table_of_the_results():
    shown = report.markdown(SWEEP, list(runner.read_results(SWEEP).values()))
    folder = PROJECT / "experiments/pocket"
    assert (folder / "table.md").read_text() == shown
    assert shown.split("\n\n")[1] in (folder / "README.md").read_text()


def _loaded(cell):
    return cell.gin_files, [*cell.bindings, "MODEL_DIR = 'anywhere'"]


def _fields(run):
    """What makes a run; the folder and the text it was read from do not."""
    names = {field.name for field in dataclasses.fields(run)}
    names -= {"model_dir", "config_text", "resolved"}
    if run.prompt_length is None:
        names -= {"prompt_initializer"}
    return {name: repr(getattr(run, name)) for name in names}
