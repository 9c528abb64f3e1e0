"""Finds tasks by name, and the data they read.

    tasks.set_data_dir('tfds_data')
    task = tasks.get('taskless_super_glue_cb_v102')
    tasks.labels('taskless_super_glue_cb_v102')    ('entailment', 'contradiction', 'neutral')

Importing this module registers SuperGLUE, GLUE and the generated tasks. Tasks
of your own come from a table (`tables.py`) or from any module that registers
them with seqio (`import_task_module`, the gin macro MIXTURE_OR_TASK_MODULE).
"""

import difflib
import importlib
import os
from collections.abc import Callable

from prompt_tuning import paths
from prompt_tuning.data import generated, glue, registry, super_glue
from prompt_tuning.data.tensorflow_import import seqio, tf, tfds

super_glue.register()
glue.register()
generated.register()

Task = seqio.Task | seqio.Mixture


def task_names() -> list[str]:
    """All registered tasks and mixtures, sorted."""
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def get(name: str) -> Task:
    """Returns the seqio task or mixture of a name.

    >>> get('generated_sentiment').name
    'generated_sentiment'

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


def info(name: str) -> registry.TaskInfo:
    """The facts about a task: family, labels, dev split, metric names.

    >>> info('super_glue_cb_v102').metrics
    ('mean_3class_f1', 'accuracy')
    """
    get(name)
    return registry.info(name)


def labels(name: str) -> tuple[str, ...] | None:
    """The label words of a classification task in order, None for free text.

    >>> labels('taskless_glue_sst2_v002')
    ('negative', 'positive')
    """
    return info(name).labels


def parts(task: Task, split: str) -> list[seqio.Task]:
    """The tasks that have a split: the task itself, or those of a mixture that do.

    Raises:
      ValueError: the data is not prepared, or none has the split.
    """
    members = task.tasks if isinstance(task, seqio.Mixture) else [task]
    for member in members:
        require_data(member)
    having = [member for member in members if split in member.splits]
    if not having:
        known = sorted({known for member in members for known in member.splits})
        raise ValueError(
            f"The task {task.name!r} has no split {split!r}; it has {', '.join(known)}."
        )
    return having


def rows(task: seqio.Task, split: str) -> tf.data.Dataset:
    """A task's preprocessed and tokenised rows, uncut, in the order of the data.

    Raises:
      ValueError: the data is not prepared, the split is missing, a vocabulary cannot be read.
    """
    parts(task, split)
    for feature in task.output_features.values():
        # Read now: inside the pipeline TensorFlow would bury the message in a traceback.
        if isinstance(feature.vocabulary, seqio.SentencePieceVocabulary):
            feature.vocabulary.load_model()
    return task.get_dataset(sequence_length=None, split=split, shuffle=False)


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


_data_dir: str | None = None
_MAKERS: dict[str, Callable[[str, str | None], None]] = {}


def register_maker(dataset: str, make: Callable[[str, str | None], None]) -> None:
    """Names the function that makes a TFDS dataset which is generated, not downloaded.

    Args:
      dataset: the name before the slash, 'pocket_glue'.
      make: takes 'pocket_glue/cb:1.0.0' and the data folder (None is TFDS's own default), and
        returns at once where the data is on disk.
    """
    _MAKERS[dataset] = make


def set_data_dir(path: str | os.PathLike | None) -> None:
    """Names the folder of TFDS data that tasks read; None is TFDS's own default.

    Raises:
      ValueError: there is no such folder.
    """
    global _data_dir
    if path is not None:
        path = paths.absolute(path)
        if not paths.is_remote(path) and not os.path.isdir(path):
            raise ValueError(
                f"There is no data folder {path!r}. "
                f"Make it with `prompt-tuning data prepare --source DIR --data_dir {path}`."
            )
    _data_dir = path
    seqio.set_tfds_data_dir_override(path)


def require_data(task: seqio.Task) -> None:
    """Checks that a task's data is on disk; nothing is ever downloaded behind your back.

    A dataset that has a maker (`register_maker`) is made if need be.

    Raises:
      ValueError: it is not; the message says how to prepare it.
    """
    if not isinstance(task.source, seqio.TfdsDataSource):
        return
    dataset, own_dir = task.source.tfds_dataset.get_split_params()
    folder = _data_dir or own_dir
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
