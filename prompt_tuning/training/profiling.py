"""Traces of single steps, for TensorBoard and Perfetto.

    MODEL_DIR/profile/plugins/profile/TIME/HOST.xplane.pb            TensorBoard
    MODEL_DIR/profile/plugins/profile/TIME/perfetto_trace.json.gz    ui.perfetto.dev

The trace goes from the start of the first step to the end of the last one, with what happens in
between: waiting for input, evaluations, saves.
"""

import os
import sys
from typing import Any

import jax

from prompt_tuning.run import Run
from prompt_tuning.training.step import TrainState, TrainStep

FOLDER = "profile"


class ProfiledStep:
    """A step that starts and ends the trace; otherwise as `TrainStep`.

    Args:
      step: what is called.
      run: `profile_steps` is the first and the last step of the trace.
    """

    def __init__(self, step: TrainStep, run: Run):
        self._step = step
        self._first, self._last = run.profile_steps
        self._folder = os.path.join(run.model_dir, FOLDER)
        self._is_tracing = self._is_written = False

    @property
    def programs(self) -> int:
        return self._step.programs

    @property
    def compile_seconds(self) -> float:
        return self._step.compile_seconds

    def __call__(self, state: TrainState, *arguments: Any, **keywords: Any):
        number = state.step + 1
        if number == self._first:
            jax.block_until_ready(state.trainable)  # no work of earlier steps in the trace
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            state, measured = self._step(state, *arguments, **keywords)
        if number == self._last:
            jax.block_until_ready(state.trainable)
            self._write()
        return state, measured

    def close(self) -> None:
        """Writes a trace that was begun; says if there is none."""
        if self._is_tracing:
            self._write()
        if not self._is_written:
            print(f"no trace was written: this process did not run step {self._first:,}")

    def _write(self) -> None:
        jax.profiler.stop_trace()
        self._is_tracing, self._is_written = False, True
        end_of_progress_line = "\n" if sys.stdout.isatty() else ""
        print(f"{end_of_progress_line}trace written to {self._folder}")
