"""Tests of prompt_tuning/sweeps/status.py: what other processes see of a sweep."""

import json
import re

import pytest

from prompt_tuning.cli import main
from prompt_tuning.sweeps import leases, measure, runner, status


@pytest.fixture
def begun(sweep_file, monkeypatch):
    """Two of the five cells of size a are done, one failed, one runs elsewhere."""

    def run(run, train, **more):
        if run.model_dir.endswith("prompt-1"):
            raise FloatingPointError("the loss is nan")
        return {"best": {"dev_score": 50.0}}

    monkeypatch.setattr(measure, "measure", run)
    only = ["task=awful", "size=a", "method=prompt"]
    with pytest.raises(ValueError, match="1 of 2 runs failed"):
        runner.run_sweep(str(sweep_file), only=only)
    runner.run_sweep(str(sweep_file), only=["task=awful", "size=a", "method=frozen"])
    other = leases.Cells(str(sweep_file.parent / "results"))
    other.host, other.process = "node7", 4242
    lease = other.claim("awful-a-model-0", None)
    folder = sweep_file.parent / "runs" / "awful-a-model-0"
    folder.mkdir()
    lines = [{"step": 1, "split": "train"}, {"step": 2, "split": "validation"}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"ste')
    return lease


def test_the_states(sweep_file, begun, capsys):
    before = sorted(path.name for path in sweep_file.parent.rglob("*"))
    assert (
        main(["sweep", "status", str(sweep_file.parent), "--only=task=awful", "--only=size=a"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 of 5 runs done, 1 running, 1 failed, 1 left; ETA 0:00:0")
    assert lines[0].endswith(" with 1 worker")
    assert lines[1] == "running  awful-a-model-0  on node7:4242  for 0:00:00  step 2 of 4"
    failed = r"failed   awful-a-prompt-1  on \S+:\d+  FloatingPointError: the loss is nan"
    assert re.fullmatch(failed, lines[2])
    assert lines[3] == "`sweep run --retry_failed` runs what failed again."
    assert sorted(path.name for path in sweep_file.parent.rglob("*")) == before


def test_a_worker_of_this_host_that_was_killed(sweep_file, begun):
    cells = leases.Cells(str(sweep_file.parent / "results"))
    cells.process = 2**22 + 1  # above the largest number of a process
    cells.claim("awful-a-model-1", None)
    found = status.read(str(sweep_file), only=["method=model", "size=a"])
    assert [(one.key, one.is_dead) for one in found.running] == [
        ("awful-a-model-0", False),
        ("awful-a-model-1", True),
    ]
    assert "its process has ended; `sweep run` takes it over" in str(found)


def test_before_and_after(sweep_file, monkeypatch):
    assert str(status.read(str(sweep_file))) == (
        "0 of 15 runs done, 0 running, 0 failed, 15 left; ETA unknown, nothing is done yet"
    )
    monkeypatch.setattr(measure, "measure", lambda *a, **k: {"best": {"dev_score": 50.0}})
    runner.run_sweep(str(sweep_file))
    assert str(status.read(str(sweep_file))) == "15 of 15 runs done, 0 running, 0 failed, 0 left"


def test_a_run_in_a_bucket_is_seen(bucket):
    folder = bucket.folder / "bucket" / "run"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 30}\n')
    assert status.step_of("gs://bucket/run") == 30
    assert status.step_of("gs://bucket/other") is None


def test_the_eta_is_shared_by_the_workers():
    running = [status.Running(f"k{i}", f"node:{i}", 10.0, None, 0, False) for i in range(4)]
    found = status.Status(total=9, done=1, running=running, failed={}, seconds_left=400.0)
    assert "4 left; ETA 0:01:40 with 4 workers" in str(found)
