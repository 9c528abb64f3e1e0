"""The commands and the code of README.md, run unchanged."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def section(title):
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def commands(text):
    """The lines of the bash blocks that call prompt-tuning, as argument lists."""
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line) for line in lines.splitlines() if line.startswith("prompt-tuning")]


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", section("In Python"), re.DOTALL):
        exec(code, names)
    assert names["trained"].step == 2
    assert names["t5"].score(["a"], ["b", "c"], prompt=names["prompt"]).shape == (1, 2)


def test_every_file_that_is_named_exists():
    for name in re.findall(r"--gin_file=((?:gin|configs)/[\w/.]+)", README):
        assert (ROOT / name).is_file(), name
    for row in re.findall(r"^\| `(prompt_tuning/\w+)`", README, re.MULTILINE):
        assert (ROOT / row).is_dir(), row


def test_the_command_for_released_weights_makes_a_run():
    from prompt_tuning.cli import _load_run, _parser, _take_bindings

    (command,) = commands(
        section("A real run").split("### With released weights\n")[1].split("\n### ")[0]
    )
    bindings, rest = _take_bindings(command[1:])
    options = _parser().parse_args(rest)
    options.bindings = bindings
    run = _load_run(options)
    assert (run.model.name, run.prompt_length, run.train_steps) == ("t5_1_1_base", 100, 30_000)


@pytest.mark.slow
def test_the_real_run_runs(real_data, tmp_path):
    """Verbatim, but for two steps instead of forty."""
    (tmp_path / "superglue").symlink_to(real_data / "data" / "superglue")
    (tmp_path / "spiece.model").symlink_to(real_data / "vocab" / "t5_sentencepiece.model")
    (tmp_path / "new.txt").write_text("hypothesis: it rained premise: It was wet. It had rained.\n")
    for command in commands(section("A real run").split("### ")[0]):
        if command[1] == "train":
            command += ["--gin.TRAIN_STEPS=2", "--gin.EVAL_PERIOD=2", "--gin.Run.eval_examples=4"]
        subprocess.run(
            [sys.executable, "-m", "prompt_tuning.cli", *command[1:]], check=True, cwd=tmp_path
        )
    (line,) = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert set(json.loads(line)["label_scores"]) == {"entailment", "contradiction", "neutral"}
    model_dir = tmp_path / "runs" / "offline_cb"
    assert (model_dir / "prompts" / "best.npy").stat().st_size < 50_000
