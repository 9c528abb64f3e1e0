"""What a run reports: a table of parameters, a progress line, metrics on disk.

MODEL_DIR/metrics.jsonl     one JSON object per line: {"step": 100, "split": "train", ...}; those
                            of the split "speed" differ each time: input_wait is the share of the
                            time, 0 to 1, that steps waited for input
MODEL_DIR/tensorboard/      the same numbers for TensorBoard
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping

from prompt_tuning import folders, paths, trees
from prompt_tuning.parallel import processes

METRICS_FILE = "metrics.jsonl"
SPEED = "speed"  # the split of numbers that differ from process to process
LINE_WIDTH = 110


def parameter_table(trainable: trees.FlatTree, frozen: trees.FlatTree) -> str:
    """Counts what trains and what is frozen.

    >>> import numpy as np
    >>> print(parameter_table({'p': np.zeros(25, np.float32)}, {'w': np.zeros(75, np.float32)}))
                      parameters          %      bytes
    trainable                 25   25.00000      100 B
    frozen                    75   75.00000      300 B
    """
    total = max(trees.count(trainable) + trees.count(frozen), 1)
    lines = [f"{'':12}{'parameters':>16} {'%':>10} {'bytes':>10}"]
    for name, tree in (("trainable", trainable), ("frozen", frozen)):
        count = trees.count(tree)
        size = human_bytes(trees.size_in_bytes(tree))
        lines.append(f"{name:12}{count:>16,} {100 * count / total:>10.5f} {size:>10}")
    return "\n".join(lines)


def human_bytes(count: int) -> str:
    """Formats a size.

    >>> human_bytes(307_200)
    '307.2 kB'
    """
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def human_time(seconds: float) -> str:
    """Formats a duration as h:mm:ss.

    >>> human_time(3723)
    '1:02:03'
    """
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Progress:
    """The progress line; on a terminal it is rewritten in place.

    Args:
      total_steps: steps of the whole run.
      examples_per_step: the batch size.
      seconds_between: time between two lines where there is no terminal.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        examples_per_step: int,
        seconds_between: float = 10.0,
    ):
        self._total = total_steps
        self._first = 0
        self._examples = examples_per_step
        self._between = seconds_between
        self._in_place = sys.stdout.isatty()
        self._began: float | None = None
        self._written = 0.0
        self._paused = 0.0
        self._dev = ""
        self._programs = 0
        self._line_is_open = False

    def note_dev_score(self, text: str) -> None:
        """Sets what the line shows of the last evaluation."""
        self._dev = text

    def note_compiled(self, programs: int, seconds: float) -> None:
        """Reports that the step was compiled, if it was compiled again since the last call."""
        if programs == self._programs:
            return
        self._programs = programs
        self.interrupt()
        print(f"compiled the step for {programs} input widths in {seconds:.1f} s")

    def pause(self, seconds: float) -> None:
        """Excludes time that was not spent on training steps from examples/s."""
        self._paused += seconds

    def show(self, step: int, loss: float, last: bool = False) -> None:
        """Writes the line, if enough time has passed since the last one."""
        now = time.monotonic()
        if self._began is None:  # the first step compiles, so it is not timed
            self._began, self._first, self._paused = now, step, 0.0
        wait = 0.2 if self._in_place else self._between
        if not last and self._written and now - self._written < wait:
            return
        self._written = now
        line = f"step {step:,}/{self._total:,}  loss {loss:.4f}"
        steps, spent = step - self._first, now - self._began
        if steps and spent > self._paused:
            line += f"  {steps * self._examples / (spent - self._paused):.1f} examples/s"
            line += f"  ETA {human_time((self._total - step) * spent / steps)}"
        line += self._dev
        if self._in_place:
            line = "\r" + line.ljust(LINE_WIDTH)
        print(line, end="" if self._in_place else "\n", flush=True)
        self._line_is_open = self._in_place

    def interrupt(self) -> None:
        """Ends a line that is being rewritten, before something else is printed."""
        if self._line_is_open:
            print(flush=True)
            self._line_is_open = False


class Metrics:
    """Numbers on disk, as JSON lines and for TensorBoard.

    Lines of steps after `start_step` are removed first: a process wrote them that was killed
    after its last save, and the run writes them again. A file in a bucket (gs://) cannot be
    appended to; there it is rewritten at every `flush`. Of several processes the first one writes.
    """

    def __init__(self, folder: str, start_step: int):
        from flax.metrics import tensorboard  # imports TensorFlow, as the run's task has done

        self._is_written = processes.is_first()
        if not self._is_written:
            return
        paths.make_folder(folder)
        self._path = os.path.join(folder, METRICS_FILE)
        self._lines = _lines_until(self._path, start_step)
        if paths.is_file(self._path):
            folders.replace_file(self._path, "".join(self._lines).encode())
        self._file = None
        if not paths.is_remote(folder):
            self._file = open(self._path, "a", encoding="utf-8", buffering=1)
        self._board = tensorboard.SummaryWriter(
            os.path.join(folder, "tensorboard"), auto_flush=False
        )

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes numbers of one step; `split` is 'train', or the evaluated split."""
        if not self._is_written:
            return
        record = {"step": step, "split": split} | {name: float(x) for name, x in values.items()}
        line = json.dumps(record) + "\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
        for name, value in values.items():
            self._board.scalar(f"{split}/{name}", value, step)

    def write_samples(self, step: int, split: str, texts: Mapping[str, str]) -> None:
        """Writes examples with their predictions, as TensorBoard text."""
        for name, text in texts.items() if self._is_written else ():
            self._board.text(f"{split}/{name}", text, step)

    def flush(self) -> None:
        """Makes what was written until now visible to readers."""
        if not self._is_written:
            return
        if self._file is None:
            folders.replace_file(self._path, "".join(self._lines).encode())
        self._board.flush()

    def close(self) -> None:
        if not self._is_written:
            return
        if self._file is None:
            self.flush()
        else:
            self._file.close()
        self._board.close()


def _lines_until(path: str, step: int) -> list[str]:
    """The lines of metrics.jsonl up to a step, each with its line break."""
    if not paths.is_file(path):
        return []
    lines = paths.read_bytes(path).decode(errors="replace").splitlines()
    return [line + "\n" for line in lines if _step_of(line) <= step]


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # cut short when the process was killed
        return float("inf")
