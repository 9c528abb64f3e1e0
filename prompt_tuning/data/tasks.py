"""Finds tasks by name and makes them ready to be read.

    task = tasks.get('taskless_super_glue_cb_v102', data_dir='tfds_data')
    task.labels                                 ('entailment', 'contradiction', 'neutral')
    batches.load_examples(task, 'validation', lengths)

A task is looked up once, and the object goes all the way to the metrics. Its data folder and its
vocabulary file are its own, so two runs in one process do not see each other's.

Importing this module registers SuperGLUE, GLUE, SQuAD, MRQA and the generated tasks. Your own tasks
come from a table (`tables.py`) or from any module that registers them with seqio
(`import_task_module`, the gin macro MIXTURE_OR_TASK_MODULE).
"""

import copy
import dataclasses
import difflib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning import paths
from prompt_tuning.data import (
    generated,
    glue,
    glue_transfer,
    labels,
    registry,
    seqio_vocabularies,
    squad,
    summarization,
    super_glue,
)
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.tensorflow_import import seqio, tf, tfds

super_glue.register()
glue.register()
glue_transfer.register()
squad.register()
summarization.register()
generated.register()


def task_names() -> list[str]:
    """All registered tasks and mixtures, sorted."""
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def get(
    name: str,
    *,
    local: Sequence[Any] = (),
    data_dir: str | os.PathLike | None = None,
    vocabulary_file: str | os.PathLike | None = None,
) -> TextTask | TextMixture:
    """Returns a task or mixture with its data folder and its vocabulary file.

    Args:
      name: of a local or registered task or mixture.
      local: what makes tasks that no registry knows, such as a `TableTask`: each has the `names`
        of its tasks and a method `make(name)` that returns a `TextTask`.
      data_dir: the folder of TFDS data; None is TFDS's own default.
      vocabulary_file: a sentencepiece model; None is the vocabulary's usual one.

    Raises:
      ValueError: no task has the name (the message lists the closest ones); there is no such
        folder; the vocabulary reads no file.

    >>> get('generated_sentiment').labels
    ('awful', 'great')
    """
    folder = _folder(data_dir)
    file = None if vocabulary_file is None else os.fspath(vocabulary_file)
    for maker in local:
        if name in maker.names:
            return _with(maker.make(name), folder, file)
    found = registered(name)
    if not isinstance(found, seqio.Mixture):
        return _with(_as_registered(found), folder, file)
    members = tuple(_with(_as_registered(task), folder, file) for task in found.tasks)
    return TextMixture(registry.info(name), members, found)


def registered(name: str) -> seqio.Task | seqio.Mixture:
    """Returns what seqio knows by a name, as T5X does.

    Raises:
      ValueError: no task has the name; the message lists the closest ones.
    """
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    close = difflib.get_close_matches(name, task_names(), n=4, cutoff=0.6)
    close = close or [known for known in task_names() if name and name in known][:4]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(
        f"There is no task {name!r}.{hint} `prompt-tuning tasks` lists all {len(task_names())}; "
        "one of your own is registered by the module named in MIXTURE_OR_TASK_MODULE."
    )


def _as_registered(task: seqio.Task) -> TextTask:
    info = registry.info(task.name)
    if info.labels is None:
        known = labels.of_postprocessor(task.postprocessor)
        info = dataclasses.replace(info, labels=known)
    return TextTask(info, origin=task, seqio_task=task)


def _with(task: TextTask, data_dir: str | None, vocabulary_file: str | None) -> TextTask:
    """The task with a data folder and a vocabulary file; what it was made from stays as it is."""
    changed: dict[str, Any] = {}
    if vocabulary_file is not None:
        changed["output_features"] = {
            key: dataclasses.replace(
                feature,
                vocabulary=seqio_vocabularies.with_file(feature.vocabulary, vocabulary_file),
            )
            for key, feature in task.seqio_task.output_features.items()
        }
    if data_dir is not None and isinstance(task.seqio_task.source, seqio.TfdsDataSource):
        source = copy.copy(task.seqio_task.source)
        source._tfds_dataset = copy.copy(source.tfds_dataset)
        source.tfds_dataset.override_data_dir(data_dir)
        changed["source"] = source
    return dataclasses.replace(
        task,
        data_dir=data_dir,
        vocabulary_file=vocabulary_file,
        seqio_task=task.seqio_task.replace(**changed) if changed else task.seqio_task,
    )


