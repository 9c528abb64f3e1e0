"""What is known of each task beyond what seqio keeps: its labels, its family, its dev split.

seqio's own registries hold the tasks. `add` and `add_mixture` put one there and
note these facts beside it; a name that is taken stays as it is, so importing a
task module twice, or the t5 library first, does no harm.
"""

import dataclasses
from collections.abc import Callable, Sequence

from prompt_tuning.data.tensorflow_import import seqio


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """The facts about a task or mixture."""

    family: str  # 'super_glue', 'glue', 'table', 'generated', 'pretraining' or 'custom'.
    member: str  # The dataset's short name within the family, as 'cb'.
    labels: tuple[str, ...] | None  # The class labels in order; None for free text.
    eval_split: str
    metrics: tuple[str, ...]  # The names of the numbers its evaluation gives.


_INFO: dict[str, TaskInfo] = {}
_TEXT_TO_TOKENS = (
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
)


def add(
    name: str,
    info: TaskInfo,
    *,
    source: seqio.DataSource,
    preprocessors: Sequence[Callable],
    postprocess_fn: Callable | None,
    metric_fns: Sequence[Callable],
    output_features: dict[str, seqio.Feature],
    tokenises: bool = True,
) -> None:
    """Registers a text-to-text task: preprocess, tokenise, append the end mark.

    With `tokenises=False` the preprocessors make token ids themselves, end marks and all.
    """
    _INFO.setdefault(name, info)
    if name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add(
            name,
            source=source,
            preprocessors=[*preprocessors, *(_TEXT_TO_TOKENS if tokenises else ())],
            postprocess_fn=postprocess_fn,
            metric_fns=list(metric_fns),
            output_features=output_features,
        )


def add_mixture(name: str, info: TaskInfo, tasks: Sequence[str]) -> None:
    """Registers a mixture of tasks at equal rates."""
    _INFO.setdefault(name, info)
    if name not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add(name, list(tasks), default_rate=1.0)


def remove(name: str) -> None:
    """Forgets a task."""
    _INFO.pop(name, None)
    seqio.TaskRegistry.remove(name)


def info(name: str) -> TaskInfo:
    """The facts about a task; of one registered elsewhere only a guess is known.

    >>> info('somebody_elses_task').labels is None
    True
    """
    return _INFO.get(name, TaskInfo("custom", name, None, "validation", ()))
