"""Training: from a `Run` to what it trains, resumable at any moment.

    read the data -> load the frozen model -> resume or start -> step, step, step
                                                                 every EVAL_PERIOD: evaluate, save

A step depends on nothing but the state, the seed and its number, so a run that was killed and
resumed ends with the same prompt, bit for bit, as one that was not.

    setup.py         initial values, and which parameters train
    lock.py          one process at a time
    identity.py      what must be the same when a run is resumed; settings.py
    resume.py        the saved state
    step.py          one step
    artifacts.py     the files that it writes
    termination.py   the ways it ends early
"""

import math
import os
import time
from typing import NamedTuple

import jax

from prompt_tuning import trees
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches, describe, tables
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.run import Run
from prompt_tuning.training import (
    artifacts,
    identity,
    lock,
    progress,
    resume,
    setup,
    termination,
)
from prompt_tuning.training.step import StepMetrics, TrainState, make_train_step

STEPS_BETWEEN_CHECKS = 10  # of the loss; in between no step waits for the accelerator


class Trained(NamedTuple):
    """How a run ended."""

    step: int
    best_step: int | None
    best_score: float | None
    path: str  # of the best prompt, or of the best tuned model


class Training(NamedTuple):
    """One process of one run: what its steps read, and where they write.

    What a step changes is in `TrainState`.

    Attributes:
      run: the settings.
      fingerprint: of the frozen model.
      model: the T5 with the hooks of the method.
      frozen: the parameters that do not train, by path.
      added: the paths of what the method added.
      stream, dev_sets: the data.
      store, metrics, progress: the saved states, the numbers on disk and the line on the screen.
    """

    run: Run
    fingerprint: str
    model: Transformer
    frozen: trees.FlatTree
    added: frozenset[str]
    stream: batches.TrainBatches
    dev_sets: list[batches.Examples]
    store: StateStore
    metrics: progress.Metrics
    progress: progress.Progress


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
        training, state = begin(run)
        try:
            state = train(training, state)
            return _report_end(training, state)
        finally:
            training.progress.interrupt()
            training.metrics.close()
            training.store.close()


def begin(run: Run) -> tuple[Training, TrainState]:
    """Loads everything, prints what was found, and restores the newest state."""
    task = loading.prepare_task(run)
    stream = batches.train_batches(
        task, "train", run.task_feature_lengths, run.batch_size, run.seed
    )
    dev_sets = evaluate.load_eval_sets(run, task)
    for examples in [*stream.examples, *dev_sets]:
        print(examples.report())
    print(describe.first_example(stream.examples[0]))
    if note := setup.unread_prompt_file(run):
        print(note)
    t5 = loading.load_t5(run, task)
    model, trainable, frozen, added = setup.split_parameters(run, t5)
    print(f"{run.model.name} from {run.initial_checkpoint_path}, fingerprint {t5.fingerprint}")
    print(progress.parameter_table(trainable, frozen))
    artifacts.remove_leftovers(run.model_dir)
    store = StateStore(os.path.join(run.model_dir, "state"))
    now = identity.of_run(run, t5.fingerprint, stream, dev_sets)
    try:
        is_known = identity.is_known(store, run.model_dir, now, [*stream.examples, *dev_sets])
        fresh = resume.fresh_state(trainable, run.optimizer())
        state = resume.resume(store, run, t5.fingerprint, fresh)
        if not is_known:
            identity.write(store.directory, now)
        artifacts.write_settings(run.model_dir, run.config_text)
        tables.keep(stream.examples[0].task, run.model_dir)
        stream.step = state.step
        metrics = progress.Metrics(run.model_dir, state.step)
    except BaseException:
        store.close()
        raise
    line = progress.Progress(total_steps=run.train_steps, examples_per_step=run.batch_size)
    return Training(
        run, t5.fingerprint, model, frozen, added, stream, dev_sets, store, metrics, line
    ), state


def train(training: Training, state: TrainState) -> TrainState:
    """Runs the remaining steps, and evaluates and saves in between."""
    run, store = training.run, training.store
    step_fn = make_train_step(
        training.model,
        run.optimizer(),
        weight_decay_rate=run.weight_decay_rate,
        label_smoothing=run.label_smoothing,
        z_loss=run.z_loss,
        loss_normalizing_factor=run.loss_normalizing_factor,
    )
    rng = setup.dropout_rng(run.seed) if run.model.dropout_rate else None
    unchecked: list[tuple[int, StepMetrics]] = []
    if state.step in run.checkpoint_steps:
        _write_checkpoint(training, state)
    while state.step < run.train_steps and not _stops_early(training, state.step):
        state, measured = step_fn(state, training.frozen, next(training.stream), rng)
        unchecked.append((state.step, measured))
        is_evaluated = state.step % run.eval_period == 0 or state.step == run.train_steps
        is_asked_for = state.step in run.checkpoint_steps
        if is_evaluated or is_asked_for or len(unchecked) >= STEPS_BETWEEN_CHECKS:
            _check(training, unchecked)
        if is_asked_for:  # before the state is saved: a run resumed from it would skip this
            _write_checkpoint(training, state)
        if is_evaluated:
            _evaluate_and_save(training, state)
        if signal_number := store.reached_preemption(state.step):
            _check(training, unchecked)
            _save_and_exit(training, state, signal_number)
    store.wait()
    return state


