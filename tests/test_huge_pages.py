"""Tests of the restart with huge pages."""

import os
import subprocess
import sys

import pytest

from prompt_tuning import huge_pages


class RestartError(Exception):
    """What `os.execv` raises here instead of replacing the process."""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes `restart` see a machine; returns the arguments of a restart, or None."""

    def restart(mode="always [madvise] never\n", libc="glibc 2.35", tunables=None):
        (tmp_path / "enabled").write_text(mode)
        monkeypatch.setattr(huge_pages, "MODE_FILE", str(tmp_path / "enabled"))
        monkeypatch.setattr(os, "confstr", lambda name: libc)
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "prompt_tuning.cli", "train"])
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if tunables is not None:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)

        def execv(path, arguments):
            raise RestartError(path, arguments, os.environ["GLIBC_TUNABLES"])

        monkeypatch.setattr(os, "execv", execv)
        try:
            huge_pages.restart()
        except RestartError as restarted:
            return restarted.args

    return restart


def test_a_program_that_must_ask_is_started_again_with_its_arguments(machine):
    path, arguments, tunables = machine()
    assert (path, arguments[1:]) == (sys.executable, ["-m", "prompt_tuning.cli", "train"])
    assert tunables == "glibc.malloc.hugetlb=1"


def test_other_tunables_stay(machine):
    *_, tunables = machine(tunables="glibc.malloc.arena_max=1")
    assert tunables == "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "[always] madvise never\n"},
        {"mode": "always madvise [never]\n"},
        {"libc": "glibc 2.31"},
        {"libc": ""},
        {"tunables": "glibc.malloc.hugetlb=0"},
    ],
)
def test_nothing_happens_where_it_would_change_nothing(machine, given):
    assert machine(**given) is None


def test_nothing_happens_without_the_file(machine, monkeypatch):
    assert machine() is not None
    monkeypatch.setattr(huge_pages, "MODE_FILE", "/nowhere/enabled")
    monkeypatch.delenv("GLIBC_TUNABLES")
    huge_pages.restart()


@pytest.mark.parametrize("module", ["prompt_tuning.cli", "prompt_tuning.train"])
def test_the_process_ends_as_without_the_restart(module, tmp_path):
    """Whatever this machine does: one message, one exit code, arguments as they were."""
    given = ["train"] if module.endswith("cli") else []
    done = subprocess.run(
        [sys.executable, "-m", module, *given, "--gin_file=no such file.gin"],
        capture_output=True, text=True, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "no such file.gin" in done.stderr
