"""Tests of prompt_tuning/training/evaluate.py: what is measured, and of what."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import seqio
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.data import batches, registry, tasks
from prompt_tuning.model import decoding
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.training import evaluate, setup
from prompt_tuning.training.frozen import load_parameters

pytestmark = pytest.mark.usefixtures("quick")


def written(folder):
    summary = json.loads((Path(folder) / "metrics.json").read_text())
    predictions = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (Path(folder) / "predictions").iterdir()
    }
    return summary, predictions


@pytest.fixture
def says(monkeypatch):
    """Makes the model's answers: one function of the examples that returns texts."""
    answer = []

    def predict(model, params, examples, **options):
        vocabulary = tasks.get(examples.task).output_features["targets"].vocabulary
        rows = [vocabulary.encode(text) for text in answer[0](examples)]
        ids = np.zeros((len(rows), 8), np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 1] = [*row, 1]
        return ids

    monkeypatch.setattr(evaluate, "predict", predict)
    return answer.append


def targets_of(examples):
    return [row["targets_pretokenized"].decode() for row in examples.raw]


def test_the_metric_is_the_share_that_was_right(prompted, tmp_path, says, capsys):
    """Of twenty answers the first five are right: 25 %."""
    says(lambda examples: targets_of(examples)[:5] + ["neither"] * 15)
    run = dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path))
    evaluated = evaluate.evaluate_run(run)
    assert (evaluated.metrics, evaluated.score) == ({"accuracy": 25.0}, 25.0)
    summary, predictions = written(tmp_path)
    best = f"{prompted.run.model_dir}/prompts/best.safetensors"
    assert summary == {
        "evaluated": f"prompt {best}",
        "task": "generated_sentiment",
        "split": "validation",
        "examples": 20,
        "metrics": {"accuracy": 25.0},
        "dev_score": 25.0,
        "cut": {"generated_sentiment": {"inputs": 0, "targets": 0}},
    }
    (lines,) = predictions.values()
    assert len(lines) == 20
    assert sum(line["prediction"] == line["target"] for line in lines) == 5
    assert re.fullmatch(r"the \w+ \w+ was \w+ \w+ \.", lines[0]["input"])
    assert lines[0]["target"] in ("awful", "great")
    printed = capsys.readouterr().out
    assert re.search(r"best\.safetensors, validation, 20 examples in \d+\.\d s", printed)
    assert re.search(r"accuracy +25\.00\n", printed)


def test_a_mixture_is_the_mean_of_its_tasks(prompted, tmp_path, says):
    """One task is right in 20 of 20 answers, the other in 5: the dev score is 62.5."""
    parts = ["generated_sentiment", "generated_sentiment_true_false"]
    info = registry.TaskInfo("generated", "both", None, "validation", ("accuracy",))
    registry.add_mixture("both_generated", info, parts)
    says(lambda examples: targets_of(examples)[: 20 if examples.task == parts[0] else 5] + [""] * 15)
    try:
        run = dataclasses.replace(
            prompted.run, task="both_generated", eval_output_dir=str(tmp_path)
        )
        with pytest.raises(ValueError, match="20 examples and 35 predictions"):
            evaluate.evaluate_run(run)
    finally:
        seqio.MixtureRegistry.remove("both_generated")
