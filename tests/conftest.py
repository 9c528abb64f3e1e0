"""Settings for every test: no implicit broadcasting, no network."""

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # nothing is kept in the home folder

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that would use the network fails instead."""
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
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, as at a terminal; background processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A fake gs:// whose content is in a local folder, `bucket.folder`."""
    import buckets

    yield from buckets.installed(monkeypatch, tmp_path / "buckets")


# Fixtures of the tests that train: programs are compiled and sentences read once a session.
# `tiny_runs` is imported by those that use it: the other tests need no TensorFlow.


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory):
    """The folder that compiled programs are kept in; other processes may use it too."""
    return tmp_path_factory.mktemp("compiled_programs")


@pytest.fixture(scope="module")
def quick(compiled_programs):
    """Compiles with few optimisations; compiles, reads and draws the same thing only once."""
    import tiny_runs

    with tiny_runs.quick(compiled_programs):
        yield


@pytest.fixture(scope="session")
def prompted(compiled_programs, tmp_path_factory):
    """Prompt tuning without an interruption: six steps, evaluated after 2, 4 and 6."""
    import tiny_runs

    with tiny_runs.quick(compiled_programs):
        return tiny_runs.train(tiny_runs.load_run(tmp_path_factory.mktemp("prompted") / "run"))


@pytest.fixture(scope="session")
def tuned(compiled_programs, tmp_path_factory):
    """Model tuning without an interruption: four steps, of which the last is the best."""
    import tiny_runs

    folder = tmp_path_factory.mktemp("tuned") / "run"
    run = tiny_runs.make_run(folder, train_steps=4, **tiny_runs.MODEL_TUNING)
    with tiny_runs.quick(compiled_programs), tiny_runs.scripted([1.0, 2.0]):
        return tiny_runs.train(run)


@pytest.fixture
def scores():
    """A list of dev scores that replace evaluations, one after the other."""
    import tiny_runs

    given: list[float] = []
    with tiny_runs.scripted(given):
        yield given
