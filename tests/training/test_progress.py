"""Tests of prompt_tuning/training/progress.py: what a user reads while and after a run."""

import json
import platform
import re
from pathlib import Path

import jax
import pytest
import tiny_runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from prompt_tuning import config
from prompt_tuning.training import progress

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def make_line(**changes):
    return progress.Progress(**{"total_steps": 1000, "examples_per_step": 32} | changes)


def test_the_progress_line(clock, capsys):
    """100 steps in 20 seconds are 160 examples/s; 800 steps are left: 160 seconds."""
    line = make_line()
    line.show(100, 2.5)
    clock[0] += 20
    line.note_dev_score("  dev 75.00 (best 80.00 at 50)")
    line.show(200, 1.25)
    assert capsys.readouterr().out.splitlines() == [
        "step 100/1,000  loss 2.5000",  # that step compiled, so its time is not counted
        "step 200/1,000  loss 1.2500  160.0 examples/s  ETA 0:02:40  dev 75.00 (best 80.00 at 50)",
    ]


def test_an_evaluation_slows_the_run_and_not_the_steps(clock, capsys):
    """20 seconds of steps and 60 of evaluation for 100 steps: 800 steps take 640 seconds."""
    line = make_line()
    line.show(100, 2.5)
    clock[0] += 80
    line.pause(60)
    line.show(200, 1.25)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "step 200/1,000  loss 1.2500  160.0 examples/s  ETA 0:10:40"
    ]


def test_without_a_terminal_a_line_is_written_every_ten_seconds(clock, capsys):
    line = make_line()
    for step, seconds in ((10, 0), (20, 9), (30, 2), (40, 3)):
        clock[0] += seconds
        line.show(step, 1.0)
    line.show(50, 1.0, last=True)
    line.interrupt()
    steps = re.findall(r"step (\d+)/", capsys.readouterr().out)
    assert steps == ["10", "30", "50"]


def test_on_a_terminal_the_line_is_rewritten_and_ended_once(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True)
    line = make_line()
    line.interrupt()
    line.show(10, 1.0)
    clock[0] += 1
    line.show(20, 1.0)
    line.interrupt()
    line.interrupt()
    first = "\rstep 10/1,000  loss 1.0000".ljust(111)
    second = "\rstep 20/1,000  loss 1.0000  320.0 examples/s  ETA 0:01:38".ljust(111)
    assert capsys.readouterr().out == f"{first}{second}\n"


def test_a_run_begins_with_its_data_its_model_and_its_parameters(prompted):
    lines = prompted.printed.splitlines()
    assert lines[0].startswith("generated_sentiment train: 2,000 examples, longest input 39")
    assert lines[1].startswith("generated_sentiment validation: 20 examples, longest input")
    assert lines[2] == "first example of generated_sentiment train"
    assert lines[3].startswith("  inputs   the old ")
    assert lines[4] in ("  targets  awful", "  targets  great")
    assert re.fullmatch(r"tiny_byt5 from random, fingerprint [0-9a-f]{16}", lines[5])
    assert lines[6:9] == [
        "                  parameters          %      bytes",
        "trainable                 64    0.34159      256 B",
        "frozen                18,672   99.65841    74.7 kB",
    ]


def test_a_run_shows_how_far_it_is(prompted):
    line = re.search(r"^step 6/6 .*$", prompted.printed, re.MULTILINE)[0]
    number = r"\d+\.\d"
    assert re.fullmatch(
        rf"step 6/6  loss {number}{{4}}  {number} examples/s  ETA 0:00:00"
        rf"  dev {number}\d \(best {number}\d at \d\)",
        line,
    )


def test_metrics_are_json_lines(prompted):
    lines = tiny_runs.read_metrics(prompted.run.model_dir)
    assert [(line["step"], line["split"]) for line in lines] == [
        (2, "validation"), (4, "validation"), (6, "train"), (6, "validation"),
    ]  # fmt: skip
    assert lines[2].keys() == {
        "step", "split", "loss", "accuracy", "gradient_norm", "trainable_norm", "target_tokens",
    }  # fmt: skip
    assert lines[3].keys() == {"step", "split", "accuracy", "dev_score"}


def test_tensorboard_has_the_same_numbers(prompted):
    events = EventAccumulator(str(Path(prompted.run.model_dir) / "tensorboard"))
    events.Reload()
    found = {
        (event.step, tag): float(make_ndarray(event.tensor_proto))
        for tag in events.Tags()["tensors"]
        for event in events.Tensors(tag)
    }
    expected = {
        (line["step"], f"{line['split']}/{name}"): pytest.approx(value)
        for line in tiny_runs.read_metrics(prompted.run.model_dir, speed=True)
        for name, value in line.items()
        if name not in ("step", "split")
    }
    assert found == expected
    assert (6, "train/loss") in found


def test_samples_go_to_tensorboard(tmp_path):
    metrics = progress.Metrics(str(tmp_path), 0)
    metrics.write_samples(3, "validation", {"sample": "input: so / prediction: great"})
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (tag,) = events.Tags()["tensors"]
    (event,) = events.Tensors(tag)
    assert (tag, event.step) == ("validation/sample", 3)
    assert b"prediction: great" in make_ndarray(event.tensor_proto).item()


def test_lines_of_steps_that_are_made_again_are_dropped(tmp_path):
    """Also one that the kill cut short; one that lacks only its end is kept and ended."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "split": "train"}\n{"step": 4}\n{"step": 3}\n{"step": 2')
    metrics = progress.Metrics(str(tmp_path), 3)
    metrics.write(4, "validation", {"accuracy": 50})
    metrics.close()
    assert path.read_text().splitlines() == [
        '{"step": 3, "split": "train"}',
        '{"step": 3}',
        '{"step": 4, "split": "validation", "accuracy": 50.0}',
    ]
    path.write_text('{"step": 3}')
    metrics = progress.Metrics(str(tmp_path), 3)
    metrics.write(4, "train", {})
    metrics.close()
    assert path.read_text() == '{"step": 3}\n{"step": 4, "split": "train"}\n'
    assert [each.name for each in tmp_path.glob("*.tmp")] == []


def test_the_written_configuration_loads_as_the_same_run(prompted):
    path = Path(prompted.run.model_dir) / "config.gin"
    again = config.load([str(path)])
    assert path.read_text() == prompted.run.config_text == again.config_text
    for field in ("model", "task", "train_steps", "seed", "trainable", "task_feature_lengths"):
        assert getattr(again, field) == getattr(prompted.run, field)
    assert (again.train_steps, again.prompt_length, again.model.emb_dim) == (6, 4, 16)


def test_the_versions_are_written(prompted):
    versions = json.loads((Path(prompted.run.model_dir) / "versions.json").read_text())
    assert versions["python"] == platform.python_version()
    assert versions["jax"] == jax.__version__
    assert {"prompt_tuning", "flax", "optax", "numpy"} <= versions.keys()
