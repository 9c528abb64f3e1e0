"""Tests of prompt_tuning/training/lock.py: with real processes, one of them killed."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from prompt_tuning.training import lock

HOLD = """
import sys
from prompt_tuning.training import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start():
    """Starts processes that hold the lock of a folder until their input ends."""
    started = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, start):
    folder = tmp_path / "run"
    first = start(folder)
    assert first.stdout.readline() == "held\n"
    written = json.loads((folder / "train.lock").read_text())
    assert written["process"] == first.pid
    second = start(folder)
    assert second.wait(timeout=60) == 1
    message = (
        f"{folder} is locked by process {first.pid} on {written['host']} since "
        f"{written['since']}, which trains in it. Wait for it to end, stop it, or choose another "
        "MODEL_DIR."
    )
    assert message in second.stderr.read()

    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    assert (folder / "train.lock").exists(), "a kill leaves the file behind"
    third = start(folder)
    assert third.stdout.readline() == "held\n"
    third.communicate("")
    assert third.returncode == 0
    assert list(folder.iterdir()) == []


def test_a_second_run_of_one_process_is_refused(tmp_path):
    with lock.held(str(tmp_path)):
        with pytest.raises(ValueError, match=f"by process {os.getpid()} on ") as refused:
            with lock.held(str(tmp_path)):
                pass
        found = []

        def other_thread():
            try:
                with lock.held(str(tmp_path)):
                    found.append("held")
            except ValueError as error:
                found.append(str(error))

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert found == [str(refused.value)]
        with lock.held(str(tmp_path / "another")):
            pass
    with pytest.raises(KeyboardInterrupt), lock.held(str(tmp_path)):
        raise KeyboardInterrupt
    with lock.held(str(tmp_path)):  # released
        pass


def test_a_file_that_a_killed_process_left_does_not_block(tmp_path):
    (tmp_path / "train.lock").write_text('{"host": "gone", "process": 1, "since": "2001"}')
    with lock.held(str(tmp_path)):
        assert json.loads((tmp_path / "train.lock").read_text())["process"] == os.getpid()
        (tmp_path / "train.lock").write_text("{")
        with pytest.raises(ValueError, match=re.escape("by another process, which")):
            with lock.held(str(tmp_path)):
                pass


def test_a_lock_that_was_unlinked_meanwhile_does_not_count(tmp_path, monkeypatch):
    """The holder ends between our open and our lock."""
    path, take = tmp_path / "train.lock", lock.fcntl.flock
    unlinked = []

    def flock(handle, how):
        if not unlinked:
            unlinked.append(path.unlink())
        take(handle, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.held(str(tmp_path)):
        assert json.loads(path.read_text())["process"] == os.getpid()
        with pytest.raises(ValueError, match="is locked by process"):
            with lock.held(str(tmp_path)):
                pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
    def flock(handle, how):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.held(str(tmp_path)):
        pass
    assert "is on a file system without locks" in capsys.readouterr().out
