"""Training: from a `Run` to a trained prompt, resumable at any moment.

    read the data -> load the frozen model -> resume or begin -> step, step, step
                                                                  every EVAL_PERIOD: evaluate, save

A step depends on nothing but the state, the seed and its number, so a run that was
killed ends with the same prompt, bit for bit, as one that was not.
"""

import glob
import hashlib
import math
import os
import shutil
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches, describe, tables
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.run import Run
from prompt_tuning.training import progress, setup
from prompt_tuning.training.step import StepMetrics, TrainState, make_train_step

PREEMPTED = 42  # exit code after SIGTERM; the state was saved
STEPS_BETWEEN_CHECKS = 10  # of the loss; in between, the accelerator is never waited for

# What may not change while a run goes on: a name in the saved state, and how it is set.
IDENTITY = {
    "rng": "RANDOM_SEED",
    "data_position": "BATCH_SIZE",
    "task": "MIXTURE_OR_TASK_NAME",
    "frozen_model": "INITIAL_CHECKPOINT_PATH (its parameters have another fingerprint)",
}


class Trained(NamedTuple):
    """How a run ended."""

    step: int
    best_step: int | None
    best_score: float | None
    path: str  # of the best prompt, or of the best tuned model


def train_run(run: Run) -> Trained:
    """Trains what `run.trainable` names; goes on where an earlier process stopped.

    Raises:
      ValueError: something is missing or does not fit; nothing was compiled yet.
      FloatingPointError: the loss is not finite; everything saved before is intact.
      SystemExit: with code 42 after SIGTERM, when the state is saved.
    """
    progress.check_model_dir(run)
    training = _begin(run)
    try:
        return training.go()
    finally:
        training.close()


def _begin(run: Run) -> "_Training":
    """Loads everything, and says what it found; the initial parameters go no further."""
    task = loading.prepare_task(run)
    stream = batches.train_batches(
        task, "train", run.task_feature_lengths, run.batch_size, run.seed
    )
    dev_sets = evaluate.load_eval_sets(run, task)
    for examples in [*stream.examples, *dev_sets]:
        print(examples.report())
    print(describe.first_example(stream.examples[0]))
    t5 = loading.load_t5(run, task)
    parameters = setup.part_parameters(run, t5)
    print(f"{run.model.name} from {run.initial_checkpoint_path}, fingerprint {t5.fingerprint}")
    print(progress.parameter_table(parameters.trainable, parameters.frozen))
    return _Training(run, t5.fingerprint, parameters, stream, dev_sets)


