"""Several real processes work on one sweep, in a folder and in a bucket; one of them is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prompt_tuning.sweeps import grid, results

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "sleeping_worker.py"
FAILS = "true-a-model-1"
PATIENCE_SECONDS = 120


class Workers:
    """Processes of one sweep, whose runs are half a second long each.

    Attributes:
      file: of the sweep, as the processes see it.
      seen: the folder that holds it, on this machine.
    """

    def __init__(self, file, seen, **settings):
        self.file, self.seen = file, seen
        self.events = seen / "events.txt"
        self._settings = {"file": file, "events": str(self.events), "lease_seconds": 6} | settings
        self.processes = []

    def start(self):
        command = [sys.executable, str(WORKER), json.dumps(self._settings)]
        kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        self.processes.append(subprocess.Popen(command, env=environment, **kinds))

    def noted(self, what):
        """The lines of the events file that begin with a word, split."""
        text = self.events.read_text() if self.events.exists() else ""
        return [line.split() for line in text.splitlines() if line.startswith(what)]

    def ended(self):
        """Exit code and output of every process, oldest first."""
        outputs = [each.communicate(timeout=PATIENCE_SECONDS)[0] for each in self.processes]
        return [(each.returncode, out) for each, out in zip(self.processes, outputs, strict=True)]


@pytest.fixture(params=["folder", "bucket"])
def workers(request, sweep_file):
    """Of a sweep of fifteen cells, one of which fails."""
    if request.param == "folder":
        made = Workers(str(sweep_file), sweep_file.parent, fails=FAILS, bucket=None)
    else:
        bucket = request.getfixturevalue("bucket")
        seen = bucket.folder / "bucket" / "sweep"
        seen.mkdir(parents=True)
        text = sweep_file.read_text().replace(f"{sweep_file.parent}/runs", "gs://bucket/sweep/runs")
        (seen / "sweep.toml").write_text(text)
        server = os.environ["TENSORSTORE_GCS_HTTP_URL"]
        made = Workers(
            "gs://bucket/sweep/sweep.toml", seen,
            fails=FAILS, bucket=str(bucket.folder), server=server,
        )  # fmt: skip
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def wait_for(condition):
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_workers_share_a_sweep_and_one_is_killed(workers):
    for _ in range(3):
        workers.start()
    by_process = {process.pid: process for process in workers.processes}
    _, key, process, first = wait_for(lambda: workers.noted("begin"))[0]
    assert first == "0"
    step = workers.seen / "runs" / key / "step"
    wait_for(lambda: step.exists() and int(step.read_text()) >= 2)
    by_process[int(process)].send_signal(signal.SIGKILL)
    killed = workers.processes.index(by_process[int(process)])
    ended = workers.ended()

    assert ended[killed][0] == -signal.SIGKILL
    survivors = [each for number, each in enumerate(ended) if number != killed]
    keys = [cell.key for cell in grid.read_sweep(workers.file).cells]
    finished = [words[1] for words in workers.noted("end")]
    assert sorted(finished) == sorted(set(keys) - {FAILS})  # none of them twice
    begun = [words[1:] for words in workers.noted("begin")]
    assert sorted(each[0] for each in begun) == sorted([*keys, key])  # the killed one twice
    again = next(each for each in begun if each[0] == key and each[1] != process)
    assert int(again[2]) >= 2  # resumed
    assert len({each[1] for each in begun}) == 3

    found = results.read_results(grid.read_sweep(workers.file))
    assert found.keys() == set(keys) - {FAILS}
    assert {name for name in os.listdir(workers.seen / "results") if ".json" in name} == {
        f"{key}.json" for key in found
    }
    assert sorted(os.listdir(workers.seen / "results" / "attempts")) == [
        f"{FAILS}.1.json",
        f"{FAILS}.2.json",
    ]
    for code, out in survivors:
        assert code == 2
        assert f"error: 1 of 15 runs failed: {FAILS}." in out
        failed = rf"/15  {FAILS}  FAILED on \S+: FloatingPointError: the loss is nan\n"
        assert re.search(failed, out)
    taken = rf"{key}  begins on \S+, taken over from \S+:{process}, not heard of for [6-9] s\n"
    assert len(re.findall(taken, "".join(out for _, out in survivors))) == 1


def test_what_failed_is_retried_on_request(workers):
    for _ in range(2):
        workers.start()
    assert [code for code, _ in workers.ended()] == [2, 2]
    workers._settings["fails"] = None
    workers.processes.clear()
    workers.start()
    ((code, out),) = workers.ended()
    assert code == 2 and "error: 1 of 1 runs failed" in out
    workers._settings["options"] = ["--retry_failed"]
    workers.processes.clear()
    workers.start()
    ((code, out),) = workers.ended()
    assert code == 0, out
    assert "15 runs, 14 of them done already" in out
    assert workers.noted("begin")[-1][1:] == [FAILS, str(workers.processes[0].pid), "3"]
    assert len(results.read_results(grid.read_sweep(workers.file))) == 15
    assert os.listdir(workers.seen / "results" / "attempts") == []


def test_a_worker_that_was_frozen_loses_its_run(workers):
    """SIGSTOP for longer than a lease: when it goes on, another has run the cell to its end."""
    workers.start()
    _, key, process, _ = wait_for(lambda: workers.noted("begin"))[0]
    workers.processes[0].send_signal(signal.SIGSTOP)
    workers.start()
    wait_for(lambda: any(words[1] == key for words in workers.noted("end")))
    (workers.seen / "runs" / key / "step").write_text("1")  # it would go on for nine steps
    workers.processes[0].send_signal(signal.SIGCONT)
    (_, frozen), (code, _) = workers.ended()
    assert code == 2
    ends = [words[1] for words in workers.noted("end") if words[2] != process]
    assert ends.count(key) == 1
    result = json.loads((workers.seen / "results" / f"{key}.json").read_text())
    assert result["worker"].endswith(f":{workers.processes[1].pid}")
    assert f"{key}  LOST on " in frozen
