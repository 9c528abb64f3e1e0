"""Tests of prompt_tuning/sweeps/leases.py: who has a cell, with clocks that the tests move."""

import json
import threading
import time

import pytest

from prompt_tuning.checkpoints import shared_files
from prompt_tuning.sweeps import leases

KEY = "boolq-s-prompt-0"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(params=["folder", "bucket"])
def folder(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "results")
    request.getfixturevalue("bucket")
    return "gs://bucket/results"


@pytest.fixture
def workers(folder):
    """Two workers whose clocks have nothing to do with each other."""
    first = leases.Cells(folder, lease_seconds=120.0, clock=Clock(1000.0))
    second = leases.Cells(folder, lease_seconds=60.0, clock=Clock(5.0))
    second.process = 77
    return first, second


def entry(cells):
    return cells.newest([KEY]).get(KEY)


def entries(folder):
    return shared_files.names(f"{folder}/attempts")


def test_a_cell_is_taken_once(workers):
    first, second = workers
    assert entry(first) is entry(second) is None
    assert first.claim(KEY, None) is not None
    assert second.claim(KEY, None) is None
    seen = entry(second)
    assert (seen.number, seen.state, seen.worker) == (1, "running", first.worker)
    assert not seen.is_free


def test_a_lease_expires_after_its_own_seconds_without_a_beat(workers):
    """Seen by the second worker, from when it first saw it, 120 s after the last change."""
    first, second = workers
    lease = first.claim(KEY, None)
    first.clock.now += 10_000.0  # it says nothing about the lease
    assert not entry(second).is_free
    second.clock.now += 100.0
    lease._renewed = first.clock.now
    lease.renew()
    assert not entry(second).is_free
    second.clock.now += 119.0
    assert not entry(second).is_free
    second.clock.now += 1.0
    assert entry(second).is_free
    taken = second.claim(KEY, entry(second))
    assert taken is not None
    assert [entry(first).number, entry(first).worker] == [2, second.worker]
    assert not entry(first).is_free


def expire(cells):
    """The entry, when it has not changed for long."""
    entry(cells)
    cells.clock.now += 1000.0
    return entry(cells)


def test_a_lost_lease_neither_publishes_nor_fails(workers, folder):
    first, second = workers
    lost = first.claim(KEY, None)
    lease = second.claim(KEY, expire(second))
    assert not lost.publish({"score": 1})
    assert not lost.end("failed", error="no")
    assert leases.done(folder) == set()
    lost.renew()
    assert lost.lost
    assert lease.publish({"score": 2})
    assert leases.read_result(folder, KEY) == {"score": 2}
    assert (leases.done(folder), entries(folder)) == ({KEY}, [])
    assert not lost.publish({"score": 1})  # no entry is in its way any more
    assert not lost.end("failed", error="no")
    assert first.claim(KEY, None) is None
    assert leases.read_result(folder, KEY) == {"score": 2}
    assert (leases.done(folder), entries(folder)) == ({KEY}, [])


def test_a_result_is_one_line_of_json(workers, folder):
    lease = workers[0].claim(KEY, None)
    assert lease.publish({"score": 2, "curve": [[1, 2.5]]})
    content = shared_files.read(f"{folder}/{KEY}.json")
    assert content == b'{"score": 2, "curve": [[1, 2.5]]}\n'


def test_a_worker_that_died_while_it_published_has_published(workers, folder, monkeypatch):
    first, second = workers
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_complete", lambda *_: True)
        first.claim(KEY, None).publish({"score": 1})
    assert (leases.done(folder), entries(folder)) == (set(), [f"{KEY}.1.json", f"{KEY}.2.json"])
    assert entry(second) is None
    assert (leases.done(folder), entries(folder)) == ({KEY}, [])
    assert leases.read_result(folder, KEY) == {"score": 1}


def test_a_cell_given_back_or_failed_is_free_at_once(workers):
    first, second = workers
    lease = first.claim(KEY, None)
    first.clock.now += 30.0
    assert lease.end("stopped")
    assert entry(second).is_free
    lease = second.claim(KEY, entry(second))
    second.clock.now += 12.0
    assert lease.end("failed", error="the loss is nan")
    failed = entry(first)
    assert (failed.number, failed.state, failed.is_free) == (4, "failed", True)
    assert (failed.content["error"], failed.content["seconds"]) == ("the loss is nan", 42.0)
    assert first.claim(KEY, failed).seconds == 42.0


def test_the_seconds_of_a_dead_worker_count_until_its_last_beat(workers):
    first, second = workers
    lease = first.claim(KEY, None)
    first.clock.now += 50.0
    lease.renew()
    first.clock.now += 9.0
    taken = second.claim(KEY, expire(second))
    second.clock.now += 7.0
    assert taken.seconds == 57.0


def test_its_holder_stops_before_another_begins(workers, folder, monkeypatch):
    """At 80% of 120 s without a beat that arrived."""
    first, second = workers
    lease = first.claim(KEY, None)

    def unreachable(path, content):
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(shared_files, "replace", unreachable)
        first.clock.now += 95.0
        lease.renew()
        assert not lease.lost
        first.clock.now += 1.0
        lease.renew()
        assert lease.lost


