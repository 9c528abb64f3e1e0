"""Turns the text a model wrote into the value a metric compares.

seqio calls each function twice, on the model's text and, with `is_target=True`,
on the target; `example` is the preprocessed row, its strings as bytes. Labels and
targets are compared by the rule of `labels.normalise`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.data.labels import normalise, number_of

WSC_DETERMINERS = {
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that",
    "the", "their", "these", "this", "those", "which", "whose", "your",
}  # fmt: skip

PREDICTION = "prediction"
PREDICTION_TEXT = "prediction_pretokenized"


def as_text(value: str | bytes) -> str:
    """Decodes bytes, TensorFlow's form of strings."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def class_number(text: str, *, labels: Sequence[str], default: int = -1, **unused) -> int:
    """The place of a label among the labels; -1 for any other text.

    >>> class_number('True ', labels=('False', 'True')), class_number('true', labels=('False',))
    (1, -1)
    """
    place = number_of(text, labels)
    return default if place is None else place


def number(text: str, *, default: float = -1.0, **unused) -> float:
    """The number that a text spells; -1 if it spells none, or one that is not finite.

    >>> number('3.4'), number('three'), number('nan')
    (3.4, -1.0, -1.0)
    """
    try:
        value = float(text)
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def multirc(
    text: str, *, labels: Sequence[str], example: Mapping | None = None, is_target: bool = False
) -> dict[str, Any]:
    """A class number, and for a target the question its answer belongs to."""
    value = {"value": class_number(text, labels=labels)}
    return {**value, "group": int(example["idx/question"])} if is_target else value


def record(text: str, *, example: Mapping | None = None, is_target: bool = False) -> dict[str, Any]:
    """The answer; for a target all right answers, and the query that they belong to."""
    if not is_target:
        return {"value": text}
    return {
        "value": [as_text(answer) for answer in example["answers"]],
        "group": (int(example["idx/passage"]), int(example["idx/query"])),
    }


def wsc(text: str, *, example: Mapping, is_target: bool = False) -> int:
    """Whether the model named the noun of the row: 1 yes, 0 no, -1 no word at all.

    Names match when the words of one are among the words of the other, case
    and determiners aside; "Bob" and "Bob's hat" do not.
    """
    if is_target:
        return int(example["label"])
    said = _content_words(text)
    if not said:
        return -1
    noun = _content_words(as_text(example["targets_pretokenized"]))
    if ("'" in " ".join(said)) != ("'" in " ".join(noun)):
        return 0
    return int(set(said) <= set(noun) or set(noun) <= set(said))


def _content_words(text: str) -> list[str]:
    words = text.strip().lower().split(" ")
    kept = [word for word in words if word not in WSC_DETERMINERS]
    return kept if any(kept) else []


def free_text(text: str, **unused) -> str:
    """The text as it is."""
    return text


def answers(text: str, *, example: Mapping | None = None, is_target: bool = False):
    """Free text, normalised; for a target the list of all right answers."""
    if is_target:
        return [normalise(as_text(answer)) for answer in example["answers"]]
    return normalise(text)


def with_example(
    text: str,
    *,
    postprocess: Callable[..., Any],
    example: Mapping | None = None,
    is_target: bool = False,
) -> Any:
    """Another postprocessor's value together with the texts, for logging samples."""
    value = postprocess(text, example=example, is_target=is_target)
    if is_target:
        return value
    return {
        PREDICTION: value,
        PREDICTION_TEXT: text,
        "inputs_pretokenized": as_text(example["inputs_pretokenized"]),
        "targets_pretokenized": as_text(example["targets_pretokenized"]),
    }
