"""What a run costs besides time: memory, and the size of what it tuned.

A worker makes many runs in one process, and a process remembers the largest memory that it ever
had. Linux can be told to forget it, so `peak_memory_bytes` is that of one run, of everything in the
process: libraries, data, programs, and what is left of earlier runs. Elsewhere it is not known.
The peak of a device cannot be reset: `device_peak_bytes` is known where a run needed more than all
before it, so at least for the first one of a process. Runs that were trained together share both.
"""

import os
import re

import jax

from prompt_tuning import paths
from prompt_tuning.methods.method import added_shapes
from prompt_tuning.run import Run
from prompt_tuning.training import artifacts

_RESET = "/proc/self/clear_refs", "5"  # see proc(5)
_STATUS = "/proc/self/status"


class Peaks:
    """The largest memory of this process and of its devices since it was made."""

    def __init__(self):
        self._is_reset = _reset()
        self._device_before = device_peak()

    def read(self) -> dict[str, int | None]:
        """The fields of a record; None is not known."""
        device = device_peak()
        if device is not None and self._device_before is not None and device <= self._device_before:
            device = None  # that of an earlier run
        process = process_peak() if self._is_reset else None
        return {"peak_memory_bytes": process, "device_peak_bytes": device}


def _reset() -> bool:
    path, text = _RESET
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:  # another system, or it is not allowed
        return False
    return process_peak() is not None


def process_peak() -> int | None:
    """The largest resident memory of this process since it was reset, in bytes."""
    try:
        with open(_STATUS) as file:
            found = re.search(r"^VmHWM:\s+(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def device_peak() -> int | None:
    """The largest memory of one of the devices of this process; None where JAX does not tell."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    return max(peaks, default=None)


def tuned_bytes(run: Run, train: bool) -> int | None:
    """The size of what a run tuned, as it is on disk: a prompt file, or a model.

    Args:
      run: a run that has ended.
      train: whether it trained; else there is nothing.

    Returns:
      None if no evaluation had a finite score, so that nothing was kept.
    """
    if not train:
        return 0
    path = artifacts.best_path(run, bool(added_shapes(run.model, run.method.hooks)))
    if paths.is_file(path):
        return len(paths.read_bytes(path))
    if paths.is_remote(path) or not os.path.isdir(path):
        return None
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )
