"""SQuAD v1.1, and the six other domains of MRQA that a model trained on it is evaluated on.

    [mt5_|byt5_]squad_v010_allanswers[_examples]                 Rajpurkar et al. 2016
    [mt5_|byt5_]mrqa_{bioasq,drop,duorc,...}_v001[_examples]     Fisch et al. 2019, evaluation only
    [mt5_|byt5_]squad_to_{bioasq,...}[_examples]                 trains on one, evaluates on both
    [mt5_|byt5_]squad_to_mrqa[_examples]                         ... and on all six

Domain shift, Lester et al. 2021, section 4. The data of MRQA is the out-of-domain dev set of the
shared task, which TFDS calls test. T5's format has no task name that could be left out:

    question: Who won ? context: The Broncos won .     ->  The Broncos
"""

import itertools

from prompt_tuning.data import metrics, postprocessors, preprocessors, registry, vocabularies
from prompt_tuning.data.super_glue import logged
from prompt_tuning.data.tensorflow_import import seqio

SQUAD = "squad/v1.1:3.0.0"
MRQA = {  # our names, which are the official ones, and TFDS's
    "bioasq": "bio_asq",
    "drop": "drop",
    "duorc": "duo_rc",
    "race": "race",
    "relation_extraction": "relation_extraction",
    "textbookqa": "textbook_qa",
}


def _info(member: str) -> registry.TaskInfo:
    return registry.TaskInfo("question_answering", member, None, "validation", ("em", "f1"))


def _add(
    name: str, member: str, source: seqio.DataSource, family: vocabularies.Family, examples: bool
) -> None:
    postprocess, metric_fns = logged(member, postprocessors.answers, [metrics.squad], examples)
    registry.add(
        name,
        _info(member),
        source=source,
        preprocessors=[preprocessors.squad],
        postprocess_fn=postprocess,
        metric_fns=metric_fns,
        output_features=family.output_features,
    )


def register() -> None:
    """Registers SQuAD, the sets of MRQA and their mixtures; idempotent."""
    for family, examples in itertools.product(vocabularies.PUBLIC_FAMILIES, (False, True)):
        end = "_examples" if examples else ""
        squad = f"{family.prefix}squad_v010_allanswers{end}"
        _add(squad, "squad", seqio.TfdsDataSource(SQUAD), family, examples)
        others = {}
        for member, in_tfds in MRQA.items():
            source = seqio.TfdsDataSource(f"mrqa/{in_tfds}:1.0.0", splits={"validation": "test"})
            others[member] = f"{family.prefix}mrqa_{member}_v001{end}"
            _add(others[member], member, source, family, examples)
            registry.add_mixture(
                f"{family.prefix}squad_to_{member}{end}", _info(member), [squad, others[member]]
            )
        registry.add_mixture(
            f"{family.prefix}squad_to_mrqa{end}", _info("mrqa"), [squad, *others.values()]
        )
