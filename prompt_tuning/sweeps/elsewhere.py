"""What a run scores on tasks that it was not trained on: domain shift, transfer between tasks.

    record["evaluated"]["drop"] = {"em": 61.2, "f1": 67.1, "dev_score": 64.15}

The prompt or the model of the best step is loaded once for all of them. Each evaluation is that of
`prompt-tuning eval`, and writes the same files, below the run's folder in evaluated/NAME.
"""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.inference import evaluate, loading
from prompt_tuning.run import Run
from prompt_tuning.sweeps import measure as measuring


def check(others: Mapping[str, Run]) -> None:
    """Finds the data of a run's evaluations on other tasks, before anything trains.

    Raises:
      ValueError: names the evaluation whose task is unknown or has no such split.
    """
    for name, other in others.items():
        try:
            evaluate.load_eval_sets(other, loading.prepare_task(other))
        except ValueError as error:
            raise ValueError(f"[evaluate.{name}]: {error}") from error


def measure(run: Run, others: Mapping[str, Run]) -> dict[str, Any]:
    """The field 'evaluated' of a record: scores by evaluation; none without an evaluation.

    Args:
      run: a run that has ended, with a best prompt or model, or is not trained.
      others: its evaluations on other tasks, by their names, with the MODEL_DIR of the run.

    Raises:
      ValueError: see `evaluate.evaluate_run`.
    """
    if not others:
        return {}
    trained = loading.load_trained(run, loading.prepare_task(run, trained=True))
    found = {}
    for name, other in others.items():
        found[name] = measuring.scores(evaluate.evaluate_run(other, trained))
    return {"evaluated": found}
