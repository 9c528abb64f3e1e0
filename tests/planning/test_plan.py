"""Tests of prompt_tuning/planning: a tiny model on this machine, refusals, and the roofline."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import pytest
import tiny_runs
from config_parts import PARTS

from prompt_tuning import cli
from prompt_tuning.model import dropout
from prompt_tuning.model.compute import Compute
from prompt_tuning.planning import compiling, plan, program, report, targets
from prompt_tuning.planning.compiling import Compiled, Memory
from prompt_tuning.planning.targets import Target
from prompt_tuning.training import resume, setup

CPU = Target("cpu", "cpu", jax.devices()[:1], 1, 2**30, 1e9, 1e9, "made up")
ONE = {"data": 1, "model": 1}
FILES = [f"--gin_file={part}" for part in PARTS]
TINY = [*FILES, *(f"--gin.{binding}" for binding in tiny_runs.BINDINGS)]


def run_of(**changes):
    return tiny_runs.make_run("unused", **changes)


def tpu(count=8, usable=2**30):
    """A target whose devices are counted and never used."""
    return Target("v5e:2x4", "tpu", [None] * count, count, usable, 1e9, 1e9, "made up")


def test_a_plan_of_this_machine():
    run = run_of(microbatch_rows=8, model=dataclasses.replace(tiny_runs.MODEL, dropout_rate=0.0))
    made = plan.make(run, CPU)
    memory = made.compiled.memory
    assert made.fits and (made.compiled.rows, made.compiled.parts) == (8, 1)
    # parameters, prompt [4, 16], its second moment, the batch: 8 x (48 + 3 x 8) x 4 bytes
    least = tiny_runs.MODEL_BYTES + 2 * 4 * 16 * 4 + 8 * (48 + 3 * 8) * 4
    assert least <= memory.arguments < least + 64  # and the optimizer's counts
    assert memory.temporaries > 8 * 2 * 52 * 52 * 4  # the scores of a layer, kept
    assert made.steps == 6 and made.seconds > 0
    assert made.chip_hours == made.hours == 6 * made.seconds / 3600


def test_arrays_are_those_of_a_run():
    """What is planned has the shapes, types and tree of what a run computes with."""
    run = run_of(layers="scan")
    compute = Compute(layers="scan")
    made = program.make(run, compute, rows=8)
    from prompt_tuning.inference import loading

    t5 = loading.load_t5(run, loading.prepare_task(run))
    parameters = setup.split_parameters(run, t5)
    state = resume.fresh_state(parameters.trainable, run.optimizer())
    kind = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert kind(made.frozen) == kind(parameters.frozen)
    assert kind(made.state.trainable) == kind(state.trainable)
    assert kind(made.state.opt_state) == kind(state.opt_state)
    keys = jax.random.split(jax.random.key(0), 8)
    drawn = dropout.draw(keys, run.model, input_length=52, length=8)
    assert kind(made.masks) == kind(drawn)


def test_more_rows_take_more():
    few = compiling.compile_step(run_of(microbatch_rows=4), Compute(), CPU, ONE)
    many = compiling.compile_step(run_of(microbatch_rows=8), Compute(), CPU, ONE)
    assert (few.rows, few.parts) == (4, 2)
    assert few.memory.temporaries < 0.75 * many.memory.temporaries


def test_what_does_not_fit():
    made = plan.make(run_of(microbatch_rows=8), CPU._replace(usable_bytes=50_000))
    assert not made.fits and made.largest_batch is None
    assert "does not fit" in report.text(made, "tiny")


def test_axes_from_the_smallest_that_may_fit():
    run = run_of(model=dataclasses.replace(tiny_runs.MODEL, num_heads=4))
    assert plan.possible_axes(run, tpu(8)) == [
        {"data": 8, "model": 1},
        {"data": 4, "model": 2},
        {"data": 2, "model": 4},
    ]
    held = tiny_runs.MODEL_BYTES * 3 // 4
    assert [axes["model"] for axes in plan.possible_axes(run, tpu(8, usable=held))] == [2, 4]
    assert [axes["model"] for axes in plan.possible_axes(run, tpu(8, usable=10))] == [4]


def test_the_mesh_of_a_run_is_used():
    run = run_of(mesh={"data": 4, "model": 2})
    assert plan.possible_axes(run, tpu(8)) == [{"data": 4, "model": 2}]


def test_the_roofline_is_the_larger_time():
    run = run_of(model=dataclasses.replace(tiny_runs.MODEL, dropout_rate=0.0))
    compiled = Compiled(ONE, 8, 2, Memory(1, 1, 1, 1), None, 1.0)
    target = tpu(4)
    # 8e9 operations on four devices of 1e9
    assert plan.roofline(run, target, compiled, 8 * 10**9, "none") == (2.0, "operations")
    # two micro-batches, forward and backward, with computing again three passes
    moved = 2 * tiny_runs.MODEL_BYTES / 1e9
    assert plan.roofline(run, target, compiled, 0, "none") == (2 * moved, "memory")
    assert plan.roofline(run, target, compiled, 0, "layer")[0] == pytest.approx(3 * moved)


def test_largest_batch_is_found_in_few_compilations(monkeypatch):
    """1,000 bytes a row beside the parameters, and room for 100 rows of a device."""
    held, tried = tiny_runs.MODEL_BYTES, []

    def compiled(run, chosen, target, axes):
        tried.append(run.batch_size)
        total = held + 1000 * run.batch_size // axes["data"]
        return Compiled(axes, run.batch_size, 1, Memory(held, 0, 0, total), None, 1.0)

    monkeypatch.setattr(compiling, "compile_step", compiled)
    axes = {"data": 4, "model": 1}
    first = Compiled(axes, 8, 1, Memory(held, 0, 0, held + 2000), None, 1.0)
    target = tpu(4, usable=held + 100_500)
    assert plan.largest_batch(run_of(), Compute(), target, first) == 4 * 96
    assert tried == [4 * 96]


def test_needed_bytes_are_read_from_the_refusal():
    text = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (19.50G) exceeds"
    assert compiling._needed(text) == 19.5 * 2**30
    assert compiling._needed("Used 512.0M of 256.0M hbm") == 512 * 2**20
    assert compiling._needed("something else") is None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--on", "v9:2x2"], "Unknown TPU slice 'v9:2x2'. Known: v4:1x1x1"),
        (["--on", "v5e:2x3"], "v5e has no slice '2x3'. Known: v5e:1x1"),
        (["--sweep", "a.toml"], "A plan is that of a run (--gin_file) or of a sweep (--sweep)"),
        (["--gin.Run.packing=True"], "rows of a packed batch depend on the data"),
    ],
)
def test_refusals(extra, message, capsys, monkeypatch):
    monkeypatch.setattr(targets, "use_host", lambda: None)
    monkeypatch.setattr(targets, "host", lambda dtype: CPU)
    assert cli.main(["plan", *TINY, *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_libtpu_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^A plan for v5e:2x2 needs .* pip install '.\[plan\]'"):
        targets.tpu("v5e:2x2")


def test_a_batch_that_cannot_be_split():
    with pytest.raises(ValueError, match="BATCH_SIZE 6 cannot be split over 8 devices"):
        plan.check(run_of(batch_size=6), tpu(8))
    with pytest.raises(ValueError, match="does not divide BATCH_SIZE, 6"):
        plan.check(run_of(batch_size=6, mesh={"data": 4, "model": 2}), tpu(8))
    with pytest.raises(ValueError, match="microbatch_rows=4 rows cannot be split over 8 devices"):
        plan.check(run_of(microbatch_rows=4), tpu(8))


def test_a_plan_reads_no_data_and_no_checkpoint(capsys, monkeypatch, tmp_path):
    """From the command line, of a task whose data and vocabulary are not there."""
    monkeypatch.setattr(targets, "host", lambda dtype: CPU)
    monkeypatch.chdir(tmp_path)
    gin_files = [one for one in FILES if "gin/tasks/" not in one] + [
        "--gin_file=gin/tasks/boolq.gin",
        "--gin.VOCABULARY_FILE=/nowhere/sentencepiece.model",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 4}",
    ]
    names = [one for one in TINY if one.startswith("--gin.") and "CHECKPOINT" not in one]
    assert cli.main(["plan", "--quick", *gin_files, *names]) == 0
    printed = capsys.readouterr().out
    assert "batch 8, 32 inputs on cpu: 1 chip, 1 device" in printed
    assert ": fits\n" in printed and "steps" in printed
    assert not any(tmp_path.iterdir())


SWEEP = """
runs = "unused"
gin_files = [{files}]
bindings = [{bindings}]
seeds = [0, 1, 2]
[report]
score = "dev_score"
panels = "a"
x = "rate"
lines = "length"
[axes.a.one]
[axes.rate.low]
bindings = ["adafactor.learning_rate = 0.1"]
[axes.rate.high]
bindings = ["adafactor.learning_rate = 0.3"]
[axes.length.short]
bindings = ["TRAIN_STEPS = 10"]
[axes.length.long]
bindings = ["TRAIN_STEPS = 100", "Run.microbatch_rows = 4"]
[axes.length.none]
train = false
"""


def test_a_sweep_compiles_each_program_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(targets, "host", lambda dtype="float32": CPU)
    quoted = [", ".join(map(json.dumps, one)) for one in (PARTS, tiny_runs.BINDINGS)]
    (tmp_path / "sweep.toml").write_text(SWEEP.format(files=quoted[0], bindings=quoted[1]))
    assert cli.main(["plan", f"--sweep={tmp_path}/sweep.toml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "12 runs on cpu"
    assert lines[1].startswith("  one-low-short-0 and 5 more: ") and "60 steps of" in lines[1]
    assert lines[2].startswith("  one-low-long-0 and 5 more: ") and "600 steps of" in lines[2]
    assert lines[3].startswith("  660 steps, ")


LIBTPU = """
from prompt_tuning.planning import plan, targets
targets.use_host()
import jax, tiny_runs
run = tiny_runs.make_run("unused", mesh={"data": 2, "model": 2})
target = targets.tpu("v5e:2x2")
made = plan.make(run, target, largest=False)
assert made.fits and made.compiled.axes == {"data": 2, "model": 2}, made
assert len(targets.tpu("v5e:1x1").devices) == 1
assert len(targets.tpu("v4:2x2x1").devices) == 4
assert len(targets.tpu("tpu7x:2x2x1").devices) == 8
print("planned", made.compiled.memory.total)
"""


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_tiny_model_on_a_tpu_that_is_not_there():
    environment = {"PYTHONPATH": "tests:.", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", LIBTPU], capture_output=True, text=True, env=environment, check=False
    )
    assert "planned" in done.stdout, done.stderr[-3000:]
