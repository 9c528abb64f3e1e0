"""Tests of prompt_tuning/cli.py: the commands, and one sentence for each error."""

import importlib
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.cli import main
from prompt_tuning.prompts import files

TASK = "gin/tasks/generated_sentiment.gin"
OTHERS = [
    "gin/models/tiny_byt5.gin",
    "gin/prompts/class_labels.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",
]
QUICK = [
    "TRAIN_STEPS=2",
    "EVAL_PERIOD=2",
    "BATCH_SIZE=4",
    "PROMPT_LENGTH=4",
    "Run.eval_examples=8",
    "T5Config.emb_dim=16",
]


def arguments(command, *bindings, task=TASK, extra=()):
    files_ = [f"--gin_file={part}" for part in [task, *OTHERS]]
    return [command, *extra, *files_, *(f"--gin.{b}" for b in [*QUICK, *bindings])]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: its model_dir, and the bindings that name it."""
    folder = tmp_path_factory.mktemp("trained")
    bindings = [f"MODEL_DIR={folder}", "INITIAL_CHECKPOINT_PATH=random"]
    assert main(arguments("train", *bindings)) == 0
    return folder, bindings


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """The frozen model of that run with its prompt, as a T5X checkpoint."""
    from prompt_tuning.checkpoints import t5x_native
    from prompt_tuning.config import read_model
    from prompt_tuning.inference.frozen import load_parameters

    folder = tmp_path_factory.mktemp("model")
    params = load_parameters(read_model("tiny_byt5"), "random")
    return t5x_native.write(folder, params, 3)


def test_train_leaves_what_it_should(trained):
    folder, _ = trained
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {
        "config.gin",
        "versions.json",
        "metrics.jsonl",
        "prompts/best.safetensors",
        "prompts/best.npy",
        "prompts/step_000002.safetensors",
    } <= names
    assert not any("frozen" in name for name in names)


def test_eval_and_infer_from_the_runs_own_configuration(trained, tmp_path, capsys):
    folder, _ = trained
    config = f"--gin_file={folder}/config.gin"
    assert main(["eval", config, f"--gin.EVAL_OUTPUT_DIR={tmp_path}"]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["examples"] == 8
    (tmp_path / "in.txt").write_text("the old film was really dull .\n\nthe new book was nice .\n")
    output = tmp_path / "out.jsonl"
    assert main(["infer", config, f"--input={tmp_path}/in.txt", f"--output={output}"]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["input"][:7] for line in lines] == ["the old", "", "the new"]
    assert set(lines[0]["label_scores"]) == {"awful", "great"}
    assert "3 predictions" in capsys.readouterr().out


def test_prompt_show_with_and_without_a_model(trained, checkpoint, tmp_path, capsys):
    folder, _ = trained
    assert main(["prompt", "show", f"{folder}/prompts/best"]) == 0
    shown = capsys.readouterr().out
    assert "4 vectors of width 16" in shown
    assert "\nmethod   prompt_tuning, prefix\n" in shown
    table = np.zeros((2, 64), np.float32)
    table[0, 0] = 1.0
    np.save(tmp_path / "p.npy", table + 0.01)
    assert (
        main(
            [
                "prompt", "show", f"{tmp_path}/p.npy", f"--checkpoint={checkpoint}",
                "--vocabulary=byt5", "--count=2",
            ]
        )
        == 0
    )  # fmt: skip
    *summary, first, _ = capsys.readouterr().out.splitlines()
    assert summary[1] == "shape    2 vectors of width 64"
    assert len(first.split()) == 5  # the position, and two pieces with their cosines


def test_prompt_show_knows_the_vocabulary_of_a_pocket_model(tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.ones((2, 32), np.float32))
    command = ["prompt", "show", f"{tmp_path}/p.npy", "--checkpoint=pocket_xs", "--count=1"]
    assert main(command) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6 + 2  # the summary, and two vectors


def test_modules_in_the_working_directory_are_found(tmp_path, monkeypatch, capsys):
    """Also by `prompt-tuning`, a script in another folder."""
    (tmp_path / "only_here.py").write_text("WORD = 'found'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        cli, "_tasks", lambda options: print(importlib.import_module("only_here").WORD)
    )
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out == "found\n"


def test_checkpoint_show_lists_t5x_names(checkpoint, capsys):
    assert main(["checkpoint", "show", checkpoint]) == 0
    out = capsys.readouterr().out
    assert "decoder/layers_1/encoder_decoder_attention/query/kernel" in out
    assert "246,784 numbers" in out


def test_checkpoint_recreate_adds_the_prompt(checkpoint, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.ones((3, 64), np.float32))
    command = ["checkpoint", "recreate", f"--checkpoint={checkpoint}"]
    assert main([*command, f"--prompt={tmp_path}/p.npy", f"--output={tmp_path}/new"]) == 0
    assert main(["checkpoint", "show", f"{tmp_path}/new"]) == 0
    assert "encoder/prompt/prompt/prompt" in capsys.readouterr().out


def test_plot_draws_the_learning_curve(trained, tmp_path, capsys):
    folder, _ = trained
    assert main(["plot", str(folder), f"--output={tmp_path}/curve.png"]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert f"written to {tmp_path}/curve.png" in capsys.readouterr().out


def test_tasks_lists_and_shows(capsys):
    assert main(["tasks"]) == 0
    assert "taskless_super_glue_cb_v102\n" in capsys.readouterr().out
    assert main(["tasks", "generated_sentiment", "--inputs=12", "--examples=1"]) == 0
    assert "the " in capsys.readouterr().out


def test_help_names_the_macros(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    assert "INITIAL_CHECKPOINT_PATH" in capsys.readouterr().out


def refused(capsys, arguments):
    """Runs a command that must fail, and returns its one sentence."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


