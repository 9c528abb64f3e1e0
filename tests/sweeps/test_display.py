"""Tests of prompt_tuning/sweeps/display.py: the table of a terminal, and lines elsewhere."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from prompt_tuning.sweeps import display


def drawn(live):
    console = Console(file=io.StringIO(), width=100)
    console.print(live.table())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 100}\n')
    now = display.Snapshot(
        total=9, done=3, failed=1,
        mine={"cb-s-prompt-0": display.Mine(str(tmp_path), 300, 990.0),
              "cb-s-frozen-0": display.Mine(str(tmp_path), 0, 998.0)},
        others={"cb-m-prompt-0": "node7:42"},
        finished=[("cb-xs-prompt-0", 61.25, 12.0)], score="dev_score", seconds_left=75.0,
    )  # fmt: skip
    live = display.Live(lambda: now, "here:1", Console(file=io.StringIO()))
    drawn(live)
    clock[0] = 1005.0
    metrics.write_text('{"step": 100}\n{"step": 160}\n')
    lines = drawn(live)
    assert lines[0] == "3 of 9 done   3 running   1 failed   2 left   ETA 0:01:15"
    words = [line.split() for line in lines[2:]]
    assert words == [
        ["running", "worker", "step", "steps/s", "time"],
        ["cb-s-prompt-0", "here:1", "160/300", "12.0", "0:00:15"],
        ["cb-s-frozen-0", "here:1", "0:00:07"],
        ["cb-m-prompt-0", "node7:42"],
        ["done", "dev_score", "seconds"],
        ["cb-xs-prompt-0", "61.25", "12"],
    ]


def test_a_pipe_gets_lines(capsys):
    with display.choose(lambda: None, "here:1") as shown:
        shown.say("[1/2] cb")
    assert isinstance(shown, display.Lines)
    assert capsys.readouterr().out == "[1/2] cb\n"


@pytest.mark.slow
def test_a_terminal_gets_a_table(sweep_file):
    """The worker of test_workers.py, whose runs are half a second long, with a terminal."""
    settings = {
        "file": str(sweep_file), "events": str(sweep_file.parent / "events"), "lease_seconds": 60,
        "fails": "awful-b-model-1", "bucket": None,
    }  # fmt: skip
    worker = Path(__file__).parent / "sleeping_worker.py"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, str(worker), json.dumps(settings)]
    process = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    found = b""
    while True:
        try:
            found += os.read(ours, 4096)
        except OSError:  # the other side was closed
            break
    assert process.wait() == 2
    text = found.decode()
    assert "\x1b[" in text  # drawn in place
    assert "15/15" in text and "awful-b-model-1  FAILED on" in text
    assert "running" in text and "steps/s" in text and "ETA 0:00:0" in text
    assert "14 of 15 done   0 running   1 failed   0 left" in text
