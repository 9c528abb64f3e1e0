"""Tests of prompt_tuning/cli_errors.py: which errors are one sentence, and which are bugs."""

import errno
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny_runs

from prompt_tuning import cli, cli_errors
from prompt_tuning.checkpoints.training_state import StateStore

COMMAND = ["train", *(f"--gin_file={part}" for part in tiny_runs.PARTS)]
COMMAND += [f"--gin.{binding}" for binding in tiny_runs.BINDINGS]
COMMAND += ["--gin.TRAIN_STEPS=6", "--gin.EVAL_PERIOD=2"]


def system_error(number, path=None):
    return OSError(number, os.strerror(number), *([path] if path else []))


EXPLAINED = {
    "full disk": (
        system_error(errno.ENOSPC, "/run/a"),
        "'/run/a' cannot be used: the disk is full",
    ),
    "full disk, no name": (
        system_error(errno.ENOSPC),
        "A file cannot be written: the disk is full",
    ),
    "quota": (system_error(errno.EDQUOT, "/run/a"), "the disk quota is used up"),
    "read-only disk": (system_error(errno.EROFS, "/run/a"), "the disk is read-only"),
    "no permission": (system_error(errno.EACCES, "/run/a"), "'/run/a' cannot be used: permission"),
    "no permission, temporary name": (
        system_error(errno.EACCES, "/run/a.jsonl.tmp-node7-4242-9f3a61c0"),
        "'/run/a.jsonl' cannot be used: permission",
    ),
    "file in the way": (system_error(errno.EEXIST, "/run/a"), "a file of that name exists already"),
    "folder for a file": (system_error(errno.EISDIR, "/a"), "expected a file"),
    "file for a folder": (system_error(errno.ENOTDIR, "/a/b"), "expected a folder"),
    "name too long": (system_error(errno.ENAMETOOLONG, "/a"), "choose a shorter one"),
    "other system error": (OSError("gs://b/x cannot be reached: no token"), "no token"),
    "full disk seen by tensorstore": (
        ValueError("Failed to write '/run/d/1a': [OS error 28: ENOSPC No space left on device]"),
        "'/run/d/1a' cannot be written: the disk is full",
    ),
    "accelerator's memory": (
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 5368709120 bytes."
        ),
        "Out of memory on the accelerator (RESOURCE_EXHAUSTED: Out of memory allocating 5368709120",
    ),
    "host's memory": (MemoryError(), "Out of memory. Lower BATCH_SIZE"),
    "no such platform": (
        RuntimeError(
            "Unable to initialize backend 'nosuch': it is not in the list of known backends: "
            "['cpu', 'tpu']. (set JAX_PLATFORMS='' to automatically choose an available backend)"
        ),
        "JAX cannot start on this device: Unable to initialize backend 'nosuch'",
    ),
    "library that is missing": (
        ModuleNotFoundError("No module named 'huggingface_hub'", name="huggingface_hub"),
        "pip install huggingface_hub",
    ),
    "not UTF-8": (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        "A text is not UTF-8",
    ),
    "several lines": (ValueError("one\n  two\n  In call to configurable 'Run'"), "one two"),
}


@pytest.mark.parametrize("what", EXPLAINED)
def test_what_a_user_can_fix_is_one_sentence(what):
    error, expected = EXPLAINED[what]
    sentence = cli_errors.explain(error)
    assert expected in sentence
    assert "\n" not in sentence


def test_what_to_try_when_memory_runs_out():
    sentence = cli_errors.explain(MemoryError())
    assert all(name in sentence for name in ("BATCH_SIZE", "eval_batch_size", "bfloat16"))


@pytest.mark.parametrize(
    "bug",
    [
        TypeError("x"),
        AssertionError(),
        KeyError("a"),
        RuntimeError("ours"),
        AttributeError("x"),
        ModuleNotFoundError("No module named 'prompt_tuning.x'", name="prompt_tuning.x"),
    ],
)
def test_a_bug_is_not_reported_as_one_sentence(bug):
    assert cli_errors.explain(bug) is None


