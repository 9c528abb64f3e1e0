"""The training state: complete or absent, at whatever moment the process is killed."""

import contextlib
import json
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.checkpoints import training_state
from prompt_tuning.checkpoints.training_state import StateStore

PATH = "encoder/prompt/prompt/prompt"


def state(step, length=3):
    """A state in which every value is unique to its step."""
    trainable = {PATH: jnp.full((length, 4), step, jnp.float32)}
    return {
        "trainable": trainable,
        "opt_state": optax.adam(0.1).init(trainable),
        "step": step,
        "rng": jax.random.key_data(jax.random.key(step)),
        "data": {"examples_seen": np.int64(2**40 + step), "epoch": 1.5, "shuffled": True},
        "slow_weights": jnp.full(3, step, jnp.bfloat16),
    }


@pytest.fixture
def store(tmp_path):
    with_closing = StateStore(tmp_path / "state")
    yield with_closing
    with_closing.close()


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert type(leaf) is type(wanted)
        np.testing.assert_array_equal(leaf, wanted)


def test_what_is_saved_is_restored(store):
    assert store.restore_newest(state(0)) is None
    assert store.restore_best(state(0)) is None
    assert store.save(7, state(7))
    step, tree = store.restore_newest(state(0))
    assert step == 7
    assert_same(tree, state(7))


def test_the_newest_two_and_the_best_are_kept(store):
    for step, score in [(1, None), (2, 0.5), (3, 0.75), (4, 0.75), (5, 0.25), (6, None), (7, None)]:
        store.save(step, state(step), score)
    store.wait()
    assert store.steps() == [3, 6, 7]
    assert sorted(os.listdir(store.directory)) == ["3", "6", "7"]
    assert (store.newest_step, store.best_step, store.best_score) == (7, 3, 0.75)
    step, tree = store.restore_best(state(0))
    assert step == 3
    assert_same(tree, state(3))


def test_a_save_without_a_score_never_displaces_the_best(tmp_path):
    store = StateStore(tmp_path, newest=1)
    store.save(1, state(1), -3.0)
    for step in (2, 3, 4):
        store.save(step, state(step))
    store.close()
    reopened = StateStore(tmp_path, newest=1)
    assert (reopened.steps(), reopened.best_step, reopened.best_score) == ([1, 4], 1, -3.0)
    reopened.save(5, state(5), -2.0)
    reopened.close()
    assert sorted(os.listdir(tmp_path)) == ["5"]


def test_without_any_score_there_is_no_best(store):
    for step in (1, 2, 3):
        store.save(step, state(step))
    store.wait()
    assert store.steps() == [2, 3]
    assert store.best_step is None
    assert store.best_score is None


def test_a_score_that_is_not_finite_counts_as_none(store, caplog):
    with caplog.at_level(logging.WARNING):
        store.save(1, state(1), float("nan"))
    assert "dev score of step 1 is nan" in caplog.text
    assert store.best_step is None
    store.save(2, state(2), 0.0)
    assert store.best_step == 2


def test_a_step_is_saved_once(store):
    assert store.save(1, state(1), 0.5)
    assert not store.save(1, state(9))
    assert not store.save(1, state(9), 0.5)
    with pytest.raises(ValueError, match="saved already, with dev score 0.5; .*changed to 0.75"):
        store.save(1, state(9), 0.75)
    assert_same(store.restore_newest(state(0))[1], state(1))


def test_the_arrays_may_be_donated_and_overwritten_immediately(store):
    in_numpy = np.full(1000, 1.0, np.float32)
    on_device = jnp.full(1000, 1.0)
    store.save(1, {"numpy": in_numpy, "device": on_device})
    in_numpy[:] = 2.0
    jax.jit(lambda x: x + 1, donate_argnums=0)(on_device)
    _, tree = store.restore_newest({"numpy": np.empty(1000, np.float32), "device": jnp.empty(1000)})
    np.testing.assert_array_equal(tree["numpy"], np.ones(1000))
    np.testing.assert_array_equal(tree["device"], np.ones(1000))


def test_a_state_that_does_not_fit_is_explained(store):
    store.save(1, state(1))
    with pytest.raises(ValueError) as error:
        store.restore_newest({**state(0, length=5), "extra": 1})
    message = str(error.value)
    assert f"trainable/{PATH}: saved float32 [3, 4], this run has float32 [5, 4]" in message
    assert "opt_state/0/mu/" in message
    assert "extra: only in this run" in message
    assert "choose another MODEL_DIR; to resume, set what was changed" in message
    fewer = state(0)
    del fewer["rng"]
    with pytest.raises(ValueError, match="rng: only saved"):
        store.restore_newest(fewer)
    with pytest.raises(ValueError, match=r"holds no state of step 8, only of \[1\]"):
        store.restore(8, state(0))


