"""Tests of prompt_tuning/quickstart.py: on a tiny model, then what it is meant to reach."""

import json
import re
import subprocess
import sys

import pytest

from prompt_tuning.quickstart import CONFIG, quickstart

PARTS = """
include 'gin/models/tiny_byt5.gin'
include 'gin/tasks/generated_sentiment.gin'
include 'gin/prompts/class_labels.gin'
include 'gin/decoding/greedy.gin'
include 'gin/methods/prompt_tuning.gin'
include 'gin/runs/run.gin'
T5Config.emb_dim = 16
INITIAL_CHECKPOINT_PATH = 'random'
PROMPT_LENGTH = 4
TRAIN_STEPS = 4
EVAL_PERIOD = 2
Run.eval_examples = 20
Run.eval_rank = True
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    import tiny_runs

    with tiny_runs.quick(tmp_path_factory.mktemp("compiled_programs")):
        yield


def test_it_shows_what_it_did_and_shows_it_again(quick, tmp_path, capsys):
    config, folder = tmp_path / "run.gin", tmp_path / "run"
    config.write_text(PARTS)
    trained = quickstart(str(config), model_dir=str(folder))
    out = capsys.readouterr().out
    assert re.search(r"majority +frozen +prompt\naccuracy +50.0 +\d+\.\d +\d+\.\d\n", out)
    assert re.search(r"\nrank_accuracy +\d+\.\d +\d+\.\d\n", out)
    assert re.search(r"trainable +64 ", out)
    assert len(re.findall(r"target '(?:awful|great)', frozen '.*', with the prompt '", out)) == 3
    assert re.search(r"^ +0  \S+ 1?0?\.\d\d", out, re.MULTILINE)
    assert f"{folder}/prompts/best.safetensors  the prompt, " in out
    assert f"`rm -r {folder}` starts over." in out
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    before = (folder / "prompts" / "best.npy").read_bytes()
    assert quickstart(str(config), model_dir=str(folder)) == trained
    assert "resuming at step 4" in capsys.readouterr().out
    assert (folder / "prompts" / "best.npy").read_bytes() == before


@pytest.mark.slow
def test_the_prompt_makes_the_difference(tmp_path):
    """The real one, as `make quickstart` runs it."""
    command = [sys.executable, "-m", "prompt_tuning.cli", "quickstart", f"--model_dir={tmp_path}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""  # none of TensorFlow's log lines
    assert CONFIG in done.stdout
    frozen, prompted = (
        json.loads((tmp_path / f"eval_{which}" / "metrics.json").read_text())
        for which in ("frozen", "prompt")
    )
    assert frozen["dev_score"] <= 15
    assert prompted["dev_score"] >= 80
    assert int(re.search(r"(\d+) seconds in all", done.stdout)[1]) < 300
