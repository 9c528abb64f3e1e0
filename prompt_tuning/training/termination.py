"""The ways a run ends before its last step: early stopping, a loss that is not finite, a signal."""

import signal
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.run import Run

EXIT_CODES = {signal.SIGTERM: 42, signal.SIGINT: 130}
"""Exit codes of a run that saved its state and stopped; 130 is a shell's for Ctrl-C."""

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


def stops_early(run: Run, step: int, best_step: int | None) -> bool:
    """Whether the last `run.early_stopping` evaluations were no better than an earlier one."""
    if run.early_stopping is None or best_step is None or step % run.eval_period:
        return False
    return step - best_step >= run.early_stopping * run.eval_period


def check_finite(
    step: int, values: Mapping[str, float], tasks: Sequence[str], saved_step: int | None
) -> None:
    """Stops a run that diverged, before anything of it is saved.

    Args:
      step: the step measured.
      values: its `StepMetrics`, by name.
      tasks: of its batch.
      saved_step: of the newest saved state.

    Raises:
      FloatingPointError: the loss, a norm or another measurement is not finite.
    """
    if np.isfinite(list(values.values())).all():
        return
    saved = f"the state of step {saved_step:,} is intact" if saved_step else "nothing was saved yet"
    raise FloatingPointError(
        f"The loss of step {step:,} is {values['loss']}, its gradient's norm "
        f"{values['gradient_norm']} and the norm of what trains then "
        f"{values['trainable_norm']}, on a batch of {', '.join(tasks)}; {saved}. Lower the "
        "learning rate, check the values of prompt and checkpoint, or train with "
        "T5Config.dtype='float32'."
    )


def exit_saved(step: int, signal_number: int) -> None:
    """Ends the process after a signal, when the state is saved.

    Raises:
      SystemExit: with the code of `EXIT_CODES`.
    """
    name = _NAMES[signal_number]
    print(f"{name}: saved step {step:,}; run the same command to resume")
    raise SystemExit(EXIT_CODES[signal_number])
