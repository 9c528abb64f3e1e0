"""Where the time of a cell goes: `python -m experiments.speed.profile CELL --data_dir ... `.

Traces one step of ours with `jax.profiler` and adds up the time of XLA's operations by kind. Time
in which several operations run at once is divided between them.

    python -m experiments.speed.profile peft/rank/small/bfloat16/rte/to512/dropout0 \\
        --data_dir build/speed/data --vocabulary spiece.model
"""

import argparse
import collections
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments.speed import cells, worker_ours
from experiments.speed.measuring import Job

KINDS = {
    "dot": "products",
    "convolution": "products",
    "custom-call": "products",
    "ynn_fusion": "products",
    "reduce": "sums and maxima",
    "exponential": "softmax and the like",
    "convert": "conversions",
    "copy": "copies and transposes",
    "transpose": "copies and transposes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.speed.profile")
    parser.add_argument("cell", help="a name that `run --list` prints")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--vocabulary", required=True)
    options = parser.parse_args(arguments)
    (cell,) = [cell for cell in cells.grid() if cell.name == options.cell]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(cell, "default", 2, 60, 600, "", options.data_dir, options.vocabulary, folder)
        run = worker_ours.make_run(job)
        steps = worker_ours.steps_of(run, cell.kind, 2)
        for step in steps:
            step()  # compiles
        began = time.perf_counter()
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            steps[0]()
        spent = time.perf_counter() - began
        (path,) = Path(folder).rglob("perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    print(f"{cell.name}, jax {jax.__version__}, traced step {spent:.2f} s")
    print(table(events))
    return 0


def table(events: Sequence[dict]) -> str:
    """Seconds of each kind of operation, and its share of them all."""
    seconds = shared_seconds([event for event in events if "hlo_op" in event.get("args", {})])
    total = sum(seconds.values())
    lines = ["| operations | seconds | share |", "| --- | ---: | ---: |"]
    for name, spent in seconds.most_common():
        lines.append(f"| {name} | {spent:.2f} | {spent / total:.2f} |")
    return "\n".join(lines)


def shared_seconds(events: Sequence[dict]) -> collections.Counter:
    """Seconds of each kind; time that n operations share counts 1/n for each."""
    seconds: collections.Counter = collections.Counter()
    moments = [(event["ts"], 1, number) for number, event in enumerate(events)]
    moments += [(event["ts"] + event["dur"], 0, number) for number, event in enumerate(events)]
    running: set[int] = set()
    before = 0.0
    for moment, begins, number in sorted(moments):
        for each in running:
            seconds[kind(events[each]["args"]["hlo_op"])] += (moment - before) / len(running) / 1e6
        before = moment
        (running.add if begins else running.discard)(number)
    return seconds


def kind(operation: str) -> str:
    """The kind of an XLA operation, by its name.

    >>> kind('dot.12'), kind('copy_bitcast_fusion.3'), kind('wrapped_tanh')
    ('products', 'copies and transposes', 'others')
    """
    return next((words for part, words in KINDS.items() if part in operation), "others")


if __name__ == "__main__":
    sys.exit(main())