def raising(monkeypatch, error):
    """Makes the command `tasks` raise."""

    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_tasks", fail)


def test_a_bug_keeps_its_traceback_and_says_what_it_is(monkeypatch, capsys):
    raising(monkeypatch, KeyError("prompt"))
    with pytest.raises(KeyError) as raised:
        cli.main(["tasks"])
    assert raised.value.__notes__ == [cli_errors.BUG]
    assert "error:" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch):
    raising(monkeypatch, system_error(errno.EACCES, "/run/a"))
    with pytest.raises(PermissionError):
        cli.main(["--debug", "tasks"])


def test_ctrl_c_outside_of_training(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["tasks"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_that_orbax_logs_and_raises_is_reported_once(monkeypatch, capsys):
    def fail(options):
        error = system_error(errno.ENOSPC, "/run/state/6")
        logging.getLogger("absl").error("Save thread failed.", exc_info=error)
        raise error

    shown = logging.StreamHandler(io.StringIO())
    logging.getLogger("absl").addHandler(shown)
    monkeypatch.setattr(cli, "_tasks", fail)
    try:
        assert cli.main(["tasks"]) == 2
    finally:
        logging.getLogger("absl").removeHandler(shown)
    assert shown.stream.getvalue() == ""
    assert capsys.readouterr().err.count("\n") == 1


def test_a_terminal_that_cannot_print_a_character_stops_nothing(monkeypatch):
    monkeypatch.setattr(cli, "_tasks", lambda options: print("größer → ☃"))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert cli.main(["tasks"]) == 0
    assert terminal.buffer.getvalue() == b"gr\\xf6\\xdfer \\u2192 \\u2603\n"


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 1 MB; skips where none can be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.usefixtures("quick")
def test_a_disk_that_becomes_full_while_training(tiny_disk, capfd):
    # Of the 140 kB left, the state of step 2 needs 104 and that of step 4 another 64.
    (tiny_disk / "others").write_bytes(b"0" * 880_000)
    assert cli.main([*COMMAND, f"--gin.MODEL_DIR={tiny_disk}/run"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert "the disk is full. Free some space" in error
    assert error.count("\n") == 1
    (tiny_disk / "others").unlink()
    assert cli.main([*COMMAND, f"--gin.MODEL_DIR={tiny_disk}/run"]) == 0
    assert "resuming at step 2" in capfd.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("thread", [False, True])
def test_a_full_disk_wherever_it_is_noticed(thread, tmp_path, monkeypatch, capsys):
    """In our own write of a prompt, or in Orbax's thread, which raises at the next wait."""
    full = system_error(errno.ENOSPC)

    def write(path, content):
        raise full

    def wait(self):
        raise RuntimeError("a background thread failed") from full

    if thread:
        monkeypatch.setattr(StateStore, "wait", wait)
    else:
        monkeypatch.setattr("prompt_tuning.folders.os.fsync", lambda handle: write("", b""))
    assert cli.main([*COMMAND, f"--gin.MODEL_DIR={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert error.count("\n") == 1
    assert thread or f"{tmp_path}/run/" in error


def test_cuda_where_there_is_none(monkeypatch):
    """JAX_PLATFORMS=cuda without CUDA fails in JAX with an assertion that has no text."""

    def devices():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", devices)
    before = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "cuda")
        sentence = cli_errors.explain(AssertionError())
    finally:
        jax.config.update("jax_platforms", before)
    assert sentence.startswith("JAX cannot start on this device: it finds no cuda device. Set JAX_")


def test_no_such_platform():
    """Outside of this process, in which JAX has chosen its device."""
    code = (
        "import jax; from prompt_tuning import cli; cli._tasks = lambda options: jax.devices(); "
        "cli.main(['tasks'])"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "nosuch"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment
    )
    assert done.stderr.startswith("error: JAX cannot start on this device: Unable to initialize")
    assert done.stderr.count("\n") == 1
