"""What is known of each task beyond what seqio keeps: its labels, its family, its dev split.

    TaskInfo       the facts
    TextTask       a seqio task with its facts, ready to be read
    TextMixture    several of them, trained on together

seqio's own registries hold the tasks that have a name for everyone. `add` and `add_mixture` put
one there and keep its facts; a name that is taken is left as it is, so a task module may be
imported twice, or after the t5 library. `make` makes a task that no registry knows.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from prompt_tuning.data.tensorflow_import import seqio


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """The facts about a task or mixture."""

    family: str  # 'super_glue', 'glue', 'table', 'generated', 'pretraining' or 'custom'.
    member: str  # The dataset's short name within the family, as 'cb'.
    labels: tuple[str, ...] | None  # The class labels in order; None for free text.
    eval_split: str
    metrics: tuple[str, ...]  # The names of the metrics.


@dataclasses.dataclass(frozen=True)
class TextTask:
    """A task with its own vocabulary and data folder, which no other run can change.

    Two are equal if they read the same rows.

    Attributes:
      info: its facts.
      origin: what it was made from, such as the registered task or the settings of a corpus.
      data_dir: the folder of TFDS data; None is the task's own, or TFDS's default.
      vocabulary_file: the sentencepiece model; None is the vocabulary's usual one.
      table: the `TableTask` that it was made from, its columns and labels filled in.
      seqio_task: reads, tokenises, postprocesses and measures.
    """

    info: TaskInfo
    origin: Hashable
    data_dir: str | None = None
    vocabulary_file: str | None = None
    table: Any = dataclasses.field(default=None, compare=False)
    seqio_task: seqio.Task = dataclasses.field(kw_only=True, compare=False)

    @property
    def name(self) -> str:
        return self.seqio_task.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class labels in order, None for free text."""
        return self.info.labels

    @property
    def vocabulary(self) -> seqio.Vocabulary:
        return self.seqio_task.output_features["targets"].vocabulary

    @property
    def members(self) -> "tuple[TextTask, ...]":
        """The task itself, so that a task is used like a mixture of one."""
        return (self,)

    def rate(self, member: "TextTask") -> float:
        return 1.0


@dataclasses.dataclass(frozen=True)
class TextMixture:
    """Tasks that are trained on together.

    Attributes:
      info: the facts about the whole.
      members: the tasks, sorted by name.
      seqio_mixture: the registered mixture, which has the rates.
    """

    info: TaskInfo
    members: tuple[TextTask, ...]
    seqio_mixture: seqio.Mixture

    @property
    def name(self) -> str:
        return self.seqio_mixture.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class labels in order, None for free text or if the tasks differ in theirs."""
        return self.info.labels

    @property
    def vocabulary(self) -> seqio.Vocabulary:
        return self.members[0].vocabulary

    def rate(self, member: TextTask) -> float:
        """How often a member is drawn, relative to the others."""
        has_mixtures = set(self.seqio_mixture.rate_per_task_name) > {
            one.name for one in self.members
        }
        # A mixture inside this one knows its tasks only as they were registered.
        return self.seqio_mixture.get_rate(member.origin if has_mixtures else member.seqio_task)


_INFO: dict[str, TaskInfo] = {}
_TEXT_TO_TOKENS = (
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
)


def make(
    name: str,
    *,
    source: seqio.DataSource,
    preprocessors: Sequence[Callable],
    postprocess_fn: Callable | None,
    metric_fns: Sequence[Callable],
    output_features: dict[str, seqio.Feature],
    tokenises: bool = True,
) -> seqio.Task:
    """Makes a text-to-text task: preprocess, tokenise, append EOS.

    With `tokenises=False` the preprocessors make the token ids themselves, EOS included.
    """
    return seqio.Task(
        name,
        source=source,
        preprocessors=[*preprocessors, *(_TEXT_TO_TOKENS if tokenises else ())],
        postprocess_fn=postprocess_fn,
        metric_fns=list(metric_fns),
        output_features=output_features,
    )


def add(name: str, info: TaskInfo, **parts) -> None:
    """Registers a task, made of the parts that `make` takes."""
    add_task(info, make(name, **parts))


def add_task(info: TaskInfo, task: seqio.Task) -> None:
    """Registers a task that `make` made."""
    _INFO.setdefault(task.name, info)
    if task.name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add_provider(task.name, task)


def add_mixture(name: str, info: TaskInfo, tasks: Sequence[str] | Mapping[str, float]) -> None:
    """Registers a mixture of tasks, at equal rates if none are given."""
    _INFO.setdefault(name, info)
    if name not in seqio.MixtureRegistry.names():
        rates = tasks.items() if isinstance(tasks, Mapping) else [(task, 1.0) for task in tasks]
        seqio.MixtureRegistry.add(name, list(rates))


def remove(name: str) -> None:
    """Removes a task from the registries."""
    _INFO.pop(name, None)
    seqio.TaskRegistry.remove(name)


def info(name: str) -> TaskInfo:
    """The facts about a task; for one registered elsewhere they are a guess.

    >>> info('somebody_elses_task').labels is None
    True
    """
    return _INFO.get(name, TaskInfo("custom", name, None, "validation", ()))
