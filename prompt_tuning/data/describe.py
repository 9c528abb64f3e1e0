"""Shows what a task feeds the model: text, token ids, and what the lengths truncate.

prompt-tuning tasks taskless_super_glue_cb_v102
"""

import dataclasses
from collections.abc import Mapping

from prompt_tuning.data import batches, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TaskInfo, TextMixture, TextTask

SHOWN = 2_000  # characters of the first example's text


@dataclasses.dataclass(frozen=True)
class Feature:
    """One side of an example.

    Attributes:
      text: what is tokenised.
      ids: all token ids, EOS included.
      kept: the text of the tokens that fit.
      cut: how many tokens do not fit.
    """

    text: str
    ids: tuple[int, ...]
    kept: str
    cut: int

    def __str__(self) -> str:
        size = f"{len(self.ids)} tokens"
        lines = [
            f"({size}, {self.cut} truncated) {self.text}" if self.cut else f"({size}) {self.text}"
        ]
        if self.cut:
            lines.append(f"      kept: {self.kept}")
        return "\n".join([*lines, f"      ids: {' '.join(map(str, self.ids))}"])


@dataclasses.dataclass(frozen=True)
class Description:
    """A task as `describe` shows it; each example maps 'inputs' and 'targets' to a `Feature`."""

    task: str
    split: str
    info: TaskInfo
    examples: tuple[dict[str, Feature], ...]

    def __str__(self) -> str:
        labels = "free text" if self.info.labels is None else ", ".join(self.info.labels)
        metrics = ", ".join(self.info.metrics) or "none known"
        lines = [f"{self.task}, split {self.split}", f"labels: {labels}", f"metrics: {metrics}"]
        for number, example in enumerate(self.examples, start=1):
            lines += ["", f"example {number}"]
            lines += [f"  {key} {feature}" for key, feature in example.items()]
        return "\n".join(lines)


def describe(
    task: TextTask | TextMixture,
    lengths: Mapping[str, int],
    split: str | None = None,
    n: int = 3,
) -> Description:
    """Formats a task's first examples.

    Args:
      task: see `tasks.get`; of a mixture the first member with the split.
      lengths: TASK_FEATURE_LENGTHS. A label that does not fit is shown here, not refused.
      split: the task's dev split if None.
      n: how many examples.

    >>> task = tasks.get('generated_sentiment')
    >>> shown = describe(task, {'inputs': 12, 'targets': 8}, 'train', n=1)
    >>> shown.examples[0]['inputs'].kept, shown.examples[0]['inputs'].cut
    ('the old dan', 22)
    """
    split = split or task.info.eval_split
    part = tasks.parts(task, split)[0]
    examples = []
    for row in tasks.rows(part, split).take(n).as_numpy_iterator():
        features = {}
        for key in ("inputs", "targets"):
            ids = row[key].tolist()
            kept = batches.fit(row[key], lengths[key], part).tolist()
            vocabulary = part.seqio_task.output_features[key].vocabulary
            features[key] = Feature(
                as_text(row[f"{key}_pretokenized"]),
                tuple(ids),
                vocabulary.decode(kept),
                len(ids) - len(kept),
            )
        examples.append(features)
    return Description(part.name, split, task.info, tuple(examples))


def first_example(examples: batches.Examples) -> str:
    """The first example as the model reads and writes it: its token ids, decoded.

    >>> task, lengths = tasks.get('generated_sentiment'), {'inputs': 12, 'targets': 8}
    >>> print(first_example(batches.load_examples(task, 'train', lengths, limit=1)))
    first example of generated_sentiment train
      inputs   the old dan
      targets  awful
    """
    lines = [f"first example of {examples.task.name} {examples.split}"]
    for key, rows in (("inputs", examples.inputs), ("targets", examples.targets)):
        vocabulary = examples.task.seqio_task.output_features[key].vocabulary
        text = vocabulary.decode(rows[0].tolist())
        lines.append(f"  {key:8} {text if len(text) <= SHOWN else text[:SHOWN] + ' ...'}")
    return "\n".join(lines)
