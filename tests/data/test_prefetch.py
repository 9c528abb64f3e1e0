"""Tests of prompt_tuning/data/prefetch.py."""

import itertools
import threading
import time

import jax
import numpy as np
import pytest

from prompt_tuning.data import prefetch
from prompt_tuning.data.prefetch import Prefetch


def test_batches_come_in_order_and_on_the_device():
    made = ({"x": np.full(2, number)} for number in range(20))
    with Prefetch(made) as ahead:
        found = [*ahead]
    assert [int(batch["x"][0]) for batch in found] == [*range(20)]
    assert all(isinstance(batch["x"], jax.Array) for batch in found)


def test_it_makes_a_few_ahead_and_no_more():
    made = []
    with Prefetch(made.append(number) or number for number in itertools.count()) as ahead:
        next(ahead)
        time.sleep(0.5)
        assert len(made) == 1 + prefetch.AHEAD + 1  # the last one waits for a place
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_an_error_is_raised_after_the_batches_before_it():
    def made():
        yield 1
        raise ValueError("the data are gone")

    with Prefetch(made()) as ahead:
        assert next(ahead) == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="the data are gone"):
                next(ahead)


def test_the_share_of_the_time_that_steps_wait():
    def made(seconds):
        while True:
            time.sleep(seconds)
            yield 0

    def share(making, stepping):
        with Prefetch(made(making)) as ahead:
            for _ in range(6):
                next(ahead)
                time.sleep(stepping)
            found = ahead.wait_share()
            ahead.start_clock()
            assert ahead.wait_share() == 0.0
            return found

    assert share(making=0.001, stepping=0.03) < 0.1
    assert share(making=0.04, stepping=0.01) > 0.5