def damage(folder):
    """Cuts every file of a state's arrays short."""
    for path in pathlib.Path(folder, "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])


# Orbax's reading threads are still at work when the first of them fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_state_stops_the_run(tmp_path):
    store = StateStore(tmp_path)
    store.save(1, state(1))
    store.save(2, state(2))
    store.close()
    damage(tmp_path / "2")
    store = StateStore(tmp_path)
    with pytest.raises(
        ValueError, match=r"/2' is complete but cannot be read .*resume from step 1"
    ):
        store.restore_newest(state(0))
    store.close()
    damage(tmp_path / "1")
    (tmp_path / "1" / "state" / "_METADATA").unlink()
    store = StateStore(tmp_path)
    with pytest.raises(ValueError, match="/1' is complete but cannot .* start from the beginning"):
        store.restore(1, state(0))
    store.close()


def test_a_reader_changes_nothing(tmp_path):
    with pytest.raises(ValueError, match="holds no training states: there is no such folder"):
        StateStore(tmp_path / "nowhere", read_only=True)
    store = StateStore(tmp_path)
    store.save(1, state(1), 0.5)
    store.close()
    cut_short = tmp_path / "2.orbax-checkpoint-tmp"
    cut_short.mkdir()
    before = signal.getsignal(signal.SIGTERM)
    reader = StateStore(tmp_path, read_only=True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert_same(reader.restore_best(state(0))[1], state(1))
    with pytest.raises(ValueError, match="were opened read-only: .* SIGTERM is not noticed"):
        reader.reached_preemption(1)
    with pytest.raises(ValueError, match="were opened read-only: .* nothing can be saved"):
        reader.save(3, state(3))
    reader.close()
    assert sorted(os.listdir(tmp_path)) == ["1", "2.orbax-checkpoint-tmp"]
    writer = StateStore(tmp_path)
    writer.save(3, state(3))
    writer.close()
    assert not cut_short.exists()


def test_a_failed_save_is_reported(tmp_path):
    store = StateStore(tmp_path / "state")
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(OSError, match="state"):
        store.save(1, state(1))
        store.wait()
    (tmp_path / "state").unlink()


def test_at_least_one_state_is_kept(tmp_path):
    with pytest.raises(ValueError, match="newest must be at least 1, got 0"):
        StateStore(tmp_path, newest=0)


def test_a_half_deleted_old_state_is_cleared_away(tmp_path):
    # Killed while an old state was being deleted.
    store = StateStore(tmp_path)
    for step in (1, 2, 3):
        store.save(step, state(step), float(step))
    store.close()
    (tmp_path / "0" / "state").mkdir(parents=True)
    store = StateStore(tmp_path)
    assert store.restore_newest(state(0))[0] == 3
    assert store.best_step == 3
    store.save(4, state(4))
    store.close()
    assert sorted(os.listdir(tmp_path)) == ["3", "4"]


def test_sigterm_is_noticed_once_and_its_handler_restored(tmp_path):
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("earlier handler"))
    try:
        earlier = signal.getsignal(signal.SIGTERM)
        store = StateStore(tmp_path)
        assert not store.reached_preemption(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert store.reached_preemption(2)
        assert calls == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["earlier handler"]
        store.close()
        StateStore(tmp_path).close()
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_it_warns(tmp_path, caplog):
    made = []
    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=lambda: made.append(StateStore(tmp_path)))
        thread.start()
        thread.join()
    assert "SIGTERM will end this run without saving" in caplog.text
    assert not made[0].reached_preemption(1)
    made[0].close()


@pytest.mark.parametrize("name", ["run[1]", "[ab]c", "a*b", "q?x", "{a,b}", "a\\b", "ü ß", "a%20b"])
def test_a_folder_may_have_any_name(tmp_path, name):
    """Orbax takes its folder for a glob pattern; a sibling that matches must not matter."""
    for other in ("run1", "axb", "ac"):
        folder = tmp_path / other / "state"
        with contextlib.closing(StateStore(folder)) as sibling:
            sibling.save(9, state(9))
    folder = tmp_path / name / "state"
    with contextlib.closing(StateStore(folder)) as store:
        store.save(1, state(1), 50.0)
        store.save(2, state(2), 25.0)
    assert sorted(os.listdir(folder)) == ["1", "2"]
    with contextlib.closing(StateStore(folder)) as store:
        assert store.directory == str(folder)
        assert_same(store.restore_newest(state(0))[1], state(2))
        assert_same(store.restore_best(state(0))[1], state(1))


@pytest.mark.parametrize("large", [False, True])
def test_a_state_that_cannot_be_read_back_was_not_saved(store, monkeypatch, large):
    if large:
        monkeypatch.setattr(training_state, "_READ_BACK_BYTES", 0)
    store.save(1, state(1))
    store._manager.wait_until_finished()
    for path in pathlib.Path(store.directory).rglob("*"):
        if path.is_file() and "ocdbt" in str(path.relative_to(store.directory)):
            path.unlink()
    with pytest.raises(ValueError, match="The training state '.*1' is complete but cannot be read"):
        store.wait()


def test_a_state_that_reads_back_otherwise_was_not_saved(store, monkeypatch):
    monkeypatch.setattr(store, "_read", lambda step, leaves: {name: np.zeros(0) for name in leaves})
    store.save(1, state(1))
    with pytest.raises(ValueError, match="step 1 was written to .* cannot be read back: .* is not"):
        store.wait()


def test_ctrl_c_is_noticed_once_and_reported(tmp_path, capfd, ctrl_c):
    with contextlib.closing(StateStore(tmp_path)) as store:
        os.kill(os.getpid(), signal.SIGINT)
        assert store.reached_preemption(2) == signal.SIGINT
        assert (
            "Ctrl-C: saving after this step; press it again to stop immediately"
            in capfd.readouterr().err
        )
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_ctrl_c_stays_ignored_where_it_was(tmp_path, ctrl_c):
    """A shell starts background processes so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.closing(StateStore(tmp_path)) as store:
        os.kill(os.getpid(), signal.SIGINT)
        assert store.reached_preemption(1) is None


DISTRIBUTED = """
import os, signal, socket, sys, time
import jax
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=1, process_id=0)
from prompt_tuning.checkpoints.training_state import StateStore
store = StateStore(sys.argv[1])
os.kill(os.getpid(), signal.SIGTERM)
for step in range(1, 500):
    time.sleep(0.02)
    if store.reached_preemption(step):
        store.save(step, {"step": step})
        store.close()
        assert store.steps() == [step]
        jax.distributed.shutdown()
        sys.exit(42)
