"""The GLUE tasks (Wang et al. 2018), under their official names.

    [mt5_|byt5_][taskless_]glue_{cola,sst2,mrpc,qqp,stsb,mnli,...,wnli,ax}_{v002,v200}[_examples]
    [mt5_|byt5_][taskless_]glue_mnli_and_dev_{v002,v200}[_examples]

v002 reads TFDS GLUE 1.0.0, the data of the paper; v200 reads 2.0.0, the only one
that today's TFDS can still build. They differ in QQP alone (three training rows).

MNLI's own dev splits are called validation_matched and validation_mismatched;
the mixture puts its training data beside the tasks mnli_matched and
mnli_mismatched, whose dev split is called validation.
"""

import functools
import itertools
from collections.abc import Callable

from prompt_tuning.data import metrics, postprocessors, preprocessors, registry, vocabularies
from prompt_tuning.data.super_glue import Benchmark, logged, task_name
from prompt_tuning.data.tensorflow_import import seqio

TFDS_VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}
NLI = ("entailment", "neutral", "contradiction")
ENTAILED = ("entailment", "not_entailment")
# Class names in the order of the class numbers in TFDS.
LABELS: dict[str, tuple[str, ...] | None] = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "stsb": None,
    "mnli": NLI,
    "mnli_matched": NLI,
    "mnli_mismatched": NLI,
    "qnli": ENTAILED,
    "rte": ENTAILED,
    "wnli": ("not_entailment", "entailment"),
    "ax": NLI,
}
METRICS: dict[str, tuple[Callable, ...]] = {
    **dict.fromkeys(LABELS, (metrics.accuracy,)),
    "cola": (metrics.matthews_corrcoef,),
    "mrpc": (metrics.f1, metrics.accuracy),
    "qqp": (metrics.f1, metrics.accuracy),
    "stsb": (metrics.pearson_corrcoef, metrics.spearman_corrcoef),
    "ax": (),
}


GLUE = {
    version: Benchmark("glue", f"glue_{{}}_{version}", f"glue/{{}}:{of_tfds}")
    for version, of_tfds in TFDS_VERSIONS.items()
}


def _info(benchmark: Benchmark, member: str) -> registry.TaskInfo:
    split = {"mnli": "validation_matched", "ax": "test"}.get(member, "validation")
    names = tuple(metric.__name__ for metric in METRICS[member])
    return registry.TaskInfo(benchmark.family, member, LABELS[member], split, names)


def add_task(
    benchmark: Benchmark,
    family: vocabularies.Family,
    member: str,
    *,
    prefix: str = "",
    taskless: bool,
    examples: bool,
) -> str:
    """Registers one task of a benchmark in GLUE's form and returns its name.

    The arguments are those of `super_glue.add_task`.
    """
    labels = LABELS[member]
    shown = "mnli" if member in ("mnli_matched", "mnli_mismatched", "ax") else member
    shown = "" if taskless else shown
    if labels is None:
        convert = functools.partial(preprocessors.stsb, name=shown)
        postprocess = postprocessors.number
    else:
        convert = functools.partial(preprocessors.columns, name=shown, labels=labels)
        postprocess = functools.partial(postprocessors.class_number, labels=labels)
    postprocess, metric_fns = logged(member, postprocess, METRICS[member], examples)
    name = task_name(benchmark, member, prefix=prefix, taskless=taskless, examples=examples)
    registry.add(
        name,
        _info(benchmark, member),
        source=seqio.TfdsDataSource(
            benchmark.source.format(member), splits=["test"] if member == "ax" else None
        ),
        preprocessors=[convert],
        postprocess_fn=postprocess,
        metric_fns=metric_fns,
        output_features=family.output_features,
    )
    return name


def register() -> None:
    """Registers every GLUE task; idempotent."""
    variants = itertools.product(
        vocabularies.PUBLIC_FAMILIES, GLUE.values(), (False, True), (False, True)
    )
    for family, benchmark, taskless, examples in variants:
        kind = {"prefix": family.prefix, "taskless": taskless, "examples": examples}
        names = {member: add_task(benchmark, family, member, **kind) for member in LABELS}
        registry.add_mixture(
            names["mnli"].replace("_mnli_", "_mnli_and_dev_"),
            _info(benchmark, "mnli_matched"),
            [names[part] for part in ("mnli", "mnli_matched", "mnli_mismatched")],
        )
