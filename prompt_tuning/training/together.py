"""Several runs at once: each trains a prompt of its own, over one frozen model and in one program.

    the batch of a step    rows of run 0   rows of run 1   rows of run 2
    prompt_ids             0 0 0 0         1 1 1 1         2 2 2 2
    micro-batches          of all rows, sorted by length

What differs may be what trains and on what: seed, task, learning rate, optimizer, initialiser,
length or kind of the prompt. Data, dropout, loss, optimizer, scores and files of a run are those
that it has alone, to rounding; each has its own MODEL_DIR, and may be resumed there alone.

A run that ends early, or whose loss is not finite, leaves the others. Runs that are behind, because
they were trained alone before, catch up first.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches
from prompt_tuning.data.microbatches import Batch, MicroBatch
from prompt_tuning.data.prefetch import Prefetch
from prompt_tuning.inference import loading
from prompt_tuning.inference.frozen import FrozenT5, transformer
from prompt_tuning.macros import MACRO_OF_FIELD
from prompt_tuning.parallel import processes
from prompt_tuning.run import Run
from prompt_tuning.training import artifacts, lock, loop, progress, setup, termination
from prompt_tuning.training.begin import Steps, Training, open_run, open_store, read_data
from prompt_tuning.training.step import StepMetrics, TrainState

MAY_DIFFER = {
    *("task", "task_module", "data_dir", "local_tasks", "target_prefix", "model_dir", "seed"),
    *("method", "prompt_length", "prompt_initializer", "prompt_position"),
    *("prompt_file", "embedding_file", "allow_other_model", "optimizer", "weight_decay_rate"),
    *("eval_split", "eval_examples", "eval_rank", "decoding", "num_decodes", "early_stopping"),
    *("eval_output_dir", "infer_output_dir", "config_text", "resolved"),
}
Outcome = loop.Trained | FloatingPointError


def check_alike(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot be trained together.

    Raises:
      ValueError: two differ in more than what trains, or have the same MODEL_DIR; one trains
        parameters of the model, is packed, or has a method that cannot be mixed.
    """
    folders = [run.model_dir for run in runs]
    if len(set(folders)) < len(folders):
        raise ValueError(
            f"Each of several runs needs a MODEL_DIR of its own; got {', '.join(folders)}."
        )
    first = runs[0]
    for run in runs[1:]:
        for field in dataclasses.fields(Run):
            a, b = getattr(first, field.name), getattr(run, field.name)
            if field.name not in MAY_DIFFER and a != b:
                name = MACRO_OF_FIELD.get(field.name, f"Run.{field.name}")
                raise ValueError(
                    f"Runs that are trained together have the same {name}; got {a!r} and {b!r}. "
                    "Train them one by one, or make it the same."
                )
    for run in runs:
        wrong = [
            ("parameters of the model train (Run.trainable)", run.trains_model),
            ("Run.packing", run.packing),
            ("Run.checkpoint_steps", run.checkpoint_steps),
        ]
        for what, is_so in wrong:
            if is_so:
                raise ValueError(
                    f"Runs that are trained together share the frozen model and its batches, and "
                    f"this excludes {what}. Train this run alone."
                )
    setup.joint_hooks(runs)


@processes.first_prints()
def train_runs(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Outcome]:
    """Trains several runs; resumes where an earlier process stopped.

    Args:
      runs: two or more, see `check_alike`.
      names: of the runs, for what is printed; None is their numbers.

    Returns:
      How each ended; the error of one whose loss is not finite.

    Raises:
      ValueError, SystemExit: see `loop.train_run` and `check_alike`.
    """
    check_alike(runs)
    names = [f"run {number}" for number in range(len(runs))] if names is None else names
    with contextlib.ExitStack() as stack:
        for run in runs:
            artifacts.check_model_dir(run)
            stack.enter_context(lock.held(run.model_dir))
        with batches.keep_loaded():
            together = _begin(runs, names, stack)
        together.train()
    return [one.outcome for one in together.ones]


