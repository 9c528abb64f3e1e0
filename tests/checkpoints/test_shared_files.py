"""Tests of prompt_tuning/checkpoints/shared_files.py: one of many makes a file, whole, once."""

import errno
import os
import re
import threading

import pytest

from prompt_tuning.checkpoints import shared_files


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A folder that does not exist yet, local or in a bucket."""
    if request.param == "folder":
        return str(tmp_path / "place")
    request.getfixturevalue("bucket")
    return "gs://bucket/place"


def test_a_file_is_made_once(place):
    path = f"{place}/a.json"
    assert shared_files.read(path) is None
    assert shared_files.create(path, b"first")
    assert not shared_files.create(path, b"second")
    assert shared_files.read(path) == b"first"
    assert shared_files.create(path, b"first")  # the answer to the first call got lost
    assert shared_files.names(place) == ["a.json"]


def test_of_many_one_makes_it(place):
    made, start = [], threading.Barrier(8)

    def create(number):
        start.wait()
        if shared_files.create(f"{place}/a.json", b"%d" % number):
            made.append(b"%d" % number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [shared_files.read(f"{place}/a.json")]
    assert shared_files.names(place) == ["a.json"]


def test_a_file_is_replaced_and_removed(place):
    path = f"{place}/a.json"
    shared_files.create(path, b"first")
    shared_files.create(f"{place}/below/b.json", b"other")
    shared_files.replace(path, b"second")
    assert shared_files.read(path) == b"second"
    shared_files.remove(path)
    shared_files.remove(path)
    assert shared_files.read(path) is None
    assert shared_files.names(f"{place}/below") == ["b.json"]
    assert "a.json" not in shared_files.names(place)
    assert shared_files.names(f"{place}/nothing") == []


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = str(tmp_path / "a.json")
    with pytest.raises(OSError, match=f"^{re.escape(repr(path))} .* no hard links, .* or gs://"):
        shared_files.create(path, b"first")
    assert shared_files.names(str(tmp_path)) == []


@pytest.mark.slow
def test_a_bucket_that_cannot_be_reached(bucket, monkeypatch):
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="^'gs://other/a.json' cannot be reached: "):
        shared_files.read("gs://other/a.json")
