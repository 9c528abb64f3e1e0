"""Notices SIGTERM, with which a machine says that it is about to be taken away.

Two ways, for two situations:

- One process (`jax.distributed` was never started): a plain signal handler sets a flag.
  It needs no port and no service, works offline, and any number of runs may start at
  once on one machine.
- Several processes: all must save at the same step, whichever of them was told. JAX's
  preemption service, which `jax.distributed.initialize` starts and Orbax asks, spreads
  the notice and agrees on that step.
"""

import logging
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

_logger = logging.getLogger(__name__)


class Preemption:
    """Whether this run was told to stop; listens from its making until `close`.

    The first SIGTERM is noted. A second one does what it did before, which as a rule is
    to end the process.
    """

    def __init__(self):
        self._told = False
        self._previous = None
        self._agrees_with_others = jax.distributed.is_initialized()
        if self._agrees_with_others:
            return
        if threading.current_thread() is not threading.main_thread():
            _logger.warning(
                "SIGTERM will end this run without saving: Python allows a signal handler in the "
                "main thread only, and this is thread %r.",
                threading.current_thread().name,
            )
            return
        self._previous = signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._told = True
        self.close()

    def reached(self, step: int) -> bool:
        """Whether to save now and stop; to be asked after every step.

        Args:
          step: the step just done. With several processes it must be the same
            sequence in each.
        """
        if self._agrees_with_others:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def close(self) -> None:
        """Hands SIGTERM back to whoever had it before."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None
