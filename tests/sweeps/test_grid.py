"""Tests of prompt_tuning/sweeps/grid.py: which runs a file describes, and what is refused."""

import re

import pytest

from prompt_tuning.sweeps import grid


def keys(cells):
    return [cell.key for cell in cells]


A_AND_B = [
    f"awful-{size}-{rest}"
    for size in "ab"
    for rest in ("frozen-0", "prompt-0", "prompt-1", "model-0", "model-1")
]
TRUE = ["true-a-frozen-0", "true-a-prompt-0", "true-a-prompt-1", "true-a-model-0", "true-a-model-1"]


def test_every_combination_and_seed_once(sweep_file):
    sweep = grid.read_sweep(str(sweep_file))
    assert keys(sweep.cells) == A_AND_B + TRUE
    assert sweep.results == str(sweep_file.parent / "results")
    assert sweep.collected == str(sweep_file.parent / "results.jsonl")


def test_a_sweep_in_a_bucket(sweep_file, bucket):
    at = bucket.folder / "bucket" / "pocket" / "sweep.toml"
    at.parent.mkdir(parents=True)
    at.write_text(sweep_file.read_text().replace(f"{sweep_file.parent}/runs", "gs://bucket/runs"))
    sweep = grid.read_sweep("gs://bucket/pocket/sweep.toml")
    assert (sweep.results, sweep.runs) == ("gs://bucket/pocket/results", "gs://bucket/runs")
    assert sweep.cells == grid.read_sweep(str(sweep_file)).cells
    with pytest.raises(ValueError, match=r"^The sweep gs://bucket/nothing.toml cannot be read: "):
        grid.read_sweep("gs://bucket/nothing.toml")


def test_a_cell_joins_the_settings_of_its_values(sweep_file):
    cells = {cell.key: cell for cell in grid.read_sweep(str(sweep_file)).cells}
    cell = cells["awful-b-model-1"]
    assert (cell.values, cell.seed) == ({"task": "awful", "size": "b", "method": "model"}, 1)
    assert cell.gin_files[-2:] == (
        "gin/tasks/generated_sentiment.gin",
        "gin/methods/model_tuning.gin",
    )
    assert cell.bindings[-2:] == ("T5Config.mlp_dim = 32", "adafactor.learning_rate = 0.01")
    assert cells["awful-a-model-1"].bindings[-1] == "T5Config.mlp_dim = 16"
    assert [c.key for c in cells.values() if not c.train] == [k for k in cells if "frozen" in k]


def test_shards_split_the_cells_and_keep_seeds_together(sweep_file):
    sweep = grid.read_sweep(str(sweep_file))
    first, second = (keys(grid.select(sweep, shard)) for shard in ("0/2", "1/2"))
    assert sorted(first + second) == sorted(keys(sweep.cells))
    assert first[:3] == ["awful-a-frozen-0", "awful-a-model-0", "awful-a-model-1"]
    assert second[:2] == ["awful-a-prompt-0", "awful-a-prompt-1"]


def test_only_picks_values(sweep_file):
    sweep = grid.read_sweep(str(sweep_file))
    assert keys(grid.select(sweep, only=["task=true", "method=frozen", "method=model"])) == [
        "true-a-frozen-0",
        "true-a-model-0",
        "true-a-model-1",
    ]


@pytest.mark.parametrize(
    ("shard", "only", "message"),
    [
        ("2/2", [], "--shard is I/N with I from 0 to N - 1, such as 0/2 and 1/2; got 2/2."),
        (None, ["size=z"], "--only names size = 'z'; there are a, b."),
        (None, ["colour=a"], "--only names the axis 'colour'; there are task, size, method."),
    ],
)
def test_unknown_names_are_refused(sweep_file, shard, only, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        grid.select(grid.read_sweep(str(sweep_file)), shard, only)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", "seed = [0, 1]", "has the unknown key 'seed'; known keys: axes, "),
        ("seeds = [0, 1]", "", "lacks 'seeds'"),
        ('lines = "method"', 'lines = "size"', "must name the three axes, one each: task,"),
        ("train = false", "trains = false", "[axes.method.frozen] has the unknown key 'trains'"),
        ('task = "true"', 'task = "untrue"', "[[exclude]] names task = 'untrue'"),
        ('size = "b"\nmethod', 'size = "c"\nmethod', "[[set]] names size = 'c'; there are a, b."),
        ("[axes.task.true]", '[axes.task."t/f"]', "letters, digits, '_' and '.'"),
        ("[report]", "[report", "cannot be read"),
        (
            'x = "size"',
            'overall = "true"\nx = "size"',
            "a text that is not a value of task; got 'true'.",
        ),
        ("seeds = [0, 1]", "seeds = 2", "seeds is a list of whole numbers; got 2."),
        (
            'bindings = ["PROMPT_LENGTH = 4"]',
            'bindings = "P = 4"',
            "prompt]: bindings is a list of",
        ),
        (
            'bindings = ["adafactor.learning_rate = 0.01"]',
            'bindings = "adafactor.learning_rate = 0.01"',
            "[[set]]: bindings is a list of texts; got 'adafactor",
        ),
        ("train = false", 'train = "false"', "train is true or false; got 'false'."),
    ],
)
def test_an_error_in_the_file_is_one_sentence(sweep_file, old, new, message):
    sweep_file.write_text(sweep_file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        grid.read_sweep(str(sweep_file))
