"""The metrics of SuperGLUE and GLUE, in percent, under the names the t5 library gives them.

Each takes the targets and the predictions of a whole split, as the
postprocessors left them, and returns {name: number}. A prediction that is not a
label is -1 and wrong.
"""

import collections
import random
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from prompt_tuning.data.postprocessors import PREDICTION, PREDICTION_TEXT
from prompt_tuning.data.tensorflow_import import seqio

Metrics = dict[str, float]
ROUGE = ("rouge1", "rouge2", "rougeLsum")
MetricFn = Callable[[Sequence, Sequence], Metrics]


def accuracy(targets: Sequence, predictions: Sequence) -> Metrics:
    """The share of predictions that equal their target.

    >>> accuracy([0, 1, 1, 0], [0, 1, -1, 0])
    {'accuracy': 75.0}
    """
    _same_number(targets, predictions)
    right = sum(
        target == prediction for target, prediction in zip(targets, predictions, strict=True)
    )
    return {"accuracy": 100.0 * right / len(targets)}


def f1(targets: Sequence[int], predictions: Sequence[int]) -> Metrics:
    """F1 of class 1; a prediction other than 0 or 1 counts as the wrong one of them.

    >>> f1([1, 1, 0, 0], [1, -1, 0, -1])
    {'f1': 50.0}
    """
    _same_number(targets, predictions)
    legal = [
        prediction if prediction in (0, 1) else 1 - target
        for target, prediction in zip(targets, predictions, strict=True)
    ]
    return {"f1": 100.0 * _class_f1(targets, legal, 1)}


def mean_3class_f1(targets: Sequence[int], predictions: Sequence[int]) -> Metrics:
    """The plain mean of the F1 of classes 0, 1 and 2; a class that never occurs counts 0.

    >>> mean_3class_f1([0, 1, 2], [0, 1, -1])
    {'mean_3class_f1': 66.66666666666667}
    """
    _same_number(targets, predictions)
    scores = [_class_f1(targets, predictions, label) for label in range(3)]
    return {"mean_3class_f1": 100.0 * sum(scores) / 3}


def _class_f1(targets: Sequence, predictions: Sequence, label: int) -> float:
    hits = sum(
        target == prediction == label
        for target, prediction in zip(targets, predictions, strict=True)
    )
    named = sum(target == label for target in targets)
    named += sum(prediction == label for prediction in predictions)
    return 2 * hits / named if named else 0.0


def matthews_corrcoef(targets: Sequence[int], predictions: Sequence[int]) -> Metrics:
    """Matthews' correlation for any number of classes, -1 among them; 0 if a side is constant.

    >>> matthews_corrcoef([0, 1, 1, 0], [0, 1, 1, 1])
    {'matthews_corrcoef': 57.73502691896258}
    """
    _same_number(targets, predictions)
    classes = sorted({*targets, *predictions})
    target_is = np.array([[target == label for label in classes] for target in targets], float)
    predicted = np.array([[label == value for label in classes] for value in predictions], float)
    target_is -= target_is.mean(axis=0)
    predicted -= predicted.mean(axis=0)
    spread = np.sqrt((target_is**2).sum()) * np.sqrt((predicted**2).sum())
    value = (target_is * predicted).sum() / spread if spread else 0.0
    return {"matthews_corrcoef": 100.0 * float(value)}


def pearson_corrcoef(targets: Sequence[float], predictions: Sequence[float]) -> Metrics:
    """Pearson's correlation; 0 where it is undefined, as for constant predictions.

    >>> pearson_corrcoef([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    {'pearson_corrcoef': 0.0}
    """
    from scipy import stats  # half a second to import

    return {"pearson_corrcoef": _correlation(stats.pearsonr, targets, predictions)}


def spearman_corrcoef(targets: Sequence[float], predictions: Sequence[float]) -> Metrics:
    """Spearman's rank correlation; 0 where it is undefined.

    >>> spearman_corrcoef([1.0, 2.0, 3.0], [0.0, 5.0, 5.5])
    {'spearman_corrcoef': 100.0}
    """
    from scipy import stats  # half a second to import

    return {"spearman_corrcoef": _correlation(stats.spearmanr, targets, predictions)}


def _correlation(function: Callable, targets: Sequence[float], predictions: Sequence[float]):
    _same_number(targets, predictions)
    if len(set(targets)) < 2 or len(set(predictions)) < 2:
        return 0.0
    return 100.0 * float(function(targets, predictions)[0])