def test_a_beat_that_arrived_keeps_it(workers):
    first, _ = workers
    lease = first.claim(KEY, None)
    for _ in range(10):
        first.clock.now += 90.0
        lease.renew()
    assert not lease.lost
    assert entry(first).content["beats"] == 10


def test_a_cell_that_kills_its_workers_fails(workers):
    first, second = workers
    for number in range(1, 6):
        assert first.claim(KEY, expire(first)) is not None, number
    assert second.claim(KEY, expire(second)) is None
    failed = entry(first)
    assert (failed.number, failed.state) == (6, "failed")
    assert failed.content["error"].startswith("5 workers in a row ended without a word while they")
    assert first.claim(KEY, failed) is not None  # when the user tries again
    assert first.claim(KEY, expire(first)) is not None


def test_the_end_is_written_later_if_the_place_cannot_be_reached(workers, folder, monkeypatch):
    create, waited, errors = shared_files.create, [], [OSError("no"), OSError("no")]

    def flaky(path, content):
        if errors:
            raise errors.pop()
        return create(path, content)

    lease = workers[0].claim(KEY, None)
    monkeypatch.setattr(shared_files, "create", flaky)
    monkeypatch.setattr(time, "sleep", waited.append)
    assert lease.publish({"score": 1})
    assert waited == [1, 2]
    lease = workers[0].claim("other", None)
    errors.extend([OSError("still no")] * 6)
    with pytest.raises(OSError, match="still no"):
        lease.end("failed", error="x")
    assert waited == [1, 2, 1, 2, 4, 8, 16]


def test_beats_go_on_in_the_background_and_end(folder):
    cells = leases.Cells(folder, lease_seconds=0.6)
    lease = cells.claim(KEY, None)
    with lease.kept():
        until = time.monotonic() + 20
        while entry(cells).content["beats"] < 3 and time.monotonic() < until:
            time.sleep(0.02)
    beats = entry(cells).content["beats"]
    time.sleep(0.2)
    assert 3 <= beats == entry(cells).content["beats"]


def test_a_run_whose_lease_is_lost_is_interrupted(tmp_path):
    cells = leases.Cells(str(tmp_path), lease_seconds=0.6)
    lease = cells.claim(KEY, None)
    shared_files.create(f"{tmp_path}/attempts/{KEY}.2.json", b'{"state": "running"}')
    with pytest.raises(leases.LeaseLost), lease.kept():
        time.sleep(20)
    assert lease.lost


def test_another_thread_learns_of_it_at_the_end(tmp_path):
    cells = leases.Cells(str(tmp_path), lease_seconds=0.6)
    lease = cells.claim(KEY, None)
    shared_files.create(f"{tmp_path}/attempts/{KEY}.2.json", b'{"state": "running"}')
    published = []

    def work():
        with lease.kept():
            time.sleep(0.3)
        published.append(lease.publish({"score": 1}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (published, lease.lost) == ([False], True)


def test_a_run_that_ended_when_no_beat_arrived_is_published_unless_taken(workers, folder):
    first, _ = workers
    lease = first.claim(KEY, None)
    first.clock.now += 1000.0
    lease.lost = True
    assert lease.publish({"score": 1})
    assert leases.read_result(folder, KEY) == {"score": 1}


def test_a_file_that_is_not_json_is_named(workers, folder):
    shared_files.create(f"{folder}/{KEY}.json", b"{")
    shared_files.create(f"{folder}/attempts/{KEY}.1.json", b"{")
    with pytest.raises(ValueError, match=rf"{folder}/{KEY}.json is not JSON; remove it"):
        leases.read_result(folder, KEY)
    with pytest.raises(ValueError, match=rf"{folder}/attempts/{KEY}.1.json is not JSON"):
        entry(workers[0])


def test_keys_with_points_and_numbers_are_told_apart(tmp_path):
    cells = leases.Cells(str(tmp_path))
    for key in ("v1.0-s-0", "v1.0-s-0.1", "v1"):
        assert cells.claim(key, None) is not None
    found = cells.newest(["v1.0-s-0", "v1.0-s-0.1", "v1", "v1.0-s"])
    assert {key: each.number for key, each in found.items()} == {
        "v1.0-s-0": 1, "v1.0-s-0.1": 1, "v1": 1,
    }  # fmt: skip


def test_what_a_killed_worker_had_begun_to_write_is_removed(tmp_path):
    import tiny_runs

    (tmp_path / "attempts").mkdir()
    for path in (tmp_path / f"{KEY}.json", tmp_path / "attempts" / f"{KEY}.1.json"):
        tiny_runs.leftover(path).write_text(json.dumps({}))
    leases.Cells(str(tmp_path))
    assert (leases.done(str(tmp_path)), entries(str(tmp_path))) == (set(), [])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["attempts"]