"""


def python(*arguments, **options):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    root = str(pathlib.Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=root,
        env={**environment, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_with_jax_distributed_its_service_decides(tmp_path):
    process = python("-c", DISTRIBUTED, str(tmp_path), stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 42, errors[-2000:]


# Each round resumes, checks what it finds bit by bit, and saves until it is killed.
TRAINER = """
import json, sys
import numpy as np
from prompt_tuning.checkpoints.training_state import StateStore

def state(step):
    values = np.random.default_rng(step).standard_normal((4, 500_000), np.float32)
    return {"step": step, "arrays": {f"a/{i}": values[i] for i in range(4)}}

def check(found):
    if found is None:
        return None
    step, tree = found
    expected = state(step)
    assert tree["step"] == step
    for name, array in expected["arrays"].items():
        np.testing.assert_array_equal(tree["arrays"][name], array)
    return step

store = StateStore(sys.argv[1])
newest = check(store.restore_newest(state(0)))
best = check(store.restore_best(state(0)))
print(json.dumps({"newest": newest, "best": best, "score": store.best_score}), flush=True)
for step in range((newest or 0) + 1, 10_000):
    store.save(step, state(step), (step * 7 % 10) / 10 if step % 2 else None)
    print(step, flush=True)
"""


def complete_steps(folder):
    return [int(name) for name in os.listdir(folder) if name.isdigit()]


def is_cut_short(folder):
    return any("tmp" in name for name in os.listdir(folder))


def test_killed_at_any_moment_it_resumes_from_the_newest_complete_state(tmp_path):
    rounds, cut_short, wanted = 4, 0, None
    moments = random.Random(0)
    folder = tmp_path / "state"
    for number in range(rounds + 1):
        process = python("-c", TRAINER, str(folder))
        found = json.loads(process.stdout.readline())
        assert found["newest"] == wanted
        if wanted is not None and wanted >= 9:
            assert found["score"] == 0.9
            assert found["best"] % 10 == 7
        if number < rounds:
            while int(process.stdout.readline()) < (wanted or 0) + 8:
                pass
            time.sleep(moments.uniform(0, 0.05))
            deadline = time.monotonic() + 5
            while number % 2 and not is_cut_short(folder) and time.monotonic() < deadline:
                pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        cut_short += is_cut_short(folder)
        wanted = max(complete_steps(folder))
    assert cut_short >= 1, "no kill happened during a save; the test proves nothing"
