"""Runs the comparison: `python -m experiments.speed.run --superglue ARCHIVES --vocabulary FILE`.

It makes both environments, prepares the data, and measures every cell of `cells.py` on every side.
A row that is stored is not measured again, so the command can be stopped and repeated at any time.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.speed import cells, environments, rows
from experiments.speed.cells import Cell, Side
from experiments.speed.measuring import MARK, TIMEOUT


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.speed.run", description=__doc__)
    add = parser.add_argument
    add("--superglue", help="folder of the official archives, as for `prompt-tuning data prepare`")
    add("--vocabulary", required=True, help="T5's sentencepiece model")
    add("--work_dir", default="build/speed", type=Path, help="environments, data and logs")
    add("--data_dir", help="prepared data; without it, --superglue is prepared in --work_dir")
    add("--our_python", help="interpreter of an environment that exists")
    add("--newest_python", help="the same with Python 3.12 or later; without it, not measured")
    add("--peft_python", help="the same for the other side")
    add("--t5x_path", help="PYTHONPATH of T5X and what it needs, where our environment lacks it")
    add("--rows", default=rows.STORED, type=Path, help="file of the raw rows")
    add("--only", nargs="*", default=[], help="text in a cell's name, such as small/bfloat16/rte")
    add("--sides", nargs="*", default=[], help="such as ours peft/eager")
    add("--rounds", default=2, type=int, help="processes of each side and cell")
    add("--steps", default=6, type=int, help="timed steps of a process")
    add("--seconds", default=60.0, type=float, help="after which a process begins no more steps")
    add("--limit", default=420.0, type=float, help="seconds after which a process has failed")
    add("--wrap", default="", help="command that every worker is run by, such as 'taskset -c 0,1'")
    add("--gpu", action="store_true", help="the cells of a GPU instead of those of a CPU")
    add("--list", action="store_true", help="print the cells that would be measured")
    return parser.parse_args(arguments)


def chosen_cells(only: Sequence[str], grid: Sequence[Cell]) -> list[Cell]:
    """The cells whose names contain all of the texts."""
    found = [cell for cell in grid if all(text in cell.name for text in only)]
    if not found:
        names = "\n".join(cell.name for cell in grid)
        raise ValueError(f"No cell's name contains all of {list(only)}. The cells are\n{names}")
    return found


def missing(options: argparse.Namespace) -> list[tuple[Cell, int, Side]]:
    """What has no row yet, in the order of measuring: the sides of a round follow each other."""
    done = rows.finished(rows.read(options.rows))
    grid = cells.gpu() if options.gpu else cells.grid()
    wanted = [
        (cell, number, side)
        for cell in chosen_cells(options.only, grid)
        for number in range(options.rounds)
        for side in cells.sides(cell, gpu=options.gpu)
        if not options.sides or {side.name, f"{side.name}/{side.variant}"} & {*options.sides}
        if side.python != "newest" or options.newest_python
    ]
    return [one for one in wanted if rows.key(one[0], one[2], one[1]) not in done]


class Driver:
    """Runs workers, each in a process of its own."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.folder = options.work_dir.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        our = options.our_python or environments.ours(self.folder)
        self.pythons = {"ours": our, "newest": options.newest_python}
        self.data_dir = os.path.abspath(options.data_dir or self._prepare())

    def measure(self, cell: Cell, side: Side, number: int) -> dict:
        """Runs one side of a cell; a failure is a row too."""
        if side.python == "peft" and "peft" not in self.pythons:
            named = self.options.peft_python
            self.pythons["peft"] = named or environments.peft(self.folder)
        tokens = self.folder / f"tokens_{cell.task}_{cell.inputs}_{self.options.steps}.npz"
        if not tokens.exists():
            self._work(cell, dataclasses.replace(cells.OURS, variant="tokens"), tokens)
        return rows.make(cell, side, number, self._work(cell, side, tokens))

    def _work(self, cell: Cell, side: Side, tokens: Path) -> dict:
        job = {
            "cell": dataclasses.asdict(cell),
            "variant": side.variant,
            "steps": self.options.steps,
            "seconds": self.options.seconds,
            "tokens": str(tokens),
            "limit": self.options.limit,
            "data_dir": self.data_dir,
            "vocabulary": os.path.abspath(self.options.vocabulary),
            "folder": str(self.folder),
        }
        path = self.folder / "job.json"
        module = f"experiments.speed.{side.worker}"
        command = [self.pythons[side.python], "-m", module, str(path)]
        log = self.folder / "logs" / f"{cell.name}-{side.name}-{side.variant}.log".replace("/", "_")
        log.parent.mkdir(exist_ok=True)
        with log.open("w", encoding="utf-8") as out:
            path.write_text(json.dumps(job), encoding="utf-8")
            wrap = shlex.split(self.options.wrap)
            returned = run_group([*wrap, *command], out, self._environment())
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        results = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
        if returned == 0 and (results or side.variant == "tokens"):
            return json.loads(results[-1]) if results else {}
        if side.variant == "tokens":
            raise ValueError(f"The batches of {cell.task} could not be written, see {log}.")
        return {"error": failure(lines, returned, self.options.limit), "seconds": []}

    def _environment(self) -> dict[str, str]:
        found = [str(environments.ROOT), self.options.t5x_path, os.environ.get("PYTHONPATH")]
        path = os.pathsep.join(part for part in found if part)
        return os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def _prepare(self) -> str:
        if not self.options.superglue:
            raise ValueError("--superglue or --data_dir is needed: the text that is measured on.")
        folder = self.folder / "data"
        command = [self.pythons["ours"], "-m", "prompt_tuning.cli", "data", "prepare"]
        command += ["--source", self.options.superglue, "--data_dir", str(folder), "--only"]
        command += [name.partition(":")[0] for name in cells.TASKS.values()]
        subprocess.run(command, check=True, env=self._environment())
        return str(folder)


def run_group(command: list[str], out, environment: dict[str, str]) -> int:
    """Runs a command in the repository's folder, and ends what it leaves running."""
    process = subprocess.Popen(
        command, stdout=out, stderr=subprocess.STDOUT, cwd=environments.ROOT, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def failure(lines: Sequence[str], returned: int, limit: float) -> str:
    """Says in a line why a worker has no result."""
    if any(line.startswith(TIMEOUT) for line in lines):
        return f"not done after {limit:.0f} s"
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"exit code {returned}: {last[:300]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what has no row yet."""
    options = parse(arguments)
    todo = missing(options)
    if options.list:
        print("\n".join(f"{cell.name} {side.name}/{side.variant} {n}" for cell, n, side in todo))
        return 0
    driver = Driver(options) if todo else None
    for place, (cell, number, side) in enumerate(todo, start=1):
        if rows.key(cell, side, number) in rows.finished(rows.read(options.rows)):
            continue  # it failed in an earlier round
        began = time.monotonic()
        row = driver.measure(cell, side, number)
        rows.append(options.rows, row)
        spent = time.monotonic() - began
        outcome = row["error"] or f"{min(row['seconds']):.3f} to {max(row['seconds']):.3f} s a step"
        what = f"{cell.name} {side.name}/{side.variant}"
        print(f"{place}/{len(todo)} {what}: {outcome} ({spent:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
