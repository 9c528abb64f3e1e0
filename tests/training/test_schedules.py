import jax
import numpy as np
import pytest
import tiny_runs

from prompt_tuning.training import schedules


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_linear_warmup():
    schedule = schedules.linear_warmup(0.3, warmup_steps=1000)
    np.testing.assert_allclose(
        values(schedule, [0, 1, 500, 1000, 30_000]), [0, 0.0003, 0.15, 0.3, 0.3], rtol=1e-4
    )


def test_linear_decay():
    schedule = schedules.linear_decay(0.4, total_steps=100)
    np.testing.assert_allclose(values(schedule, [0, 25, 100, 101]), [0.4, 0.3, 0, 0], rtol=1e-6)


def test_linear_decay_after_warmup():
    schedule = schedules.linear_decay(0.4, total_steps=110, warmup_steps=10)
    np.testing.assert_allclose(
        values(schedule, [0, 5, 10, 35, 110, 500]), [0, 0.2, 0.4, 0.3, 0, 0], rtol=1e-6
    )


def test_rsqrt_decay():
    schedule = schedules.rsqrt_decay(2.0, warmup_steps=100)
    np.testing.assert_allclose(
        values(schedule, [0, 99, 100, 400, 10_000]), [0.2, 0.2, 0.2, 0.1, 0.02], rtol=1e-6
    )


def test_rsqrt_decay_of_t5s_pre_training():
    np.testing.assert_allclose(
        values(schedules.rsqrt_decay(), [0, 1_100_000]), [0.01, 1 / np.sqrt(1.1e6)], rtol=1e-6
    )


def test_schedules_work_under_jit():
    for schedule in (
        schedules.linear_warmup(0.3, 10),
        schedules.linear_decay(0.3, 20, 10),
        schedules.rsqrt_decay(0.3, 10),
    ):
        np.testing.assert_allclose(jax.jit(schedule)(15), schedule(15), rtol=1e-6)


def test_gin_names_them_and_optaxs_own(tmp_path):
    for bindings, step, expected in (
        (
            [
                "adafactor.learning_rate=@linear_warmup()",
                "linear_warmup.learning_rate=0.5",
                "linear_warmup.warmup_steps=10",
            ],
            5,
            0.25,
        ),
        (
            [
                "adafactor.learning_rate=@optax.cosine_decay_schedule()",
                "cosine_decay_schedule.init_value=0.5",
                "cosine_decay_schedule.decay_steps=10",
            ],
            5,
            0.25,
        ),
    ):
        run = tiny_runs.load_run(tmp_path, *bindings)
        assert float(run.optimizer.keywords["learning_rate"](step)) == pytest.approx(expected)


def test_warmup_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must be at least 1, got 0. For a rate"):
        schedules.linear_warmup(0.3, warmup_steps=0)
    with pytest.raises(ValueError, match="warmup_steps must be at least 1, got -5"):
        schedules.rsqrt_decay(0.3, warmup_steps=-5)


def test_decay_shorter_than_its_warmup_is_refused():
    with pytest.raises(ValueError, match="got warmup_steps=100 and total_steps=100"):
        schedules.linear_decay(0.3, total_steps=100, warmup_steps=100)
