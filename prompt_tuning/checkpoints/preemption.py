"""Notices the signals that ask a run to save and stop: SIGTERM and Ctrl-C.

SIGTERM announces that a machine is about to be taken away. Two ways, for two situations:

- One process (`jax.distributed` was never started): a plain signal handler sets a flag.
  It needs no port and no service, works offline, and any number of runs may start in parallel on
  one machine.
- Several processes: all must save at the same step, whichever of them got the signal. JAX's
  preemption service, which `jax.distributed.initialize` starts and Orbax asks, spreads
  the notice of SIGTERM and agrees on that step. Ctrl-C ends such a run without saving.
"""

import logging
import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

_logger = logging.getLogger(__name__)


SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
    """Whether this run got a signal to stop; listens from its creation until `close`.

    The first signal is noted. A second one does what it did before, which as a rule is
    to end the process. A signal that is ignored (Ctrl-C in a background process) stays ignored.
    """

    def __init__(self):
        self._told: int | None = None
        self._previous = {}
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
        heard = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        self._previous = {each: signal.signal(each, self._note) for each in heard}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._told = signum
        self.close()
        if signum == signal.SIGINT:  # `print` may be what was interrupted
            os.write(2, b"\nCtrl-C: saving after this step; press it again to stop immediately\n")

    def reached(self, step: int) -> int | None:
        """The signal after which to save now and stop, or None; to be asked after every step.

        Args:
          step: the step just done. With several processes it must be the same
            sequence in each.
        """
        if self._agrees_with_others:
            told = multihost_utils.reached_preemption_sync_point(step)
            return signal.SIGTERM if told else None
        return self._told

    def close(self) -> None:
        """Restores the previous signal handlers."""
        for each, handler in self._previous.items():
            if handler is not None:  # not installed from Python
                signal.signal(each, handler)
        self._previous = {}