class JointStream:
    """The batches of several streams, one below the other.

    Args:
      streams: of equal batch sizes, at the same step.
    """

    def __init__(self, streams: Sequence[batches.TrainBatches]):
        self._streams = streams
        self.examples = [examples for stream in streams for examples in stream.examples]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        each = [next(stream) for stream in self._streams]
        batch = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        rows = len(batch["encoder_input_tokens"]) // len(each)
        batch["prompt_ids"] = np.repeat(np.arange(len(each), dtype=np.int32), rows)
        return batch

    def input_lengths(self, step: int) -> np.ndarray:
        """Tokens of each input of a step."""
        return np.concatenate([stream.input_lengths(step) for stream in self._streams])


@dataclasses.dataclass
class _One:
    """One of the runs, as far as it is."""

    training: Training
    state: TrainState
    unchecked: list[tuple[int, StepMetrics]] = dataclasses.field(default_factory=list)
    note: str = "–"
    outcome: Outcome | None = None


class Together:
    """The runs, and what makes their steps.

    Args:
      ones: the runs.
      t5: the frozen model.
      mesh: its devices.
      progress: the line on the screen.
    """

    def __init__(
        self, ones: Sequence[_One], t5: FrozenT5, mesh: Mesh | None, line: progress.Progress
    ):
        self.ones = ones
        self._t5, self._mesh, self._line = t5, mesh, line

    def train(self) -> None:
        """Runs the remaining steps of all."""
        while left := _unfinished(self.ones):
            step = min(one.state.step for one in left)
            group = [one for one in left if one.state.step == step]
            ahead = [one.state.step for one in left if one.state.step > step]
            self._train(group, min(ahead, default=group[0].training.run.train_steps))

    def _train(self, group: Sequence[_One], until: int) -> None:
        """Makes the steps of runs that are at the same one, until one of them ends."""
        runs = [one.training.run for one in group]
        for one in group:
            one.training.stream.step = one.state.step
        stream = JointStream([one.training.stream for one in group])
        model, inputs, computed = joint_inputs(runs, stream, self._t5, self._mesh)
        rng = setup.joint_rng(runs, group[0].state.trainable)
        steps = Steps(
            Prefetch(inputs, setup.batch_put(self._mesh)),
            setup.joint_step(runs, model, self._mesh),
            self._line,
        )
        state = _joined(group)
        try:
            while self._goes_on(group, steps, until):
                state, measured = steps.step(
                    state, group[0].training.frozen, next(steps.batches), rng
                )
                self._note(group, state, measured)
                self._check_and_evaluate(group, steps)
        finally:
            steps.close()

    def _goes_on(self, group: Sequence[_One], steps: Steps, until: int) -> bool:
        """Ends the runs that are at their end; whether all go on to a further step."""
        for one in group:
            training, step = one.training, one.state.step
            is_last = step >= training.run.train_steps
            if one.outcome is None and (is_last or loop.stops_early(training, steps, step)):
                training.store.wait()
                steps.progress.interrupt()
                one.outcome = loop.report_end(training, one.state)
        return group[0].state.step < until and all(one.outcome is None for one in group)

    def _note(
        self, group: Sequence[_One], state: TrainState, measured: Sequence[StepMetrics]
    ) -> None:
        for number, one in enumerate(group):
            one.state = TrainState(state.step, state.trainable[number], state.opt_state[number])
            one.unchecked.append((state.step, measured[number]))

    def _check_and_evaluate(self, group: Sequence[_One], steps: Steps) -> None:
        """What follows a step."""
        step, run = group[0].state.step, group[0].training.run
        is_evaluated = step % run.eval_period == 0 or step == run.train_steps
        if is_evaluated or len(group[0].unchecked) >= loop.STEPS_BETWEEN_CHECKS:
            self._check(group, steps)
        if is_evaluated:
            for one in _unfinished(group):
                one.note = loop.evaluate_and_save(one.training, steps, one.state)
            notes = ", ".join(one.note for one in self.ones)
            steps.progress.note_dev_score(f"  dev {notes}")
        reached = [one.training.store.reached_preemption(step) for one in self.ones]
        if signal_number := next(filter(None, reached), None):
            self._check(group, steps)
            for one in _unfinished(group):
                loop.save(one.training, one.state)
            steps.progress.interrupt()
            termination.exit_saved(step, signal_number)

    def _check(self, group: Sequence[_One], steps: Steps) -> None:
        """Reads the losses since the last check; a run whose loss is not finite ends."""
        losses = []
        for one, unchecked in zip(
            group, jax.device_get([one.unchecked for one in group]), strict=True
        ):
            one.unchecked.clear()
            if not unchecked:
                return
            try:
                losses.append(loop.check(one.training, unchecked))
            except FloatingPointError as error:
                one.outcome = error
                steps.progress.interrupt()
                print(f"{one.training.name}stopped: {error}")
        steps.progress.note_compiled(steps.step.programs, steps.step.compile_seconds)
        if losses:
            is_last = unchecked[-1][0] == group[0].training.run.train_steps
            steps.progress.show(unchecked[-1][0], float(np.mean(losses)), last=is_last)