def _check(training: Training, unchecked: list[tuple[int, StepMetrics]]) -> None:
    """Reads the losses of the steps since the last check; stops if one is not finite."""
    if not unchecked:
        return
    run = training.run
    for step, measured in jax.device_get(unchecked):  # all in one transfer
        values = {name: float(x) for name, x in measured._asdict().items()}
        tasks = training.stream.tasks(step - 1)
        termination.check_finite(step, values, tasks, training.store.newest_step)
        is_last = step == run.train_steps
        if step % STEPS_BETWEEN_CHECKS == 0 or is_last:
            training.metrics.write(step, "train", values)
    training.progress.show(step, values["loss"], last=is_last)
    unchecked.clear()


def _evaluate_and_save(training: Training, state: TrainState) -> None:
    began = time.monotonic()
    run, store, metrics, step = training.run, training.store, training.metrics, state.step
    params = trees.unflatten(trees.merge(state.trainable, training.frozen))
    result = evaluate.measure_all(training.model, params, training.dev_sets, run)
    metrics.write(step, run.eval_split, result.metrics | {"dev_score": result.score} | result.rank)
    metrics.write_samples(step, run.eval_split, result.samples)
    metrics.flush()
    best_score = store.best_score
    is_best = math.isfinite(result.score) and (best_score is None or result.score > best_score)
    _write_trained(training, state, result.metrics, is_best)
    store.save(step, resume.state_tree(run, training.fingerprint, state), result.score)
    training.progress.pause(time.monotonic() - began)
    _report_evaluation(training, step, result, is_best)


def _write_trained(
    training: Training, state: TrainState, dev_metrics: dict[str, float], is_best: bool
) -> None:
    """Writes what the method added, and the best model if parameters of it train."""
    _write_added(training, state, f"step_{state.step:06d}", dev_metrics)
    if not is_best:
        return
    _write_added(training, state, "best", dev_metrics)
    if state.trainable.keys() - training.added:
        artifacts.write_best_model(
            training.run.model_dir, _model_params(training, state), state.step
        )


def _write_added(
    training: Training, state: TrainState, name: str, dev_metrics: dict[str, float]
) -> None:
    params = trees.merge(state.trainable, training.frozen)
    arrays = {path: params[path] for path in sorted(training.added)}
    artifacts.write_added(name, training.run, training.fingerprint, arrays, state.step, dev_metrics)


def _write_checkpoint(training: Training, state: TrainState) -> None:
    params = _model_params(training, state)
    artifacts.write_model(training.run.model_dir, params, state.step)


def _model_params(training: Training, state: TrainState) -> trees.FlatTree:
    """The parameters of the T5 alone, as they are now."""
    params = trees.merge(state.trainable, training.frozen)
    return {path: leaf for path, leaf in params.items() if path not in training.added}


def _stops_early(training: Training, step: int) -> bool:
    if not termination.stops_early(training.run, step, training.store.best_step):
        return False
    training.progress.interrupt()
    print(f"stopping early: no better dev score for {training.run.early_stopping} evaluations")
    return True


def _save_and_exit(training: Training, state: TrainState, signal_number: int) -> None:
    tree = resume.state_tree(training.run, training.fingerprint, state)
    if training.store.save(state.step, tree):
        _write_added(training, state, f"step_{state.step:06d}", {})  # not evaluated
    training.store.wait()
    training.progress.interrupt()
    termination.exit_saved(state.step, signal_number)


def _report_evaluation(
    training: Training, step: int, result: evaluate.Evaluated, is_best: bool
) -> None:
    store = training.store
    training.progress.interrupt()
    shown = result.metrics | result.rank
    listed = "  ".join(f"{name} {value:.2f}" for name, value in shown.items())
    print(f"step {step:,}  {training.run.eval_split}: {listed}{'  (best)' if is_best else ''}")
    note = f"  dev {result.score:.2f}"
    if store.best_step is not None:
        note += f" (best {store.best_score:.2f} at {store.best_step:,})"
    training.progress.note_dev_score(note)


def _report_end(training: Training, state: TrainState) -> Trained:
    path = artifacts.best_path(training.run, bool(training.added))
    best_step, best_score = training.store.best_step, training.store.best_score
    training.progress.interrupt()
    if best_step is None:
        print(f"done: step {state.step:,}, no evaluation with a finite dev score")
    else:
        print(f"done: best dev score {best_score:.2f} at step {best_step:,}, in {path}")
    return Trained(state.step, best_step, best_score, path)
