"""Tests of experiments/speed: which cells are measured, and what is not measured again."""

import dataclasses
import io
import json
import subprocess
import sys
import time

import pytest

from experiments.speed import cells, flops, measuring, profile, rows, run
from experiments.speed.cells import EAGER, OURS, Cell
from prompt_tuning import config
from prompt_tuning.planning.flops import dimensions

CELL = Cell("training", "small", "float32", "rte")
ONE = ["--vocabulary=v", "--only", "peft/training/small/float32/rte/to512/dropout0.1"]


def row(cell=CELL, side=OURS, number=0, error=None, seconds=(1.0,)):
    result = {"error": error, "seconds": list(seconds)}
    result |= {"first_step_seconds": 1.0, "peak_bytes": 10**9}
    return rows.make(cell, side, number, result)


def test_the_grid_is_whole_and_has_no_cell_twice():
    grid = cells.grid()
    assert len({cell.name for cell in grid}) == len(grid)
    of_peft = [cell for cell in grid if cell.against == "peft" and not cell.fixed]
    # 3 tasks x 2 sizes x 2 precisions, for training at two rates and for two other kinds
    assert len(of_peft) == 3 * 2 * 2 * (2 + 2)
    fixed = {(cell.size, cell.dtype, cell.inputs, cell.dropout) for cell in grid if cell.fixed}
    assert fixed == {
        ("small", dtype, 512, rate) for dtype in ("float32", "bfloat16") for rate in (0.1, 0.0)
    }


def missing(path, *more):
    todo = run.missing(run.parse([*ONE, "--rows", str(path), *more]))
    return [f"{number} {side.name}/{side.variant}" for _, number, side in todo]


def test_sides_take_turns(tmp_path):
    assert missing(tmp_path / "rows", "--sides", "ours/default", "peft/eager") == [
        "0 ours/default", "0 peft/eager", "1 ours/default", "1 peft/eager",
    ]  # fmt: skip


def test_a_row_is_not_measured_again_and_a_failure_in_no_round(tmp_path):
    cell = dataclasses.replace(CELL, dropout=0.1)
    rows.append(tmp_path / "rows", row(cell, OURS, 1))
    rows.append(tmp_path / "rows", row(cell, cells.COMPILED, 0, error="not done after 1 s"))
    rows.append(tmp_path / "rows", row(CELL, EAGER, 0))  # of another cell
    sides = ["--sides", "ours/default", "peft/eager", "peft/compile"]
    assert missing(tmp_path / "rows", *sides) == [
        "0 ours/default", "0 peft/eager", "1 peft/eager",
    ]  # fmt: skip


def test_a_gpu_has_cells_and_sides_of_its_own(tmp_path):
    assert {cell.size for cell in cells.gpu()} == {"small", "base", "large", "xl"}
    assert {cell.dtype for cell in cells.gpu()} == {"bfloat16"}
    rate = {"training/xl": 0.1, "training/small": 0, "rank/xl": 0}
    of = {
        text: [side.variant for side in cells.sides(cell, gpu=True)]
        for cell in cells.gpu()
        for text, dropout in rate.items()
        if text in cell.name and cell.dropout == dropout
    }
    assert of == {
        "training/xl": ["default", "eager", "no-remat", "compile"],
        "training/small": ["default", "eager", "cudnn", "compile"],
        "rank/xl": ["default", "eager", "cudnn", "compile"],
    }
    named = ["--vocabulary=v", "--gpu", "--only", "training/xl", "dropout0.1", "--rounds=1"]
    todo = run.missing(run.parse([*named, f"--rows={tmp_path}/rows"]))
    assert [side.variant for _, _, side in todo] == of["training/xl"]


def test_a_row_of_a_gpu_names_it():
    result = {"error": None, "seconds": [1.0], "device": "NVIDIA H100 80GB HBM3"}
    assert rows.make(CELL, OURS, 0, result)["hardware"] == "NVIDIA H100 80GB HBM3"
    assert "cores" in rows.make(CELL, OURS, 0, result | {"device": "cpu"})["hardware"]


def test_a_line_cut_short_is_left_out_and_replaced(tmp_path):
    path = tmp_path / "rows"
    rows.append(path, row(number=0))
    with path.open("a") as file:
        file.write('{"name": "pe')
    assert [one["round"] for one in rows.read(path)] == [0]
    rows.append(path, row(number=1))
    assert [one["round"] for one in rows.read(path)] == [0, 1]


