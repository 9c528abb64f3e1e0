"""The SuperGLUE tasks (Wang et al. 2019), under their official names.

    [mt5_|byt5_][taskless_]super_glue_{boolq,cb,copa,multirc,record,rte,wic,axb,axg}_v102[_examples]
    [mt5_|byt5_][taskless_]super_glue_wsc_v102_simple_{train,eval}[_examples]
    [mt5_|byt5_][taskless_]super_glue_wsc_and_dev_v102_simple[_examples]      the mixture of the two
    [mt5_|byt5_][taskless_]dpr_v001_simple[_examples]                         DPR in WSC's form
    [mt5_|byt5_][taskless_]super_glue_v102_proportional[_examples]            all of them, and DPR
    [mt5_|byt5_][taskless_]super_glue_v102_without_dpr_proportional[_examples]

`taskless_` leaves the task's name out of the input, as prompt tuning does (the prompt replaces it);
`_examples` logs samples of what the model wrote. AX-b and AX-g are test sets without public labels,
asked as RTE.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

from prompt_tuning.data import metrics, postprocessors, preprocessors, registry, vocabularies
from prompt_tuning.data.tensorflow_import import seqio

FALSE_TRUE = ("False", "True")
RTE_LABELS = ("entailment", "not_entailment")
LABELS: dict[str, tuple[str, ...] | None] = {
    "boolq": FALSE_TRUE,
    "cb": ("entailment", "contradiction", "neutral"),
    "copa": ("choice1", "choice2"),
    "multirc": FALSE_TRUE,
    "record": None,
    "rte": RTE_LABELS,
    "wic": FALSE_TRUE,
    "wsc": None,
    "axb": RTE_LABELS,
    "axg": RTE_LABELS,
}
METRICS: dict[str, tuple[Callable, ...]] = {
    "boolq": (metrics.accuracy,),
    "cb": (metrics.mean_3class_f1, metrics.accuracy),
    "copa": (metrics.accuracy,),
    "multirc": (metrics.multirc_f1, metrics.multirc_exact_match),
    "record": (metrics.record,),
    "rte": (metrics.accuracy,),
    "wic": (metrics.accuracy,),
    "wsc": (metrics.accuracy,),
    "axb": (),
    "axg": (),
}
METRIC_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("boolq", "copa", "rte", "wic", "wsc"), ("accuracy",)),
    "cb": ("mean_3class_f1", "accuracy"),
    "multirc": ("f1", "exact_match"),
    "record": ("em", "f1"),
    "axb": (),
    "axg": (),
}
SCORED = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
_FAMILIES: set[str] = set()  # whose tasks make up a score: those of `add_task`


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A dataset in SuperGLUE's form, and what its tasks are called."""

    family: str  # As in TaskInfo.
    task: str  # Name of a task, '{}' for the member: 'super_glue_{}_v102'.
    source: str  # Name of its TFDS dataset, 'super_glue/{}:1.0.2'.


SUPER_GLUE = Benchmark("super_glue", "super_glue_{}_v102", "super_glue/{}:1.0.2")


def _text_preprocessors(member: str, taskless: bool) -> list[Callable]:
    labels = LABELS[member]
    name = "" if taskless else {"axb": "rte", "axg": "rte"}.get(member, member)
    if member == "record":
        return [functools.partial(preprocessors.record, name=name)]
    if member == "multirc":
        return [functools.partial(preprocessors.multirc, name=name, labels=labels)]
    only = ("sentence1", "sentence2", "word") if member == "wic" else None
    convert = functools.partial(preprocessors.columns, name=name, labels=labels, only=only)
    if member == "axb":
        renamed = {"sentence1": "premise", "sentence2": "hypothesis"}
        return [functools.partial(preprocessors.rename, columns=renamed), convert]
    return [convert]


def _postprocessor(member: str) -> Callable:
    if member in ("record", "wsc"):
        return getattr(postprocessors, member)
    function = postprocessors.multirc if member == "multirc" else postprocessors.class_number
    return functools.partial(function, labels=LABELS[member])