class _Training:
    """The moving parts of one process of one run."""

    def __init__(
        self,
        run: Run,
        fingerprint: str,
        parameters: setup.Parameters,
        stream: batches.TrainBatches,
        dev_sets: list[batches.Examples],
    ):
        self.run, self.fingerprint = run, fingerprint
        self.model, self.frozen = parameters.model, parameters.frozen
        self.stream, self.dev_sets = stream, dev_sets
        self.optimizer = run.optimizer()
        _remove_leftovers(run.model_dir)
        self.store = StateStore(os.path.join(run.model_dir, "state"))
        try:
            self.state = self._resume(parameters.trainable)
        except BaseException:
            self.store.close()
            raise
        progress.write_settings(run.model_dir, run.config_text)
        tables.keep(stream.examples[0].task, run.model_dir)
        self.stream.step = self.state.step
        self.metrics = progress.Metrics(run.model_dir, self.state.step)
        self.progress = progress.Progress(
            total_steps=run.train_steps, examples_per_step=run.batch_size
        )
        self.unchecked: list[tuple[int, StepMetrics]] = []

    def go(self) -> Trained:
        run = self.run
        step_fn = make_train_step(
            self.model,
            self.optimizer,
            weight_decay_rate=run.weight_decay_rate,
            label_smoothing=run.label_smoothing,
            z_loss=run.z_loss,
            loss_normalizing_factor=run.loss_normalizing_factor,
        )
        rng = setup.dropout_rng(run.seed) if run.model.dropout_rate else None
        self._write_asked_for_checkpoint()
        while self.state.step < run.train_steps and not self._stops_early():
            batch = next(self.stream)
            self.state, measured = step_fn(self.state, self.frozen, batch, rng)
            self.unchecked.append((self.state.step, measured))
            is_last = self.state.step == run.train_steps
            if len(self.unchecked) >= STEPS_BETWEEN_CHECKS or is_last:
                self._check()
            self._write_asked_for_checkpoint()  # before a state that says it is behind us
            if self.state.step % run.eval_period == 0 or is_last:
                self._evaluate_and_save()
            if self.store.reached_preemption(self.state.step):
                self._save_and_exit()
        self.store.wait()
        return self._ended()

    def close(self) -> None:
        self.progress.interrupt()
        self.metrics.close()
        self.store.close()

    def _state_tree(self, state: TrainState) -> dict[str, Any]:
        return {
            "trainable": state.trainable,
            "opt_state": state.opt_state,
            "step": state.step,
            "rng": np.asarray(jax.random.key_data(setup.dropout_rng(self.run.seed))),
            "data_position": state.step * self.run.batch_size,
            "task": _digest(self.run.task),
            "frozen_model": _digest(self.fingerprint),
        }

    def _resume(self, trainable: trees.FlatTree) -> TrainState:
        # Bound to their devices, as restored arrays are: both then compile the same program.
        bound = jax.tree.map(
            lambda leaf: jax.device_put(leaf, leaf.sharding),
            (trainable, self.optimizer.init(trainable)),
        )
        fresh = TrainState(0, *bound)
        found = self.store.restore_newest(self._state_tree(fresh))
        if found is None:
            return fresh
        step, tree = found
        expected = self._state_tree(fresh._replace(step=step))
        for key, setting in IDENTITY.items():
            if not np.array_equal(tree[key], expected[key]):
                raise ValueError(
                    f"{self.run.model_dir} holds a run that was begun with another {setting}. Set "
                    "it back to go on with that run, or choose another MODEL_DIR."
                )
        self._check_none_was_missed(step)
        print(f"resuming at step {step:,}")
        return TrainState(step, tree["trainable"], tree["opt_state"])

    def _check_none_was_missed(self, step: int) -> None:
        folder = self.run.model_dir
        for past in self.run.checkpoint_steps:
            if past < step and not os.path.isdir(os.path.join(folder, f"checkpoint_{past}")):
                raise ValueError(
                    f"Run.checkpoint_steps asks for the model of step {past}, which {folder} does "
                    f"not hold, and the run is at step {step} already. Take {past} out, or choose "
                    "another MODEL_DIR to start anew."
                )

    def _check(self) -> None:
        """Reads the losses of the steps since the last check; stops if one is not finite."""
        for step, measured in jax.device_get(self.unchecked):  # all in one transfer
            values = {name: float(x) for name, x in measured._asdict().items()}
            if not np.isfinite(list(values.values())).all():
                raise FloatingPointError(self._diverged(step, values))
            if step % STEPS_BETWEEN_CHECKS == 0 or step == self.run.train_steps:
                self.metrics.write(step, "train", values)
        if self.unchecked:
            self.progress.show(step, values["loss"], last=step == self.run.train_steps)
        self.unchecked.clear()

    def _diverged(self, step: int, values: dict[str, float]) -> str:
        tasks = ", ".join(self.stream.tasks(step - 1))
        newest = self.store.newest_step
        saved = f"the state of step {newest:,} is intact" if newest else "nothing was saved yet"
        return (
            f"The loss of step {step:,} is {values['loss']}, its gradient's norm "
            f"{values['gradient_norm']} and the norm of what trains then "
            f"{values['trainable_norm']}, on a batch of {tasks}; {saved}. Lower the learning rate, "
            "check the values of prompt and checkpoint, or train with T5Config.dtype='float32'."
        )

    def _evaluate_and_save(self) -> None:
        self._check()
        began = time.monotonic()
        step = self.state.step
        params = trees.unflatten(trees.merge(self.state.trainable, self.frozen))
        result = evaluate.measure_all(self.model, params, self.dev_sets, self.run)
        measured = result.metrics | {"dev_score": result.score} | result.rank
        self.metrics.write(step, self.run.eval_split, measured)
        self.metrics.write_samples(step, self.run.eval_split, result.samples)
        self.metrics.flush()
        best_score = self.store.best_score
        is_best = math.isfinite(result.score) and (best_score is None or result.score > best_score)
        self._write_trained(result, is_best)
        self.store.save(step, self._state_tree(self.state), result.score)
        self.progress.pause(time.monotonic() - began)
        self.progress.interrupt()
        shown = result.metrics | result.rank
        listed = "  ".join(f"{name} {value:.2f}" for name, value in shown.items())
        print(f"step {step:,}  {self.run.eval_split}: {listed}{'  (best)' if is_best else ''}")
        note = f"  dev {result.score:.2f}"
        if self.store.best_step is not None:
            note += f" (best {self.store.best_score:.2f} at {self.store.best_step:,})"
        self.progress.note_dev_score(note)

    def _write_trained(self, result: evaluate.Evaluated, is_best: bool) -> None:
        """Writes the prompt by itself, and for model tuning the best model as T5X."""
        self._write_prompt(f"step_{self.state.step:06d}", result.metrics)
        if is_best:
            self._write_prompt("best", result.metrics)
        if is_best and self.state.trainable.keys() != {PROMPT_PATH}:
            self._write_best_model()

    def _write_prompt(self, name: str, dev_metrics: dict[str, float]) -> None:
        run, prompt = self.run, self.state.trainable.get(PROMPT_PATH)
        if prompt is None:
            return
        metadata = files.PromptMetadata(
            model=run.model.name,
            model_fingerprint=self.fingerprint,
            length=prompt.shape[0],
            width=prompt.shape[1],
            task=run.task,
            step=self.state.step,
            dev_metrics=dev_metrics,
            config=run.config_text,
        )
        files.save(os.path.join(run.model_dir, "prompts", name), prompt, metadata)

    def _write_best_model(self) -> None:
        """Writes the tuned model and removes the former best; one of them is always whole."""
        folder = os.path.join(self.run.model_dir, "best")
        newest = self._write_model(folder)
        for former in glob.glob("checkpoint_*", root_dir=folder):
            if former != newest:
                shutil.rmtree(os.path.join(folder, former))

    def _write_asked_for_checkpoint(self) -> None:
        """Writes the model of this step if `run.checkpoint_steps` names it."""
        if self.state.step in self.run.checkpoint_steps:
            self._check()
            self._write_model(self.run.model_dir)

    def _write_model(self, folder: str) -> str:
        """Writes the model as it is now, without a prompt, and returns its name in the folder.

        One that is there was written by a process that was killed before it saved its state.
        """
        params = trees.merge(self.state.trainable, self.frozen)
        params.pop(PROMPT_PATH, None)
        again = os.path.join(folder, f"checkpoint_{self.state.step}")
        if os.path.exists(again):
            shutil.rmtree(f"{again}.tmp-old", ignore_errors=True)
            os.rename(again, f"{again}.tmp-old")  # never half a checkpoint under its name
            shutil.rmtree(f"{again}.tmp-old")
        return os.path.basename(t5x_native.write(folder, params, self.state.step))

    def _stops_early(self) -> bool:
        run, step, best_step = self.run, self.state.step, self.store.best_step
        if run.early_stopping is None or best_step is None or step % run.eval_period:
            return False
        if step - best_step < run.early_stopping * run.eval_period:
            return False
        self.progress.interrupt()
        print(f"stopping early: no better dev score for {run.early_stopping} evaluations")
        return True

    def _save_and_exit(self) -> None:
        self._check()
        if self.store.save(self.state.step, self._state_tree(self.state)):
            self._write_prompt(f"step_{self.state.step:06d}", {})  # not evaluated
        self.store.wait()
        self.progress.interrupt()
        print(f"SIGTERM: saved step {self.state.step:,}; run the same command to go on")
        raise SystemExit(PREEMPTED)

    def _ended(self) -> Trained:
        has_prompt = PROMPT_PATH in self.state.trainable
        name = "prompts/best.safetensors" if has_prompt else "best"
        path = os.path.join(self.run.model_dir, name)
        best_step, best_score = self.store.best_step, self.store.best_score
        self.progress.interrupt()
        if best_step is None:
            print(f"done: step {self.state.step:,}, no evaluation with a finite dev score")
        else:
            print(f"done: best dev score {best_score:.2f} at step {best_step:,}, in {path}")
        return Trained(self.state.step, best_step, best_score, path)


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), np.uint8)


def _remove_leftovers(model_dir: str) -> None:
    """Removes what a process that was killed had begun to write."""
    for name in glob.glob("prompts/*.tmp-*", root_dir=model_dir):
        os.remove(os.path.join(model_dir, name))
    for pattern in ("best/*.tmp-*", "checkpoint_*.tmp-*"):
        for name in glob.glob(pattern, root_dir=model_dir):
            shutil.rmtree(os.path.join(model_dir, name))
