"""How a process of a run begins: it reads the data, loads the model and restores the newest state.

    read_data -> frozen model -> setup.split_parameters -> open_run     of the run
                                                        -> Steps        what makes its steps

Runs that are trained together share their `Steps`, see `together.py`.
"""

import os
from typing import NamedTuple

from prompt_tuning import trees
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches, describe, tables
from prompt_tuning.data.prefetch import Prefetch
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import processes
from prompt_tuning.run import Run
from prompt_tuning.training import accumulators, artifacts, identity, progress, resume, setup
from prompt_tuning.training.profiling import ProfiledStep
from prompt_tuning.training.step import TrainState, TrainStep


class Data(NamedTuple):
    """What a run reads: the batches of its task, and the examples that it is evaluated on."""

    task: TextTask | TextMixture
    stream: batches.TrainBatches
    dev_sets: list[batches.Examples]

    def report(self) -> list[str]:
        """What was read, and the first example."""
        lines = [examples.report() for examples in [*self.stream.examples, *self.dev_sets]]
        return [*lines, describe.first_example(self.stream.examples[0])]


class Training(NamedTuple):
    """One process of one run: what it trains, and where it writes.

    What a step changes is in `TrainState`.

    Attributes:
      run: the settings.
      fingerprint: of the frozen model.
      model: the T5 with the hooks of the method.
      frozen: the parameters that do not train, by path.
      added: the paths of what the method added.
      stream, dev_sets: the data.
      store, metrics: the saved states, and the numbers on disk.
      name: begins what is printed of one of several runs.
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
    name: str = ""

    def close(self) -> None:
        self.metrics.close()
        self.store.close()


class Steps(NamedTuple):
    """What makes steps.

    Attributes:
      batches: the micro-batches of each step, made ahead.
      step: one step.
      progress: the line on the screen.
    """

    batches: Prefetch
    step: TrainStep | ProfiledStep
    progress: progress.Progress

    def close(self) -> None:
        self.progress.interrupt()
        self.step.close()
        self.batches.close()


def begin(run: Run) -> tuple[Training, Steps, TrainState]:
    """Loads everything, prints what was found, and restores the newest state."""
    mesh = loading.mesh_of(run, run.batch_size)
    data = read_data(run)
    print("\n".join(data.report()))
    if run.batch_tokens is not None:
        print(setup.batch_line(run))
    if note := setup.unread_prompt_file(run):
        print(note)
    t5 = loading.load_t5(run, data.task, mesh)
    parameters = setup.split_parameters(run, t5)
    print(f"{run.model.name} from {run.initial_checkpoint_path}, fingerprint {t5.fingerprint}")
    print(progress.parameter_table(parameters.trainable, parameters.frozen))
    inputs, computed = setup.step_inputs(run, data.stream, parameters.model, mesh)
    print(computed)
    store = open_store(run)
    training, state = open_run(run, store, data, t5.fingerprint, parameters, computed)
    return (
        training,
        Steps(
            batches=Prefetch(inputs, setup.batch_put(mesh)),
            step=setup.train_step(run, parameters.model, mesh),
            progress=progress.Progress(
                total_steps=run.train_steps, examples_per_step=run.batch_size
            ),
        ),
        state,
    )


def read_data(run: Run) -> Data:
    """Reads the data of a run.

    Raises:
      ValueError: see `loading.prepare_task` and `batches.load_examples`.
    """
    task = loading.prepare_task(run)
    stream = batches.train_batches(
        task, "train", run.task_feature_lengths, run.batch_size, run.seed
    )
    return Data(task, stream, evaluate.load_eval_sets(run, task))


def open_store(run: Run, *, listens: bool = True) -> StateStore:
    """Opens the saved states of a run, and removes what killed processes left unfinished."""
    artifacts.remove_leftovers(run.model_dir)
    return StateStore(os.path.join(run.model_dir, "state"), listens=listens)


def open_run(
    run: Run,
    store: StateStore,
    data: Data,
    fingerprint: str,
    parameters: setup.Parameters,
    computed: str,
    name: str = "",
) -> tuple[Training, TrainState]:
    """Restores the newest state, and opens what the run writes.

    Args:
      run: the settings.
      store: of the run; it is closed if this fails.
      data: of the run; its batches begin at the state's step.
      fingerprint: of the frozen model.
      parameters: the initial ones.
      computed: see `identity.Identity`.
      name: see `Training`.

    Raises:
      ValueError: MODEL_DIR holds another run; see `resume.resume`.
    """
    model, trainable, frozen, added = parameters
    stream, dev_sets = data.stream, data.dev_sets
    now = identity.of_run(run, fingerprint, stream, dev_sets, computed)
    try:
        is_known = identity.is_known(store, run.model_dir, now, [*stream.examples, *dev_sets])
        fresh = resume.fresh_state(trainable, run.optimizer())
        if store.newest_step is None:
            fresh, line = accumulators.restore(run, fresh, added)
            if line is not None:
                print(name + line)
        state = resume.resume(store, run, fingerprint, fresh, name)
        if processes.is_first():
            if not is_known:
                identity.write(store.directory, now)
            artifacts.write_settings(run.model_dir, run.config_text)
            tables.keep(stream.examples[0].task, run.model_dir)
        stream.step = state.step
        metrics = progress.Metrics(run.model_dir, state.step)
    except BaseException:
        store.close()
        raise
    training = Training(
        run, fingerprint, model, frozen, added, stream, dev_sets, store, metrics, name
    )
    return training, state
