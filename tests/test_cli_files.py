"""Tests of prompt_tuning/cli_files.py: convert, diff, export and import, as they are typed."""

import json
import shutil

import numpy as np
import pytest
from tiny_runs import DIMENSIONS

from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.cli import main
from prompt_tuning.config import read_model
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

PARTS = [
    "gin/models/tiny_byt5.gin",
    "gin/tasks/generated_sentiment.gin",
    "gin/prompts/file.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",
]


def refused(capsys, *arguments):
    """Runs a command that must fail, and returns its one sentence."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Hugging Face folder of tiny_byt5, made from a T5X checkpoint of it."""
    folder = tmp_path_factory.mktemp("model")
    params = load_parameters(read_model("tiny_byt5"), "random:1")
    source = t5x_native.write(folder, params, 3)
    assert main(["checkpoint", "convert", source, f"{folder}/hf", "--format=hf"]) == 0
    return folder


def test_convert_and_diff(model, tmp_path, capsys):
    source, hf = f"{model}/checkpoint_3", f"{model}/hf"
    told = json.loads((model / "hf" / "config.json").read_text())
    assert (told["d_model"], told["vocab_size"], told["tie_word_embeddings"]) == (64, 384, False)
    capsys.readouterr()
    command = ["checkpoint", "convert", hf, f"{tmp_path}/orbax", "--format=orbax", "--step=5"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"written to {tmp_path}/orbax/checkpoint_5\n"
    assert main(["checkpoint", "diff", source, f"{tmp_path}/orbax"]) == 0
    assert capsys.readouterr().out.startswith("no difference: ")
    assert "exists already" in refused(capsys, "checkpoint", "convert", source, hf, "--format=hf")


def test_diff_exits_with_one_where_anything_differs(model, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.ones((3, 64), np.float32))
    command = ["checkpoint", "recreate", f"--checkpoint={model}/hf", f"--prompt={tmp_path}/p.npy"]
    assert main([*command, f"--output={tmp_path}/prompted"]) == 0
    capsys.readouterr()
    assert main(["checkpoint", "diff", f"{model}/hf", f"{tmp_path}/prompted"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "only in B  encoder/prompt/prompt/prompt"
    assert lines[1].startswith("only the prompt differs: ")
    changed = t5x_native.write(
        tmp_path / "changed",
        {"a": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32), "c": np.zeros(1)},
        1,
    )
    other = t5x_native.write(
        tmp_path / "other", {"a": np.full((2, 2), 0.25, np.float32), "b": np.zeros(3)}, 1
    )
    assert main(["checkpoint", "diff", changed, other]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "only in A  c",
        "shape      b  [2] in A, [3] in B",
        "value      a  by 0.25 at most",
        "3 parameters differ, 0 parameters are equal",
    ]
    assert "nowhere" in refused(capsys, "checkpoint", "diff", changed, tmp_path / "nowhere")


def test_a_model_of_your_own_is_named(tmp_path, capsys):
    own = T5Config(name="own", vocab_size=384, **DIMENSIONS, mlp_activations=("silu", "linear"))
    source = t5x_native.write(tmp_path, load_parameters(own, "random"), 0)
    command = ["checkpoint", "convert", source, f"{tmp_path}/hf", "--format=hf"]
    assert "Name the model with --model" in refused(capsys, *command)
    part = tmp_path / "own.gin"
    settings = {name: value for name, value in vars(own).items() if name != "dropout_rate"}
    part.write_text("\n".join(f"T5Config.{name} = {value!r}" for name, value in settings.items()))
    assert main([*command, f"--model={part}"]) == 0
    told = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert told["feed_forward_proj"] == "gated-silu"
    assert "Did you mean" in refused(capsys, *command, "--model=t5_1_1_bas")
    part.write_text("MODEL_DIR = 'x'")
    assert "own.gin' is not the part of a model" in refused(capsys, *command, f"--model={part}")
    part.write_text("T5Config.name = (")
    assert "own.gin, line 1: not gin syntax" in refused(capsys, *command, f"--model={part}")


def test_options_of_another_format(capsys):
    command = ["checkpoint", "convert", "a", "b"]
    assert "only --format hf" in refused(capsys, *command, "--format=t5x", "--model=tiny_t5")
    assert "has no step" in refused(capsys, *command, "--format=hf", "--step=3")


def test_a_prompt_goes_to_peft_and_returns(tmp_path, capsys):
    prompt = np.arange(6, dtype=np.float32).reshape(2, 3)
    files.save(tmp_path / "p", prompt, PromptMetadata("t5", "f", 2, 3, task="cb"))
    command = ["prompt", "export", f"{tmp_path}/p", f"{tmp_path}/adapter", "--format=peft"]
    assert main([*command, "--base_model=google/t5-base-lm-adapt"]) == 0
    assert capsys.readouterr().out == f"written to {tmp_path}/adapter\n"
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "google/t5-base-lm-adapt"
    assert main(["prompt", "import", f"{tmp_path}/adapter", f"{tmp_path}/new/q"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"written to {tmp_path}/new/q.safetensors",
        f"written to {tmp_path}/new/q.npy",
    ]
    returned = files.read_prompt(tmp_path / "new" / "q")
    np.testing.assert_array_equal(returned.prompt, prompt)
    assert returned.metadata == files.read_prompt(tmp_path / "p").metadata
    error = refused(capsys, "prompt", "import", f"{tmp_path}/adapter", f"{tmp_path}/new/q.npy")
    assert "q.safetensors' exists already" in error


def test_an_imported_prompt_trains_further(model, parity, tmp_path, capsys):
    """peft itself refuses to train a prompt that it loaded."""
    adapter = tmp_path / "adapter"
    shutil.copytree(parity / "hf_tiny" / "adapter_default", adapter)
    theirs = np.random.default_rng(0).normal(size=(2 * 6, 64)).astype(np.float32)
    import safetensors.numpy

    safetensors.numpy.save_file(
        {"prompt_embeddings": theirs}, tmp_path / "adapter_model.safetensors"
    )
    shutil.move(tmp_path / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
    told = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").chmod(0o644)
    (adapter / "adapter_config.json").write_text(json.dumps({**told, "token_dim": 64}))
    assert main(["prompt", "import", str(adapter), f"{tmp_path}/p"]) == 0
    bindings = [
        f"MODEL_DIR={tmp_path}/run",
        f"INITIAL_CHECKPOINT_PATH={model}/hf",
        f"PROMPT_FILE={tmp_path}/p",
        "PROMPT_LENGTH=6",
        "TRAIN_STEPS=2",
        "EVAL_PERIOD=2",
        "BATCH_SIZE=4",
        "Run.eval_examples=8",
    ]
    parts = [f"--gin_file={part}" for part in PARTS]
    assert main(["train", *parts, *(f"--gin.{binding}" for binding in bindings)]) == 0
    trained = files.read_prompt(tmp_path / "run" / "prompts" / "step_000002")
    moved = np.abs(trained.prompt - theirs[:6])
    assert 1e-4 < moved.max() < 1.0  # two steps of Adafactor at 0.3 from where peft left off
    assert trained.metadata.model == "tiny_byt5"