WRONG_SETTINGS = {
    "missing macro": (["MODEL_DIR=x"], "Not set: INITIAL_CHECKPOINT_PATH"),
    "typo in a macro": (["TRAIN_STEP=9"], "Did you mean TRAIN_STEPS"),
    "typo in a parameter": (["T5Config.emb_dmi=9"], "Did you mean emb_dim"),
    "unknown task": (["MIXTURE_OR_TASK_NAME=super_glue_cd_v102"], "super_glue_cb_v102"),
    "unknown task module": (["MIXTURE_OR_TASK_MODULE=no.such"], "cannot be imported"),
    "pattern that matches nothing": (["Run.trainable=['.*/adapter/.*']"], "matches no parameter"),
    "label longer than the targets": (
        ["TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 3}"],
        "'targets': 6}",
    ),
    "more labels than positions": (["PROMPT_LENGTH=1"], "2 class labels but only 1"),
    "another model's vocabulary": (["T5Config.vocab_size=100"], "embeds 100"),
    "no such checkpoint": (["INITIAL_CHECKPOINT_PATH=/nowhere/checkpoint_1"], "/nowhere"),
    "bad seed of random weights": (["INITIAL_CHECKPOINT_PATH=random:x"], "'random:7'"),
    "value of the wrong kind": (["BATCH_SIZE=large"], "got 'large'"),
    "unknown split": (["Run.eval_split=dev"], "it has train, validation"),
    "unknown normalizing factor": (["LOSS_NORMALIZING_FACTOR=NUM_TOKENS"], "NUM_REAL_TARGET"),
    "missing data": (
        ["MIXTURE_OR_TASK_NAME=byt5_taskless_super_glue_cb_v102", "DATA_DIR={tmp}"],
        "prompt-tuning data prepare",
    ),
}


@pytest.mark.parametrize("what", WRONG_SETTINGS)
def test_wrong_settings_of_a_run(what, capsys, tmp_path):
    bindings, message = WRONG_SETTINGS[what]
    given = {b.partition("=")[0] for b in bindings}
    defaults = {"MODEL_DIR": str(tmp_path / "run"), "INITIAL_CHECKPOINT_PATH": "random"}
    if what == "missing macro":
        defaults = {}
    bindings = [b.replace("{tmp}", str(tmp_path)) for b in bindings]
    bindings += [f"{name}={value}" for name, value in defaults.items() if name not in given]
    assert message in refused(capsys, arguments("train", *bindings))


def test_no_configuration_at_all(capsys):
    assert "--gin_file=configs/" in refused(capsys, ["train"])


def test_nothing_trained_yet(capsys, tmp_path):
    bindings = [f"MODEL_DIR={tmp_path}", "INITIAL_CHECKPOINT_PATH=random"]
    assert "Train first" in refused(capsys, arguments("eval", *bindings))


def test_prompt_of_another_width(capsys, trained, tmp_path):
    np.save(tmp_path / "p.npy", np.ones((4, 24), np.float32))
    error = refused(capsys, arguments("eval", *trained[1], f"PROMPT_FILE={tmp_path}/p.npy"))
    assert "24" in error
    assert "16" in error


def test_prompt_of_another_model_and_the_flag_that_lets_it_through(capsys, trained, tmp_path):
    folder, bindings = trained
    other = [*bindings, "INITIAL_CHECKPOINT_PATH=random:1", f"EVAL_OUTPUT_DIR={tmp_path}"]
    error = refused(capsys, arguments("eval", *other))
    made_for = files.read_prompt(folder / "prompts" / "best").metadata
    assert f"{made_for.model} with fingerprint {made_for.model_fingerprint}" in error
    assert "--allow_other_model" in error
    assert main(arguments("eval", *other, extra=["--allow_other_model"])) == 0


