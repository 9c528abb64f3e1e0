"""Settings for every test: no implicit broadcasting, no network."""

import os
import shutil
import socket
from pathlib import Path

import jax
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
jax.config.update("jax_numpy_rank_promotion", "raise")

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that would reach out fails instead."""
    connect = socket.socket.connect

    def only_local(self, address):
        if self.family != socket.AF_UNIX and address[0] not in LOCAL_HOSTS:
            raise OSError(f"a test tried to reach {address}; tests run without a network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_local)


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of test vectors, made with real T5X, transformers and peft."""
    return Path(__file__).parent / "data" / "parity"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, vocabulary and released prompts; skips where it is absent."""
    folder = os.environ.get("PROMPT_TUNING_TEST_DATA")
    if not folder:
        pytest.skip("PROMPT_TUNING_TEST_DATA does not name a folder with the real data")
    return Path(folder)


@pytest.fixture
def copy_of(tmp_path):
    """Copies a folder, so that a test may change its files."""

    def copy(folder: Path) -> Path:
        target = tmp_path / folder.name
        shutil.copytree(folder, target)
        for path in (target, *target.iterdir()):
            path.chmod(0o755)
        return target

    return copy
