"""Tests of prompt_tuning/sweeps/costs.py, forgetting.py and of the levels of a record."""

import dataclasses
import json
import os

import numpy as np
import pytest

from prompt_tuning import config
from prompt_tuning.data import batches, tasks
from prompt_tuning.inference import loading
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.losses import cross_entropy_loss
from prompt_tuning.sweeps import costs, forgetting, measure, report, runner

PARTS = ["gin/models/pocket_xs.gin", "gin/tasks/pocket_cb.gin", "gin/prompts/class_labels.gin"]
PARTS += ["gin/decoding/greedy.gin", "gin/methods/prompt_tuning.gin", "gin/runs/run.gin"]
SWEEP = """
runs = "{folder}/runs"
gin_files = ["gin/models/pocket_xs.gin", "gin/tasks/pocket_cb.gin", "gin/prompts/class_labels.gin",
             "gin/decoding/greedy.gin", "gin/runs/run.gin"]
bindings = ["INITIAL_CHECKPOINT_PATH = 'pocket_xs'", "BATCH_SIZE = 8", "Run.eval_examples = 16",
            "TRAIN_STEPS = 2", "EVAL_PERIOD = 2", "DROPOUT_RATE = 0.0"]
seeds = [0]
[report]
score = "dev_score"
x = "method"
[axes.method.frozen]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["Run.prompt_length = None"]
train = false
[axes.method.prompt]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["PROMPT_LENGTH = 4"]
[axes.method.model]
gin_files = ["gin/methods/model_tuning.gin"]
bindings = ["adafactor.learning_rate = 0.01"]
"""


def test_the_peak_of_a_run_is_not_that_of_an_earlier_one():
    big = np.ones(2**27, np.uint8)
    del big
    peaks = costs.Peaks()
    if not peaks._is_reset:
        pytest.skip("this system cannot reset the peak of a process")
    before = peaks.read()["peak_memory_bytes"]
    big = np.ones(2**28, np.uint8)
    assert peaks.read()["peak_memory_bytes"] - before > 2**27
    del big
    assert costs.Peaks().read()["peak_memory_bytes"] - before < 2**27


def test_without_a_reset_the_peak_is_not_known(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "_RESET", (str(tmp_path / "no" / "file"), "5"))
    assert costs.Peaks().read()["peak_memory_bytes"] is None


@pytest.mark.parametrize(
    ("before", "after", "known"), [(None, None, None), (5, 7, 7), (7, 7, None), (None, 3, 3)]
)
def test_the_peak_of_a_device_is_known_where_it_rose(monkeypatch, before, after, known):
    found = iter([before, after])
    monkeypatch.setattr(costs, "device_peak", lambda: next(found))
    assert costs.Peaks().read()["device_peak_bytes"] == known


def test_the_records_of_a_sweep(tmp_path):
    """What a prompt, a tuned model and the frozen model take and forget."""
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP.format(folder=tmp_path))
    forgetting._known.clear()
    runner.run_sweep(str(path), keep="all")
    frozen, prompt, model = (
        json.loads((tmp_path / "results" / f"{name}-0.json").read_text())
        for name in ("frozen", "prompt", "model")
    )
    assert (frozen["forgetting"], frozen["tuned_bytes"]) == (0.0, 0)
    assert len(forgetting._known) == 1  # the loss before, once for the three of them
    for record in (prompt, model):
        rise = record["neutral_loss"] - frozen["neutral_loss"]
        assert record["forgetting"] == pytest.approx(rise) and rise != 0.0
        assert record["peak_memory_bytes"] is None or record["peak_memory_bytes"] > 10_000_000
        assert record["device_peak_bytes"] is None  # a CPU
        assert record["levels"] == {}
    assert 0 < frozen["neutral_loss"] < np.log(512)
    file = tmp_path / "runs" / "prompt-0" / "prompts" / "best.safetensors"
    assert prompt["tuned_bytes"] == os.path.getsize(file)
    assert model["tuned_bytes"] > 2 * model["trainable_parameters"]  # T5X's, compressed
    report.write_report(str(tmp_path))
    header = (tmp_path / "table.md").read_text().splitlines()[-5]
    assert header.startswith("| method | trainable parameters | seconds |")
    assert header.endswith("| tuned file, kB | forgetting, nats |")


@pytest.fixture(scope="module")
def run():
    bindings = ["INITIAL_CHECKPOINT_PATH=pocket_xs", "MODEL_DIR=unused"]
    return config.load(PARTS, bindings)


def test_the_loss_is_that_of_training(run):
    """Cross-entropy over the target tokens, here from the logits of one batch of all examples."""
    task = tasks.get("pocket_corpus_prefix_lm")
    examples = batches.load_examples(
        task, "validation", {"inputs": 40, "targets": 5}, limit=70, keep_raw=False
    )
    t5 = loading.load_t5(run, loading.prepare_task(run))
    model, params = t5.with_hooks(Hooks(), {})
    batch = examples.batch(range(len(examples)))
    logits = model.apply(
        {"params": params},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["decoder_target_tokens"],
    )
    _, sums = cross_entropy_loss(logits, batch["decoder_target_tokens"], z_loss=0.0)
    expected = float(sums.loss_sum / sums.n_tokens)
    assert forgetting.loss(model, params, examples) == pytest.approx(expected, rel=1e-4)


def test_whose_forgetting_is_measured(run):
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, name="t5_1_1_small"))
    assert forgetting.task_of(run, None) == "pocket_corpus_prefix_lm"
    assert forgetting.task_of(other, None) is None
    assert forgetting.task_of(other, "my_lm") == "my_lm"
    assert forgetting.measure(other, True, None) == {}


def test_the_levels_of_a_record_are_those_of_the_best_step(sweep_file, quick, monkeypatch):
    from prompt_tuning.data import evaluation

    scores = iter([{"1": 30.0, "2": 10.0}, {"1": 40.0, "2": 60.0}])
    monkeypatch.setattr(evaluation, "measure_levels", lambda *_: next(scores))
    monkeypatch.setattr(measure, "_floor", lambda run: 50.0)
    only = ["task=awful", "size=a", "method=prompt"]
    sweep_file.write_text(sweep_file.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    runner.run_sweep(str(sweep_file), only=only)
    record = json.loads((sweep_file.parent / "results" / "awful-a-prompt-0.json").read_text())
    best = {2: {"1": 30.0, "2": 10.0}, 4: {"1": 40.0, "2": 60.0}}[record["best"]["step"]]
    assert record["levels"] == best