def _folder(data_dir: str | os.PathLike | None) -> str | None:
    if data_dir is None:
        return None
    path = paths.absolute(data_dir)
    if not paths.is_remote(path) and not os.path.isdir(path):
        raise ValueError(
            f"There is no data folder {path!r}. "
            f"Make it with `prompt-tuning data prepare --source DIR --data_dir {path}`."
        )
    return path


def parts(task: TextTask | TextMixture, split: str) -> list[TextTask]:
    """The tasks that have a split: the task itself, or the members of a mixture that do.

    Raises:
      ValueError: the data is not prepared, or none has the split.
    """
    for member in task.members:
        require_data(member)
    having = [member for member in task.members if split in member.seqio_task.splits]
    if not having:
        known = sorted({known for member in task.members for known in member.seqio_task.splits})
        raise ValueError(
            f"The task {task.name!r} has no split {split!r}; it has {', '.join(known)}."
        )
    return having


def rows(task: TextTask, split: str) -> tf.data.Dataset:
    """A task's preprocessed and tokenised rows, not truncated, in the order of the data.

    Raises:
      ValueError: the data is not prepared, the split is missing, a vocabulary cannot be read.
    """
    parts(task, split)
    for feature in task.seqio_task.output_features.values():
        # Read now: inside the pipeline TensorFlow would bury the message in a traceback.
        if isinstance(feature.vocabulary, seqio.SentencePieceVocabulary):
            feature.vocabulary.load_model()
    return task.seqio_task.get_dataset(sequence_length=None, split=split, shuffle=False)


def import_task_module(module: str) -> None:
    """Imports a module that registers tasks.

    Raises:
      ValueError: there is no such module, or importing it fails.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"The task module {module!r} cannot be imported: {error}. Check the spelling of "
            "MIXTURE_OR_TASK_MODULE and that its folder is installed or on PYTHONPATH."
        ) from error
    except Exception as error:
        raise ValueError(
            f"The task module {module!r} failed while it was imported: "
            f"{type(error).__name__}: {error}"
        ) from error


_MAKERS: dict[str, Callable[[str, str | None], None]] = {}


def register_maker(dataset: str, make: Callable[[str, str | None], None]) -> None:
    """Names the function that makes a TFDS dataset which is generated, not downloaded.

    Args:
      dataset: the name before the slash, 'pocket_glue'.
      make: takes 'pocket_glue/cb:1.0.0' and the data folder (None is TFDS's own default), and
        returns immediately where the data is on disk.
    """
    _MAKERS[dataset] = make


def require_data(task: TextTask) -> None:
    """Checks that a task's data is on disk; nothing is downloaded.

    A dataset that has a maker (`register_maker`) is made if need be.

    Raises:
      ValueError: it is not; the message says how to prepare it.
    """
    source = task.seqio_task.source
    if not isinstance(source, seqio.TfdsDataSource):
        return
    dataset, folder = source.tfds_dataset.get_split_params()
    make = _MAKERS.get(dataset.partition("/")[0])
    if make is not None:
        make(dataset, folder)
        return
    try:
        folder_of_version = tfds.builder(dataset, data_dir=folder).data_path
        ready = (folder_of_version / "dataset_info.json").exists()
    except tfds.core.DatasetNotFoundError:
        ready = False
    if not ready:
        where = folder or os.path.expanduser("~/tensorflow_datasets")
        if dataset.startswith("glue/") and dataset.endswith(":1.0.0"):
            raise ValueError(
                f"The task {task.name!r} reads {dataset}, which is not in the data folder "
                f"{where!r} and which today's TFDS cannot build; take the task "
                f"{task.name.replace('_v002', '_v200')!r}, which reads version 2.0.0."
            )
        raise ValueError(
            f"The task {task.name!r} reads {dataset}, which is not in the data folder {where!r}. "
            f"Run `prompt-tuning data prepare --source DIR --data_dir {where}` on a folder with "
            'the official archives, or with a network run `python -c "import tensorflow_datasets '
            f"as tfds; tfds.load('{dataset}', data_dir='{where}')\"`."
        )
