"""Tests of prompt_tuning/folders.py: atomic writes, and which leftovers are removed."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest

from prompt_tuning import folders

HOST = re.escape(socket.gethostname())


def test_temporary_names_have_host_and_process_and_never_repeat():
    names = {folders.temporary_name("a/best.npy") for _ in range(100)}
    assert len(names) == 100
    pattern = rf"a/best\.npy\.tmp-{HOST}-{os.getpid()}-[0-9a-f]{{8}}"
    assert all(re.fullmatch(pattern, name) for name in names)


def test_two_writers_of_one_folder_do_not_touch_each_other(tmp_path):
    """One process may write it twice at a time, as two hosts with one process number do."""
    with folders.new_folder(tmp_path / "one") as first:
        open(os.path.join(first, "file"), "w").close()
        with pytest.raises(KeyError), folders.new_folder(tmp_path / "one") as second:
            assert second != first
            raise KeyError
        assert os.listdir(first) == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    with pytest.raises(ValueError, match="exists already. Choose another folder, or remove it"):
        with folders.new_folder(tmp_path / "one"):
            pass


def test_a_file_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    folders.replace_file(path, b"old")

    def full(path, content):
        open(path, "wb").close()
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(folders, "write_synced", full)
        folders.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    folders.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_disappears_atomically(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/file").write_text("x")
    folders.remove_folder(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_dead_process_left_is_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, check=True, text=True)  # fmt: skip
    host, dead, alive = socket.gethostname(), int(done.stdout), os.getppid()
    kept = {
        f"best.npy.tmp-{host}-{os.getpid()}-0123abcd",  # ours
        f"best.npy.tmp-{host}-{alive}-0123abcd",
        f"best.npy.tmp-other-host-{dead}-0123abcd",  # its process may run there
        "checkpoint_4.tmp-1700000000",  # T5X's
        "best.npy",
        "notes.tmp-mine",
    }
    removed = {
        f"best.npy.tmp-{host}-{dead}-0123abcd",
        f"checkpoint_4.tmp-{host}-{dead}-0123abcd",
        "best.npy.tmp-host-of-last-week-1-0123abcd",
    }
    for name in kept | removed:
        if name.startswith("checkpoint"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("x")
        else:
            (tmp_path / name).write_text("x")
    a_week_ago = time.time() - 7 * 24 * 60 * 60
    os.utime(tmp_path / "best.npy.tmp-host-of-last-week-1-0123abcd", (a_week_ago,) * 2)
    folders.remove_leftovers(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == kept
