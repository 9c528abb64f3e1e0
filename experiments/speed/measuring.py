"""What every worker does: reads its job, runs steps, and reports seconds and memory.

A worker is `python -m experiments.speed.worker_NAME JOB`, where JOB is a JSON file. Its last line
is the result. Only the standard library is needed, since each side has an environment of its own.
"""

import dataclasses
import faulthandler
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.speed.cells import Cell

MARK = "RESULT "
TIMEOUT = "Timeout ("  # how faulthandler begins
LEAST_STEPS = 3
PRODUCTS_OF_A_STEP = 4  # so that a call's own time does not count
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "peft", "t5x", "numpy")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is asked for.

    Attributes:
      cell: the work.
      variant: see `cells.Side`.
      steps: how many are timed.
      seconds: after which no further step is begun, if enough were timed.
      limit: seconds after which the process ends as failed.
      tokens: a file of tokenised batches, see `worker_ours.py`.
      data_dir, vocabulary: the prepared data and the vocabulary file.
      folder: for what a worker writes.
    """

    cell: Cell
    variant: str
    steps: int
    seconds: float
    limit: float
    tokens: str
    data_dir: str
    vocabulary: str
    folder: str


def read_job() -> Job:
    """Reads the job that the command line names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        values = json.load(file)
    job = Job(**values | {"cell": Cell(**values["cell"])})
    faulthandler.dump_traceback_later(job.limit, exit=True)
    return job


def measure(steps: Sequence[Callable[[], Any]], job: Job, warm_up: int | None = None) -> dict:
    """Runs steps once without and once with a clock.

    Args:
      steps: each waits until it is done.
      job: its limits.
      warm_up: how many to run before; None is all, so that all shapes are compiled.

    Returns:
      The seconds of every timed step, of the time to the first, and the most memory in bytes.
    """
    first = None
    for step in steps[:warm_up]:
        step()
        first = first or age_seconds()
    seconds: list[float] = []
    for step in steps:
        if len(seconds) >= LEAST_STEPS and sum(seconds) > job.seconds:
            break
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": [round(x, 5) for x in seconds],
        "first_step_seconds": round(first, 2),
        "peak_bytes": peak_bytes(),
    }


def best_of_shapes(steps: Sequence[Callable[[], Any]], job: Job) -> dict:
    """Measures products, a step for each shape; `seconds` is the best of each, for one product."""
    result = measure(steps * job.steps, job)
    count, seconds = len(steps), result["seconds"]
    return result | {"seconds": [min(seconds[i::count]) / PRODUCTS_OF_A_STEP for i in range(count)]}


def age_seconds() -> float:
    """The seconds since this process was started."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    uptime = Path("/proc/uptime").read_text().split()[0]
    return float(uptime) - int(started) / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most memory this process has had, in bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(result: dict, device: str, device_bytes: int | None = None) -> None:
    """Prints the result with the versions, for the driver.

    Args:
      result: see `measure`.
      device: what computed, 'cpu' or the name of a GPU.
      device_bytes: the most memory that was in use on a GPU, which counts there.
    """
    if device_bytes is not None:
        result = result | {"peak_bytes": device_bytes}
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    print(MARK + json.dumps(result | {"device": device, "versions": versions}), flush=True)
