"""Zero-shot transfer between the two paraphrase tasks: trained on one, evaluated on the other.

    [mt5_|byt5_][taskless_]glue_mrpc_from_qqp_{v002,v200}[_examples]            evaluation only
    [mt5_|byt5_][taskless_]glue_mrpc_from_qqp_zeroshot_{v002,v200}[_examples]   trains on QQP
    ... and qqp_from_mrpc

A model that was trained on QQP writes 'duplicate', where MRPC says 'equivalent'. So the rows of
MRPC get QQP's words for their labels (Lester et al. 2021, section 4, table 2); in both data sets
label 1 is a paraphrase. The official code rewrites the predictions, with the same scores. In the
mixtures the task that is trained on is evaluated, too.
"""

import functools
import itertools

from prompt_tuning.data import postprocessors, preprocessors, registry, vocabularies
from prompt_tuning.data.glue import GLUE, LABELS, METRICS
from prompt_tuning.data.super_glue import Benchmark, logged, task_name
from prompt_tuning.data.tensorflow_import import seqio

PAIRS = (("qqp", "mrpc"), ("mrpc", "qqp"))  # trained on, evaluated on


def add_transfer(
    benchmark: Benchmark,
    family: vocabularies.Family,
    source: str,
    target: str,
    *,
    prefix: str = "",
    taskless: bool,
    examples: bool,
) -> None:
    """Registers the evaluation of a task on the other one, and the mixture of both.

    Args:
      benchmark: one with both tasks, already registered.
      family, prefix, taskless, examples: see `super_glue.add_task`.
      source: the task that is trained on, 'qqp' or 'mrpc'.
      target: the task that is evaluated on.
    """
    labels = LABELS[source]
    postprocess = functools.partial(postprocessors.class_number, labels=labels)
    postprocess, metric_fns = logged(target, postprocess, METRICS[target], examples)
    kind = {"prefix": prefix, "taskless": taskless}
    transfer = task_name(benchmark, f"{target}_from_{source}", **kind, examples=examples)
    convert = functools.partial(
        preprocessors.columns, name="" if taskless else target, labels=labels
    )
    names = tuple(metric.__name__ for metric in METRICS[target])
    info = registry.TaskInfo(benchmark.family, target, labels, "validation", names)
    registry.add(
        transfer,
        info,
        source=seqio.TfdsDataSource(benchmark.source.format(target), splits=["validation"]),
        preprocessors=[convert],
        postprocess_fn=postprocess,
        metric_fns=metric_fns,
        output_features=family.output_features,
    )
    registry.add_mixture(
        task_name(benchmark, f"{target}_from_{source}_zeroshot", **kind, examples=examples),
        info,
        [task_name(benchmark, source, **kind, examples=False), transfer],
    )


def register() -> None:
    """Registers the transfers between GLUE's QQP and MRPC; idempotent."""
    variants = itertools.product(
        vocabularies.PUBLIC_FAMILIES, GLUE.values(), PAIRS, (False, True), (False, True)
    )
    for family, benchmark, (source, target), taskless, examples in variants:
        kind = {"prefix": family.prefix, "taskless": taskless, "examples": examples}
        add_transfer(benchmark, family, source, target, **kind)
