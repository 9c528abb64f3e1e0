"""Tests of `--profile_steps`."""

import gzip
import json
import re

import jax
import pytest
import tiny_runs

from prompt_tuning import cli
from prompt_tuning.training import loop

pytestmark = pytest.mark.usefixtures("quick")


def steps_of_trace(model_dir):
    (path,) = (model_dir / "profile" / "plugins" / "profile").glob("*/perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    return sorted({e["args"]["step_num"] for e in events if e.get("name") == "train"}, key=int)


def test_the_trace_has_the_steps_and_the_run_is_as_without_one(tmp_path, prompted, capsys):
    loop.train_run(tiny_runs.load_run(tmp_path, "Run.profile_steps=(2, 3)"))
    assert steps_of_trace(tmp_path) == ["2", "3"]
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    assert f"trace written to {tmp_path}/profile" in capsys.readouterr().out
    last = tiny_runs.prompt_bytes(prompted.run.model_dir, "step_000006")
    assert tiny_runs.prompt_bytes(tmp_path, "step_000006") == last


def test_an_error_between_the_steps_leaves_the_trace_and_no_profiler(tmp_path, monkeypatch):
    with tiny_runs.scripted([float("nan")]):
        tiny_runs.at_step(monkeypatch, 3, lambda: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError, match="broken"):
            loop.train_run(tiny_runs.load_run(tmp_path, "Run.profile_steps=(2, 5)"))
    assert "2" in steps_of_trace(tmp_path)
    jax.profiler.start_trace(str(tmp_path / "free"))  # raises if another one is running
    jax.profiler.stop_trace()


def test_a_process_that_does_not_run_the_steps_says_so(tmp_path, capsys):
    loop.train_run(tiny_runs.load_run(tmp_path, "TRAIN_STEPS=4"))
    loop.train_run(tiny_runs.load_run(tmp_path, "Run.profile_steps=(2, 3)"))
    assert "no trace was written: this process did not run step 2" in capsys.readouterr().out
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("steps", [(0, 2), (3, 2), (2, 7), (2,), 5, (True, 2), "2:3"])
def test_steps_that_cannot_be_traced_are_refused(tmp_path, steps):
    expected = "Run.profile_steps must be the first and the last step to trace, from 1 to "
    expected += f"TRAIN_STEPS, 6, such as (10, 13); got {steps!r}."
    with pytest.raises(ValueError, match=re.escape(expected)):
        tiny_runs.make_run(tmp_path, profile_steps=steps)


def test_a_trace_needs_a_local_folder():
    with pytest.raises(ValueError, match="writes a trace to MODEL_DIR, which must be local"):
        tiny_runs.make_run("gs://bucket/run", profile_steps=(1, 2))


@pytest.mark.parametrize("text, steps", [("10:13", "(10, 13)"), ("4", "(4, 4)")])
def test_the_option_sets_the_field(monkeypatch, text, steps):
    bindings = []
    monkeypatch.setattr("prompt_tuning.config.load", lambda files, given, paths: given)
    monkeypatch.setattr(cli, "_train", lambda options: bindings.extend(cli._load_run(options)))
    assert cli.main(["train", f"--profile_steps={text}"]) == 0
    assert bindings == [f"Run.profile_steps={steps}"]


def test_an_option_that_is_no_range_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--profile_steps=a:b"])
    assert "--profile_steps: expected a whole number, 1 or more; got 'a'" in capsys.readouterr().err
