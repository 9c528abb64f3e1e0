"""Starts the processes of one run, as hosts would.

As a program it is `prompt-tuning`, and `train` prints a digest of the state that it ends with.
"""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tiny_runs

from prompt_tuning import cli
from prompt_tuning.training import loop

ROOT = Path(__file__).parents[1]


class Started(NamedTuple):
    """The processes of a run, and the files that they print to."""

    processes: list[subprocess.Popen]
    logs: list[Path]

    def wait(self, seconds: float = 150) -> list[int]:
        """Returns the exit codes."""
        try:
            return [process.wait(timeout=seconds) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            raise

    def finish(self) -> "Started":
        """Waits, and fails unless all exit codes are 0."""
        codes = self.wait()
        assert set(codes) == {0}, f"{codes}: {self.errors()[-3000:]}"
        return self

    def send(self, number: int, to: Sequence[int] | None = None) -> None:
        """Sends a signal to all, or to those of the numbers `to`."""
        for index, process in enumerate(self.processes):
            if to is None or index in to:
                process.send_signal(number)

    def printed(self, index: int = 0) -> str:
        """What one of them has printed to stdout."""
        return self.logs[index].read_text()

    def digests(self) -> list[str]:
        """The step and the digest of each one's last state."""
        return re.findall(r"^digest (\d+ \w{64})$", self.errors(), re.MULTILINE)

    def errors(self) -> str:
        """What all of them have printed to stderr."""
        return "\n".join(Path(f"{log}.err").read_text() for log in self.logs)


def start(
    folder: Path,
    programs: Path,
    count: int,
    *bindings: str,
    command: str = "train",
) -> Started:
    """Starts `count` processes of one command.

    Args:
      folder: MODEL_DIR.
      programs: where compiled programs are kept.
      count: of processes.
      bindings: of gin.
      command: 'train', 'eval' or 'infer'.
    """
    own = [f"MODEL_DIR={folder}", "TRAIN_STEPS=8", "EVAL_PERIOD=4"]
    arguments = [f"--gin_file={part}" for part in tiny_runs.PARTS]
    arguments += [f"--gin.{binding}" for binding in [*tiny_runs.BINDINGS, *own, *bindings]]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
    }
    address, started = f"127.0.0.1:{free_port()}", Started([], [])
    for index in range(count):
        several = [
            f"--coordinator_address={address}",
            f"--process_count={count}",
            f"--process_index={index}",
        ]
        log = folder.with_name(f"{folder.name}.{command}.{count}.{index}")
        with open(log, "w") as out, open(f"{log}.err", "w") as err:
            started.logs.append(log)
            started.processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, command, *arguments, *several * (count > 1)],
                    cwd=ROOT,
                    env=environment,
                    stdout=out,
                    stderr=err,
                )
            )
    return started


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def printing_digest(train):
    """`loop.train` that prints the step and a digest of every bit of the last state."""

    def trained(training, steps, state):
        state = train(training, steps, state)
        content = hashlib.sha256()
        for leaf in jax.tree.leaves(state):
            content.update(np.asarray(leaf).tobytes())
        print(f"digest {state.step} {content.hexdigest()}", file=sys.stderr)
        return state

    return trained


if __name__ == "__main__":
    loop.train = printing_digest(loop.train)
    sys.exit(cli.main(sys.argv[1:]))