def joint_inputs(
    runs: Sequence[Run], stream: JointStream, t5: FrozenT5, mesh: Mesh | None
) -> tuple[Any, Iterator[list[MicroBatch]], str]:
    """The model with all prompts, its micro-batches, and a line on how a step is computed."""
    model = transformer(runs[0].model, setup.joint_hooks(runs), t5.compute)
    rows = runs[0].batch_size
    all_rows = dataclasses.replace(runs[0], batch_size=len(runs) * rows, batch_tokens=None)
    inputs, computed = setup.step_inputs(all_rows, stream, model, mesh)
    placed = (
        [part._replace(places=part.places % rows) for part in parts]  # in the run's own batch
        for parts in inputs
    )
    return model, placed, f"{len(runs)} runs together, {computed}"


def _unfinished(ones: Sequence[_One]) -> list[_One]:
    return [one for one in ones if one.outcome is None]


def _joined(group: Sequence[_One]) -> TrainState:
    states = [one.state for one in group]
    return TrainState(
        states[0].step,
        tuple(state.trainable for state in states),
        tuple(state.opt_state for state in states),
    )


def _begin(runs: Sequence[Run], names: Sequence[str], stack: contextlib.ExitStack) -> Together:
    """Loads everything, prints what was found, and restores the newest states."""
    mesh = loading.mesh_of(runs[0], runs[0].batch_size)
    every = [read_data(run) for run in runs]
    print(f"{len(runs)} runs together: {', '.join(names)}")
    if runs[0].batch_tokens is not None:
        print(setup.batch_line(runs[0]))
    print("\n".join(dict.fromkeys(line for data in every for line in data.report())))
    t5 = loading.load_t5(runs[0], every[0].task, mesh)
    split = [setup.split_parameters(run, t5) for run in runs]
    source = runs[0].initial_checkpoint_path
    print(f"{runs[0].model.name} from {source}, fingerprint {t5.fingerprint}")
    trainable = {(i, path): leaf for i, one in enumerate(split) for path, leaf in one[1].items()}
    print(progress.parameter_table(trainable, split[0].frozen))
    stream = JointStream([data.stream for data in every])
    computed = joint_inputs(runs, stream, t5, mesh)[2]
    print(computed)
    stores = [open_store(run, listens=number == 0) for number, run in enumerate(runs)]
    for store in stores:
        stack.callback(store.close)
    _align(stores, runs)
    ones = []
    for run, name, data, store, parameters in zip(runs, names, every, stores, split, strict=True):
        training, state = open_run(
            run, store, data, t5.fingerprint, parameters, computed, f"{name}: "
        )
        stack.callback(training.metrics.close)
        ones.append(_One(training, state))
    rows = len(runs) * runs[0].batch_size
    line = progress.Progress(total_steps=runs[0].train_steps, examples_per_step=rows)
    return Together(ones, t5, mesh, line)


def _align(stores: Sequence[StateStore], runs: Sequence[Run]) -> None:
    """Takes back the newest save where a process was killed before it saved all runs."""
    steps = [store.newest_step or 0 for store in stores]
    common = min(steps)
    if 0 < max(steps) - common <= runs[0].eval_period:
        for store, step in zip(stores, steps, strict=True):
            if step > common and common in (*store.steps(), 0):
                store.discard_after(common)
