"""Makes batches ahead in a thread and moves them to the device, so that no step waits for input."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

AHEAD = 2  # batches


class Prefetch:
    """Iterates over what another iterator makes, which runs in a thread.

    An error of the iterator is raised by the `next` that would have got its batch. Use it as a
    context: the thread ends with it.

    >>> with Prefetch(iter([1, 2])) as ahead:
    ...     [int(x) for x in ahead]
    [1, 2]
    """

    def __init__(self, made: Iterator[Any], put: Callable[[Any], Any] = jax.device_put):
        self._made, self._put = made, put
        self._ready: queue.Queue = queue.Queue(AHEAD)
        self._ended = threading.Event()
        self.start_clock()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        began = time.monotonic()
        item, error = self._ready.get()
        if self._began is None:  # the first batch cannot be made ahead
            self._began = time.monotonic()
        else:
            self._waited += time.monotonic() - began
        if error is not None:
            self._offer((None, error))  # for the next call
            raise error
        return item

    def start_clock(self) -> None:
        """Measures `wait_share` from the next batch on."""
        self._began: float | None = None
        self._waited = 0.0

    def wait_share(self) -> float:
        """The share of the time, 0 to 1, that `next` waited."""
        spent = 0.0 if self._began is None else time.monotonic() - self._began
        return self._waited / spent if spent else 0.0

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._made:
                if not self._offer((self._put(item), None)):
                    return
            self._offer((None, StopIteration()))
        except BaseException as error:
            self._offer((None, error))

    def _offer(self, item: tuple[Any, BaseException | None]) -> bool:
        """Puts an item into the queue; False if `close` was called instead."""
        while not self._ended.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
