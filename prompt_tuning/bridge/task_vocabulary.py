"""Our seqio tasks for T5X, which needs a vocabulary before it has read a task."""

from typing import Any

from prompt_tuning.data import tasks
from prompt_tuning.data.tensorflow_import import seqio


def vocabulary(
    *,
    task: str,
    module: str | None = None,
    feature: str = "inputs",
    data_dir: str | None = None,
    vocabulary_file: str | None = None,
) -> Any:
    """Makes a task ready for T5X and returns the vocabulary of one of its features.

    T5X finds tasks in seqio's registry and its data folder in seqio's settings, so both are set
    for the whole process.

    Args:
      task: a seqio task or mixture [MIXTURE_OR_TASK_NAME].
      module: a Python module that registers it [MIXTURE_OR_TASK_MODULE].
      feature: 'inputs' or 'targets'.
      data_dir: prepared TFDS data [DATA_DIR]; None is T5X's --tfds_data_dir.
      vocabulary_file: a sentencepiece model on disk [VOCABULARY_FILE]; None is the public one.

    Raises:
      ValueError: there is no such task, or its data is not prepared.
    """
    if module is not None:
        tasks.import_task_module(module)
    checked = tasks.get(task, data_dir=data_dir, vocabulary_file=vocabulary_file)
    for member in checked.members:
        tasks.require_data(member)
    if data_dir is not None:
        seqio.set_tfds_data_dir_override(checked.members[0].data_dir)
    chosen = tasks.registered(task).output_features[feature].vocabulary
    if vocabulary_file is not None:
        chosen.use_file(vocabulary_file)
    return chosen
