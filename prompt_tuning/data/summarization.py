"""Summaries of news: CNN/DailyMail under T5's name, and XSum in the same form.

    [mt5_|byt5_][taskless_]cnn_dailymail_v002[_examples]     See et al. 2017; TFDS 3.4.0
    [mt5_|byt5_][taskless_]xsum_v110[_examples]              Narayan et al. 2018; TFDS 1.1.0

    summarize: Rain fell on Rome . ...     ->     Rome is wet .

T5's cnn_dailymail_v002 read other versions of the same data over time; xsum_v110 is our own name.
"""

import functools
import itertools

from prompt_tuning.data import metrics, postprocessors, preprocessors, registry, vocabularies
from prompt_tuning.data.super_glue import logged
from prompt_tuning.data.tensorflow_import import seqio

TASKS = {  # name, dataset, and its columns: the text and the summary
    "cnn_dailymail": ("cnn_dailymail_v002", "cnn_dailymail:3.4.0", "article", "highlights"),
    "xsum": ("xsum_v110", "xsum:1.1.0", "document", "summary"),
}


def register() -> None:
    """Registers both, with and without the name of the task in front; idempotent."""
    for family, member, taskless, examples in itertools.product(
        vocabularies.PUBLIC_FAMILIES, TASKS, (False, True), (False, True)
    ):
        name, source, text, summary = TASKS[member]
        convert = functools.partial(
            preprocessors.summary,
            name="" if taskless else "summarize:",
            text=text,
            summary=summary,
        )
        postprocess, metric_fns = logged(
            member, postprocessors.free_text, [metrics.rouge], examples
        )
        start = f"{family.prefix}{'taskless_' if taskless else ''}"
        registry.add(
            f"{start}{name}{'_examples' if examples else ''}",
            registry.TaskInfo("summarization", member, None, "validation", metrics.ROUGE),
            source=seqio.TfdsDataSource(source),
            preprocessors=[convert],
            postprocess_fn=postprocess,
            metric_fns=metric_fns,
            output_features=family.output_features,
        )
