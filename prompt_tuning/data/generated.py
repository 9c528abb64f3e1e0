"""A small generated sentiment task, for first steps and tests without data.

    inputs   the old film was really dull .
    targets  awful                          'generated_sentiment'
    targets  false                          'generated_sentiment_true_false'

Both tasks have the same sentences. Text is bytes (ByT5), so no vocabulary file is needed.
"""

import functools

import numpy as np

from prompt_tuning.data import metrics, postprocessors, registry, vocabularies
from prompt_tuning.data.tensorflow_import import seqio, tf

THINGS = (
    "film", "book", "meal", "song", "hotel", "game", "play", "show", "coffee", "novel", "dance",
    "party", "lesson", "garden", "room",
)  # fmt: skip
SIZES = ("old", "new", "long", "short", "big", "small")
DEGREES = ("really", "so", "quite", "very")
BAD = ("dull", "poor", "bad", "weak", "sad", "grim", "boring", "clumsy", "dreary", "nasty")
GOOD = ("fine", "good", "nice", "lovely", "superb", "bright", "clever", "happy", "warm", "splendid")
TRAIN_ROWS, VALIDATION_ROWS = 2000, 200

LABEL_WORDS = {
    "generated_sentiment": ("awful", "great"),
    "generated_sentiment_true_false": ("false", "true"),
}


@functools.cache
def _rows() -> dict[str, list[tuple[str, int]]]:
    """The sentences and classes of each split; the splits share no sentence."""
    sentences = [
        [
            f"the {size} {thing} was {degree} {word} ."
            for size in SIZES
            for thing in THINGS
            for degree in DEGREES
            for word in words
        ]
        for words in (BAD, GOOD)
    ]
    # RandomState's stream is frozen for good, so every machine makes the same rows.
    order = np.random.RandomState(20210418).permutation(len(sentences[0]))
    rows = [(sentences[label][place], label) for place in order for label in (0, 1)]
    splits = (("train", 0, TRAIN_ROWS), ("validation", TRAIN_ROWS, VALIDATION_ROWS))
    return {split: rows[start : start + count] for split, start, count in splits}


def _dataset(
    split: str, shuffle_files: bool, seed: int | None = None, *, words: tuple[str, str]
) -> tf.data.Dataset:
    """Makes one split; seqio passes a seed under T5X, and shuffles afterwards."""
    sentences, labels = zip(*_rows()[split], strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {
            "inputs": list(sentences),
            "targets": [words[label] for label in labels],
            "idx": list(range(len(sentences))),
        }
    )


def register() -> None:
    """Registers the generated tasks; idempotent."""
    for name, words in LABEL_WORDS.items():
        dataset = functools.partial(_dataset, words=words)
        registry.add(
            name,
            registry.TaskInfo("generated", name, words, "validation", ("accuracy",)),
            source=seqio.FunctionDataSource(dataset, splits=("train", "validation")),
            preprocessors=[],
            postprocess_fn=functools.partial(postprocessors.class_number, labels=words),
            metric_fns=[metrics.accuracy],
            output_features=vocabularies.family("byt5").output_features,
        )