def squad(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> Metrics:
    """Exact match and word F1 as SQuAD counts them, the best over the right answers.

    Case, punctuation, articles and repeated spaces do not matter.

    >>> squad([['The Broncos'], ['Rome', 'Roma']], ['broncos!', 'old Rome'])
    {'em': 50.0, 'f1': 83.33333333333333}
    """
    _same_number(targets, predictions)
    exact = word_f1 = 0.0
    for answers, prediction in zip(targets, predictions, strict=True):
        predicted = _plain(prediction)
        plain_answers = [_plain(answer) for answer in answers]
        exact += max(answer == predicted for answer in plain_answers)
        word_f1 += max(_word_f1(answer.split(), predicted.split()) for answer in plain_answers)
    return {"em": 100.0 * exact / len(targets), "f1": 100.0 * word_f1 / len(targets)}


def _plain(text: str) -> str:
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _word_f1(answer: list[str], predicted: list[str]) -> float:
    shared = sum((collections.Counter(answer) & collections.Counter(predicted)).values())
    return 2 * shared / (len(answer) + len(predicted)) if shared else 0.0


def rouge(targets: Sequence[str], predictions: Sequence[str]) -> Metrics:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum, the mean F1 over examples, by the library rouge-score.

    As T5: no stemmer, and a full stop between spaces ends a sentence of ROUGE-Lsum. T5 gives the
    middle of a bootstrap of the mean, which is drawn at random, and this the mean itself.

    >>> rouge(['rome is wet'], ['rome is dry'])
    {'rouge1': 66.66666666666666, 'rouge2': 50.0, 'rougeLsum': 66.66666666666666}
    """
    from rouge_score import rouge_scorer  # a second to import

    _same_number(targets, predictions)
    scorer = rouge_scorer.RougeScorer(ROUGE)
    scores = [
        scorer.score(*(text.replace(" . ", " .\n") for text in pair))
        for pair in zip(targets, predictions, strict=True)
    ]
    return {name: 100.0 * float(np.mean([s[name].fmeasure for s in scores])) for name in ROUGE}


def record(targets: Sequence[dict], predictions: Sequence[dict]) -> Metrics:
    """SQuAD's metrics with one example per query.

    A query is in the data once for each right answer; only its first
    example is counted.
    """
    _same_number(targets, predictions)
    first = {}
    for target, prediction in zip(targets, predictions, strict=True):
        first.setdefault(target["group"], (target["value"], prediction["value"]))
    return squad(*zip(*first.values(), strict=True))


def multirc_f1(targets: Sequence[dict], predictions: Sequence[dict]) -> Metrics:
    """F1 over all answers of all questions."""
    return f1([target["value"] for target in targets], [value["value"] for value in predictions])


def multirc_exact_match(targets: Sequence[dict], predictions: Sequence[dict]) -> Metrics:
    """The share of questions whose answers were all judged right."""
    _same_number(targets, predictions)
    all_right: dict[int, bool] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        group = target["group"]
        right = target["value"] == prediction["value"]
        all_right[group] = all_right.get(group, True) and right
    return {"exact_match": 100.0 * sum(all_right.values()) / len(all_right)}


def on_predictions(targets: Sequence, predictions: Sequence, *, metric: MetricFn) -> Metrics:
    """A metric on predictions that carry their texts (`postprocessors.with_example`)."""
    return metric(targets, [prediction[PREDICTION] for prediction in predictions])


def samples(
    targets: Sequence, predictions: Sequence, *, task: str, count: int = 8
) -> dict[str, seqio.metrics.Text]:
    """Some examples, and some that went wrong, as text for TensorBoard.

    Args:
      targets: the postprocessed targets.
      predictions: what `postprocessors.with_example` returned.
      task: goes into the names, '{task} samples' and '{task} negative samples'.
      count: how many of each; the same ones every time.
    """
    wrong = [
        prediction
        for target, prediction in zip(targets, predictions, strict=True)
        if not _is_right(target, prediction[PREDICTION])
    ]
    return {
        f"{task} {title}": seqio.metrics.Text(textdata=_show(pool, count))
        for title, pool in (("samples", list(predictions)), ("negative samples", wrong))
    }


def _is_right(target, prediction) -> bool:
    if isinstance(target, dict):
        target, prediction = target["value"], prediction["value"]
    return prediction in target if isinstance(target, list) else prediction == target


def _show(pool: list[dict], count: int) -> str:
    chosen = random.Random(0).sample(pool, min(count, len(pool)))
    return "\n\n".join(
        f"example: {one['inputs_pretokenized']}\n\ntarget: {one['targets_pretokenized']}\n\n"
        f"prediction: {one[PREDICTION_TEXT]}"
        for one in chosen
    )


def _same_number(targets: Sequence, predictions: Sequence) -> None:
    if len(targets) != len(predictions) or not len(targets):
        raise ValueError(
            f"A metric needs as many predictions as targets, and at least one; got {len(targets)} "
            f"targets, {len(predictions)} predictions."
        )