def test_pickled_prompt(capsys, trained, tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    error = refused(capsys, arguments("eval", *trained[1], f"PROMPT_FILE={tmp_path}/p.npy"))
    assert "pickle" in error


def test_truncated_checkpoint(capsys, checkpoint, tmp_path):
    broken = tmp_path / "checkpoint_3"
    shutil.copytree(checkpoint, broken)
    index = broken / "checkpoint"
    index.write_bytes(index.read_bytes()[:-100])
    assert "checkpoint_3" in refused(capsys, ["checkpoint", "show", str(broken)])


def test_checkpoint_without_a_leaf(capsys, checkpoint, tmp_path):
    broken = tmp_path / "checkpoint_3"
    shutil.copytree(checkpoint, broken)
    shutil.rmtree(broken / "target.encoder.encoder_norm.scale")
    bindings = [f"MODEL_DIR={tmp_path}/run", f"INITIAL_CHECKPOINT_PATH={broken}"]
    error = refused(capsys, arguments("train", *bindings, "T5Config.emb_dim=64"))
    assert "encoder_norm" in error


def test_checkpoint_of_another_size(capsys, checkpoint, tmp_path):
    bindings = [f"MODEL_DIR={tmp_path}/run", f"INITIAL_CHECKPOINT_PATH={checkpoint}"]
    error = refused(capsys, arguments("train", *bindings))
    assert "does not fit the model" in error


def table_arguments(path, *bindings):
    """Trains on a JSONL file of your own, the same for both splits."""
    table = [
        f"TableTask.train_file={path}",
        f"TableTask.validation_file={path}",
        "TableTask.target_column=label",
        "CLASS_LABELS=['good', 'bad']",
        f"MODEL_DIR={path.parent}/run",
        "INITIAL_CHECKPOINT_PATH=random",
    ]
    return arguments("train", *table, *bindings, task="gin/tasks/from_file.gin")


def test_your_own_table_trains_and_infers(capsys, tmp_path):
    """The training file may be gone afterwards: its columns and labels are kept with the run."""
    rows = [{"text": f"it is {word}", "label": word} for word in ("good", "bad")] * 4
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(table_arguments(path, "TableTask.vocabulary=byt5")) == 0
    assert files.read_prompt(tmp_path / "run" / "prompts" / "best").metadata.task == "from_file"
    shown = "first example of from_file train\n  inputs   text: it is good\n  targets  good\n"
    assert shown in capsys.readouterr().out

    path.rename(tmp_path / "dev.jsonl")
    (tmp_path / "new.csv").write_text("id,text\n1,it is good\n2,\n")
    run = [f"--gin_file={tmp_path}/run/config.gin"]
    run.append(f"--gin.TableTask.validation_file={tmp_path}/dev.jsonl")
    assert main(["infer", *run, f"--input={tmp_path}/new.csv", f"--output={tmp_path}/o.jsonl"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    shutil.copy(tmp_path / "run/prompts/best.safetensors", tmp_path / "moved.safetensors")
    moved = [*run, f"--gin.PROMPT_FILE={tmp_path}/moved", f"--input={tmp_path}/new.csv"]
    assert main(["infer", *moved, f"--output={tmp_path}/moved.jsonl"]) == 0
    assert (tmp_path / "moved.jsonl").read_text() == (tmp_path / "o.jsonl").read_text()
    assert [(line["id"], line["input"]) for line in lines] == [
        ("1", "text: it is good"),
        ("2", "text: "),
    ]
    assert list(lines[0]["label_scores"]) == ["bad", "good"]
    assert main(["eval", *run]) == 0
    named = [f"--gin.PROMPT_FILE={tmp_path}/run/prompts/best", f"--gin.MODEL_DIR={tmp_path}/other"]
    assert main(["eval", *run, *named]) == 0


def test_empty_table(capsys, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    error = refused(capsys, table_arguments(tmp_path / "rows.jsonl"))
    assert "rows.jsonl" in error
    assert "is empty" in error


def test_missing_vocabulary(capsys, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "fine", "label": "good"}')
    command = table_arguments(tmp_path / "rows.jsonl", "VOCABULARY_FILE=/nowhere.model")
    assert "/nowhere.model" in refused(capsys, command)


def test_damaged_archive(capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "CB.zip", "w") as archive:
        archive.writestr("CB/train.jsonl", "{}\n" * 1000)
    whole = (tmp_path / "CB.zip").read_bytes()
    (tmp_path / "CB.zip").write_bytes(whole[: len(whole) // 2])
    command = ["data", "prepare", f"--source={tmp_path}", f"--data_dir={tmp_path}/out"]
    assert "CB.zip" in refused(capsys, command)


def test_malformed_line_of_an_input_file(capsys, trained, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"input": "fine"}\n{"input": \n')
    command = arguments("infer", *trained[1], extra=[f"--input={tmp_path}/in.jsonl"])
    assert "Line 2" in refused(capsys, command)


def test_other_seed_in_the_same_folder(capsys, trained):
    error = refused(capsys, arguments("train", *trained[1], "RANDOM_SEED=5", "TRAIN_STEPS=4"))
    assert "RANDOM_SEED was 0 and is 5 now" in error


def test_gin_binding_for_a_command_without_a_configuration(capsys):
    assert "reads no gin configuration" in refused(capsys, ["tasks", "--gin.TRAIN_STEPS=3"])
