"""Tests of the folder that compiled programs are kept in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prompt_tuning import compilation_cache

PROGRAM = """
import jax, jax.numpy as jnp
from prompt_tuning import compilation_cache
compilation_cache.use()
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.split("/")[-1]))
total = jax.jit(lambda x: jnp.tanh(x) @ x.T)(jnp.eye(3)).sum()
print(f"{total:.3f}", hits.count("cache_hits") > 0)
"""


def run(**variables):
    """Compiles a program in a process of its own; returns its lines."""
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR",)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_process_reads_what_the_first_one_compiled(tmp_path):
    folder = tmp_path / "prompt_tuning" / "compiled"
    said = f"compiled programs are kept in {folder}"
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [said, "2.285 False"]
    assert any(folder.iterdir())
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [said, "2.285 True"]


def test_the_variable_names_another_folder_or_none(tmp_path):
    names = {"XDG_CACHE_HOME": str(tmp_path / "unused")}
    other = tmp_path / "other"
    (said, _) = run(JAX_COMPILATION_CACHE_DIR=str(other), **names)
    assert said == f"compiled programs are kept in {other}"
    assert any(other.iterdir())
    (_,) = run(JAX_COMPILATION_CACHE_DIR="", **names)
    assert not (tmp_path / "unused").exists()


def test_a_folder_that_cannot_be_made_is_reported_and_nothing_fails(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "compiled"
    (said, _) = run(JAX_COMPILATION_CACHE_DIR=str(folder))
    assert said == (
        f"compiled programs are not kept: {folder} cannot be made (Not a directory); set "
        "JAX_COMPILATION_CACHE_DIR to another folder, or to nothing"
    )


@pytest.mark.parametrize("variable", ["", None])
def test_the_default_is_in_the_cache_of_the_user(monkeypatch, variable):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    expected = Path.home() / ".cache" / "prompt_tuning" / "compiled"
    assert compilation_cache.default_folder() == str(expected)
