"""Tests of prompt_tuning/config_runs.py: one configuration that describes several runs."""

import os

import pytest
import tiny_runs
from config_parts import PARTS

from prompt_tuning import config
from prompt_tuning.cli import main
from prompt_tuning.prompts import files
from prompt_tuning.prompts.initializers import from_class_labels, from_random_uniform

RATES = [{"adafactor.learning_rate": 0.03}, {"PROMPT_LENGTH": 5, "adafactor.learning_rate": 0.1}]


def load_all(*bindings):
    return config.load_all(PARTS, [*tiny_runs.BINDINGS, "MODEL_DIR=runs/x", *bindings])


def test_seeds():
    runs = load_all("SEEDS=(0, 7)")
    assert list(runs) == ["seed_0", "seed_7"]
    assert [(run.seed, run.model_dir) for run in runs.values()] == [
        (0, "runs/x/seed_0"),
        (7, "runs/x/seed_7"),
    ]


def test_variants():
    runs = load_all(f"VARIANTS={RATES}", "RANDOM_SEED=3")
    assert list(runs) == ["learning_rate_0.03", "PROMPT_LENGTH_5-learning_rate_0.1"]
    first, second = runs.values()
    assert (first.prompt_length, second.prompt_length) == (4, 5)
    assert (first.seed, second.seed) == (3, 3)
    rates = [run.optimizer.keywords["learning_rate"] for run in runs.values()]
    assert rates == [0.03, 0.1]


def test_every_variant_has_every_seed():
    runs = load_all(f"VARIANTS={RATES}", "SEEDS=[1, 2]")
    assert [(run.prompt_length, run.seed) for run in runs.values()] == [
        (4, 1), (4, 2), (5, 1), (5, 2)
    ]  # fmt: skip
    assert os.path.basename(next(iter(runs.values())).model_dir) == "learning_rate_0.03-seed_1"


def test_a_variant_may_refer_to_a_function():
    variants = "[{'PROMPT_INITIALIZER': @from_random_uniform}, {'PROMPT_LENGTH': 5}]"
    first, second = load_all(f"VARIANTS={variants}").values()
    assert first.model_dir == "runs/x/PROMPT_INITIALIZER_from_random_uniform"
    assert first.prompt_initializer.func is from_random_uniform
    assert second.prompt_initializer.func is from_class_labels


@pytest.mark.parametrize("bindings", [[], ["SEEDS=None", "VARIANTS=None"]])
def test_without_them_there_is_one_run(bindings):
    runs = load_all(*bindings)
    assert list(runs) == [""]
    assert runs[""].model_dir == "runs/x"


def test_the_configuration_of_one_of_them_is_that_run_alone(tmp_path):
    run = load_all("SEEDS=(0, 7)")["seed_7"]
    path = tmp_path / "config.gin"
    path.write_text(run.config_text)
    assert config.load([str(path)]) == run


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["SEEDS=3"], r"SEEDS must be whole numbers, such as \(0, 1, 2\), or None; got 3"),
        (["SEEDS=()"], "SEEDS must be whole numbers"),
        (["SEEDS=(1, 1)"], "describe the run seed_1 twice"),
        (["VARIANTS={'PROMPT_LENGTH': 4}"], "VARIANTS must be a list of settings"),
        (["VARIANTS=[{}]"], r"VARIANTS must be a list of settings.* got \{\} in it"),
        (["VARIANTS=[{'MODEL_DIR': 'a'}]"], "its MODEL_DIR follows from that"),
        (["VARIANTS=[{'PROMPT_LENGHT': 4}]"], "PROMPT_LENGHT.* Did you mean PROMPT_LENGTH"),
    ],
)
def test_what_describes_no_runs_is_refused(bindings, message):
    with pytest.raises(ValueError, match=message):
        load_all(*bindings)


def test_where_one_run_is_expected_several_are_refused(capsys):
    arguments = [f"--gin_file={part}" for part in PARTS]
    arguments += [f"--gin.{one}" for one in [*tiny_runs.BINDINGS, "MODEL_DIR=runs/x"]]
    assert main(["eval", *arguments, "--gin.SEEDS=(0, 1)"]) == 2
    assert "describes 2 runs, by SEEDS or VARIANTS, and one was" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_the_command_trains_all_of_them(tmp_path, capsys):
    bindings = [*tiny_runs.BINDINGS, f"MODEL_DIR={tmp_path}", "TRAIN_STEPS=2", "EVAL_PERIOD=2"]
    arguments = [f"--gin_file={part}" for part in PARTS]
    arguments += [f"--gin.{one}" for one in [*bindings, "SEEDS=(0, 1)"]]
    assert main(["train", *arguments]) == 0
    assert "2 runs together: seed_0, seed_1" in capsys.readouterr().out
    for name in ("seed_0", "seed_1"):
        assert files.read_prompt(tmp_path / name / "prompts/best").prompt.shape == (4, 16)
        config_file = f"--gin_file={tmp_path / name / 'config.gin'}"
        assert main(["eval", config_file]) == 0
