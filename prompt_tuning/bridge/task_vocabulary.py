"""Our seqio tasks for T5X, which wants a vocabulary before it has read a task."""

from typing import Any

from prompt_tuning.data import tasks, vocabularies


def vocabulary(
    *,
    task: str,
    module: str | None = None,
    feature: str = "inputs",
    data_dir: str | None = None,
    vocabulary_file: str | None = None,
) -> Any:
    """Makes a task ready for T5X and returns the vocabulary of one of its features.

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
    if data_dir is not None:
        tasks.set_data_dir(data_dir)
    found = tasks.get(task)
    for member in getattr(found, "tasks", [found]):  # those of a mixture
        tasks.require_data(member)
    chosen = found.output_features[feature].vocabulary
    vocabularies.use_file(chosen, vocabulary_file)
    return chosen
