"""Tests of prompt_tuning/sweeps/grid.py: which runs a file describes, and what is refused."""

import re

import pytest

from prompt_tuning.sweeps import grid, resolved


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


def test_a_folder_is_its_sweep(sweep_file):
    assert grid.read_sweep(str(sweep_file.parent)) == grid.read_sweep(str(sweep_file))


def test_any_number_of_axes_and_what_the_report_does_not_name_is_rows(sweep_file):
    more = "[axes.length.1]\nbindings = ['PROMPT_LENGTH = 1']\n[axes.length.2]\n[axes.start.a]\n"
    sweep_file.write_text(sweep_file.read_text().replace("[[exclude]]", more + "[[exclude]]", 1))
    sweep = grid.read_sweep(str(sweep_file))
    assert len(sweep.cells) == 2 * len(A_AND_B + TRUE)
    assert sweep.cells[0].key == "awful-a-frozen-1-a-0"
    (report,) = sweep.reports
    assert (report.rows, report.row_axes) == (
        ("length", "start"),
        ["task", "length", "start", "size"],
    )


def test_values_in_short_and_names_of_values_in_settings(sweep_file):
    short = "[axes.length]\nvalues = [1, 20]\nbindings = ['PROMPT_LENGTH = {length}']\n"
    rule = "[[set]]\nlength = '20'\nbindings = ['MODEL = {size}, {length}, {task}, {other}']\n"
    sweep_file.write_text(sweep_file.read_text().replace("[[exclude]]", short + "[[exclude]]", 1))
    sweep_file.write_text(sweep_file.read_text() + rule)
    cells = {cell.key: cell.bindings for cell in grid.read_sweep(str(sweep_file)).cells}
    assert "PROMPT_LENGTH = 1" in cells["awful-a-model-1-0"]
    assert cells["true-a-model-20-0"][-1] == "MODEL = a, 20, true, {other}"
    assert "PROMPT_LENGTH = 20" in cells["true-a-model-20-0"]


@pytest.mark.parametrize("value", ["true", '["a", "a b"]'])
def test_values_are_names(sweep_file, value):
    text = f"[axes.length]\nvalues = {value}\n[[exclude]]"
    sweep_file.write_text(sweep_file.read_text().replace("[[exclude]]", text, 1))
    with pytest.raises(ValueError, match=r"axes.length"):
        grid.read_sweep(str(sweep_file))


def test_one_axis_is_enough(sweep_file):
    text = sweep_file.read_text()
    text = text[: text.index("[report]")] + '[report]\nscore = "dev_score"\nx = "size"\n'
    sweep_file.write_text(text + "[axes.size.a]\n[axes.size.b]\n")
    sweep = grid.read_sweep(str(sweep_file))
    assert keys(sweep.cells) == ["a-0", "a-1", "b-0", "b-1"]
    assert sweep.reports[0].axes == ["size"]


def test_a_complete_configuration_is_a_base(sweep_file):
    """One of configs/, with its includes; an axis overrides what it sets."""
    sweep_file.write_text(
        'runs = "r"\nseeds = [0]\ngin_files = ["configs/pocket/cb_prompt_tuning.gin"]\n'
        '[report]\nscore = "dev_score"\nx = "length"\n'
        "[axes.length.1]\nbindings = ['PROMPT_LENGTH = 1']\n[axes.length.16]\n"
    )
    runs = [resolved.load_run(cell) for cell in grid.read_sweep(str(sweep_file)).cells]
    assert [(run.prompt_length, run.model.name) for run in runs] == [
        (1, "pocket_s"),
        (16, "pocket_s"),
    ]


def test_several_reports_have_names(sweep_file):
    one = '[[report]]\nscore = "dev_score"\nx = "size"\n'
    text = sweep_file.read_text().replace("[report]", "[[report]]")
    sweep_file.write_text(text.replace("[axes.task.awful]", one + "[axes.task.awful]"))
    message = "all but the first need a name, each another one; got None, None."
    with pytest.raises(ValueError, match=re.escape(message)):
        grid.read_sweep(str(sweep_file))
    sweep_file.write_text(sweep_file.read_text().replace(one, one + 'name = "by size"\n'))
    with pytest.raises(ValueError, match="name is letters, digits and '_'; got 'by size'."):
        grid.read_sweep(str(sweep_file))
    sweep_file.write_text(sweep_file.read_text().replace("by size", "size"))
    first, second = grid.read_sweep(str(sweep_file)).reports
    assert (first.file("table.md"), second.file("table.md")) == ("table.md", "table_size.md")
    assert second.rows == ("task", "method")


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
        ('lines = "method"', 'lines = "size"', "names the axis 'size' more than once; each axis"),
        ('lines = "method"', 'lines = "colour"', "names the axis 'colour'; there are task, size, "),
        ('lines = "method"', 'rows = "method"', "[report]: rows is a list of axes; got 'method'."),
        (
            'lines = "method"',
            'split = "task"',
            "split is 'level' or 'evaluated_on', which adds an axis of that name",
        ),
        ('lines = "method"', "lines = 3", "[report]: lines is a text; got 3."),
        ('lines = "method"', "comparable = 1", "comparable is true or false; got 1."),
        ('lines = "method"', "digits = 1.5", "digits is a whole number; got 1.5."),
        ('lines = "method"', "columns = 3", "[report] has the unknown key 'columns'"),
        ('x = "size"', "", "[report] lacks 'x'"),
        ("[axes.task.awful]", "[[report]]\n[axes.task.awful]", "cannot be read"),
        ("seeds = [0, 1]", "seeds = [0, 1]\ntitle = 3", "title is a text; got 3."),
        ("train = false", "trains = false", "[axes.method.frozen] has the unknown key 'trains'"),
        ('task = "true"', 'task = "untrue"', "[[exclude]] names task = 'untrue'"),
        ('size = "b"\nmethod', 'size = "c"\nmethod', "[[set]] names size = 'c'; there are a, b."),
        ("[axes.task.true]", '[axes.task."t/f"]', "letters, digits, '_' and '.'"),
        ("[report]", "[report", "cannot be read"),
        (
            'x = "size"',
            'overall = "true"\nx = "size"',
            "must not be a value of task; got 'true'.",
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