def logged(
    member: str, postprocess: Callable, metric_fns: Sequence[Callable], log_examples: bool
) -> tuple[Callable, list[Callable]]:
    """A task's postprocessor and metrics, optionally wrapped to log samples."""
    if not log_examples:
        return postprocess, list(metric_fns)
    wrapped = [functools.partial(metrics.on_predictions, metric=metric) for metric in metric_fns]
    return (
        functools.partial(postprocessors.with_example, postprocess=postprocess),
        [*wrapped, functools.partial(metrics.samples, task=member)],
    )


def _info(benchmark: Benchmark, member: str) -> registry.TaskInfo:
    split = "test" if member in ("axb", "axg") else "validation"
    return registry.TaskInfo(benchmark.family, member, LABELS[member], split, METRIC_NAMES[member])


def task_name(
    benchmark: Benchmark, member: str, *, prefix: str = "", taskless: bool, examples: bool
) -> str:
    """The official name of a task.

    >>> task_name(SUPER_GLUE, 'cb', prefix='mt5_', taskless=True, examples=False)
    'mt5_taskless_super_glue_cb_v102'
    """
    start = f"{prefix}{'taskless_' if taskless else ''}"
    return f"{start}{benchmark.task.format(member)}{'_examples' if examples else ''}"


def add_task(
    benchmark: Benchmark,
    family: vocabularies.Family,
    member: str,
    *,
    prefix: str = "",
    taskless: bool,
    examples: bool,
) -> None:
    """Registers one task of a benchmark.

    Args:
      benchmark: SUPER_GLUE, or another in its form.
      family: the vocabulary.
      member: the task's short name; 'wsc' becomes two tasks and their mixture.
      prefix: goes before the name.
      taskless: the input does not name the task.
      examples: log samples of what the model wrote.
    """
    _FAMILIES.add(benchmark.family)
    kind = {"prefix": prefix, "taskless": taskless, "examples": examples}
    if member == "wsc":
        return _add_wsc(benchmark, family, **kind)
    postprocess, metric_fns = logged(member, _postprocessor(member), METRICS[member], examples)
    registry.add(
        task_name(benchmark, member, **kind),
        _info(benchmark, member),
        source=seqio.TfdsDataSource(
            benchmark.source.format(member), splits=["test"] if member in ("axb", "axg") else None
        ),
        preprocessors=_text_preprocessors(member, taskless),
        postprocess_fn=postprocess,
        metric_fns=metric_fns,
        output_features=family.output_features,
    )


def _add_wsc(
    benchmark: Benchmark,
    family: vocabularies.Family,
    *,
    prefix: str,
    taskless: bool,
    examples: bool,
) -> None:
    """WSC trains on its true rows and is evaluated on all, so it is two tasks and their mixture."""
    start = task_name(benchmark, "{}", prefix=prefix, taskless=taskless, examples=False) + "_simple"
    end = "_examples" if examples else ""
    postprocess, metric_fns = logged("wsc", postprocessors.wsc, METRICS["wsc"], examples)
    name = "" if taskless else "wsc:"
    for part, splits in (("train", ["train"]), ("eval", ["validation", "test"])):
        is_train = part == "train"
        registry.add(
            f"{start.format('wsc')}_{part}{end}",
            _info(benchmark, "wsc"),
            source=seqio.TfdsDataSource(benchmark.source.format("wsc.fixed"), splits=splits),
            preprocessors=[functools.partial(preprocessors.wsc, name=name, only_true=is_train)],
            postprocess_fn=None if is_train else postprocess,
            metric_fns=[] if is_train else metric_fns,
            output_features=family.output_features,
        )
    registry.add_mixture(
        f"{start.format('wsc_and_dev')}{end}",
        _info(benchmark, "wsc"),
        [f"{start.format('wsc')}_{part}{end}" for part in ("train", "eval")],
    )


# Training examples of each task, the rates of the proportional mixture; WSC's are its true rows,
# and ReCoRD has one example for each right answer.
TRAIN_EXAMPLES = {
    "boolq": 9_427, "cb": 250, "copa": 400, "multirc": 27_243, "record": 138_854, "rte": 2_490,
    "wic": 5_428, "wsc": 259, "dpr": 1_322,
}  # fmt: skip


