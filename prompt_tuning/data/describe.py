"""Shows what a task feeds the model: text, token ids, and what the lengths would cut.

prompt-tuning tasks taskless_super_glue_cb_v102
"""

import dataclasses
from collections.abc import Mapping

from prompt_tuning.data import batches, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.registry import TaskInfo


@dataclasses.dataclass(frozen=True)
class Feature:
    """One side of an example.

    Attributes:
      text: what is tokenised.
      ids: all token ids, the end mark among them.
      kept: the text of the tokens that fit.
      cut: how many tokens do not fit.
    """

    text: str
    ids: tuple[int, ...]
    kept: str
    cut: int


@dataclasses.dataclass(frozen=True)
class Description:
    """A task as `describe` shows it; each example maps 'inputs' and 'targets' to a `Feature`."""

    task: str
    split: str
    info: TaskInfo
    examples: tuple[dict[str, Feature], ...]


def describe(
    name: str,
    lengths: Mapping[str, int],
    split: str | None = None,
    n: int = 3,
) -> Description:
    """Formats a task's first examples.

    Args:
      name: a task or mixture; of a mixture the first task with the split.
      lengths: TASK_FEATURE_LENGTHS. A label that does not fit is shown here, not refused.
      split: the task's dev split if None.
      n: how many examples.

    >>> shown = describe('generated_sentiment', {'inputs': 12, 'targets': 8}, 'train', n=1)
    >>> shown.examples[0]['inputs'].kept, shown.examples[0]['inputs'].cut
    ('the old dan', 22)
    """
    split = split or tasks.info(name).eval_split
    part = tasks.parts(tasks.get(name), split)[0]
    rows = part.get_dataset(sequence_length=None, split=split, shuffle=False).take(n)
    examples = []
    for row in rows.as_numpy_iterator():
        features = {}
        for key in ("inputs", "targets"):
            ids = row[key].tolist()
            kept = batches.fit(row[key], lengths[key], part).tolist()
            vocabulary = part.output_features[key].vocabulary
            features[key] = Feature(
                as_text(row[f"{key}_pretokenized"]),
                tuple(ids),
                vocabulary.decode(kept),
                len(ids) - len(kept),
            )
        examples.append(features)
    return Description(part.name, split, tasks.info(name), tuple(examples))
