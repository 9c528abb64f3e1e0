"""Tests of prompt_tuning/inference/ensemble.py: many prompts in one batch, and their vote."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning import cli
from prompt_tuning.inference import ensemble, evaluate, loading
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

pytestmark = pytest.mark.usefixtures("quick")


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_no_answer_has_more_votes_than_the_majority(votes):
    answer = ensemble.majority(votes)
    most = max(votes.count(one) for one in votes)
    assert votes.count(answer) == most
    assert votes.index(answer) == min(votes.index(x) for x in votes if votes.count(x) == most)


@pytest.fixture
def loud(prompted, tmp_path):
    """Prompts of three lengths that change what the model says; their paths."""
    embedding = loading.load_t5(prompted.run, loading.prepare_task(prompted.run)).fingerprint
    paths = []
    for number, length in enumerate((3, 5, 1)):
        array = np.random.default_rng(number).normal(size=(length, 16)).astype(np.float32) * 30
        about = PromptMetadata(
            model="tiny_byt5", model_fingerprint=embedding, length=length, width=16
        )
        paths.append(files.save(tmp_path / f"prompt_{number}", array, about)[0])
    return paths


@pytest.mark.parametrize("batch_size", [16, 7])
def test_all_prompts_in_one_batch_say_what_each_says_alone(prompted, loud, batch_size):
    run = dataclasses.replace(prompted.run, eval_batch_size=batch_size)
    task = loading.prepare_task(run)
    (examples,) = evaluate.load_eval_sets(run, task)
    t5 = loading.load_t5(run, task)
    read = [ensemble.read_prompt(path) for path in loud]
    votes = ensemble.all_votes(t5, read, examples, run)
    options = {"strategy": run.decoding, "batch_size": batch_size}
    alone = [
        [task.vocabulary.decode(row.tolist()) for row in
         evaluate.predict(*t5.with_prompt(one), examples, **options)]
        for one in read
    ]  # fmt: skip
    assert votes == [list(row) for row in zip(*alone, strict=True)]
    assert len({tuple(column) for column in alone}) == 3  # each prompt says something else


@pytest.fixture
def says(monkeypatch):
    """Makes the votes: what each of three prompts answers to each of twenty examples."""

    def set_answers(right):
        def votes(t5, prompts, examples, run):
            targets = [row["targets_pretokenized"].decode() for row in examples.raw]
            return [
                [target if number in of_prompt else "neither" for of_prompt in right]
                for number, target in enumerate(targets)
            ]

        monkeypatch.setattr(ensemble, "all_votes", votes)

    return set_answers


def test_average_best_and_ensemble(prompted, loud, tmp_path, says, capsys):
    """Of twenty answers 10, 8 and 6 are right; in 9 two prompts or all three."""
    says([range(10), range(5, 13), [*range(3), 9, 12, 19]])
    run = dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path / "out"))
    found = ensemble.ensemble_run(run, loud)
    assert [one.score for one in found.each] == [50.0, 40.0, 30.0]
    assert (found.best.score, found.ensemble.score) == (50.0, 45.0)
    assert found.rows() == {"accuracy": (40.0, 50.0, 45.0), ensemble.SCORE: (40.0, 50.0, 45.0)}
    summary = json.loads((tmp_path / "out/metrics.json").read_text())
    assert summary["prompts"][loud[2]] == {"accuracy": 30.0, ensemble.SCORE: 30.0}
    columns = [summary[name]["accuracy"] for name in ("average", "best", "ensemble")]
    assert columns == [40.0, 50.0, 45.0]
    (path,) = Path(tmp_path / "out/predictions").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 20
    assert lines[0]["votes"] == [lines[0]["target"], "neither", lines[0]["target"]]
    assert [line["prediction"] == line["target"] for line in lines].count(True) == 9
    printed = capsys.readouterr().out
    assert re.search(
        r"3 prompts +average +best +ensemble\n +accuracy +40.00 +50.00 +45.00", printed
    )


def test_from_the_command_line_with_folders_of_runs(prompted, loud, tmp_path, capsys):
    model_dir = prompted.run.model_dir
    command = ["ensemble", f"--gin_file={model_dir}/config.gin", "--prompts", model_dir, loud[0]]
    assert cli.main([*command, f"--gin.EVAL_OUTPUT_DIR={tmp_path}/out"]) == 0
    summary = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [*summary["prompts"]] == [f"{model_dir}/prompts/best.safetensors", loud[0]]
    alone = evaluate.evaluate_run(
        dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path / "alone"))
    )
    first = summary["prompts"][f"{model_dir}/prompts/best.safetensors"]
    assert first["accuracy"] == alone.metrics["accuracy"]
    assert "2 prompts" in capsys.readouterr().out


def test_what_is_no_ensemble(prompted, tuned, loud, tmp_path):
    with pytest.raises(ValueError, match="needs two prompts or more, got 1"):
        ensemble.ensemble_run(prompted.run, loud[:1])
    with pytest.raises(ValueError, match="this run trains something else. Leave out gin/methods/m"):
        ensemble.ensemble_run(tuned.run, loud)
    with pytest.raises(ValueError, match="There is no prompt"):
        ensemble.ensemble_run(prompted.run, [loud[0], str(tmp_path)])
    wide = PromptMetadata(model="other", model_fingerprint="x", length=2, width=8)
    path, _ = files.save(tmp_path / "wide", np.ones((2, 8), np.float32), wide)
    with pytest.raises(ValueError, match="Prompt 1 of 2: .*width"):
        ensemble.ensemble_run(prompted.run, [loud[0], path])
