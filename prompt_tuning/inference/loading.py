"""Loads what a run names: its task, its frozen model, and what it trained.

Everything that can be wrong is found here, in the order of what it costs: the task's
data first, then the parameters, and only then does anything compile.
"""

import dataclasses
import os
from typing import Any, NamedTuple

from prompt_tuning import paths, trees
from prompt_tuning.data import tables, tasks
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.inference.frozen import FrozenT5, load_parameters, parameter_shapes
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.run import Run


def prepare_task(run: Run, *, trained: bool = False) -> TextTask | TextMixture:
    """Finds a run's task, with the run's data folder and vocabulary file.

    Args:
      run: names the task.
      trained: the run was trained before, so that a table reads the columns and has the labels
        that it was trained with, whatever has become of its training file.

    Raises:
      ValueError: the module cannot be imported; see `tasks.get`.
    """
    if run.task_module is not None:
        tasks.import_task_module(run.task_module)
    local = run.local_tasks
    if trained:
        folder = _trained_folder(run)
        local = [
            tables.recall(one, folder) if isinstance(one, tables.TableTask) else one
            for one in local
        ]
    return tasks.get(
        run.task, local=local, data_dir=run.data_dir, vocabulary_file=run.vocabulary_file
    )


def _trained_folder(run: Run) -> str:
    """The MODEL_DIR that the run's prompt comes from: of MODEL_DIR/prompts/best, MODEL_DIR."""
    if run.prompt_file is None:
        return run.model_dir
    return os.path.dirname(os.path.dirname(paths.absolute(run.prompt_file)))


def load_t5(run: Run, task: TextTask | TextMixture) -> FrozenT5:
    """Loads a run's frozen model, with the vocabulary of its task.

    Raises:
      ValueError: see `load_parameters`; or the vocabulary is another model's.
    """
    params = load_parameters(run.model, run.initial_checkpoint_path, dtype=run.param_dtype)
    return FrozenT5(run.model, params, task.vocabulary)


def find_prompt(run: Run, t5: FrozenT5) -> files.PromptFile | None:
    """Loads the prompt that a run evaluates: PROMPT_FILE, or the best of its model_dir.

    Returns:
      The prompt, or None for a run without one.

    Raises:
      ValueError: there is none, it cannot be read, or it does not fit the model.
    """
    if run.prompt_length is None:
        return None
    path = run.prompt_file
    if path is None:
        path = f"{run.model_dir}/prompts/best"
        if not any(paths.is_file(path + suffix) for suffix in files.SUFFIXES):
            raise ValueError(
                f"There is no trained prompt in {run.model_dir}. Train first, or name a prompt "
                "with --gin.PROMPT_FILE=..."
            )
    prompt = files.load(path)
    t5.check_fits(prompt, run.allow_other_model)
    return prompt


class LoadedModel(NamedTuple):
    """What a run trained, ready to be measured or asked.

    Attributes:
      t5: the T5, tuned or not.
      model, params: that T5 with the run's prompt, as `model/decoding.py` takes them.
      what: a few words that say what was loaded from where.
    """

    t5: FrozenT5
    model: Transformer
    params: Any
    what: str


def load_trained(run: Run, task: TextTask | TextMixture) -> LoadedModel:
    """Loads what a run trained: its prompt, its tuned model, or both.

    Args:
      run: names the prompt, or the folder to look into.
      task: the run's task, see `prepare_task`.

    Raises:
      ValueError: what the run trains is not there, or does not fit.
    """
    tuned = _tuned_folder(run)
    array, names, t5 = None, [], None
    if tuned is None or run.prompt_length is not None:
        t5 = load_t5(run, task)
        prompt = find_prompt(run, t5)  # checks that it was made for this model
        if prompt is not None:
            array = prompt.prompt
            names.append(f"prompt {prompt.path}")
    if tuned is not None:
        del t5  # one model in memory is enough
        t5 = load_t5(dataclasses.replace(run, initial_checkpoint_path=tuned), task)
        names.append(f"tuned model {tuned}")
    what = " and ".join(names) or f"untuned model {run.initial_checkpoint_path}"
    return LoadedModel(t5, *t5.with_prompt(array, run.prompt_position), what)


def _tuned_folder(run: Run) -> str | None:
    """Where the best tuned model of a run lies; None if the run tunes a prompt alone.

    Raises:
      ValueError: it is not there, or a pattern matches no parameter.
    """
    if not run.trains_model:
        return None
    names = [*parameter_shapes(run.model)] + [PROMPT_PATH] * (run.prompt_length is not None)
    if trees.match(names, run.trainable) == [PROMPT_PATH]:
        return None
    folder = os.path.join(run.model_dir, "best")
    if not paths.is_folder(folder):
        raise ValueError(
            f"There is no tuned model in {run.model_dir}. Train first; the model as it is in "
            "INITIAL_CHECKPOINT_PATH is measured without gin/methods/model_tuning.gin and with "
            "--gin.Run.prompt_length=None."
        )
    return folder
