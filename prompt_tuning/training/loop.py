"""Training: from a `Run` to what it trains, resumable at any moment.

    read the data -> load the frozen model -> resume or start -> step, step, step
                                                                 every EVAL_PERIOD: evaluate, save

A step depends on nothing but the state, the seed and its number, so a run that was killed and
resumed ends with the same prompt, bit for bit, as one that was not.

    begin.py         the data, the model and the newest state
    setup.py         initial values, and which parameters train
    lock.py          one process at a time
    identity.py      what must be the same when a run is resumed; settings.py
    resume.py        the saved state
    step.py          one step
    artifacts.py     the files that it writes
    termination.py   the ways it ends early
    together.py      the loop of several runs over one frozen model
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax

from prompt_tuning import trees
from prompt_tuning.inference import evaluate
from prompt_tuning.model import stacking
from prompt_tuning.parallel import processes
from prompt_tuning.run import Run
from prompt_tuning.training import artifacts, lock, progress, resume, setup, termination
from prompt_tuning.training.begin import Steps, Training, begin
from prompt_tuning.training.step import StepMetrics, TrainState

STEPS_BETWEEN_CHECKS = 10  # of the loss; in between no step waits for the accelerator


class Trained(NamedTuple):
    """How a run ended."""

    step: int
    best_step: int | None
    best_score: float | None
    path: str  # of the best prompt, or of the best tuned model


@processes.first_prints()
def train_run(run: Run) -> Trained:
    """Trains what the method of a run names; resumes where an earlier process stopped.

    Raises:
      ValueError: something is missing or does not fit, MODEL_DIR holds another run, or another
        process trains there; nothing was compiled yet.
      FloatingPointError: the loss is not finite; everything saved before is intact.
      SystemExit: with code 42 after SIGTERM and 130 after Ctrl-C, when the state is saved. A
        second signal ends the process without saving.
    """
    artifacts.check_model_dir(run)
    with lock.held(run.model_dir):
        training, steps, state = begin(run)
        try:
            state = train(training, steps, state)
            steps.progress.interrupt()
            return report_end(training, state)
        finally:
            steps.close()
            training.close()


def train(training: Training, steps: Steps, state: TrainState) -> TrainState:
    """Runs the remaining steps, and evaluates and saves in between."""
    run, store = training.run, training.store
    rng = setup.step_rng(run, state.trainable)
    unchecked: list[tuple[int, StepMetrics]] = []
    if state.step in run.checkpoint_steps:
        _trained(training, state).write_checkpoint()
    while state.step < run.train_steps and not stops_early(training, steps, state.step):
        state, measured = steps.step(state, training.frozen, next(steps.batches), rng)
        unchecked.append((state.step, measured))
        is_evaluated = state.step % run.eval_period == 0 or state.step == run.train_steps
        is_asked_for = state.step in run.checkpoint_steps
        if is_evaluated or is_asked_for or len(unchecked) >= STEPS_BETWEEN_CHECKS:
            _check(training, steps, unchecked)
        if is_asked_for:  # before the state is saved: a run resumed from it would skip this
            _trained(training, state).write_checkpoint()
        if is_evaluated:
            note = evaluate_and_save(training, steps, state)
            steps.progress.note_dev_score(f"  dev {note}")
        if signal_number := store.reached_preemption(state.step):
            _check(training, steps, unchecked)
            save(training, state)
            steps.progress.interrupt()
            termination.exit_saved(state.step, signal_number)
    store.wait()
    return state


def _check(training: Training, steps: Steps, unchecked: list[tuple[int, StepMetrics]]) -> None:
    """Reads the losses of the steps since the last check; stops if one is not finite."""
    if not unchecked:
        return
    loss = check(training, jax.device_get(unchecked))  # all in one transfer
    steps.progress.note_compiled(steps.step.programs, steps.step.compile_seconds)
    step = unchecked[-1][0]
    steps.progress.show(step, loss, last=step == training.run.train_steps)
    unchecked.clear()


def check(training: Training, measured: Sequence[tuple[int, StepMetrics]]) -> float:
    """Writes the metrics of steps; returns the last loss.

    Raises:
      FloatingPointError: see `termination.check_finite`.
    """
    for step, one in measured:
        values = {name: float(x) for name, x in one._asdict().items()}
        tasks = training.stream.tasks(step - 1)
        termination.check_finite(step, values, tasks, training.store.newest_step)
        if step % STEPS_BETWEEN_CHECKS == 0 or step == training.run.train_steps:
            training.metrics.write(step, "train", values)
    return values["loss"]


def evaluate_and_save(training: Training, steps: Steps, state: TrainState) -> str:
    """Evaluates, writes what trained and saves the state; returns the score, for the progress."""
    began = time.monotonic()
    training.metrics.write(state.step, progress.SPEED, {"input_wait": steps.batches.wait_share()})
    run, store, metrics, step = training.run, training.store, training.metrics, state.step
    params = stacking.nested(trees.merge(state.trainable, training.frozen), training.model.compute)
    result = evaluate.measure_all(training.model, params, training.dev_sets, run)
    score = {"dev_score": result.score}
    metrics.write(step, run.eval_split, result.metrics | score | result.rank | result.named_levels)
    metrics.write_samples(step, run.eval_split, result.samples)
    metrics.flush()
    best_score = store.best_score
    is_best = math.isfinite(result.score) and (best_score is None or result.score > best_score)
    _trained(training, state).write(result.metrics, is_best)
    store.save(step, resume.state_tree(run, training.fingerprint, state), result.score)
    steps.progress.pause(time.monotonic() - began)
    steps.batches.start_clock()
    steps.progress.interrupt()
    shown = result.metrics | result.rank
    listed = "  ".join(f"{name} {value:.2f}" for name, value in shown.items())
    best = "  (best)" if is_best else ""
    print(f"{training.name}step {step:,}  {run.eval_split}: {listed}{best}")
    if store.best_step is None:
        return f"{result.score:.2f}"
    return f"{result.score:.2f} (best {store.best_score:.2f} at {store.best_step:,})"


def _trained(training: Training, state: TrainState) -> artifacts.Trained:
    return artifacts.trained(
        training.run, training.fingerprint, state, training.frozen, training.added
    )


def stops_early(training: Training, steps: Steps, step: int) -> bool:
    """Whether the dev score has not become better for long, which is then printed."""
    run = training.run
    if not termination.stops_early(run, step, training.store.best_step):
        return False
    steps.progress.interrupt()
    waited = f"no better dev score for {run.early_stopping} evaluations"
    print(f"{training.name}stopping early: {waited}")
    return True


def save(training: Training, state: TrainState) -> None:
    """Saves a state between two evaluations, if it is not saved yet, and what trained."""
    tree = resume.state_tree(training.run, training.fingerprint, state)
    if training.store.save(state.step, tree):
        _trained(training, state).write({})
    training.store.wait()


def report_end(training: Training, state: TrainState) -> Trained:
    """Prints how a run ended."""
    path = artifacts.best_path(training.run, bool(training.added))
    best_step, best_score = training.store.best_step, training.store.best_score
    if best_step is None:
        print(f"{training.name}done: step {state.step:,}, no evaluation with a finite dev score")
    else:
        best = f"best dev score {best_score:.2f} at step {best_step:,}"
        print(f"{training.name}done: {best}, in {path}")
    return Trained(state.step, best_step, best_score, path)
