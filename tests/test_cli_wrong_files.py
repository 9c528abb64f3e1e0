"""Every command with every kind of wrong file: one sentence that names it, and no traceback."""

import io
import os

import numpy as np
import pytest
import tiny_runs

from prompt_tuning import cli, config, paths
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

JUNK = bytes(range(256)) * 20
LONG = "x" * 300
RUN = [f"--gin_file={part}" for part in tiny_runs.PARTS]
RUN += [f"--gin.{binding}" for binding in tiny_runs.BINDINGS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a file of each wrong kind and a prompt that is right."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "empty.npy", "empty.safetensors", "empty.toml"):
        (tmp_path / name).write_bytes(b"")
    for name in ("junk", "junk.npy", "junk.safetensors", "junk.toml"):
        (tmp_path / name).write_bytes(JUNK)
    for name in ("folder", "folder.npy", "folder.safetensors", "folder.toml"):
        (tmp_path / name).mkdir()
    for name in ("run/metrics.jsonl", "t5x/checkpoint", "orbax/state/_METADATA", "hf/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(JUNK + b"\n")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_bytes(JUNK)
    np.save(tmp_path / "p.npy", np.ones((3, 64), np.float32))
    return tmp_path


PROMPTS = ["nothing", "empty", "empty.npy", "empty.safetensors", "junk", "junk.npy"]
PROMPTS += ["junk.safetensors", "folder", "folder.npy", "adapter", "p.npy/x", LONG, "s3://b/p", ""]
MODELS = ["nothing", "empty", "empty.safetensors", "junk", "junk.safetensors", "folder"]
MODELS += ["t5x", "orbax", "hf", "junk/x", LONG, "s3://b/m", "google/flan-t5-small", "random", ""]
COMMANDS = {
    "prompt show": [["prompt", "show", path] for path in PROMPTS],
    "prompt export": [["prompt", "export", path, "new", "--format=peft"] for path in PROMPTS],
    "prompt export to": [
        ["prompt", "export", "p.npy", path, "--format=peft"]
        for path in ("junk", "junk/x", "gs://b/x")
    ],
    "prompt import": [
        ["prompt", "import", path, "new"]
        for path in ("nothing", "empty", "junk", "folder", "adapter", LONG, "gs://b/adapter")
    ],
    "checkpoint show": [["checkpoint", "show", path] for path in MODELS],
    "checkpoint convert": [
        ["checkpoint", "convert", path, "new", "--format=hf"] for path in MODELS
    ],
    "checkpoint convert to": [
        ["checkpoint", "convert", "pocket_xs", path, f"--format={kind}"]
        for path in ("junk", "junk/x", LONG, "gs://b/x")
        for kind in ("t5x", "orbax")
    ],
    "checkpoint diff": [["checkpoint", "diff", path, path] for path in MODELS],
    "checkpoint recreate": [
        ["checkpoint", "recreate", f"--checkpoint={path}", "--prompt=p.npy", "--output=new"]
        for path in MODELS
    ],
    "plot": [["plot", path] for path in ("nothing", "junk", "folder", "run", LONG, "s3://b/run")],
    "sweep run": [
        ["sweep", "run", path] for path in ("nothing", "empty.toml", "junk.toml", "folder.toml")
    ],
    "sweep report": [["sweep", "report", path] for path in ("nothing", "junk.toml")],
    "data prepare": [
        ["data", "prepare", f"--source={source}", f"--data_dir={target}"]
        for source, target in (("nothing", "new"), ("junk", "new"), ("folder", "junk"))
    ],
    "data pocket": [["data", "pocket", "--tasks=cb", "--train=4", "--out=junk"]],
    "train": [
        ["train", *RUN, f"--gin.MODEL_DIR={path}"]
        for path in ("junk", "junk/x", LONG, "s3://b/run", "gs:/b/run", "gs://")
    ],
    "eval": [["eval", *RUN, "--gin.MODEL_DIR=run", "--gin.EVAL_OUTPUT_DIR=junk"]],
}
LONGEST = 700  # characters of a sentence; a name of 300 may be among them


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_files(command, folder, capsys):
    for arguments in COMMANDS[command]:
        capsys.readouterr()
        assert cli.main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: "), arguments
        assert error.count("\n") == 1, error
        assert len(error) < LONGEST, error
    assert not (folder / "new").exists()
    assert not (folder / "gs:").exists()


def test_a_file_that_may_not_be_read(folder, capsys, monkeypatch):
    real = io.open

    def guarded(path, *rest, **named):
        if os.fspath(path) == "p.npy":
            raise PermissionError(13, "Permission denied", "p.npy")
        return real(path, *rest, **named)

    monkeypatch.setattr(io, "open", guarded)
    assert cli.main(["prompt", "show", "p.npy"]) == 2
    assert "'p.npy' cannot be used: permission denied" in capsys.readouterr().err


def test_the_best_prompt_of_a_run_and_an_adapter_get_a_hint(folder, capsys):
    metadata = PromptMetadata(model="m", model_fingerprint="", length=3, width=64)
    files.save("run/prompts/best", np.ones((3, 64), np.float32), metadata)
    assert cli.main(["prompt", "show", "run"]) == 2
    assert "The best prompt of that run is 'run/prompts/best'." in capsys.readouterr().err
    assert cli.main(["prompt", "show", "adapter"]) == 2
    assert "`prompt-tuning prompt import`" in capsys.readouterr().err


def test_the_home_folder_in_every_path(folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert cli.main(["prompt", "show", "~/p.npy"]) == 0
    assert cli.main(["prompt", "export", "~/p.npy", "~/peft", "--format=peft"]) == 0
    assert cli.main(["prompt", "import", "~/peft", "~/back"]) == 0
    assert (folder / "back.npy").is_file()
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2.0}\n')
    assert cli.main(["plot", "~/run", "--output=~/curve.png"]) == 0
    assert (folder / "curve.png").is_file()
    assert cli.main(["data", "pocket", "--tasks=cb", "--train=4", "--out=~/cb"]) == 0
    assert (folder / "cb").is_dir()
    bindings = [f"{name}=~/x" for name in ("MODEL_DIR", "DATA_DIR", "VOCABULARY_FILE")]
    bindings += ["INITIAL_CHECKPOINT_PATH=~/x", "Run.prompt_file='~/x'", "EVAL_OUTPUT_DIR=~/x"]
    run = config.load(tiny_runs.PARTS, [*tiny_runs.BINDINGS, *bindings])
    for name in ("model_dir", "data_dir", "vocabulary_file", "initial_checkpoint_path"):
        assert getattr(run, name) == f"{folder}/x", name
    assert (run.prompt_file, run.eval_output_dir) == (f"{folder}/x", f"{folder}/x")


def test_a_refused_path_names_its_setting():
    with pytest.raises(ValueError, match="EMBEDDING_FILE: 's3://b/e' cannot be opened"):
        tiny_runs.make_run("run", embedding_file="s3://b/e")
    with pytest.raises(ValueError, match="MODEL_DIR: 'hf://a/b' cannot be opened"):
        tiny_runs.make_run("hf://a/b")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks", "generated_sentiment", "--inputs=0"],
        ["tasks", "generated_sentiment", "--examples=-1"],
        ["prompt", "show", "p.npy", "--count=many"],
        ["checkpoint", "convert", "a", "b", "--format=t5x", "--step=-1"],
        ["eval", "--split"],
    ],
)
def test_options_that_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    name = arguments[-1].partition("=")[0]
    assert f"argument {name}: expected " in capsys.readouterr().err


def test_a_binding_without_a_value(capsys):
    assert cli.main(["train", "--gin.TRAIN_STEPS", "--gin_file=a.gin"]) == 2
    assert "--gin.TRAIN_STEPS has no value" in capsys.readouterr().err


def test_a_picture_of_an_unknown_kind(folder, capsys):
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2.0}\n')
    assert cli.main(["plot", "run", "--output=curve.txt"]) == 2
    assert "'curve.txt' should end in .png or another kind" in capsys.readouterr().err
    assert paths.names("run") == ["metrics.jsonl"]
