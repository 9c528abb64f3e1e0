"""Tests of prompt_tuning/paths.py: `~`, gs:// and what is refused."""

import os
from pathlib import Path

import pytest
from buckets import TOKEN_ERROR

from prompt_tuning import folders, paths


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.expand("~/run") == "/home/me/run"
    assert paths.expand("run/~") == "run/~"
    assert paths.absolute("~/a/../run/") == "/home/me/run"


def test_a_bucket_stays_as_it_is():
    assert paths.expand("gs://bucket/run/") == "gs://bucket/run/"
    assert paths.absolute("gs://bucket/run/") == "gs://bucket/run"
    assert [paths.is_remote(path) for path in ("gs://bucket/run", "gs/run")] == [True, False]


REFUSED = {
    "s3://bucket/run": "a path is local or starts with gs://",
    "https://host/run": "a path is local or starts with gs://",
    "hf://google/t5-small": "a path is local or starts with gs://",
    "gs://": "is incomplete",
    "gs:/bucket/run": "written with one slash; gs:// has two",
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_opened(path):
    with pytest.raises(ValueError, match=REFUSED[path]) as raised:
        paths.expand(path)
    assert path in str(raised.value)


def test_a_path_object_loses_a_slash():
    with pytest.raises(ValueError, match="not as a pathlib.Path"):
        paths.expand(Path("gs://bucket/run"))


def test_hub_names_only_where_they_are_read():
    assert paths.expand("hf://google/t5-small", also=("hf",)) == "hf://google/t5-small"
    with pytest.raises(ValueError, match="starts with gs:// or hf://"):
        paths.expand("s3://bucket/run", also=("hf",))


def test_what_has_to_be_local():
    assert paths.local("runs/a", "An adapter") == "runs/a"
    with pytest.raises(ValueError, match=r"An adapter has to be in a local folder, got 'gs://b/a'"):
        paths.local("gs://b/a", "An adapter")


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    paths.check_folder(str(tmp_path / "a" / "b"), "MODEL_DIR")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=r"MODEL_DIR '.*' cannot be made: '.*/file' is a file"):
            paths.check_folder(str(path), "MODEL_DIR")
    with pytest.raises(ValueError, match="File name too long"):
        paths.check_folder(str(tmp_path / ("x" * 300)), "MODEL_DIR")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match="is read-only or belongs to someone else"):
        paths.check_folder(str(tmp_path / "run"), "MODEL_DIR")


@pytest.mark.parametrize("place", ["local", "bucket"])
def test_the_same_functions_in_a_folder_and_in_a_bucket(place, tmp_path, bucket):
    folder = f"{tmp_path}/local" if place == "local" else "gs://bucket/deep/er"
    assert not paths.is_folder(folder)
    paths.make_folder(folder)
    paths.make_folder(folder)
    folders.replace_file(f"{folder}/a.txt", b"1")
    folders.replace_file(f"{folder}/a.txt", b"2")
    assert paths.read_bytes(f"{folder}/a.txt") == b"2"
    assert paths.is_file(f"{folder}/a.txt")
    assert not paths.is_file(folder)
    assert paths.is_folder(folder)
    assert paths.names(folder) == ["a.txt"]
    with paths.local_copy(f"{folder}/a.txt") as local:
        assert Path(local).read_bytes() == b"2"
        assert Path(local).name == "a.txt"
    with pytest.raises(FileNotFoundError):
        paths.read_bytes(f"{folder}/b.txt")


def test_a_bucket_that_cannot_be_reached_is_named(bucket):
    bucket.error = TOKEN_ERROR
    with pytest.raises(OSError, match=r"'gs://bucket/a' cannot be reached: no credentials"):
        paths.read_bytes("gs://bucket/a")
    with pytest.raises(OSError, match=r"'gs://bucket/a' cannot be reached: no credentials"):
        folders.replace_file("gs://bucket/a", b"")
