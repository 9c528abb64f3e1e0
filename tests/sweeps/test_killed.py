"""A sweep that is killed (SIGKILL) and started again ends with the rows of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.sweeps import grid, results

pytestmark = pytest.mark.slow

ONLY = ["--only=task=awful", "--only=size=a"]
OF_A_PROCESS = {"seconds", "worker", "peak_memory_bytes", "device_peak_bytes"}
PATIENCE_SECONDS = 300


def start(path):
    command = [sys.executable, "-m", "prompt_tuning.cli", "sweep", "run", str(path), *ONLY]
    kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    options = ["--lease_seconds=5", "--keep=all"]
    return subprocess.Popen([*command, *options], env=environment, **kinds)


def rows(path):
    """What was measured; what a process took is left out."""
    found = results.read_results(grid.read_sweep(str(path)))
    return {
        key: {name: x for name, x in record.items() if name not in OF_A_PROCESS}
        for key, record in found.items()
    }


def sweep_in(folder, text):
    folder.mkdir()
    (folder / "sweep.toml").write_text(text.replace("@", str(folder)))
    return folder / "sweep.toml"


def test_the_rows_are_those_of_an_uninterrupted_sweep(sweep_file):
    """Killed twice: in the first run that trains, after it was saved, and later."""
    text = sweep_file.read_text().replace(str(sweep_file.parent), "@")
    text = text.replace("TRAIN_STEPS = 4", "TRAIN_STEPS = 40")
    whole, killed = (sweep_in(sweep_file.parent / name, text) for name in ("whole", "killed"))
    process = start(whole)
    assert process.communicate(timeout=PATIENCE_SECONDS) and process.returncode == 0

    for key in ("awful-a-prompt-0", "awful-a-model-0"):
        process = start(killed)
        state = killed.parent / "runs" / key / "state"
        until = time.monotonic() + PATIENCE_SECONDS
        while not (state.is_dir() and any(name.isdigit() for name in os.listdir(state))):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed.parent / "results" / f"{key}.json").exists()
    process = start(killed)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out
    assert "taken over from" in out
    log = (killed.parent / "runs" / "awful-a-model-0" / "log.txt").read_text()
    assert "resuming at step" in log
    found, expected = rows(killed), rows(whole)
    assert len(found) == 5
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
