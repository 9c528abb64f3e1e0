"""How much of its language a tuned model forgets: the rise of its loss on neutral text.

    forgetting = loss with what was tuned - loss of the model as it was      nats per target token

The text is the validation split of a language-model task, its first EXAMPLES. A prompt is removed
again, so without it a model has forgotten nothing; this is measured with it. A tuned model has no
way back.

Pocket models have such a task, on text like that of their pretraining; for others a sweep names one
(`forgetting_task`), and without one it is not measured.
"""

from typing import Any

import numpy as np

from prompt_tuning.data import batches, tasks
from prompt_tuning.inference import loading
from prompt_tuning.inference.input_batches import batches_for
from prompt_tuning.model import decoding
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.parallel import placing
from prompt_tuning.run import Run

EXAMPLES = 256
BATCH_ROWS = 64
LENGTHS = {"inputs": 512, "targets": 512}  # at most; batches are as long as their texts
POCKET_TASK = "pocket_corpus_prefix_lm"
POCKET_MODELS = "pocket_"  # what their names begin with


def task_of(run: Run, named: str | None) -> str | None:
    """The task that forgetting is measured on.

    Args:
      run: the run.
      named: by the sweep, or None.
    """
    return named or (POCKET_TASK if run.model.name.startswith(POCKET_MODELS) else None)


def measure(run: Run, train: bool, named: str | None) -> dict[str, float]:
    """The fields 'forgetting' and 'neutral_loss' of a record; none without a task.

    Args:
      run: a run that has ended, with a best prompt or model.
      train: whether it trained; a model that is only evaluated forgets nothing.
      named: see `task_of`.

    Raises:
      ValueError: the task is unknown or has another vocabulary than the model.
    """
    name = task_of(run, named)
    if name is None:
        return {}
    before = _loss_before(run, name)
    if not train:
        return {"forgetting": 0.0, "neutral_loss": before}
    trained = loading.load_trained(run, loading.prepare_task(run, trained=True))
    after = loss(trained.model, trained.params, _examples(run, name))
    return {"forgetting": after - before, "neutral_loss": after}


def _examples(run: Run, name: str) -> batches.Examples:
    task = tasks.get(name, data_dir=run.data_dir, vocabulary_file=run.vocabulary_file)
    return batches.load_examples(task, "validation", LENGTHS, limit=EXAMPLES, keep_raw=False)


_known: dict[tuple[Any, ...], float] = {}


def _loss_before(run: Run, name: str) -> float:
    """The loss of the model as it was, measured once per process."""
    model = run.model, run.initial_checkpoint_path, run.param_dtype
    key = (*model, name, run.data_dir, run.vocabulary_file)
    if key not in _known:
        t5 = loading.load_t5(run, loading.prepare_task(run), loading.mesh_of(run))
        _known[key] = loss(*t5.with_hooks(Hooks(), {}), _examples(run, name))
    return _known[key]


def loss(model: Transformer, params: Any, examples: batches.Examples) -> float:
    """Cross-entropy in nats per target token, EOS included, over all examples."""
    mesh = placing.mesh_of(params)
    rows_at_once = placing.fill(mesh, min(BATCH_ROWS, len(examples)))
    longest = int(examples.targets.lengths.max())
    total = 0.0
    for batch in batches_for(model, examples.inputs, rows_at_once, examples.lengths["inputs"]):
        targets = np.zeros((len(batch.tokens), longest), np.int32)  # what fills a batch up has none
        targets[: len(batch.rows)] = examples.targets.padded(batch.rows, longest)
        inputs, targets = placing.rows(mesh, batch.tokens), placing.rows(mesh, targets)
        scores = placing.gathered(mesh, decoding.score(model, params, inputs, targets))
        total -= float(np.asarray(scores, np.float64)[: len(batch.rows)].sum())
    return total / int(examples.targets.lengths.sum())
