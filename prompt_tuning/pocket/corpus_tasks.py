"""The two pretraining tasks on the pocket corpus: span corruption, and LM adaptation.

The pocket models are pretrained on both, in this order. The objectives are in `objectives.py`;
`PocketCorpus` has their settings and the number of documents.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.data import metrics, objectives, registry
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.tensorflow_import import seqio, tf
from prompt_tuning.pocket import corpus as pocket_text
from prompt_tuning.pocket import vocabulary

TASKS = ("pocket_corpus_span_corruption", "pocket_corpus_prefix_lm")
FIRST_VALIDATION_DOCUMENT = 1_000_000_000  # The documents of train are counted from 0.


@dataclasses.dataclass(frozen=True)
class PocketCorpus:
    """What the two pretraining tasks on the pocket corpus are made of.

    Attributes:
      documents, validation_documents: how many; the splits share no document number.
      seed: of the documents' text.
      noise_seed: of the spans and of the places where documents are split.
      noise_density: share of the tokens that span corruption takes out.
      mean_span_length: of the spans taken out, in tokens.
      span_corruption_tokens: documents are joined and cut into rows of this many tokens, as T5
        does; 44 become 40 of input and 10 of target. None keeps one row per document; a short
        one then loses nothing but its last tokens.
      split_after: the piece after which a prefix preferably ends.
      split_after_rate: how often it does, in the documents that have the piece.
      max_input_tokens: tokens kept of a prefix, its last ones.
      max_target_tokens: tokens kept of a continuation, its first ones.

    Raises:
      ValueError: a number is out of its range.
    """

    documents: int = 500_000
    validation_documents: int = 1_000
    seed: int = 0
    noise_seed: int = 0
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    span_corruption_tokens: int | None = 44
    split_after: str = "?"
    split_after_rate: float = 0.85
    max_input_tokens: int = 39
    max_target_tokens: int = 4

    def __post_init__(self):
        for name, is_right, expected in (
            ("documents", 0 < self.documents <= FIRST_VALIDATION_DOCUMENT, "from 1 to 10^9"),
            ("validation_documents", self.validation_documents > 0, "1 or more"),
            ("noise_density", 0 < self.noise_density < 1, "between 0 and 1"),
            ("mean_span_length", self.mean_span_length >= 1, "1 or more"),
            ("span_corruption_tokens", (self.span_corruption_tokens or 2) >= 2, "2 or more"),
            ("split_after_rate", 0 <= self.split_after_rate <= 1, "from 0 to 1"),
            ("max_input_tokens", self.max_input_tokens > 0, "1 or more"),
            ("max_target_tokens", self.max_target_tokens > 0, "1 or more"),
        ):
            if not is_right:
                raise ValueError(
                    f"PocketCorpus.{name} must be {expected}; got {getattr(self, name)!r}."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that it makes, for `tasks.get`."""
        return TASKS

    def make(self, name: str) -> registry.TextTask:
        """Makes one of the two tasks."""
        task = make(self)[name]
        return registry.TextTask(_info(task), origin=(self, name), seqio_task=task)


def make(corpus: PocketCorpus = PocketCorpus()) -> dict[str, seqio.Task]:
    """Makes the two tasks, by name."""
    family = vocabulary.FAMILY
    features = family.output_features
    source = seqio.FunctionDataSource(
        functools.partial(_documents, corpus=corpus), splits=("train", "validation")
    )
    spans = functools.partial(
        objectives.span_corruption,
        noise_density=corpus.noise_density,
        mean_span_length=corpus.mean_span_length,
        seed=corpus.noise_seed,
    )
    join = [functools.partial(objectives.join_documents, length=corpus.span_corruption_tokens)]
    prefixes = functools.partial(
        objectives.prefix_lm,
        split_after=corpus.split_after,
        split_after_rate=corpus.split_after_rate,
        max_input_tokens=corpus.max_input_tokens,
        max_target_tokens=corpus.max_target_tokens,
        seed=corpus.noise_seed,
    )
    own_end = {**features, "targets": dataclasses.replace(features["targets"], add_eos=False)}
    parts = {
        TASKS[0]: ([*(join if corpus.span_corruption_tokens else []), spans],
                   spans_by_sentinel, span_accuracy, features),
        TASKS[1]: ([prefixes], continuation, metrics.accuracy, own_end),
    }  # fmt: skip
    return {
        name: registry.make(
            name,
            source=source,
            preprocessors=[
                objectives.in_blocks, objectives.tokenize, *steps, objectives.spell,
                objectives.one_by_one,
            ],
            postprocess_fn=postprocess,
            metric_fns=[metric],
            output_features=output_features,
            tokenises=False,
        )
        for name, (steps, postprocess, metric, output_features) in parts.items()
    }  # fmt: skip


def _info(task: seqio.Task) -> registry.TaskInfo:
    metric_names = tuple(metric.__name__ for metric in task.metric_fns)
    member = task.name.removeprefix("pocket_corpus_")
    return registry.TaskInfo("pretraining", member, None, "validation", metric_names)


def register() -> None:
    """Registers the two tasks with the default settings; idempotent."""
    for task in make().values():
        registry.add_task(_info(task), task)


def _documents(
    split: str, shuffle_files: bool, seed: int | None = None, *, corpus: PocketCorpus
) -> tf.data.Dataset:
    start, count = {
        "train": (0, corpus.documents),
        "validation": (FIRST_VALIDATION_DOCUMENT, corpus.validation_documents),
    }[split]
    texts = pocket_text.documents(count, seed=corpus.seed, start=start)
    numbers = np.arange(start, start + count)
    return tf.data.Dataset.from_tensor_slices({"targets": texts, "index": numbers})


def continuation(text: str, *, example: Mapping, is_target: bool = False, **unused) -> str:
    """The start of what a model wrote, as long as the target.

    A target that was cut has no EOS, and a right answer to it may be longer.
    """
    if is_target or 1 in example["targets"]:
        return text
    return text[: len(as_text(example["targets_pretokenized"]))]


def spans_by_sentinel(text: str, **unused) -> dict[str, str]:
    """Reads the spans after each sentinel.

    >>> spans_by_sentinel('<extra_id_0> the cellar <extra_id_1> ?')
    {'0': 'the cellar', '1': '?'}
    """
    found = re.split(r"<extra_id_(\d+)>", text)[1:]
    return {number: span.strip() for number, span in zip(found[::2], found[1::2], strict=True)}


def span_accuracy(
    targets: Sequence[Mapping[str, str]], predictions: Sequence[Mapping[str, str]]
) -> metrics.Metrics:
    """The share of spans that were put back exactly.

    >>> span_accuracy([{'0': 'the', '1': '?'}], [{'0': 'the', '1': '.'}])
    {'span_accuracy': 50.0}
    """
    right = sum(
        prediction.get(number) == span
        for target, prediction in zip(targets, predictions, strict=True)
        for number, span in target.items()
    )
    return {"span_accuracy": 100.0 * right / sum(map(len, targets))}