def test_the_driver_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    measured = []

    def work(self, cell, side, tokens):
        if side.variant == "tokens":
            tokens.touch()
            return {}
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(side.name)
        return {"seconds": [2.0, 1.0], "first_step_seconds": 3.0, "peak_bytes": 4}

    monkeypatch.setattr(run.Driver, "_work", work)
    command = [*ONE, "--sides", "ours/default", "peft/eager", "--our_python=o", "--peft_python=p"]
    command += [f"--data_dir={tmp_path}", f"--work_dir={tmp_path}/w", f"--rows={tmp_path}/rows"]
    with pytest.raises(KeyboardInterrupt):
        run.main(command)
    measured.clear()
    assert run.main(command) == 0
    assert run.main(command) == 0
    assert measured == ["ours", "peft"]
    stored = rows.read(tmp_path / "rows")
    assert [(one["side"], one["round"]) for one in stored] == [
        ("ours", 0), ("peft", 0), ("ours", 1), ("peft", 1),
    ]  # fmt: skip
    assert stored[0]["examples_per_step"] == 16
    assert "dropout0.1 peft/eager: 1.000 to 2.000 s a step" in capsys.readouterr().out


def test_an_unknown_cell_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"contains all of \['huge'\].*\npeft/training/small/"):
        run.chosen_cells(["huge"], cells.grid())


JOB = {
    "cell": dataclasses.asdict(CELL), "variant": "default", "steps": 4, "seconds": 9.0,
    "limit": 60.0, "tokens": "t", "data_dir": "d", "vocabulary": "v", "folder": "f",
}  # fmt: skip


def test_steps_run_once_before_they_are_timed():
    job = measuring.Job(**JOB | {"cell": CELL})
    calls = []
    steps = [lambda i=i: (calls.append(i), time.sleep(0.01)) for i in range(4)]
    result = measuring.measure(steps, job)
    assert calls == [0, 1, 2, 3] * 2
    assert len(result["seconds"]) == 4
    assert 0.01 <= min(result["seconds"])
    assert result["first_step_seconds"] > 0
    assert result["peak_bytes"] > 10**7
    calls.clear()
    quick = dataclasses.replace(job, seconds=0.0)
    assert len(measuring.measure(steps, quick, warm_up=1)["seconds"]) == measuring.LEAST_STEPS
    assert calls == [0, 0, 1, 2]


def test_a_worker_past_its_limit_is_a_failure(tmp_path):
    (tmp_path / "job").write_text(json.dumps(JOB | {"limit": 0.2}))
    code = "import time; from experiments.speed import measuring; measuring.read_job(); "
    command = [sys.executable, "-c", f"{code}time.sleep(60)", str(tmp_path / "job")]
    with (tmp_path / "log").open("w") as log:
        returned = run.run_group(command, log, {"PYTHONPATH": str(rows.ROOT)})
    assert returned == 1
    lines = (tmp_path / "log").read_text().splitlines()
    assert run.failure(lines, returned, 0.2) == "not done after 0 s"
    assert run.failure(["a", "MemoryError", ""], 1, 5) == "exit code 1: MemoryError"


def test_the_other_sides_sizes_are_those_of_gin_models():
    for name, size in flops.SIZES.items():
        assert size == dimensions(config.read_model(f"t5_1_1_{name}"))


def test_no_other_side_is_imported_here():
    code = "import sys, experiments.speed.run, experiments.speed.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=rows.ROOT)  # fmt: skip
    assert not {"torch", "jax", "matplotlib"} & {*done.stdout.split()}


def test_a_result_names_the_versions(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    measuring.report({"seconds": [1.0]}, "cpu")
    found = json.loads(printed.getvalue().removeprefix(measuring.MARK))
    assert found["device"] == "cpu"
    measuring.report({"seconds": [1.0], "peak_bytes": 1}, "a GPU", 2)
    assert json.loads(printed.getvalue().rpartition(measuring.MARK)[2])["peak_bytes"] == 2
    assert {"python", "jax", "numpy"} <= found["versions"].keys()


def test_a_profile_adds_up_operations_by_kind():
    def event(name, begin, seconds):
        return {"ts": begin * 1e6, "dur": seconds * 1e6, "args": {"hlo_op": name}}

    # alone for 1 s, then with the transpose for 2 s; a pause; alone for 1 s
    events = [event("dot.1", 0, 3), event("transpose.2", 1, 2), event("ynn_fusion", 5, 1)]
    events += [{"name": "a thread", "ph": "M", "args": {"name": "x"}}, {"name": "no arguments"}]
    assert profile.table(events).splitlines()[2:] == [
        "| products | 3.00 | 0.75 |", "| copies and transposes | 1.00 | 0.25 |",
    ]  # fmt: skip
