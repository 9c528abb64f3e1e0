"""Loads what a run names: its task, its frozen model, and what it trained.

Everything that can be wrong is found here, the cheapest checks first: the task's data, then the
parameters, and only then does anything compile.
"""

import ast
import dataclasses
import os
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from prompt_tuning import paths, trees
from prompt_tuning.data import tables, tasks
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.target_prefix import with_prefix
from prompt_tuning.inference import frozen
from prompt_tuning.inference.frozen import FrozenT5
from prompt_tuning.methods import prompt_tuning, tuned_file
from prompt_tuning.methods.method import added_shapes
from prompt_tuning.methods.tuned_file import Added
from prompt_tuning.model import compute
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import mesh
from prompt_tuning.prompts import files
from prompt_tuning.run import Run


def prepare_task(run: Run, *, trained: bool = False) -> TextTask | TextMixture:
    """Finds a run's task, with the run's data folder and vocabulary file.

    Args:
      run: names the task.
      trained: the run was trained before, so that a table reads the columns and has the labels
        that it was trained with, even if its training file has changed or is gone.

    Raises:
      ValueError: the module cannot be imported; see `tasks.get`.
    """
    if run.task_module is not None:
        tasks.import_task_module(run.task_module)
    local = run.local_tasks
    for folder in _trained_folders(run) if trained else ():
        local = [
            tables.recall(one, folder) if isinstance(one, tables.TableTask) else one
            for one in local
        ]
    task = tasks.get(
        run.task, local=local, data_dir=run.data_dir, vocabulary_file=run.vocabulary_file
    )
    return task if run.target_prefix is None else with_prefix(task, run.target_prefix)


def _trained_folders(run: Run) -> list[str]:
    """The MODEL_DIR that the run's prompt comes from, and the run's own if the prompt was moved.

    A prompt MODEL_DIR/prompts/best comes from MODEL_DIR.
    """
    path = _prompt_file(run)
    moved = [] if path is None else [os.path.dirname(os.path.dirname(paths.absolute(path)))]
    return [*moved, run.model_dir]


def _prompt_file(run: Run) -> str | None:
    """PROMPT_FILE; None for the run's own best, also if PROMPT_FILE is what the run started from.

    The configuration that a trained run wrote holds the PROMPT_FILE that it started from.
    """
    trained_with = os.path.join(run.model_dir, "config.gin")
    if run.prompt_file is None or not paths.is_file(trained_with) or not _has_own(run):
        return run.prompt_file
    text = paths.read_bytes(trained_with).decode(errors="replace")
    starts = re.findall(r"^(?:Run\.prompt_file|PROMPT_FILE) = (['\"].+['\"])$", text, re.MULTILINE)
    is_start = run.prompt_file in [paths.expand(ast.literal_eval(start)) for start in starts]
    return None if is_start else run.prompt_file


def _has_own(run: Run) -> bool:
    path = f"{run.model_dir}/prompts/best"
    return any(paths.is_file(path + suffix) for suffix in files.SUFFIXES)


def mesh_of(run: Run, batch_size: int | None = None) -> Mesh | None:
    """The devices of a run; None where there is one.

    Args:
      run: its `mesh`, or None, decides.
      batch_size: of training; None if nothing trains.

    Raises:
      ValueError: see `mesh.check` and `mesh.choose`.
    """
    return mesh.of_devices(run.mesh, run.model, dtype=run.param_dtype, batch_size=batch_size)


def load_t5(run: Run, task: TextTask | TextMixture, devices: Mesh | None = None) -> FrozenT5:
    """Loads a run's frozen model, with the vocabulary of its task.

    Args:
      run: names it.
      task: the run's.
      devices: see `mesh_of`.

    Raises:
      ValueError: see `frozen.load_t5`.
    """
    return frozen.load_t5(
        run.model,
        run.initial_checkpoint_path,
        task.vocabulary,
        dtype=run.param_dtype,
        compute=compute_of(run),
        stacks=not run.trains_model,
        mesh=devices,
    )


def compute_of(run: Run) -> Compute:
    """How a run's model is computed on this machine.

    Raises:
      ValueError: see `compute.choose`.
    """
    return compute.choose(
        run.model,
        jax.default_backend(),
        layers=run.layers,
        remat=run.remat,
        attention=run.attention,
    )


def read_added(run: Run, t5: FrozenT5) -> Added:
    """Reads what the method of a run added: PROMPT_FILE, or the best of its model_dir.

    A PROMPT_FILE that the run in model_dir was started from is not what it trained.

    Raises:
      ValueError: there is none, it cannot be read, or it is of another method or model.
    """
    if not added_shapes(run.model, run.method.hooks):
        return Added(run.method, {}, None)
    path = _prompt_file(run)
    if path is None:
        path = f"{run.model_dir}/prompts/best"
        if not _has_own(run):
            raise ValueError(
                f"There is no trained prompt in {run.model_dir}. Train first, or name a prompt "
                "with --gin.PROMPT_FILE=..."
            )
    return tuned_file.read(
        path,
        run.method,
        run.model,
        lambda: t5.fingerprint,
        allow_other_model=run.allow_other_model,
    )


class LoadedModel(NamedTuple):
    """What a run trained, ready for evaluation and inference.

    Attributes:
      t5: the T5, tuned or not.
      model, params: that T5 with what the run's method added, as `model/decoding.py` takes them.
      what: a short description of what was loaded, for messages.
    """

    t5: FrozenT5
    model: Transformer
    params: Any
    what: str


def load_trained(run: Run, task: TextTask | TextMixture) -> LoadedModel:
    """Loads what a run trained: what its method added, its tuned model, or both.

    Args:
      run: names the file of what was added, or the folder to look into.
      task: the run's task, see `prepare_task`.

    Raises:
      ValueError: what the run trains is not there, or does not fit.
    """
    tuned, devices = _tuned_folder(run), mesh_of(run)
    added, names, t5 = Added(run.method, {}, None), [], None
    if tuned is None or added_shapes(run.model, run.method.hooks):
        t5 = load_t5(run, task, devices)
        added = read_added(run, t5)  # checks that it was made for this model
    if added.path is not None:
        kind = run.method.kind
        names.append(f"{'prompt' if kind == prompt_tuning.KIND else kind} {added.path}")
    if tuned is not None:
        del t5  # one model in memory is enough
        t5 = load_t5(dataclasses.replace(run, initial_checkpoint_path=tuned), task, devices)
        names.append(f"tuned model {tuned}")
    what = " and ".join(names) or f"untuned model {run.initial_checkpoint_path}"
    return LoadedModel(t5, *t5.with_hooks(added.method.hooks, added.arrays), what)


def _tuned_folder(run: Run) -> str | None:
    """Where the best tuned model of a run is; None if no parameter of the model trains.

    Raises:
      ValueError: it is not there, or a pattern matches no parameter.
    """
    if not run.method.trainable:
        return None
    own = parameter_shapes(run.model)
    names = [*own, *added_shapes(run.model, run.method.hooks)]
    if own.keys().isdisjoint(trees.match(names, run.method.trainable)):
        return None
    folder = os.path.join(run.model_dir, "best")
    if not paths.is_folder(folder):
        raise ValueError(
            f"There is no tuned model in {run.model_dir}. Train first; the model as it is in "
            "INITIAL_CHECKPOINT_PATH is measured without gin/methods/model_tuning.gin and with "
            "--gin.Run.prompt_length=None."
        )
    return folder
