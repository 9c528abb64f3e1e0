"""Tests of prompt_tuning/sweeps/commands.py and of --dry_run: each line is the run of its cell."""

import shlex
from pathlib import Path

import pytest

from prompt_tuning import cli, config
from prompt_tuning.planning import planned
from prompt_tuning.sweeps import commands, grid, resolved

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
REAL = """
runs = "gs://bucket/it's here"
seeds = [0, 1, 2]
gin_files = ["gin/tasks/boolq.gin", "gin/prompts/class_labels.gin", "gin/decoding/greedy.gin",
             "gin/runs/run.gin"]
bindings = ["INITIAL_CHECKPOINT_PATH = 'random'", "Run.param_dtype = 'bfloat16'"]

[report]
score = "dev_score"
x = "size"
lines = "method"

[axes.size.small]
gin_files = ["gin/models/t5_1_1_small.gin"]
[axes.size.xxl]
gin_files = ["gin/models/t5_1_1_xxl.gin"]

[axes.method.prompt]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["CLASS_LABELS = ['no', \\"it's\\"]"]
[axes.method.long]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["PROMPT_LENGTH = 150", "TRAIN_STEPS = 15000"]
[axes.method.model]
gin_files = ["gin/methods/model_tuning.gin"]
bindings = ["Run.param_dtype = 'float32'"]
"""


@pytest.fixture
def real(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(REAL)
    return path


def parsed(line):
    """The run that the command would make, read as the command line reads it."""
    program, command, *rest = shlex.split(line)
    assert (program, command in ("train", "eval")) == ("prompt-tuning", True)
    bindings, rest = cli._take_bindings(rest)
    files = [word.removeprefix("--gin_file=") for word in rest]
    assert all(word.startswith("--gin_file=") for word in rest)
    return command, config.load(files, bindings)


def check(sweep, lines):
    """Every line is the run of its cell: the same resolved configuration, seed and folder."""
    pasted = [line for line in lines if not line.startswith("#")]
    for cell, line in zip(sweep.cells, pasted, strict=True):
        command, run = parsed(line)
        expected = resolved.load_run(cell, commands.folder(sweep, cell))
        assert (command == "train") == cell.train
        assert run.config_text == expected.config_text
        assert resolved.digest(run, cell.train) == resolved.digest(expected, cell.train)
        assert (run.seed, run.model_dir) == (cell.seed, commands.folder(sweep, cell))


def test_every_line_is_the_run_of_its_cell(real, capsys):
    assert cli.main(["sweep", "run", str(real.parent), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    check(grid.read_sweep(str(real)), lines)
    assert "'--gin.MODEL_DIR=\"gs://bucket/it'\"'\"'s here/small-prompt-0\"'" in lines[1]


@pytest.mark.parametrize("name", ["figure1_scale", "quantization"])
def test_every_line_of_the_experiments(name):
    sweep = grid.read_sweep(str(EXPERIMENTS / name))
    lines = planned.dry_run(sweep, sweep.cells)
    check(sweep, lines)
    assert lines[-1] == f"# {len(sweep.cells)} runs"  # pocket models are not planned


def test_hours_and_devices_of_real_sizes(real):
    """XXL in the table: 0.744 s a step, 30,000 steps, 4 chips."""
    sweep = grid.read_sweep(str(real))
    lines = planned.dry_run(sweep, sweep.cells)
    said = {line[2:].split(": ")[0]: line.split(": ", 1)[1] for line in lines[:-1:2]}
    assert said["xxl-prompt-0"] == "6.2 hours or more on v5e:2x2 (4 chips, 24.8 chip-hours)"
    assert said["xxl-long-1"].startswith("3.3")  # half the steps, a longer prompt
    assert said["xxl-long-1"].endswith("whether it fits was not planned: P 150 > 100")
    unknown = "unknown: experiments/plan has prompt tuning of a frozen model only"
    assert said["small-model-2"] == unknown
    hours = [float(text.split()[0].replace(",", "")) for text in said.values() if "unk" not in text]
    assert lines[-1].startswith("# 18 runs; 12 take ")
    assert float(lines[-1].split("take ")[1].split()[0]) == pytest.approx(sum(hours), rel=0.01)
    assert lines[-1].endswith("one after the other on v5e:2x2; the hours of 6 are unknown")


def test_the_table_of_plans_is_found_again_by_formula(real):
    """What is computed for the shape of the table's runs is the table's own time."""
    rows = planned.read_rows()
    sweep = grid.read_sweep(str(real))
    run = resolved.load_run(next(c for c in sweep.cells if c.key == "xxl-prompt-0"))
    for (model, name), row in rows.items():
        if model == "t5_1_1_xxl":
            hours = planned.estimate(run, name, rows).hours
            assert hours == pytest.approx(30_000 * row["step_seconds"] / 3600, rel=1e-6)


def test_without_the_table_hours_are_unknown(real, monkeypatch):
    monkeypatch.setattr(config, "roots", lambda: [])
    run = resolved.load_run(grid.read_sweep(str(real)).cells[0])
    assert planned.read_rows() == {}
    said = planned.estimate(run, "v5e:2x2", {}).said
    assert said == "unknown: experiments/plan has no t5_1_1_small on v5e:2x2"


def test_the_options(real, capsys):
    options = ["sweep", "run", str(real), "--dry_run", "--only=size=xxl", "--on=v6e:4x4"]
    assert cli.main(options) == 0
    assert "or more on v6e:4x4 (16 chips" in capsys.readouterr().out
    assert cli.main(["sweep", "run", str(real), "--dry_run", "--on=v9"]) == 2
    assert "Unknown TPU slice 'v9'" in capsys.readouterr().err
    assert cli.main(["sweep", "run", str(real), "--on=v5e:2x2"]) == 2
    assert "--on is the slice that --dry_run gives hours for" in capsys.readouterr().err
