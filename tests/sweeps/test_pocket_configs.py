"""experiments/figure1_scale and configs/pocket/*_tuning.gin state the measured scores."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from prompt_tuning import config
from prompt_tuning.sweeps import grid, report, resolved, results
from prompt_tuning.training import settings

PROJECT = Path(__file__).parents[2]
SWEEP = grid.read_sweep(str(PROJECT / "experiments/figure1_scale/sweep.toml"))
TASKS = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
EXPECTED = re.compile(
    r"Expected: best dev score ([\d.]+), measured ([\d.]+) to ([\d.]+) over (\d) seeds; a constant "
    r"answer has\n# at most ([\d.]+)"
)


@pytest.fixture(scope="module")
def done():
    return results.read_results(SWEEP)


@pytest.mark.parametrize("method", ["prompt", "model"])
@pytest.mark.parametrize("task", TASKS)
def test_a_config_is_the_run_that_was_measured(done, task, method):
    path = PROJECT / f"configs/pocket/{task}_{method}_tuning.gin"
    wanted = {"task": task, "size": "s", "method": method}
    cells = [cell for cell in SWEEP.cells if cell.values == wanted]
    described = dataclasses.replace(config.load([str(path)]), seed=0)
    assert settings.settings(described) == settings.settings(resolved.load_run(cells[0]))
    assert resolved.digest(described, train=True) == done[cells[0].key]["settings"]

    scores = [done[cell.key]["best"]["dev_score"] for cell in cells]
    numbers = (np.mean(scores), min(scores), max(scores), len(cells), done[cells[0].key]["floor"])
    found = EXPECTED.search(path.read_text())
    assert [float(number) for number in found.groups()] == pytest.approx(numbers, abs=0.0501)


def test_the_readme_has_the_table_of_the_results(done):
    records = list(done.values())
    section = report.make(SWEEP, SWEEP.reports[0], records)
    shown = report.markdown(SWEEP, section, records)
    folder = PROJECT / "experiments/figure1_scale"
    assert (folder / "table.md").read_text() == shown
    assert shown.split("\n\n")[1] in (folder / "README.md").read_text()
