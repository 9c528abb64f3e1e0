"""Several processes, one for each host: how they find each other, and which of them writes.

    prompt-tuning train ... --coordinator_address=host0:8476 --process_count=2 --process_index=0
    prompt-tuning train ... --coordinator_address=host0:8476 --process_count=2 --process_index=1

All run the same program on the same data. Each puts its rows of a batch on its own devices; files
and messages are those of process 0.
"""

import contextlib
import os
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

_TEXT_BYTES = 4096


def start(address: str | None, count: int | None, index: int | None, detects: bool = False) -> None:
    """Joins the processes of a run; to be called before JAX is used.

    Args:
      address: HOST:PORT of process 0, the same for all; None with the other two is one process.
      count: how many there are.
      index: the number of this one, from 0.
      detects: take all three from the cluster (TPU pods, Slurm and what else JAX knows).

    Raises:
      ValueError: only some of the three are given, or the number is out of range.
    """
    given = (address, count, index)
    if detects and given == (None, None, None):
        jax.distributed.initialize()
        return
    if given == (None, None, None):
        return
    if None in given or detects:
        raise ValueError(
            "--coordinator_address, --process_count and --process_index go together, and without "
            f"--multiprocess; got {address!r}, {count} and {index}."
        )
    if not 0 <= index < count:
        raise ValueError(
            f"--process_index must be from 0 to {count - 1}, for --process_count={count}; got "
            f"{index}."
        )
    jax.distributed.initialize(address, num_processes=count, process_id=index)


def is_first() -> bool:
    """Whether this process writes the files; one process alone does."""
    return jax.process_index() == 0


@contextlib.contextmanager
def first_prints() -> Iterator[None]:
    """In this context, only process 0 prints to stdout."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def of_first(text: str) -> str:
    """A text of process 0, in every process; all call this."""
    if jax.process_count() == 1:
        return text
    content = text.encode()[:_TEXT_BYTES]
    sent = np.zeros(_TEXT_BYTES, np.uint8)
    sent[: len(content)] = np.frombuffer(content, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    return received.tobytes().rstrip(b"\0").decode(errors="replace")