def _add_mixtures(family: vocabularies.Family, taskless: bool, examples: bool) -> None:
    """DPR, and all tasks in proportion to their sizes, with it as in T5 and without it.

    DPR (Rahman and Ng 2012) is there for WSC, which has few rows. It has no validation split, so
    the mixtures are evaluated on SuperGLUE's tasks alone.
    """
    kind = {"prefix": family.prefix, "taskless": taskless}
    start, end = task_name(SUPER_GLUE, "", **kind, examples=False), "_examples" if examples else ""
    start = start.removesuffix("super_glue__v102")
    dpr = f"{start}dpr_v001_simple{end}"
    postprocess, metric_fns = logged("dpr", postprocessors.wsc, METRICS["wsc"], examples)
    registry.add(
        dpr,
        registry.TaskInfo("dpr", "dpr", None, "test", METRIC_NAMES["wsc"]),
        source=seqio.TfdsDataSource("definite_pronoun_resolution:1.1.0"),
        preprocessors=[functools.partial(preprocessors.dpr, name="" if taskless else "wsc:")],
        postprocess_fn=postprocess,
        metric_fns=metric_fns,
        output_features=family.output_features,
    )
    of_wsc = f"{start}super_glue_wsc_v102_simple_{{}}{end}"
    rates = {
        task_name(SUPER_GLUE, member, **kind, examples=examples): float(TRAIN_EXAMPLES[member])
        for member in SCORED
        if member != "wsc"
    }
    rates |= dict.fromkeys(map(of_wsc.format, ("train", "eval")), float(TRAIN_EXAMPLES["wsc"]))
    info = registry.TaskInfo(SUPER_GLUE.family, "proportional", None, "validation", ())
    mixture = f"{start}super_glue_v102{{}}_proportional{end}"
    registry.add_mixture(mixture.format("_without_dpr"), info, rates)
    registry.add_mixture(mixture.format(""), info, rates | {dpr: float(TRAIN_EXAMPLES["dpr"])})


def register() -> None:
    """Registers every SuperGLUE task, DPR and their mixtures; idempotent."""
    variants = itertools.product(
        vocabularies.PUBLIC_FAMILIES, (False, True), (False, True), METRICS
    )
    for family, taskless, examples, member in variants:
        kind = {"prefix": family.prefix, "taskless": taskless, "examples": examples}
        add_task(SUPER_GLUE, family, member, **kind)
    for family, taskless, examples in itertools.product(
        vocabularies.PUBLIC_FAMILIES, (False, True), (False, True)
    ):
        _add_mixtures(family, taskless, examples)


def superglue_score(metrics_by_task: Mapping[str, Mapping[str, float]]) -> float:
    """The SuperGLUE score: the mean over eight tasks of each task's mean metric.

    Args:
      metrics_by_task: the dev metrics of each task, under any of its names or
        its short one ('cb'). AX-b and AX-g are left out of the score. The tasks may be
        PocketGLUE's, all of them and of one domain.

    >>> numbers = {member: {'accuracy': 80.0} for member in SCORED}
    >>> superglue_score({**numbers, 'cb': {'mean_3class_f1': 60.0, 'accuracy': 84.0}})
    79.0

    Raises:
      ValueError: a task is missing, is given twice, is no SuperGLUE task or has no metrics; the
        tasks are of several benchmarks.
    """
    means: dict[str, float] = {}
    families = {}
    for name, values in metrics_by_task.items():
        info = registry.info(name)
        member = name if name in METRICS else info.member
        if name != member:
            families[info.family] = name
        if member not in METRICS or not {*families} <= _FAMILIES:
            raise ValueError(f"{name!r} is not a SuperGLUE task; they are {', '.join(METRICS)}.")
        if member in means:
            raise ValueError(f"The metrics of {member!r} are given twice, once as {name!r}.")
        if member in SCORED:
            if not values:
                raise ValueError(f"The SuperGLUE score needs the metrics of {name!r}; got none.")
            means[member] = sum(values.values()) / len(values)
    if len(families) > 1:
        one, other = list(families.values())[:2]
        raise ValueError(f"The score is of one benchmark; {one!r} and {other!r} are of two.")
    missing = [member for member in SCORED if member not in means]
    if missing:
        raise ValueError(
            f"The SuperGLUE score needs all of {', '.join(SCORED)}; missing: {', '.join(missing)}."
        )
    return sum(means.values()) / len(means)
