"""Fixtures of the tests that train: programs are compiled and sentences read once a session.

`tiny_runs` is imported by those that use it: the tests beside them need no TensorFlow.
"""

import pytest


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
    """A list of dev scores that stand in for evaluations, one after the other."""
    import tiny_runs

    given: list[float] = []
    with tiny_runs.scripted(given):
        yield given
