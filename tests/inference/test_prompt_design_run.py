"""Tests of prompt design as a run: measured by rank, a cell of a sweep, refused elsewhere."""

import dataclasses
import json

import numpy as np
import pytest
from config_parts import load

from prompt_tuning import cli, config
from prompt_tuning.data.text_prompts import TextPrompt
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.sweeps import grid, measure, resolved

PARTS = [
    "gin/runs/run.gin",
    "gin/models/pocket_xs.gin",
    "gin/tasks/pocket_cb.gin",
    "gin/methods/prompt_design.gin",
    "gin/decoding/greedy.gin",
]
SETTINGS = [
    "INITIAL_CHECKPOINT_PATH=pocket_xs",
    "TASK_FEATURE_LENGTHS={'inputs': 320, 'targets': 4}",
    "Run.eval_examples=20",
    "SHOTS=2",
]


def load_run(folder, data_dir, *bindings):
    own = [f"MODEL_DIR={folder}", f"DATA_DIR={data_dir}"]
    return config.load(PARTS, [*SETTINGS, *own, *bindings])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def test_a_pocket_model_is_measured_by_rank_classification(tmp_path, data_dir, capsys):
    flags = [f"--gin_file={part}" for part in PARTS]
    flags += [f"--gin.{one}" for one in [*SETTINGS, f"DATA_DIR={data_dir}"]]
    assert cli.main(["eval", *flags, f"--gin.MODEL_DIR={tmp_path}"]) == 0
    assert "untuned model pocket_xs, validation, 20 examples" in capsys.readouterr().out
    summary = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert summary["metrics"].keys() == {"mean_3class_f1", "accuracy"}
    (file,) = (tmp_path / "eval" / "predictions").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    labels = {"entailment", "contradiction", "neutral"}
    assert {line["prediction"] for line in lines} <= labels  # a label, though none may be decoded
    right = np.mean([line["prediction"] == line["target"] for line in lines])
    assert summary["metrics"]["accuracy"] == pytest.approx(100 * right)
    for line in lines:
        instruction, *shots, question = line["input"].split(" | ")
        assert instruction == "Given the premise, is the hypothesis true, false or neither?"
        answers = [shot.rpartition(" answer: ")[2] for shot in shots]
        assert len(answers) == 2
        assert {*answers} <= {"true", "false", "neither"}
        assert question.endswith(" answer:")


def test_the_words_of_the_labels_are_ranked(tmp_path, data_dir, monkeypatch):
    ranked = []

    def encode_labels(vocabulary, words):
        ranked.append(list(words))
        return original(vocabulary, words)

    original = evaluate.encode_labels
    monkeypatch.setattr(evaluate, "encode_labels", encode_labels)
    evaluated = evaluate.evaluate_run(load_run(tmp_path, data_dir, "Run.eval_rank=True"))
    assert ranked == [["true", "false", "neither"]]
    assert evaluated.rank["rank_accuracy"] == evaluated.metrics["accuracy"]


def test_a_task_of_two_parts_takes_its_examples_from_the_one_that_trains(tmp_path, data_dir):
    """WSC's eval part has no train split. It has no labels either, so answers are decoded."""
    parts = [part.replace("pocket_cb", "pocket_wsc") for part in PARTS]
    own = [f"MODEL_DIR={tmp_path}", f"DATA_DIR={data_dir}", "Run.eval_examples=4"]
    evaluate.evaluate_run(config.load(parts, [*SETTINGS, *own]))
    (file,) = (tmp_path / "eval" / "predictions").iterdir()
    for line in map(json.loads, file.read_text().splitlines()):
        instruction, *shots, question = line["input"].split(" | ")
        assert instruction == "Whom or what does the pronoun between the stars refer to?"
        assert len(shots) == 2
        assert all(
            shot.count("*") == 2 and " answer: " in shot for shot in [*shots, question + " "]
        )


def test_the_seed_draws_other_examples(tmp_path, data_dir):
    scores = {}
    for seed in (0, 0, 1):
        run = load_run(tmp_path / str(seed), data_dir, f"RANDOM_SEED={seed}", "Run.eval_examples=4")
        evaluate.evaluate_run(run)
        (file,) = (tmp_path / str(seed) / "eval" / "predictions").iterdir()
        scores.setdefault(seed, set()).add(file.read_text())
    assert len(scores[0]) == 1
    assert scores[0] != scores[1]


def test_it_is_a_cell_of_a_sweep(tmp_path, data_dir):
    bindings = [*SETTINGS, f"DATA_DIR='{data_dir}'"]
    files = [part for part in PARTS if "methods" not in part]
    (tmp_path / "sweep.toml").write_text(f"""
runs = "{tmp_path}/runs"
seeds = [0, 1]
gin_files = {files}
bindings = {[*bindings, "Run.eval_examples=4"]}
[report]
score = "dev_score"
panels = "task"
x = "size"
lines = "method"
[axes.task.cb]
[axes.size.xs]
[axes.method.design]
gin_files = ["gin/methods/prompt_design.gin"]
train = false
""")
    cell, other = grid.read_sweep(str(tmp_path / "sweep.toml")).cells
    run = resolved.load_run(cell, str(tmp_path / "one"))
    measured = measure.measure(run, cell.train)
    assert measured["trainable_parameters"] == 0
    assert measured["best"]["accuracy"] == measured["best"]["rank_accuracy"]
    assert resolved.digest(run, False) == resolved.digest(resolved.load_run(other), False)
    more = dataclasses.replace(run, text_prompt=TextPrompt(shots=3))
    assert resolved.digest(run, False) != resolved.digest(more, False)


def test_a_run_in_which_something_trains_refuses_a_text_prompt():
    with pytest.raises(ValueError, match="of which nothing trains, and Run.method is prompt_tun"):
        load("Run.text_prompt=@TextPrompt()")
    with pytest.raises(ValueError, match=r"must be a prompt in words, such as @TextPrompt\(\)"):
        load("Run.text_prompt=3", "Run.prompt_length=None")


def test_infer_refuses_a_text_prompt(tmp_path, data_dir):
    with pytest.raises(ValueError, match="by `prompt-tuning eval` alone"):
        infer.infer_run(load_run(tmp_path, data_dir))


def test_training_says_that_nothing_trains(tmp_path, data_dir):
    from prompt_tuning.training.loop import train_run

    with pytest.raises(ValueError, match="Nothing trains in this run"):
        train_run(load_run(tmp_path, data_dir))
