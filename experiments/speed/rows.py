"""The raw results: a line of JSON for each side, cell and round, and what was done already."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from experiments.speed.cells import Cell, Side

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).with_name("rows.jsonl")


def read(path: Path) -> list[dict]:
    """Reads all rows; a last line that was cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append(path: Path, row: dict) -> None:
    """Adds a row; completes a line that was cut short, so that it spoils no other."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def key(cell: Cell, side: Side, number: int) -> tuple:
    """What a row is the result of."""
    return (cell.name, side.name, side.variant, number)


def finished(rows: Iterable[dict]) -> set[tuple]:
    """The keys of rows; a failure counts for all rounds, so that none waits for it again."""
    done = set()
    for row in rows:
        numbers = range(100) if row["error"] else [row["round"]]
        done |= {(row["name"], row["side"], row["variant"], number) for number in numbers}
    return done


def make(cell: Cell, side: Side, number: int, result: dict) -> dict:
    """A row."""
    return {
        "name": cell.name,
        "cell": dataclasses.asdict(cell),
        "side": side.name,
        "variant": side.variant,
        "round": number,
        "examples_per_step": cell.examples_per_step,
        "error": None,
        **result,
        "hardware": hardware(result.get("device", "cpu")),
        "commit": commit(),
    }


def hardware(device: str = "cpu") -> str:
    """The name of an accelerator, or the CPU and the cores that this process may use.

    Family and model are part of it: several generations are called 'AMD EPYC'.
    """
    if device != "cpu":
        return device
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = [] if not info.exists() else info.read_text(encoding="utf-8").splitlines()
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    names = [found.get(name, "").strip() for name in ("model name", "cpu family", "model")]
    name = f"{names[0]} {names[1]}/{names[2]}" if all(names) else platform.processor()
    return f"{name}, {cores} cores"


def commit() -> str:
    """The commit of this repository, marked if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
